//! What a request body asks to be read: its text, messages, ready-made tokens and media, for estimates.
//!
//! May use: the siblings `json` and `text`.

use memchr::memchr;
use serde_json::value::RawValue;

use super::estimate::{family, is_of_google};
use super::json;
use super::media::{Detail, Kind, Medium};
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

/// Members that hold a medium (an image, audio, a file), inline or by address, wherever they stand.
const MEDIA: &[&[u8]] = &[b"image_url", b"file_data", b"fileUri", b"file_uri", b"b64_json", b"file_id", b"file_url"];

/// Members of a medium's own object, which other objects may have, too.
const OF_MEDIUM: &[&[u8]] = &[b"data", b"url"];

/// The objects that these stand in.
const MEDIUM_OBJECTS: &[&[u8]] = &[b"image_url", b"input_audio", b"inlineData", b"inline_data", b"source"];

/// How many names after an object's own the members of a medium may stand in it.
const MEDIUM_NAMES_MAX: u32 = 3;

/// Media beyond this are counted as the last one that was looked at: no provider takes so many images of different sizes.
const MEDIA_MAX: usize = 256;

/// Types of a medium's own object in Gemini's interactions, which has its data or its address beside them.
const TYPES_OF_MEDIUM: &[&[u8]] = &[b"image", b"audio", b"video", b"document"];

/// Types of items of OpenAI's responses that stand whole in the body, also where they have an id. Others with one may be short
/// for what the provider keeps: a reference, a thought, an image that it made, what it found.
const WHOLE_ITEMS: [&str; 5] =
    ["message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"];

/// Types of such items that may have what they stand for in them, sealed. What is sealed in any other is not looked at.
pub(super) const SEALED_ITEMS: [&str; 2] = ["reasoning", "compaction"];

/// What an earlier answer keeps to itself and gets back sealed: a thought.
const SEALED: &[&[u8]] = &[SEALED_CONTENT.as_bytes(), b"thoughtSignature", b"thought_signature"];

/// The same in OpenAI's items.
const SEALED_CONTENT: &str = "encrypted_content";

/// Letters of a sealed thought for one token of it, as measured on recorded calls of both providers: from 3 to 15.
const SEALED_PER_TOKEN: u64 = 8;

/// What frames one message of OpenAI's: its cookbook counts 3 tokens a message and 3 for the answer's begin.
const OPENAI_PER_MESSAGE: u64 = 3;

/// What frames one message of Gemini's, as measured on recorded calls.
const GEMINI_PER_MESSAGE: u64 = 1;

/// Bytes of English text in one token, as both providers' guides say.
pub(super) const BYTES_PER_TOKEN: u64 = 4;

/// What a body asks to be read, as far as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Asked {
    text_bytes: u64,
    /// Messages by their `role`, and by their `parts`: Gemini's may have no role.
    roles: u64,
    parts: u64,
    /// Text that is a message without being an object.
    bare: u64,
    elements: u64,
    sealed_bytes: u64,
    media: Vec<Medium>,
    more_media: u64,
    refers: bool,
}

/// What was met on the way to a medium: its detail and its type may stand before it or behind it.
#[derive(Default)]
struct Around<'a> {
    /// How many names ago the object of a medium began.
    since_object: Option<u32>,
    detail: Option<Detail>,
    format: Option<&'a [u8]>,
    /// Whether the last medium still may get them.
    is_open: bool,
}

