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
            let Grounding { searches, others } = grounding(message);
            told.quantities.web_searches = told.quantities.web_searches.max(searches);
            told.uncounted |= others;
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

static GROUNDING: Anchor = anchor!("groundingMetadata");

/// What an answer is grounded in.
#[derive(Debug, Default)]
pub(super) struct Grounding {
    /// Queries of the web.
    pub(super) searches: u64,
    /// Something else that is charged by the call, and that no count says: Google Maps, images, a store of Vertex.
    pub(super) others: bool,
}

/// What the answer of all candidates is grounded in.
fn grounding(message: &[u8]) -> Grounding {
    let mut all = Grounding::default();
    // Few are: a quick look first.
    if GROUNDING.find(message).is_none() {
        return all;
    }
    let mut candidates = None;
    json::members(message, &["candidates"], |_, raw| candidates = Some(raw)).unwrap_or_default();
    if let Some(candidates) = candidates {
        json::elements(candidates.get().as_bytes(), |candidate| {
            let Grounding { searches, others } = grounding_of(candidate);
            all.searches = all.searches.saturating_add(searches);
            all.others |= others;
            true
        })
        .unwrap_or_default();
    }
    all
}

/// What a candidate is grounded in, or a session's content.
pub(super) fn grounding_of(content: &RawValue) -> Grounding {
    const MEMBERS: &[&str] = &[
        "webSearchQueries",
        "groundingChunks",
        "retrievalQueries",
        "imageSearchQueries",
        "googleMapsWidgetContextToken",
    ];
    let mut found = Grounding::default();
    if GROUNDING.find(content.get().as_bytes()).is_some()
        && let Some(metadata) = at(content, &["groundingMetadata"])
    {
        json::members(metadata.get().as_bytes(), MEMBERS, |index, raw| match index {
            0 => found.searches = count(raw, |_| true),
            1 => found.others |= count(raw, is_charged_apart) > 0,
            2 | 3 => found.others |= count(raw, |_| true) > 0,
            _ => found.others |= json::text(raw).is_some_and(|token| !token.is_empty()),
        })
        .unwrap_or_default();
    }
    found
}

/// Whether a piece of evidence is of a source that is charged by the call. What a store of files gives is charged as tokens.
fn is_charged_apart(chunk: &RawValue) -> bool {
    let has = |names: &[&'static str]| at(chunk, names).is_some_and(|value| value.get() != "null");
    has(&["maps"]) || (has(&["retrievedContext"]) && !has(&["retrievedContext", "fileSearchStore"]))
}

/// How many elements of a list are meant.
fn count(list: &RawValue, is_meant: impl Fn(&RawValue) -> bool) -> u64 {
    let mut elements = 0_u64;
    let count = |element: &RawValue| {
        elements += u64::from(is_meant(element));
        true
    };
    json::elements(list.get().as_bytes(), count).unwrap_or_default();
    elements
}
