//! Time zones: whose clock the days and months of a tenant are of.
//!
//! May use: `time`. The rules of all zones (the IANA database) are a part of the program: what a window is must not depend on
//! the machine that is asked.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;

use super::time::{MICROS_PER_SECOND, Micros, Period, Window};

/// Longer than any name in the database.
const NAME_BYTES_MAX: usize = 64;

/// An IANA time zone, such as `Europe/Berlin`. UTC by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A text that names no time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time zone has an IANA name, such as Europe/Berlin or UTC")]
pub struct ZoneError;

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// Its name, as the database spells it.
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("UTC")
    }

    /// How far its clocks are ahead of UTC at an instant, in seconds.
    pub fn offset_s(&self, at: Micros) -> i32 {
        if self.0 == TimeZone::UTC { 0 } else { self.0.to_offset(at.timestamp()).seconds() }
    }

    /// What its clocks show at an instant, as an instant whose date in UTC is the date of these clocks.
    pub fn local(&self, at: Micros) -> Micros {
        Micros(at.0.saturating_add(i64::from(self.offset_s(at)).saturating_mul(MICROS_PER_SECOND)))
    }

    /// The day or month that is running in it.
    pub fn period(&self, window: Window, at: Micros) -> Period {
        window.period(self.local(at))
    }

    /// The first instant of a day or month in it: midnight, or what follows on the midnight that clocks leap over.
    pub fn start(&self, period: Period) -> Micros {
        self.begin(period, period.start())
    }

    /// The first instant after a day or month in it: where the next one begins.
    pub fn end(&self, period: Period) -> Micros {
        self.begin(period, period.end())
    }

    fn begin(&self, period: Period, midnight: Micros) -> Micros {
        if self.0 == TimeZone::UTC {
            return midnight;
        }
        let date = midnight.date();
        // Out of range only at the ends of all time, where UTC is as good.
        let begins = self.0.to_timestamp(date.at(0, 0, 0, 0)).map(|at| Micros(at.as_microsecond()));
        debug_assert!(begins.is_ok(), "{period} in {}", self.name());
        begins.unwrap_or(midnight)
    }

    /// The length of a day or month in it, in whole seconds.
    pub fn seconds(&self, period: Period) -> u64 {
        self.start(period).seconds_until(self.end(period))
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl FromStr for Zone {
    type Err = ZoneError;

    fn from_str(text: &str) -> Result<Self, ZoneError> {
        if text.len() > NAME_BYTES_MAX {
            return Err(ZoneError);
        }
        let zone = TimeZone::get(text).map_err(|_| ZoneError)?;
        // One that says that it is not known is none.
        if zone.is_unknown() || zone.iana_name().is_none() { Err(ZoneError) } else { Ok(Self(zone)) }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::MICROS_PER_DAY;

    fn zone(name: &str) -> Zone {
        name.parse().unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn at(text: &str) -> Micros {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_is_as_long_as_the_clocks_make_it() {
        let check = |name: &str, day: &str, start: &str, end: &str, hours: u64| {
            let (zone, day) = (zone(name), Window::Day.parse(day).unwrap());
            assert_eq!((zone.start(day), zone.end(day)), (at(start), at(end)), "{name} {day}");
            assert_eq!(zone.seconds(day), hours * 3_600, "{name} {day}");
        };
        check("UTC", "2026-11-24", "2026-11-24T00:00:00Z", "2026-11-25T00:00:00Z", 24);
        check("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23);
        check("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25);
        // Clocks leap over midnight: the day begins at one.
        check("Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z", 23);
        check("Asia/Beirut", "2026-03-29", "2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z", 23);
        // They fall back onto the day before.
        check("America/Santiago", "2026-04-04", "2026-04-04T03:00:00Z", "2026-04-05T04:00:00Z", 25);
        check("Pacific/Apia", "2026-11-24", "2026-11-23T11:00:00Z", "2026-11-24T11:00:00Z", 24);
    }

    #[test]
    fn only_names_of_the_database_are_zones() {
        assert_eq!(zone("europe/berlin").name(), "Europe/Berlin");
        assert_eq!((zone("UTC"), Zone::default().to_string()), (Zone::UTC, "UTC".to_owned()));
        for bad in ["", "Berlin", "Etc/Unknown", "EST5EDT,M3.2.0,M11.1.0", "+01:00", "../etc/passwd", &"a/".repeat(99)]
        {
            assert_eq!(bad.parse::<Zone>(), Err(ZoneError), "{bad}");
        }
    }

    /// Every month of every zone from 2020 to 2035, and the days around every change of its offset: each begins where the one
    /// before ends, and the date that an event's offset gives is that of the window that holds it. Between two changes a day
    /// is as in UTC.
    #[test]
    fn days_and_months_of_every_zone_partition_time() {
        let (from, until) = (at("2020-01-01T00:00:00Z"), at("2036-01-01T00:00:00Z"));
        let (mut zones, mut changes) = (0, 0);
        for name in jiff::tz::db().available() {
            let Ok(zone) = name.as_str().parse::<Zone>() else { continue };
            zones += 1;
            let holds = |window: Window, instant: Micros| {
                let period = zone.period(window, instant);
                assert!(zone.start(period) <= instant && instant < zone.end(period), "{name} {period} {instant}");
            };
            let partition = |window: Window, from: Micros, until: Micros| {
                let mut period = zone.period(window, from);
                let mut end = zone.start(period);
                while end < until {
                    assert_eq!(zone.start(period), end, "{name} {period}");
                    let next = zone.end(period);
                    assert!(next > end, "{name} {period} is empty");
                    holds(window, end);
                    holds(window, Micros(next.0 - 1));
                    (end, period) = (next, zone.period(window, next));
                }
            };
            partition(Window::Month, from, until);
            partition(Window::Day, from, Micros(from.0 + 400 * MICROS_PER_DAY));
            let begins = jiff::Timestamp::from_microsecond(from.0).unwrap();
            let changing = zone.0.following(begins).map(|change| Micros(change.timestamp().as_microsecond()));
            for change in changing.take_while(|change| *change < until) {
                changes += 1;
                partition(Window::Day, Micros(change.0 - 2 * MICROS_PER_DAY), Micros(change.0 + 2 * MICROS_PER_DAY));
                for beside_s in [-7_200, -3_600, -1_800, -1, 0, 1, 1_800, 3_600, 7_200] {
                    let instant = Micros(change.0 + beside_s * MICROS_PER_SECOND);
                    holds(Window::Day, instant);
                    holds(Window::Month, instant);
                }
            }
        }
        assert!(zones > 400 && changes > 4_000, "{changes} changes in {zones} zones");
    }
}