impl Asked {
    /// Takes in the value of a member of [`READ_BY_MODEL`]. Calls `see` with each text in it, as it stands between its
    /// quotes: see [`unescaped`].
    pub(super) fn look(&mut self, name: &str, raw: &RawValue, mut see: impl FnMut(&[u8])) {
        let json = raw.get().as_bytes();
        self.bare += u64::from(matches!(name, "input" | "instructions") && json.len() > 2 && json.starts_with(b"\""));
        let is_schema = SCHEMAS.contains(&name);
        let (is_input, mut has_ids) = (name == "input", false);
        let mut around = Around::default();
        walk(json, |found| match found {
            Found::Name(name) if is_schema => self.text(name, &mut see),
            Found::Name(name) => self.name(name, &mut around),
            // An answer in audio that the provider keeps, by its id.
            Found::Object { of: b"audio" } if !is_schema => self.refers = true,
            Found::Label { of: b"type", text } if !is_schema && (TYPES_OF_MEDIUM.contains(&text) || hides(text)) => {
                self.refers = true;
            }
            Found::Label { of: b"id", .. } if is_input => has_ids = true,
            Found::Label { of, text } if SEALED.contains(&of) => {
                self.sealed_bytes = self.sealed_bytes.saturating_add(length(text));
            }
            Found::Label { of: b"mimeType" | b"mime_type", text } => self.format(text, &mut around),
            Found::Text { of, text } if !is_schema && is_medium(of, text, &around) => {
                self.medium(of, text, &mut around)
            }
            Found::Text { of: b"detail", text } if !is_schema => self.detail(text, &mut around),
            Found::Text { of: b"format", text } if !is_schema => self.format(text, &mut around),
            Found::Text { text, .. } => self.text(text, &mut see),
            Found::Element if !is_schema => self.elements += 1,
            Found::Label { .. } | Found::Element | Found::Object { .. } => {}
        });
        self.refers |= has_ids && refers_to_items(raw);
    }

    fn name(&mut self, name: &[u8], around: &mut Around<'_>) {
        self.refers |= hides(name);
        around.since_object = match around.since_object {
            _ if MEDIUM_OBJECTS.contains(&name) => Some(0),
            Some(names) if names < MEDIUM_NAMES_MAX => Some(names + 1),
            _ => None,
        };
        match name {
            b"role" => self.roles += 1,
            b"parts" => self.parts += 1,
            // The next part of a message begins.
            b"type" => around.is_open = false,
            _ => {}
        }
    }

    fn medium(&mut self, of: &[u8], text: &[u8], around: &mut Around<'_>) {
        let is_inline = text.starts_with(b"data:") || matches!(of, b"data" | b"file_data" | b"b64_json");
        self.refers |= !is_inline;
        if self.media.len() >= MEDIA_MAX {
            self.more_media = self.more_media.saturating_add(1);
            return;
        }
        let is_image = matches!(of, b"url" | b"image_url");
        let mut medium = if is_inline { Medium::inline(text) } else { Medium::elsewhere(is_image) };
        medium.detail = around.detail.take();
        if let Some(format) = around.format.take() {
            medium.is_a(format);
        }
        around.is_open = true;
        self.media.push(medium);
    }

    fn detail(&mut self, text: &[u8], around: &mut Around<'_>) {
        match self.media.last_mut().filter(|last| around.is_open && last.detail.is_none()) {
            Some(last) => last.detail = Some(Detail::of(text)),
            None => around.detail = Some(Detail::of(text)),
        }
    }

