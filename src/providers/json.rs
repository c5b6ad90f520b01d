//! Looks at the members of one JSON object without building it: the values stay spans of the bytes they stand in.
//!
//! May use: `domain`. Only the top level of what it is given is read, so text that merely looks like a member counts for
//! nothing wherever it stands. Of a key that occurs twice the last one is seen last, as in every provider's parser.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A count as untrusted JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Count {
    /// There is no such member.
    #[default]
    Absent,
    /// `null`.
    Null,
    /// A whole number that is not negative.
    Whole(u64),
    /// Anything else: negative, fractional, an exponent, text, a list.
    Bad,
}

struct Key<'n> {
    names: &'n [&'static str],
}

struct Members<'n, F> {
    names: &'n [&'static str],
    see: F,
}

struct Values<F> {
    see: F,
}

struct Elements<F> {
    see: F,
}

impl Count {
    /// The count that `raw` spells.
    pub(super) fn of(raw: &RawValue) -> Self {
        let text = raw.get();
        if text == "null" {
            return Self::Null;
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Self::Bad;
        }
        text.parse().map_or(Self::Bad, Self::Whole)
    }

    /// The same where it may stand in quotation marks, as Google writes numbers of 64 bits.
    pub(super) fn of_text(raw: &RawValue) -> Self {
        match text(raw) {
            None => Self::of(raw),
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().map_or(Self::Bad, Self::Whole),
            Some(_) => Self::Bad,
        }
    }
}

/// Calls `see` with the index in `names` and the value of each top-level member of the object `json` that has one of
/// these names, in their order. Fails when `json` is not one whole object.
pub(super) fn members<'a>(
    json: &'a [u8],
    names: &[&'static str],
    see: impl FnMut(usize, &'a RawValue),
) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(Members { names, see })?;
    deserializer.end()
}

/// Calls `see` with each top-level value of the object `json`. Fails when `json` is not one whole object.
pub(super) fn values<'a>(json: &'a [u8], see: impl FnMut(&'a RawValue)) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_map(Values { see })?;
    deserializer.end()
}

/// Calls `see` with each element of the array `json`, until it says to stop. Fails when that happens, and when `json` is
/// not one whole array.
pub(super) fn elements<'a>(json: &'a [u8], see: impl FnMut(&'a RawValue) -> bool) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.deserialize_seq(Elements { see })?;
    deserializer.end()
}

/// The text of a JSON string; `None` for every other value.
pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw.get()).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// The thousandths of a decimal number that is not negative, a part of one counted as a whole one: milliseconds of seconds,
/// digit by digit, as no float holds them. `None` for every other text, and for more than a count holds.
pub(super) fn thousandths(number: &str) -> Option<u64> {
    /// Powers of ten that are looked at: far more than any count has digits.
    const EXPONENT_MAX: i64 = 30;
    let (digits, exponent) = match number.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.strip_prefix('+').unwrap_or(exponent).parse::<i64>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || exponent.abs() > EXPONENT_MAX {
        return None;
    }
    // Where the point of the thousandths stands among all digits.
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?.checked_add(3)?;
    let mut count = 0_u64;
    let mut rest = false;
    let mut place = 0_i64;
    for digit in whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0') {
        if place < point {
            count = count.checked_mul(10)?.checked_add(u64::from(digit))?;
        } else {
            rest |= digit > 0;
        }
        place += 1;
    }
    while place < point && count > 0 {
        count = count.checked_mul(10)?;
        place += 1;
    }
    count.checked_add(u64::from(rest))
}

/// Whether the value is an object.
pub(super) fn is_object(raw: &RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Whether the value is an array without elements.
pub(super) fn is_empty_array(raw: &RawValue) -> bool {
    raw.get()
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.bytes().all(|byte| byte.is_ascii_whitespace()))
}

impl<'de, F: FnMut(usize, &'de RawValue)> Visitor<'de> for Members<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(known) = map.next_key_seed(Key { names: self.names })? {
            match known {
                Some(index) => (self.see)(index, map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Values<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            (self.see)(map.next_value()?);
        }
        Ok(())
    }
}

impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element()? {
            if !(self.see)(element) {
                return Err(A::Error::custom("seen enough"));
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.names.iter().position(|known| *known == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(json: &str) -> Option<Vec<(usize, String)>> {
        let mut seen = Vec::new();
        members(json.as_bytes(), &["a", "b"], |index, raw| seen.push((index, raw.get().to_owned()))).ok()?;
        Some(seen)
    }

    #[test]
    fn members_are_seen_at_the_top_only_and_in_order() {
        assert_eq!(seen(r#"{"x":{"a":1},"b": [2] ,"a":"3"}"#), Some(vec![(1, "[2]".into()), (0, "\"3\"".into())]));
        assert_eq!(seen(r#"{"\u0061":1,"a":2}"#), Some(vec![(0, "1".into()), (0, "2".into())]));
        for broken in ["", "[]", "{}{}", "{\"a\":}", "{\"a\":1", "null", "{\"a\":1} x"] {
            assert_eq!(seen(broken), None, "{broken}");
        }
    }

    #[test]
    fn elements_are_seen_in_order_until_one_is_enough() {
        let seen = |json: &str, most: usize| {
            let mut seen = Vec::new();
            let whole = elements(json.as_bytes(), |raw| {
                seen.push(raw.get().to_owned());
                seen.len() < most
            });
            (seen.concat(), whole.is_ok())
        };
        assert_eq!(seen(r#"[1, {"a":[2]} ,"3"]"#, 9), (r#"1{"a":[2]}"3""#.into(), true));
        assert_eq!(seen("[1,2,3]", 2), ("12".into(), false));
        assert_eq!(seen("[]", 1), (String::new(), true));
        for broken in ["", "{}", "[1", "[1,]", "[] x", "null"] {
            assert!(!seen(broken, 9).1, "{broken}");
        }
    }

    #[test]
    fn seconds_are_milliseconds_to_the_digit_and_never_fewer() {
        for (seconds, milliseconds) in [
            ("0", Some(0)),
            ("0.000", Some(0)),
            ("9", Some(9_000)),
            ("12.5", Some(12_500)),
            ("1.001", Some(1_001)),
            ("1.0010", Some(1_001)),
            ("1.0010001", Some(1_002)),
            ("8.470000267028809", Some(8_471)),
            ("0.0000001", Some(1)),
            ("1e3", Some(1_000_000)),
            ("1.5E+1", Some(15_000)),
            ("15e-1", Some(1_500)),
            ("1e-9", Some(1)),
            ("0e30", Some(0)),
            ("18446744073709551.615", Some(u64::MAX)),
            ("18446744073709551.616", None),
            ("1e30", None),
            ("1e31", None),
            ("1e99999999999999999999", None),
            ("-1", None),
            ("", None),
            (".5", None),
            ("1.5.5", None),
            ("NaN", None),
            ("\"7\"", None),
            ("null", None),
        ] {
            assert_eq!(thousandths(seconds), milliseconds, "{seconds}");
        }
    }

    #[test]
    fn only_whole_numbers_are_counts() {
        let count = |text: &str| Count::of(serde_json::from_str(text).unwrap());
        assert_eq!(count("0"), Count::Whole(0));
        assert_eq!(count("18446744073709551615"), Count::Whole(u64::MAX));
        assert_eq!(count("null"), Count::Null);
        for bad in ["-1", "1.0", "1e3", "18446744073709551616", "\"7\"", "[7]", "{}", "true"] {
            assert_eq!(count(bad), Count::Bad, "{bad}");
        }
    }
}
