//! Money as whole pico-dollars (1e-12 USD). No float, no rounding: every published token price is a whole number of
//! pico-dollars per token, so every cost is one too.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

const PICO_PER_USD: i128 = 1_000_000_000_000;
const FRACTION_DIGITS: usize = 12;

/// An exact amount in pico-dollars. A row holds an `i64` (up to 9.2 million dollars), a sum an `i128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct PicoUsd(pub i128);

/// Why an amount cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Larger than a ledger row can hold.
    #[error("an amount beyond 9.2 million dollars in one row")]
    Overflow,
    /// Not a decimal number of dollars with at most 12 digits after the point.
    #[error("an amount is a decimal number of dollars with at most 12 digits after the point")]
    Syntax,
}

impl PicoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `tokens` at `pico_per_token`, checked.
    pub fn of(tokens: u64, pico_per_token: i64) -> Result<Self, MoneyError> {
        i128::from(tokens).checked_mul(i128::from(pico_per_token)).map(Self).ok_or(MoneyError::Overflow)
    }

    /// `quantity` at `pico` for each `per` of them, rounded up to a whole pico-dollar, checked. Exact where `per` is 1.
    pub fn of_part(quantity: u64, pico: i64, per: u64) -> Result<Self, MoneyError> {
        let (whole, per) = (Self::of(quantity, pico)?.0, i128::from(per.max(1)));
        let up = i128::from(whole.rem_euclid(per) > 0);
        whole.div_euclid(per).checked_add(up).map(Self).ok_or(MoneyError::Overflow)
    }

    /// The sum, checked.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_add(other.0).map(Self).ok_or(MoneyError::Overflow)
    }

    /// The difference, checked.
    ///
    /// # Errors
    /// When it is more than money counts.
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.0.checked_sub(other.0).map(Self).ok_or(MoneyError::Overflow)
    }

    /// The amount as one ledger row holds it.
    pub fn to_row(self) -> Result<i64, MoneyError> {
        i64::try_from(self.0).map_err(|_| MoneyError::Overflow)
    }
}

impl From<i64> for PicoUsd {
    fn from(pico: i64) -> Self {
        Self(i128::from(pico))
    }
}

/// Sums of rows: 2^64 rows of the largest amount still fit an `i128`.
impl Sum for PicoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, |sum, amount| Self(sum.0.saturating_add(amount.0)))
    }
}

/// Dollars with every digit written out and no trailing zero: `0.0000178`, `12`, `-0.5`. Valid as a JSON number.
impl fmt::Display for PicoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let pico = self.0.unsigned_abs();
        let (dollars, rest) = (pico / PICO_PER_USD.unsigned_abs(), pico % PICO_PER_USD.unsigned_abs());
        if rest == 0 {
            return write!(f, "{sign}{dollars}");
        }
        let fraction = format!("{rest:012}");
        write!(f, "{sign}{dollars}.{}", fraction.trim_end_matches('0'))
    }
}

impl FromStr for PicoUsd {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > FRACTION_DIGITS {
            return Err(MoneyError::Syntax);
        }
        let dollars: i128 = whole.parse().map_err(|_| MoneyError::Overflow)?;
        let rest: i128 = format!("{fraction:0<FRACTION_DIGITS$}").parse().map_err(|_| MoneyError::Syntax)?;
        let pico = dollars.checked_mul(PICO_PER_USD).and_then(|p| p.checked_add(rest)).ok_or(MoneyError::Overflow)?;
        Ok(Self(if negative { -pico } else { pico }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_digit_is_written_and_no_more() {
        for (pico, text) in [
            (0, "0"),
            (17_800_000, "0.0000178"),
            (1, "0.000000000001"),
            (-500_000_000_000, "-0.5"),
            (12_000_000_000_000, "12"),
        ] {
            assert_eq!(PicoUsd(pico).to_string(), text);
        }
    }

    #[test]
    fn overflow_is_an_error_and_never_a_clamp() {
        assert_eq!(PicoUsd(i128::from(i64::MAX)).to_row(), Ok(i64::MAX));
        assert_eq!(PicoUsd(i128::from(i64::MAX) + 1).to_row(), Err(MoneyError::Overflow));
        assert_eq!(PicoUsd(i128::MAX).plus(PicoUsd(1)), Err(MoneyError::Overflow));
    }

    #[test]
    fn a_part_of_a_price_is_rounded_up_to_a_whole_pico_dollar() {
        for (quantity, pico, per, amount) in [
            (0, 5, 3, 0),
            (1, 5, 3, 2),
            (3, 5, 3, 5),
            (4, 5, 3, 7),
            (7, 9, 1, 63),
            (1, 1_020_000_000_000, 3_600_000, 283_334),
            (3_600_000, 1_020_000_000_000, 3_600_000, 1_020_000_000_000),
        ] {
            assert_eq!(PicoUsd::of_part(quantity, pico, per), Ok(PicoUsd(amount)), "{quantity} of {per} at {pico}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for bad in ["", "-", ".5", "1.", "1e3", "0.0000000000001", "1,5", "+1", "NaN"] {
            assert_eq!(bad.parse::<PicoUsd>(), Err(MoneyError::Syntax), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_and_amount_are_one(pico in any::<i64>()) {
            let amount = PicoUsd::from(pico);
            prop_assert_eq!(amount.to_string().parse::<PicoUsd>(), Ok(amount));
        }
    }
}
