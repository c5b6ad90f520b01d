//! What a request body asks to be read: its text, messages, ready-made tokens and media, for estimates.
//!
//! May use: the siblings `json` and `text`.

use memchr::memchr;

use super::json;
use super::text::{Found, unescaped, walk};

/// Members of a request that the model reads, in both dialects.
const READ_BY_MODEL: &[&str] = &[
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
const MEDIA: &[&[u8]] = &[b"data", b"url", b"image_url", b"file_data", b"fileUri", b"file_uri", b"b64_json"];

/// What one medium counts: between Gemini's 258 tokens an image tile and the 765 to 1,105 of a detailed image at OpenAI.
pub(super) const TOKENS_PER_MEDIUM: u64 = 800;

/// What frames one message: OpenAI's cookbook counts 3 tokens a message and 3 for the answer's begin.
pub(super) const TOKENS_PER_MESSAGE: u64 = 3;

/// Bytes of English text in one token, as both providers' guides say.
pub(super) const BYTES_PER_TOKEN: u64 = 4;

/// What a body holds beside its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counted {
    messages: u64,
    elements: u64,
    media: u64,
}

impl Counted {
    /// Tokens beside those of the text.
    pub(super) fn tokens(self) -> u64 {
        let framing = if self.messages > 0 { (self.messages + 1).saturating_mul(TOKENS_PER_MESSAGE) } else { 0 };
        framing.saturating_add(self.elements).saturating_add(self.media.saturating_mul(TOKENS_PER_MEDIUM))
    }
}

/// Calls `see` with each text in `body` that the model reads, as it stands between its quotes: see [`unescaped`].
pub(super) fn texts(body: &[u8], mut see: impl FnMut(&[u8])) -> Counted {
    let mut counted = Counted::default();
    // Admission has refused what is no object, so there is nothing to say of one.
    let _is_object = json::members(body, READ_BY_MODEL, |index, raw| {
        let is_schema = READ_BY_MODEL.get(index).is_some_and(|name| SCHEMAS.contains(name));
        walk(raw.get().as_bytes(), |found| match found {
            Found::Name(name) if is_schema => see(name),
            Found::Name(b"role") => counted.messages += 1,
            Found::Text { of, text } if MEDIA.contains(&of) || text.starts_with(b"data:") => counted.media += 1,
            Found::Text { text, .. } => see(text),
            Found::Element if !is_schema => counted.elements += 1,
            Found::Name(_) | Found::Element => {}
        });
    });
    counted
}

/// How many bytes of text the body is worth, all that the model reads counted as text.
pub(super) fn text_bytes(body: &[u8]) -> u64 {
    let mut bytes = 0u64;
    let counted = texts(body, |text| {
        // Every call is counted so at its admission: only a text with escapes is looked at for more than its length.
        let length = if memchr(b'\\', text).is_some() { unescaped(text).len() } else { text.len() };
        bytes = bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    });
    bytes.saturating_add(counted.tokens().saturating_mul(BYTES_PER_TOKEN))
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
        let counted = texts(body, |text| seen.push(unescaped(text).into_owned()));
        assert_eq!(seen, ["Hi", "type", "function", "name", "f", "parameters", "type"]);
        assert_eq!(counted, Counted { messages: 1, elements: 0, media: 1 });
        assert_eq!(texts(br#"{"input":[[1,22],[333]]}"#, |_| {}).tokens(), 3);
    }
}
