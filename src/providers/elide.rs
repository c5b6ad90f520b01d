//! Keeps JSON that comes in pieces, of long strings only how they begin: an answer may hold images of many megabytes, and
//! what it charged beside them.
//!
//! May use: nothing. What is bounded is what is kept, not what came. A string that is cut still is one, and the rest of the
//! text is as it was, so it parses as before. A name is never cut: what has one so long is not kept.

use memchr::{memchr, memchr2};

/// How much is kept.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Of all, a string that is not over aside.
    pub(super) all: usize,
    /// A string that is no longer is kept whole: text of an answer is, and tokens by which it is gone on with.
    pub(super) string: usize,
    /// That holds while no more than this is kept.
    pub(super) roomy: usize,
    /// From then on for strings that are no longer than this.
    pub(super) string_beyond: usize,
    /// Of a longer one only so much is kept, of its begin. At least [`ESCAPE_BYTES_MAX`] less than the two above.
    pub(super) begin: usize,
}

impl Bounds {
    /// The usual ones, for `all` of at least 8 MiB.
    pub(super) const fn of(all: usize) -> Self {
        Self { all, string: 1024 * 1024, roomy: 4 * 1024 * 1024, string_beyond: 128 * 1024, begin: 64 * 1024 }
    }

    /// Whether so many bytes are kept as they are, whatever they hold.
    pub(super) fn keep_whole(&self, bytes: usize) -> bool {
        bytes <= self.string && bytes <= self.roomy
    }
}

/// The longest escape: two halves of a character, `\ud83d\ude00`.
const ESCAPE_BYTES_MAX: usize = 12;

/// Where something was taken out of a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// The index in what is kept.
    pub(super) at: usize,
    /// How much.
    pub(super) bytes: u64,
}

/// What is kept of a JSON text.
#[derive(Debug)]
pub(super) struct Kept {
    bounds: &'static Bounds,
    bytes: Vec<u8>,
    cuts: Vec<Cut>,
    /// More would have to be kept than may be.
    over: bool,
    place: Place,
}

/// Where in the text the bytes stand that come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nobody looked: so little came that it is kept whole.
    Unknown,
    /// Between strings.
    Between,
    /// After a string that was cut, blanks aside: a colon would say that it was a name.
    AfterCut,
    /// In a string.
    Within { from: usize, escaped: bool, cut: bool },
}

impl Kept {
    pub(super) fn within(bounds: &'static Bounds) -> Self {
        Self { bounds, bytes: Vec::new(), cuts: Vec::new(), over: false, place: Place::Unknown }
    }

