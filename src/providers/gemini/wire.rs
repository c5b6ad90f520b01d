//! What the messages of Gemini's answers mean, those of Vertex included.
//!
//! May use: the shared readers.

use serde_json::value::RawValue;

use crate::domain::quantities::Quantities;
use crate::providers::Reads;
use crate::providers::answer::{Message, Wire};
use crate::providers::json;
use crate::providers::prompt::BYTES_PER_TOKEN;
use crate::providers::request;
use crate::providers::session::{at, text_at};
use crate::providers::text::{Anchor, anchor};
use crate::providers::told::Told;
use crate::providers::usage::{self, Usages};

/// The messages of an endpoint that is read so.
#[derive(Debug, Clone, Copy)]
pub(super) struct GeminiWire(pub(super) Reads);

/// Members of a message, in the order of `see` below.
const MEMBERS: &[&str] = &["usageMetadata", "modelVersion", "model", "predictions"];

/// What an image counts that a model draws, as its usage says where there is one.
const IMAGE_TOKENS: u64 = 1290;

/// A longer token is not known again: the call that goes on with it is a new chat.
pub(super) const CONTINUATION_BYTES_MAX: usize = 1024 * 1024;

static CONTINUATION: Anchor = anchor!("continuationToken");

impl GeminiWire {
    fn read_members(self, message: &[u8], told: &mut Told) {
        let (mut usages, mut model, mut predictions) = (Usages::default(), None, None);
        let parsed = json::members(message, MEMBERS, |index, raw| match index {
            0 => usages.push(raw),
            1 => model = Some(raw),
            2 if self.0 == Reads::Cache => model = Some(raw),
            3 if self.0 == Reads::Predict => predictions = Some(raw),
            _ => {}
        });
        if parsed.is_err() {
            return;
        }
        if let Some(model) = model {
            told.answered_by(model);
        }
        for usage in usages.objects() {
            told.used(match self.0 {
                Reads::Cache => usage::gemini_cache(usage),
                _ => usage::gemini(usage),
            });
        }
        if let Some(predictions) = predictions {
            match usage::predictions(predictions) {
                Some(counted) => told.used(counted),
                None => told.charged(Quantities { images: made(predictions), ..Quantities::default() }),
            }
        }
    }
}

/// What a request goes on with: its `continuationToken`.
pub(super) fn continued(body: &[u8]) -> Option<Box<str>> {
    // Few have one, and the whole body is looked through for it: a quick look first.
    CONTINUATION.find(body)?;
    request::member(body, "continuationToken", CONTINUATION_BYTES_MAX)
}

/// What goes on with an answer: the `continuationToken` of its first candidate, if that ends for it to be gone on with.
fn continuation(message: &[u8]) -> Option<Box<str>> {
    CONTINUATION.find(message)?;
    let (mut candidates, mut first) = (None, None);
    json::members(message, &["candidates"], |_, raw| candidates = Some(raw)).ok()?;
    // It stops after the first, which counts as a failure.
    let is_empty = json::elements(candidates?.get().as_bytes(), |raw| {
        first = Some(raw);
        false
    })
    .is_ok();
    let (mut token, mut reason) = (None, None);
    json::members(
        first.filter(|_| !is_empty)?.get().as_bytes(),
        &["continuationToken", "finishReason"],
        |index, raw| {
            if index == 0 { token = Some(raw) } else { reason = Some(raw) }
        },
    )
    .ok()?;
    let goes_on = json::text(reason?).is_some_and(|reason| reason == "CONTINUATION");
    json::text(token.filter(|_| goes_on)?).filter(|text| text.len() <= CONTINUATION_BYTES_MAX).map(Into::into)
}

impl Wire for GeminiWire {
    fn read(&self, message: &[u8], whole: bool, told: &mut Told) -> Message {
        // Every event of a stream has usage, so there is nothing to skip.
        self.read_members(message, told);
        // Kept by the hour, beside what was read once.
        told.uncounted |= self.0 == Reads::Cache;
        if self.0 == Reads::Generate {
            // An event may repeat what an earlier one said, in part or whole.
            told.quantities.web_searches = told.quantities.web_searches.max(searches(message));
        }
        if self.0 == Reads::Generate {
            told.continuation = continuation(message).or(told.continuation.take());
        }
        if self.0 == Reads::Generate && (!whole || told.needs_text()) {
            static TEXT: Anchor = anchor!("text");
            static CALL: Anchor = anchor!("functionCall");
            told.output.collect(message, &TEXT);
            told.output.collect(message, &CALL);
            told.output.bytes = told.output.bytes.saturating_add(images(message) * IMAGE_TOKENS * BYTES_PER_TOKEN);
        }
        Message::default()
    }

    fn nothing_is_possible(&self) -> bool {
        self.0 == Reads::Generate
    }

    fn text_is_output(&self) -> bool {
        true
    }
}

/// How many images the answer holds inline.
fn images(message: &[u8]) -> u64 {
    static IMAGE: Anchor = anchor!("inlineData");
    u64::try_from(IMAGE.find_iter(message).count()).unwrap_or(u64::MAX / (IMAGE_TOKENS * BYTES_PER_TOKEN))
}

/// How many of the predictions are images: one that was held back is none, and not charged.
fn made(predictions: &RawValue) -> u64 {
    let mut images = 0_u64;
    let count = |prediction: &RawValue| {
        let kind = text_at(prediction, &["mimeType"]);
        images += u64::from(kind.is_some_and(|kind| kind.starts_with("image/")));
        true
    };
    json::elements(predictions.get().as_bytes(), count).unwrap_or_default();
    images
}

static QUERIES: Anchor = anchor!("webSearchQueries");

/// How many queries the answer of all candidates is grounded in.
fn searches(message: &[u8]) -> u64 {
    // Few have any: a quick look first.
    if QUERIES.find(message).is_none() {
        return 0;
    }
    let (mut candidates, mut searches) = (None, 0_u64);
    json::members(message, &["candidates"], |_, raw| candidates = Some(raw)).unwrap_or_default();
    if let Some(candidates) = candidates {
        json::elements(candidates.get().as_bytes(), |candidate| {
            searches = searches.saturating_add(queries_of(candidate));
            true
        })
        .unwrap_or_default();
    }
    searches
}

/// The queries of a candidate, or of a session's content.
pub(super) fn queries_of(content: &RawValue) -> u64 {
    let mut queries = 0_u64;
    if QUERIES.find(content.get().as_bytes()).is_some()
        && let Some(list) = at(content, &["groundingMetadata", "webSearchQueries"])
    {
        json::elements(list.get().as_bytes(), |_| {
            queries += 1;
            true
        })
        .unwrap_or_default();
    }
    queries
}