    fn format<'a>(&mut self, text: &'a [u8], around: &mut Around<'a>) {
        match self.media.last_mut().filter(|last| around.is_open && last.kind == Kind::Other) {
            Some(last) => last.is_a(text),
            None => around.format = Some(text),
        }
    }

    fn text(&mut self, text: &[u8], see: &mut impl FnMut(&[u8])) {
        // Every call is counted so at its admission: only a text with escapes is looked at for more than its length.
        let bytes = if memchr(b'\\', text).is_some() { length(unescaped(text).as_bytes()) } else { length(text) };
        self.text_bytes = self.text_bytes.saturating_add(bytes);
        see(text);
    }

    /// Tokens beside those of the text, for a model.
    pub(super) fn tokens(&self, model: &str) -> u64 {
        let model = family(model);
        let framing = match self.roles + self.bare {
            _ if model.contains("embedding") || model.contains("tts") => 0,
            _ if is_of_google(model) => self.roles.max(self.parts).saturating_mul(GEMINI_PER_MESSAGE),
            // What is no conversation is not framed.
            0 => 0,
            messages => (messages + 1).saturating_mul(OPENAI_PER_MESSAGE),
        };
        let media = self.media.iter().map(|medium| medium.tokens(model)).fold(0, u64::saturating_add);
        let more = self.media.last().map_or(0, |last| last.tokens(model).saturating_mul(self.more_media));
        // Gemini 3 does not count them, as its recorded calls show.
        let reads_sealed = !model.starts_with("gemini-3") && !model.starts_with("gemini-4");
        let sealed = if reads_sealed { self.sealed_bytes.div_ceil(SEALED_PER_TOKEN) } else { 0 };
        [self.elements, sealed, media, more].into_iter().fold(framing, u64::saturating_add)
    }

    /// How many bytes of text it is worth for a model, all that the model reads counted as text.
    pub(super) fn text_bytes(&self, model: &str) -> u64 {
        self.text_bytes.saturating_add(self.tokens(model).saturating_mul(BYTES_PER_TOKEN))
    }

    /// Whether an image, audio or a file is in it, or named by it.
    pub(super) fn has_media(&self) -> bool {
        !self.media.is_empty()
    }

    /// Whether it names what is not in it.
    pub(super) fn refers(&self) -> bool {
        self.refers
    }
}

fn length(text: &[u8]) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

fn is_medium(of: &[u8], text: &[u8], around: &Around<'_>) -> bool {
    MEDIA.contains(&of) || text.starts_with(b"data:") || (OF_MEDIUM.contains(&of) && around.since_object.is_some())
}

/// Whether a word is spelled so that a quick look does not know it and a parser does: no writer of JSON escapes what words
/// are made of.
fn hides(word: &[u8]) -> bool {
    let is_of_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    memchr(b'\\', word).is_some() && unescaped(word).bytes().all(is_of_word)
}

/// Whether one of the items of an `input` is named by its id without standing whole in the body.
fn refers_to_items(input: &RawValue) -> bool {
    if json::is_object(input) {
        return refers_to_item(input);
    }
    let mut refers = false;
    // What is no array the provider refuses.
    let _is_array = json::elements(input.get().as_bytes(), |item| {
        refers |= refers_to_item(item);
        !refers
    });
    refers
}

fn refers_to_item(item: &RawValue) -> bool {
    let mut found = [None; 4];
    // What is no object the provider refuses.
    let _is_object = json::members(item.get().as_bytes(), &["id", "type", "content", SEALED_CONTENT], |index, raw| {
        if let Some(found) = found.get_mut(index) {
            *found = Some(raw).filter(|raw| !matches!(raw.get(), "null" | "\"\""));
        }
    });
    let [id, kind, content, sealed] = found;
    let is_whole = match kind.and_then(json::text).as_deref() {
        None | Some("message") => content.is_some(),
        Some(kind) => (sealed.is_some() && SEALED_ITEMS.contains(&kind)) || WHOLE_ITEMS.contains(&kind),
    };
    id.is_some() && !is_whole
}