    /// The next bytes.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.over {
            return;
        }
        if self.place == Place::Unknown {
            if self.bounds.keep_whole(self.bytes.len() + piece.len()) {
                return self.bytes.extend_from_slice(piece);
            }
            self.place = Place::Between;
            let begun = std::mem::take(&mut self.bytes);
            self.follow(&begun);
        }
        self.follow(piece);
    }

    /// What is kept; nothing of a text that is too long.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where something was taken out.
    pub(super) fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// Whether the text is too long, even so.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether nothing came yet.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && !self.over
    }

    /// Another text comes. A buffer of more than `most` is given back.
    pub(super) fn clear(&mut self, most: usize) {
        self.bytes.clear();
        if self.bytes.capacity() > most {
            self.bytes = Vec::new();
        }
        (self.cuts, self.over, self.place) = (Vec::new(), false, Place::Unknown);
    }

    fn follow(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() && !self.over {
            let taken = match self.place {
                Place::Within { from, escaped, cut } => self.within_string(rest, (from, escaped, cut)),
                _ => self.between_strings(rest),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Takes what stands before the next string, with the quote that opens it.
    fn between_strings(&mut self, rest: &[u8]) -> usize {
        if self.place == Place::AfterCut {
            match rest.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => {}
                Some(b':') => {
                    self.give_up();
                    return rest.len();
                }
                Some(_) => self.place = Place::Between,
            }
        }
        let quote = memchr(b'"', rest);
        let taken = quote.map_or(rest.len(), |at| at + 1);
        self.keep(rest.get(..taken).unwrap_or_default());
        if quote.is_some() {
            self.place = Place::Within { from: self.bytes.len(), escaped: false, cut: false };
        }
        taken
    }

    /// Takes what is there of the string that begins at `from`, with the quote that closes it.
    fn within_string(&mut self, rest: &[u8], (from, escaped, cut): (usize, bool, bool)) -> usize {
        let (end, is_closed, escaped) = string_end(rest, escaped);
        let cut = self.keep_string(rest.get(..end).unwrap_or_default(), from, cut);
        if is_closed {
            self.place = if cut { Place::AfterCut } else { Place::Between };
            self.keep(b"\"");
            return end + 1;
        }
        self.place = Place::Within { from, escaped, cut };
        end
    }

    /// Keeps more of the string that begins at `from`. Says whether it is cut.
    fn keep_string(&mut self, more: &[u8], from: usize, cut: bool) -> bool {
        if cut {
            if let Some(cut) = self.cuts.last_mut() {
                cut.bytes = cut.bytes.saturating_add(length(more.len()));
            }
            return true;
        }
        let Bounds { string, roomy, string_beyond, begin, .. } = *self.bounds;
        let bytes = self.bytes.len().saturating_sub(from) + more.len();
        if bytes <= if from <= roomy { string } else { string_beyond } {
            self.bytes.extend_from_slice(more);
            return false;
        }
        // As much as tells where the begin may end.
        let wanted = (from + begin + ESCAPE_BYTES_MAX).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(more.get(..wanted).unwrap_or(more));
        let end = whole_end(self.bytes.get(from..).unwrap_or_default(), begin);
        self.bytes.truncate(from + end);
        self.cuts.push(Cut { at: from + end, bytes: length(bytes - end) });
        true
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.bytes.len() + bytes.len() > self.bounds.all {
            self.give_up();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn give_up(&mut self) {
        self.over = true;
        (self.bytes, self.cuts) = (Vec::new(), Vec::new());
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Where the string ends that `rest` begins in, whether it is closed there, and whether the next byte is escaped.
fn string_end(rest: &[u8], escaped: bool) -> (usize, bool, bool) {
    let mut at = usize::from(escaped && !rest.is_empty());
    while let Some(found) = rest.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if rest.get(at) == Some(&b'"') {
            return (at, true, false);
        }
        at += 2;
    }
    (rest.len(), false, at > rest.len())
}

/// Where the begin of a string may end, at `most` or a few bytes before: in no escape and in no character.
fn whole_end(string: &[u8], most: usize) -> usize {
    let mut at = 0;
    while let Some(found) = string.get(at..most).and_then(|rest| memchr(b'\\', rest)) {
        let begin = at + found;
        at = begin + escape_bytes(string.get(begin..).unwrap_or_default());
        if at > most {
            return begin;
        }
    }
    let is_inside = |at: &usize| string.get(*at).is_some_and(|byte| byte & 0xC0 == 0x80);
    let earliest = at.max(most.saturating_sub(3));
    (earliest..=most).rev().find(|at| !is_inside(at)).unwrap_or(most)
}

/// How long the escape is that `rest` begins with; both halves of a character are one.
fn escape_bytes(rest: &[u8]) -> usize {
    match rest {
        [_, b'u', b'd' | b'D', b'8'..=b'9' | b'a' | b'A' | b'b' | b'B', _, _, b'\\', b'u', ..] => ESCAPE_BYTES_MAX,
        [_, b'u', ..] => 6,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const SMALL: Bounds = Bounds { all: 4096, string: 64, roomy: 256, string_beyond: 40, begin: 20 };

    fn kept(pieces: &[&[u8]]) -> (Vec<u8>, Vec<Cut>, bool) {
        let mut kept = Kept::within(&SMALL);
        for piece in pieces {
            kept.push(piece);
            assert!(kept.bytes().len() <= SMALL.all + SMALL.string);
        }
        (kept.bytes().to_vec(), kept.cuts().to_vec(), kept.is_over())
    }

    /// The same value, of strings that are written long only a begin.
    fn is_begin(value: &Value, of: &Value, ascii: bool) -> bool {
        match (value, of) {
            (Value::String(value), Value::String(text)) => {
                let is_long = written(of, ascii).len() - 2 > SMALL.string_beyond;
                value == text || (is_long && text.starts_with(value.as_str()))
            }
            (Value::Array(values), Value::Array(of)) => {
                values.len() == of.len() && values.iter().zip(of).all(|(value, of)| is_begin(value, of, ascii))
            }
            (Value::Object(values), Value::Object(of)) => {
                let mut pairs = values.iter().zip(of);
                values.len() == of.len()
                    && pairs.all(|((name, value), (known, of))| name == known && is_begin(value, of, ascii))
            }
            (value, of) => value == of,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z]{0,9}",
            "[a\\\\\"\u{e9}\u{20ac}\u{1f600}\u{0}/]{0,120}",
            (1..200usize).prop_map(|n| "A".repeat(n)),
        ];
        let leaf = prop_oneof![text.prop_map(Value::from), any::<i32>().prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map("[a-z\"\\\\]{0,5}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// As JSON, with every character beyond ASCII as an escape where that is wanted.
    fn written(value: &Value, ascii: bool) -> String {
        if ascii { escaped(&value.to_string()) } else { value.to_string() }
    }

    fn escaped(text: &str) -> String {
        text.encode_utf16()
            .map(|unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => format!("\\u{unit:04x}"),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_same_tree_at_every_cut(value in json(), ascii: bool, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let text = written(&value, ascii);
            let whole = kept(&[text.as_bytes()]);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&text.as_bytes()[from..]);
            prop_assert_eq!(&kept(&pieces), &whole);
            prop_assert_eq!(&kept(&text.as_bytes().chunks(1).collect::<Vec<_>>()), &whole);
            let (bytes, cuts, over) = whole;
            if !over {
                let taken: u64 = cuts.iter().map(|cut| cut.bytes).sum();
                prop_assert_eq!(bytes.len() as u64 + taken, text.len() as u64);
                prop_assert!(is_begin(&serde_json::from_slice(&bytes).unwrap(), &value, ascii));
            }
        }

        #[test]
        fn any_bytes_are_kept_the_same_at_every_cut(bytes in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b'u'), Just(b':'), any::<u8>()], 0..600)) {
            let whole = kept(&[&bytes]);
            prop_assert_eq!(&kept(&bytes.chunks(1).collect::<Vec<_>>()), &whole);
            prop_assert_eq!(&kept(&bytes.chunks(7).collect::<Vec<_>>()), &whole);
        }
    }

    #[test]
    fn a_string_is_cut_in_no_escape_and_in_no_character() {
        for (unit, bytes) in [("é", 20), ("€", 18), ("😀", 20), ("\\u00e9", 18), ("\\ud83d\\ude00", 12), ("\\\\", 20)]
        {
            for lead in ["", "x", "xy", "xyz"] {
                let text = format!("{{\"a\":\"{lead}{}\",\"b\":1}}", unit.repeat(60));
                let (kept, cuts, over) = kept(&[text.as_bytes()]);
                let value: Value = serde_json::from_slice(&kept).unwrap();
                assert_eq!((value["b"].as_u64(), cuts.len(), over), (Some(1), 1, false), "{text}");
                assert!(cuts[0].at <= 6 + SMALL.begin, "{text}");
                if lead.is_empty() {
                    assert_eq!(cuts[0].at, 6 + bytes, "{text}");
                }
            }
        }
    }

    #[test]
    fn names_are_not_cut_and_what_is_too_long_even_so_is_not_kept() {
        let long = "n".repeat(SMALL.string + 1);
        let (bytes, _, over) = kept(&[format!("{{\"{long}\" :1}}").as_bytes()]);
        assert!(bytes.is_empty() && over);
        let (bytes, cuts, over) = kept(&[format!("[\"{long}\" ,1]").as_bytes()]);
        assert_eq!((bytes.len(), cuts.len(), over), (SMALL.begin + 7, 1, false));
        assert!(kept(&["1,".repeat(SMALL.all).as_bytes()]).2);
        // As many long strings as there may be.
        let many = format!("[\"{long}\"]").repeat(100);
        assert!(!kept(&[many.as_bytes()]).2);
    }
}
