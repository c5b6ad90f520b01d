//! What a request body asks to be read: its text, messages, ready-made tokens and media, for estimates.
//!
//! May use: the siblings `json` and `text`.

use memchr::memchr;
use serde_json::value::RawValue;

use super::json;
use super::text::{Found, unescaped, walk};

/// Members of a request that the model reads, in both dialects.
pub(super) const READ_BY_MODEL: &[&str] = &[
    "messages",
    "input",
    "prompt",
    "suffix",
    "instructions",
    "contents",
    "content",
    "requests",
    "systemInstruction",
    "system_instruction",
    "tools",
    "functions",
];

/// Of these also the names of members are read: they are schemas.
const SCHEMAS: &[&str] = &["tools", "functions"];

/// Members that hold a medium (an image, audio, a file), inline or by address.
const MEDIA: &[&[u8]] =
    &[b"data", b"url", b"image_url", b"file_data", b"fileUri", b"file_uri", b"b64_json", b"file_id", b"file_url"];

/// Of these the ones that hold an address, unless it is of the kind that holds its medium.
const BY_ADDRESS: &[&[u8]] = &[b"url", b"image_url", b"fileUri", b"file_uri", b"file_id", b"file_url"];

/// What one medium counts: between Gemini's 258 tokens an image tile and the 765 to 1,105 of a detailed image at OpenAI.
pub(super) const TOKENS_PER_MEDIUM: u64 = 800;

/// What frames one message: OpenAI's cookbook counts 3 tokens a message and 3 for the answer's begin.
pub(super) const TOKENS_PER_MESSAGE: u64 = 3;

/// Bytes of English text in one token, as both providers' guides say.
pub(super) const BYTES_PER_TOKEN: u64 = 4;

/// What a body asks to be read, as far as it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Asked {
    text_bytes: u64,
    messages: u64,
    elements: u64,
    media: u64,
    refers: bool,
}

impl Asked {
    /// Takes in the value of a member of [`READ_BY_MODEL`]. Calls `see` with each text in it, as it stands between its
    /// quotes: see [`unescaped`].
    pub(super) fn look(&mut self, name: &str, raw: &RawValue, mut see: impl FnMut(&[u8])) {
        let is_schema = SCHEMAS.contains(&name);
        walk(raw.get().as_bytes(), |found| match found {
            Found::Name(name) if is_schema => self.text(name, &mut see),
            Found::Name(b"role") => self.messages += 1,
            // An item of a conversation that the provider keeps.
            Found::Label { of: b"type", text: b"item_reference" } => self.refers = true,
            Found::Text { of, text } if MEDIA.contains(&of) || text.starts_with(b"data:") => {
                self.media += 1;
                self.refers |= BY_ADDRESS.contains(&of) && !text.starts_with(b"data:");
            }
            Found::Text { text, .. } => self.text(text, &mut see),
            Found::Element if !is_schema => self.elements += 1,
            Found::Name(_) | Found::Label { .. } | Found::Element => {}
        });
    }

    fn text(&mut self, text: &[u8], see: &mut impl FnMut(&[u8])) {
        // Every call is counted so at its admission: only a text with escapes is looked at for more than its length.
        let length = if memchr(b'\\', text).is_some() { unescaped(text).len() } else { text.len() };
        self.text_bytes = self.text_bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        see(text);
    }

    /// Tokens beside those of the text.
    pub(super) fn tokens(&self) -> u64 {
        let framing = if self.messages > 0 { (self.messages + 1).saturating_mul(TOKENS_PER_MESSAGE) } else { 0 };
        framing.saturating_add(self.elements).saturating_add(self.media.saturating_mul(TOKENS_PER_MEDIUM))
    }

    /// How many bytes of text it is worth, all that the model reads counted as text.
    pub(super) fn text_bytes(&self) -> u64 {
        self.text_bytes.saturating_add(self.tokens().saturating_mul(BYTES_PER_TOKEN))
    }

    /// Whether an image, audio or a file is in it, or named by it.
    pub(super) fn has_media(&self) -> bool {
        self.media > 0
    }

    /// Whether it names what is not in it.
    pub(super) fn refers(&self) -> bool {
        self.refers
    }
}

/// Looks at all of `body` that the model reads.
pub(super) fn asked(body: &[u8], mut see: impl FnMut(&[u8])) -> Asked {
    let mut asked = Asked::default();
    // Admission has refused what is no object, so there is nothing to say of one.
    let _is_object = json::members(body, READ_BY_MODEL, |index, raw| {
        asked.look(READ_BY_MODEL.get(index).copied().unwrap_or_default(), raw, &mut see);
    });
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_reads_messages_but_not_labels_or_settings() {
        let mut seen = Vec::new();
        let body = br#"{"model":"gpt-4o","user":"u","messages":[{"role":"user","content":[{"type":"text","text":"Hi"},
            {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],
            "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}"#;
        let asked_of = asked(body, |text| seen.push(unescaped(text).into_owned()));
        assert_eq!(seen, ["Hi", "type", "function", "name", "f", "parameters", "type"]);
        let text_bytes = u64::try_from(seen.concat().len()).unwrap();
        assert_eq!(asked_of, Asked { text_bytes, messages: 1, elements: 0, media: 1, refers: false });
        assert_eq!(asked(br#"{"input":[[1,22],[333]]}"#, |_| {}).tokens(), 3);
    }
}