/// Looks at all of `body` that the model reads. Calls `see` with each text of it, but with the tools `see_tools`.
#[cfg(feature = "gateway")]
pub(super) fn asked(body: &[u8], mut see: impl FnMut(&[u8]), mut see_tools: impl FnMut(&[u8])) -> Asked {
    let mut asked = Asked::default();
    // Admission has refused what is no object, so there is nothing to say of one.
    let _is_object =
        json::members(body, READ_BY_MODEL, |index, raw| match READ_BY_MODEL.get(index).copied().unwrap_or_default() {
            name if SCHEMAS.contains(&name) => see_tools(raw.get().as_bytes()),
            name => asked.look(name, raw, &mut see),
        });
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(body: &str) -> (Asked, Vec<String>) {
        let (mut asked, mut seen) = (Asked::default(), Vec::new());
        json::members(body.as_bytes(), READ_BY_MODEL, |index, raw| {
            asked.look(READ_BY_MODEL[index], raw, |text| seen.push(unescaped(text).into_owned()));
        })
        .unwrap();
        (asked, seen)
    }

    #[test]
    fn the_model_reads_messages_but_not_labels_or_settings() {
        let body = r#"{"model":"gpt-4o","user":"u","messages":[{"role":"user","content":[{"type":"text","text":"Hi"},
            {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}],
            "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}"#;
        let (asked, seen) = looked(body);
        assert_eq!(seen, ["Hi", "type", "function", "name", "f", "parameters", "type"]);
        assert_eq!((asked.text_bytes, asked.roles, asked.media.len()), (length(seen.concat().as_bytes()), 1, 1));
        assert_eq!((asked.has_media(), asked.refers()), (true, false));
        assert_eq!(asked.tokens("gpt-4o"), 6 + 765);
        assert_eq!(looked(r#"{"input":[[1,22],[333]]}"#).0.tokens("text-embedding-3-small"), 3);
    }

    #[test]
    fn messages_are_framed_as_their_provider_does_it() {
        let check = |body: &str, model: &str, tokens: u64| assert_eq!(looked(body).0.tokens(model), tokens, "{body}");
        check(r#"{"messages":[{"role":"system","content":"a"},{"role":"user","content":"b"}]}"#, "gpt-4o", 9);
        check(r#"{"input":"a","instructions":"b"}"#, "gpt-5", 9);
        check(r#"{"input":"a","instructions":""}"#, "gpt-5", 6);
        check(r#"{"input":"a"}"#, "text-embedding-3-small", 0);
        check(r#"{"prompt":"a"}"#, "davinci-002", 0);
        check(r#"{"contents":[{"parts":[{"text":"a"}]}],"systemInstruction":{"parts":[]}}"#, "gemini-2.5-pro", 2);
        check(r#"{"contents":[{"role":"user","parts":[{"text":"a"}]}]}"#, "models/gemini-2.5-pro", 1);
        check(r#"{"messages":[{"role":"user","content":"b"}]}"#, "gemini-2.5-pro", 1);
        let sealed = format!(r#"{{"input":[{{"type":"reasoning","encrypted_content":"{}"}}]}}"#, "g".repeat(800));
        check(&sealed, "gpt-5", 100);
    }

    #[test]
    fn the_detail_of_an_image_is_found_on_either_side_of_it() {
        let details = |parts: &str| {
            let (asked, _) = looked(&format!(r#"{{"input":[{{"role":"user","content":[{parts}]}}]}}"#));
            asked.media.iter().map(|medium| medium.detail).collect::<Vec<_>>()
        };
        let low = Some(Detail::Low);
        assert_eq!(
            details(
                r#"{"type":"image_url","image_url":{"url":"data:,","detail":"low"}},{"type":"input_image","image_url":"data:,"},
                {"type":"input_image","detail":"low","image_url":"http://x/y"},{"image_url":{"detail":"low","url":"data:,"}}"#
            ),
            [low, None, low, low]
        );
    }

    #[test]
    fn what_is_only_called_like_a_medium_is_text() {
        let (asked, seen) = looked(
            r#"{"contents":[{"parts":[{"functionResponse":{"response":{"data":"some text","url":"https://x/y"}}},
            {"inlineData":{"data":"AAAA","mimeType":"audio/wav"}},{"inline_data":{"mime_type":"audio/wav","data":"AAAA"}}]}]}"#,
        );
        assert_eq!(seen, ["some text", "https://x/y"]);
        assert!(asked.media.iter().all(|medium| medium.kind == Kind::Audio { seconds: 1 }), "{:?}", asked.media);
        assert_eq!((asked.media.len(), asked.refers()), (2, false));
    }

    #[test]
    fn media_beyond_the_bound_count_as_the_last() {
        let image = r#"{"image_url":"data:image/png;base64,AAAA"}"#;
        let (asked, _) = looked(&format!(r#"{{"input":[{}]}}"#, [image; MEDIA_MAX + 10].join(",")));
        assert_eq!((asked.media.len(), asked.more_media), (MEDIA_MAX, 10));
        assert_eq!(asked.tokens("gpt-4o"), 765 * (MEDIA_MAX as u64 + 10));
    }
}
