//! Finds text in JSON by a quick look instead of a parse: for estimates, should a provider not say what it charged.
//!
//! May use: the sibling `elide`. The look never fails, also on JSON that broke off.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr2};

use super::elide::Cut;

/// How much delivered text is kept to be counted by the tokenizer; beyond it only bytes are counted.
pub const OUTPUT_TEXT_BYTES_MAX: usize = 64 * 1024;

/// One thing found in a JSON value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The name of a member.
    Name(&'a [u8]),
    /// A string of the member with this name (empty in no object), for [`unescaped`].
    Text {
        /// The member's name.
        of: &'a [u8],
        /// What stands between the quotes.
        text: &'a [u8],
    },
    /// A string that is no text, of a member of this name.
    Label {
        /// The member's name.
        of: &'a [u8],
        /// What stands between the quotes.
        text: &'a [u8],
    },
    /// A number that is an element of an array: prompts may be arrays of tokens.
    Element,
    /// The value of the member of this name is an object, which begins.
    Object {
        /// The member's name.
        of: &'a [u8],
    },
}

/// The name of a member that has text below it, with its quotes.
pub(super) type Anchor = LazyLock<Finder<'static>>;

/// An anchor. Built once: building takes longer than finding.
macro_rules! anchor {
    ($name:literal) => {
        std::sync::LazyLock::new(|| memchr::memmem::Finder::new(concat!("\"", $name, "\"")))
    };
}
pub(super) use anchor;

/// Delivered text, kept up to [`OUTPUT_TEXT_BYTES_MAX`] and counted beyond.
#[derive(Debug, Default)]
pub(super) struct OutputText {
    pub(super) text: String,
    pub(super) bytes: u64,
    /// Where the message was cut that is read next.
    cuts: Vec<Cut>,
}

impl OutputText {
    /// A message is read next that was cut so.
    pub(super) fn cut_at(&mut self, cuts: &[Cut]) {
        self.cuts.clear();
        self.cuts.extend_from_slice(cuts);
    }

    /// How many bytes the message that is read had that are not in it.
    pub(super) fn bytes_cut(&self) -> u64 {
        self.cuts.iter().fold(0, |all, cut| all.saturating_add(cut.bytes))
    }

    /// How many bytes a string had that are not in it, which ends so many bytes into the message.
    fn bytes_cut_at(&self, end: usize) -> u64 {
        self.cuts
            .binary_search_by_key(&end, |cut| cut.at)
            .ok()
            .and_then(|at| self.cuts.get(at))
            .map_or(0, |cut| cut.bytes)
    }

    fn push(&mut self, text: &str) {
        self.bytes = self.bytes.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        let room = OUTPUT_TEXT_BYTES_MAX.saturating_sub(self.text.len());
        let end = text.floor_char_boundary(room);
        self.text.push_str(text.get(..end).unwrap_or_default());
    }

    /// Adds all text below the members that the anchor names, wherever these stand.
    pub(super) fn collect(&mut self, json: &[u8], anchor: &Anchor) {
        let mut rest = json;
        while let Some(at) = anchor.find(rest) {
            rest = rest.get(at + anchor.needle().len()..).unwrap_or_default();
            if let [b':', value @ ..] = rest.trim_ascii_start() {
                rest = walk(value.trim_ascii_start(), |found| {
                    if let Found::Text { text, .. } = found {
                        self.push(&unescaped(text));
                        if !self.cuts.is_empty() {
                            let end = text.as_ptr_range().end.addr().saturating_sub(json.as_ptr().addr());
                            self.bytes = self.bytes.saturating_add(self.bytes_cut_at(end));
                        }
                    }
                });
            }
        }
    }
}

/// Calls `see` with what the JSON value at the begin of `json` holds. Gives what follows on it.
pub(super) fn walk<'a>(json: &'a [u8], mut see: impl FnMut(Found<'a>)) -> &'a [u8] {
    let mut depth = 0u32;
    let mut name: &[u8] = b"";
    let mut before = b' ';
    let mut rest = json;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                let (string, after) = split_string(rest);
                rest = after;
                if depth > 0 && matches!(after.trim_ascii_start(), [b':', ..]) {
                    name = string;
                    see(Found::Name(string));
                } else if is_label(name) {
                    see(Found::Label { of: name, text: string });
                } else {
                    see(Found::Text { of: name, text: string });
                }
            }
            b'{' | b'[' => {
                if (*byte, before) == (b'{', b':') {
                    see(Found::Object { of: name });
                }
                depth += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'0'..=b'9' if matches!(before, b'[' | b',') => see(Found::Element),
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            before = *byte;
        }
        if depth == 0 && matches!(byte, b'"' | b'}' | b']' | b',') {
            break;
        }
    }
    rest
}

/// Whether the strings of a member are no text.
fn is_label(name: &[u8]) -> bool {
    matches!(
        name,
        b"id"
            | b"type"
            | b"role"
            | b"status"
            | b"call_id"
            | b"tool_call_id"
            | b"object"
            | b"model"
            | b"mimeType"
            | b"mime_type"
            | b"finish_reason"
            | b"encrypted_content"
            | b"thought_signature"
            | b"thoughtSignature"
    )
}

/// What stands before the closing quote and what stands after it.
pub(super) fn split_string(json: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(found) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if json.get(at) == Some(&b'"') {
            let (string, rest) = json.split_at(at);
            return (string, rest.get(1..).unwrap_or_default());
        }
        at += 2;
    }
    (json, &[])
}

/// The text of a JSON string that stands between its quotes.
pub(super) fn unescaped(string: &[u8]) -> Cow<'_, str> {
    if memchr(b'\\', string).is_some() {
        let quoted = [b"\"", string, b"\""].concat();
        if let Ok(text) = serde_json::from_slice::<String>(&quoted) {
            return Cow::Owned(text);
        }
    }
    String::from_utf8_lossy(string)
}

#[cfg(test)]
mod tests {
    use super::*;

    static DELTA: Anchor = anchor!("delta");

    fn check(json: &str, text: &str) {
        let mut output = OutputText::default();
        output.collect(json.as_bytes(), &DELTA);
        assert_eq!(output.text, text, "{json}");
        assert_eq!(output.bytes, text.len() as u64);
    }

    #[test]
    fn text_is_found_below_the_anchors_without_its_labels() {
        check(r#"{"choices":[{"delta":{"role":"assistant","content":"Hi \"you\""},"x":"y"}]}"#, "Hi \"you\"");
        check(r#"{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}],"z":"c"}"#, "ab");
        check(r#"{"type":"t","delta" : "caf\u00e9"}"#, "café");
        check(r#"{"delta":{"tool_calls":[{"id":"i","function":{"name":"f","arguments":"{}"}}]}}"#, "f{}");
        check(r#"{"delta":{"content":null,"type":null,"refusal":"no"}}"#, "no");
        check(r#"{"delta":null,"x":"y"}"#, "");
        check(r#"{"delta":{"content":"cut he"#, "cut he");
        check(r#"{"a":"\"delta\":\"no\""}"#, "");
    }

    #[test]
    fn text_beyond_the_bound_is_counted_but_not_kept() {
        let mut output = OutputText::default();
        output.push(&"é".repeat(OUTPUT_TEXT_BYTES_MAX));
        output.push("x");
        assert_eq!((output.text.len(), output.bytes), (OUTPUT_TEXT_BYTES_MAX, 2 * OUTPUT_TEXT_BYTES_MAX as u64 + 1));
    }
}
