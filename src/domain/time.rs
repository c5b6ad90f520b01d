//! Instants and the calendar windows that limits and sums are counted in.
//!
//! A window follows from the clock alone: there is no job that resets anything.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;

/// An instant in Unix microseconds (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Micros(pub i64);

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;

/// Microseconds in a day of 24 hours.
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

impl Micros {
    pub(super) fn timestamp(self) -> jiff::Timestamp {
        // Out of jiff's range (years -9999 to 9999) only a broken clock can be; the epoch keeps every sum defined.
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    pub(super) fn date(self) -> Date {
        TimeZone::UTC.to_datetime(self.timestamp()).date()
    }

    /// The same instant in Unix milliseconds; 0 before 1970.
    pub fn unix_ms(self) -> u64 {
        u64::try_from(self.0 / 1_000).unwrap_or(0)
    }

    /// Whole seconds from this instant to a later one, rounded up; 0 when `later` is not later.
    pub fn seconds_until(self, later: Self) -> u64 {
        let gap = later.0.saturating_sub(self.0).max(0);
        u64::try_from(gap.saturating_add(MICROS_PER_SECOND - 1) / MICROS_PER_SECOND).unwrap_or(0)
    }
}

/// RFC 3339 in UTC, with a fraction only where there is one.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.timestamp())
    }
}

/// Why a text names no instant, month or day.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not RFC 3339.
    #[error("a time looks like 2026-11-24T10:00:00Z")]
    Instant,
    /// Not `YYYY-MM`.
    #[error("a month looks like 2026-11")]
    Month,
    /// Not `YYYY-MM-DD`.
    #[error("a day looks like 2026-11-24")]
    Day,
    /// At the end of all time that is counted here.
    #[error("it is too far away: name one before 9999-12")]
    Far,
}

impl FromStr for Micros {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        text.parse::<jiff::Timestamp>().map(|at| Self(at.as_microsecond())).map_err(|_| TimeError::Instant)
    }
}

/// The kind of window a limit is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

impl Window {
    /// `day` or `month`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The window of this kind that a text names: `2026-11-24` or `2026-11`.
    pub fn parse(self, text: &str) -> Result<Period, TimeError> {
        match self {
            Self::Day => Period::parse_day(text),
            Self::Month => Period::parse_month(text),
        }
    }

    /// The window of this kind that holds `at` in UTC. In another zone: [`super::zone::Zone::period`].
    pub fn period(self, at: Micros) -> Period {
        let date = at.date();
        match self {
            Self::Day => Period { window: self, first: date },
            Self::Month => Period { window: self, first: date.first_of_month() },
        }
    }
}

/// One day or one month of a calendar, by its name; when it is depends on the zone: see [`super::zone::Zone`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period {
    window: Window,
    first: Date,
}

impl Period {
    /// The kind of window this is.
    pub fn window(self) -> Window {
        self.window
    }

    /// The first instant inside, in UTC.
    pub fn start(self) -> Micros {
        midnight(self.first)
    }

    /// The first instant after, in UTC.
    pub fn end(self) -> Micros {
        let next = match self.window {
            Window::Day => self.first.tomorrow(),
            Window::Month => self.first.last_of_month().tomorrow(),
        };
        midnight(next.unwrap_or(self.first))
    }

    /// The window of the same kind just before this one.
    pub fn previous(self) -> Self {
        self.window.period(Micros(self.start().0.saturating_sub(1)))
    }

    /// A month from `YYYY-MM`.
    pub fn parse_month(text: &str) -> Result<Self, TimeError> {
        let digits_right = text.len() == 7;
        let first =
            digits_right.then(|| format!("{text}-01").parse::<Date>().ok()).flatten().ok_or(TimeError::Month)?;
        Self { window: Window::Month, first }.within_all_time().ok_or(TimeError::Far)
    }

    /// A day from `YYYY-MM-DD`.
    pub fn parse_day(text: &str) -> Result<Self, TimeError> {
        let first = if text.len() == 10 { text.parse::<Date>().ok() } else { None }.ok_or(TimeError::Day)?;
        Self { window: Window::Day, first }.within_all_time().ok_or(TimeError::Far)
    }

    /// The last days of the year 9999 have no instant after them.
    fn within_all_time(self) -> Option<Self> {
        (self.start() < self.end()).then_some(self)
    }
}

fn midnight(date: Date) -> Micros {
    TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).map_or(Micros(0), |at| Micros(at.as_microsecond()))
}

/// `2026-11-24` for a day, `2026-11` for a month: the form that keys the sums.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.first.year(), self.first.month())?;
        match self.window {
            Window::Day => write!(f, "-{:02}", self.first.day()),
            Window::Month => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Micros {
        text.parse().unwrap()
    }

    #[test]
    fn a_month_ends_where_the_next_begins() {
        let last = Window::Month.period(at("2026-12-31T23:59:59.999999Z"));
        let first = Window::Month.period(at("2027-01-01T00:00:00Z"));
        assert_eq!(last.to_string(), "2026-12");
        assert_eq!(first.to_string(), "2027-01");
        assert_eq!(last.end(), first.start());
        assert_eq!(first.previous(), last);
        assert_eq!(last.end().to_string(), "2027-01-01T00:00:00Z");
    }

    #[test]
    fn a_day_and_a_month_parse_only_in_their_own_form() {
        assert_eq!(Period::parse_month("2026-02").unwrap().end().to_string(), "2026-03-01T00:00:00Z");
        assert_eq!(Period::parse_day("2024-02-29").unwrap().to_string(), "2024-02-29");
        for bad in ["2026-13", "2026-1", "202611", "2026-11-24", ""] {
            assert!(Period::parse_month(bad).is_err(), "{bad}");
        }
        for bad in ["2026-02-29", "2026-11", "20261124", "2026-11-24T00:00:00Z"] {
            assert!(Period::parse_day(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_day_or_month_without_an_end_is_refused() {
        assert!(Period::parse_month("9999-11").is_ok() && Period::parse_day("9999-11-30").is_ok());
        assert_eq!(Period::parse_month("9999-12"), Err(TimeError::Far));
        for day in ["9999-12-30", "9999-12-31"] {
            assert_eq!(Period::parse_day(day), Err(TimeError::Far), "{day}");
        }
    }

    #[test]
    fn seconds_until_rounds_up_and_never_below_zero() {
        assert_eq!(Micros(0).seconds_until(Micros(1)), 1);
        assert_eq!(Micros(5).seconds_until(Micros(5)), 0);
        assert_eq!(Micros(5).seconds_until(Micros(1)), 0);
    }
}
