//! Objects that OpenAI keeps: where paths, bodies and answers name them.
//!
//! May use: `domain`, the shared readers. Ids are of one space, whatever names them: `resp_…`, `file-…`, `batch_…`.

use http::Method;
use serde_json::value::RawValue;

use crate::domain::object::{Made, ObjectName};
use crate::providers::json;
use crate::providers::objects::{Item, Makes, Named, Naming, Touches, may_name};
use crate::providers::prompt::SEALED_ITEMS;
use crate::providers::table::{self, Letters};
use crate::providers::{Endpoint, Kind, Reads, path};

/// What stands at a place in the API.
enum At {
    /// The place of all objects of a kind: POST makes one, which this says how; what else is asked there lists all.
    All(Makes),
    /// Below one object, which the second name says.
    One(Makes),
}

/// Where objects are, the first that fits. `{id}` is the object, `**` any rest.
#[rustfmt::skip]
const PLACES: &[(&str, At)] = &[
    ("/v1/files", At::All(Makes::All)),
    ("/v1/uploads", At::All(Makes::All)),
    ("/v1/vector_stores", At::All(Makes::All)),
    ("/v1/batches", At::All(Makes::All)),
    ("/v1/conversations", At::All(Makes::All)),
    ("/v1/assistants", At::All(Makes::All)),
    ("/v1/threads", At::All(Makes::All)),
    ("/v1/threads/runs", At::All(Makes::All)),
    ("/v1/chat/completions", At::All(Makes::IfStored)),
    ("/v1/responses", At::All(Makes::UnlessNotStored)),
    ("/v1/responses/compact", At::All(Makes::Nothing)),
    ("/v1/responses/input_tokens", At::All(Makes::Nothing)),
    // An upload's end makes its file, and its parts have names.
    ("/v1/uploads/{id}/**", At::One(Makes::All)),
    // Items.
    ("/v1/conversations/{id}/items", At::One(Makes::All)),
    ("/v1/batches/{id}/**", At::One(Makes::Results)),
    ("/v1/{files,responses,vector_stores,conversations,assistants,threads}/{id}/**", At::One(Makes::Nothing)),
    ("/v1/chat/completions/{id}/**", At::One(Makes::Nothing)),
];

/// Where a POST brings a file or a part of one, in a form: it names no object.
const FILES: &[&str] = &["/v1/files", "/v1/uploads/{id}/parts"];

/// What a request has to do with objects.
pub(super) fn touches(method: &Method, endpoint: &Endpoint) -> Touches {
    // What is asked for most needs no look at the table.
    match (endpoint.kind, endpoint.reads) {
        (Kind::Chat, Reads::Chat) => return Touches { makes: Makes::IfStored, ..Touches::default() },
        (Kind::Chat, Reads::Responses) => return Touches { makes: Makes::UnlessNotStored, ..Touches::default() },
        (Kind::Billed, Reads::Batch) => return Touches { makes: Makes::All, ..Touches::default() },
        (Kind::Chat, Reads::Run) | (Kind::Unbilled, _) => {}
        _ => return Touches::default(),
    }
    let segments: Vec<_> = endpoint.path.split('/').skip(1).map(path::decoded).collect();
    let Some((of, at)) = PLACES.iter().find(|(place, _)| table::fits(place, &endpoint.path, Letters::Exact)) else {
        return Touches::default();
    };
    let is_post = *method == Method::POST;
    let makes = |makes: Makes| if is_post || makes == Makes::Results { makes } else { Makes::Nothing };
    // What is read whole is looked through where it is read.
    let is_file = |place| table::fits(place, &endpoint.path, Letters::Exact);
    let refers = is_post && endpoint.kind == Kind::Unbilled && !FILES.iter().copied().any(is_file);
    match at {
        At::All(made) => Touches { named: None, lists: !is_post, refers, makes: makes(*made), frees: false },
        At::One(made) => {
            let at = of.split('/').skip(1).position(|segment| segment == "{id}").unwrap_or(usize::MAX);
            let id = segments.get(at).cloned().flatten().unwrap_or_default();
            Touches { named: Some(Named::of(&id)), lists: false, refers, makes: makes(*made), frees: false }
        }
    }
}

/// Whether the body of a call has to be looked through for names.
pub(super) fn may_refer(endpoint: &Endpoint, body: &[u8]) -> bool {
    // Calls of tools have an id in every chat, and nothing of a chat but audio is named by one.
    let by_id = if endpoint.reads == Reads::Chat { &["audio"] } else { InOpenAi::BY_ID };
    may_name::<InOpenAi>(body, by_id)
}

/// How OpenAI's bodies name objects.
pub(super) struct InOpenAi;

/// Items that stand whole in a body, also where they have an id. Others with one may be short for what is kept.
const WHOLE_ITEMS: &[&str] = &["function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"];

impl Naming for InOpenAi {
    const MEMBERS: &'static [&'static str] = &[
        "previous_response_id",
        "conversation",
        "file_id",
        "file_ids",
        "input_file_id",
        "vector_store_id",
        "vector_store_ids",
        "assistant_id",
        "thread_id",
        "container",
        "container_id",
        "part_ids",
    ];
    const BY_ID: &'static [&'static str] = &["input", "items", "audio"];

    fn named(member: &str, text: &str) -> Option<Named> {
        (!Self::BY_ID.contains(&member)).then(|| Named::of(text))
    }

    fn item(id: &str, of: &Item) -> Option<Named> {
        let is_named = match (of.member, of.kind.as_deref()) {
            (Some("conversation" | "container" | "audio"), _) => true,
            (Some("input" | "items"), _) if of.has_kinds => true,
            (Some("input" | "items"), None | Some("message")) => !of.has_content,
            (Some("input" | "items"), Some(kind)) => {
                let is_whole = WHOLE_ITEMS.contains(&kind) || (of.is_sealed && SEALED_ITEMS.contains(&kind));
                !is_whole
            }
            _ => false,
        };
        is_named.then(|| Named::of(id))
    }
}

/// How messages of OpenAI's sessions name them. What else has an id there is of the session.
pub(super) struct InSessions;

impl Naming for InSessions {
    const SKIPPED: &'static [&'static str] = &["metadata", "parameters", "schema"];
    const MEMBERS: &'static [&'static str] = &[
        "previous_response_id",
        "file_id",
        "file_ids",
        "vector_store_id",
        "vector_store_ids",
        "container",
        "container_id",
    ];

    fn named(_: &str, text: &str) -> Option<Named> {
        Some(Named::of(text))
    }

    fn item(_: &str, _: &Item) -> Option<Named> {
        None
    }
}

/// Members of messages that name objects.
const TOLD: &[&str] =
    &["id", "object", "thread_id", "container_id", "file", "response", "output", "item", "data", "choices"];

/// The objects that a message tells of.
pub(super) fn made(message: &[u8], found: &mut Vec<Made>) {
    tell(message, found, true);
}

/// `is_top`: at the top of a message, below which others may stand.
fn tell(message: &[u8], found: &mut Vec<Made>, is_top: bool) {
    let mut below: Vec<(usize, &RawValue)> = Vec::new();
    let (mut ids, mut object) = (Vec::new(), None);
    let read = json::members(message, TOLD, |index, raw| match index {
        0 | 2 | 3 => ids.extend(json::text(raw)),
        1 => object = json::text(raw),
        _ => below.push((index, raw)),
    });
    if read.is_err() {
        return;
    }
    // A page of items is no object itself.
    if object.as_deref() != Some("list") {
        found.extend(ids.iter().filter_map(|id| named(id)));
    }
    for (index, raw) in below {
        let value = raw.get().as_bytes();
        match index {
            4 | 5 | 7 if is_top && json::is_object(raw) => tell(value, found, index == 5),
            // Items: of a response, of a page.
            6 | 8 if raw.get().starts_with('[') => {
                let _is_array = json::elements(value, |element| {
                    if json::is_object(element) {
                        tell(element.get().as_bytes(), found, false);
                    }
                    true
                });
            }
            9 => audio(value, found),
            _ => {}
        }
    }
}

/// The answers in audio of a chat: they are kept for the calls that go on with them.
fn audio(choices: &[u8], found: &mut Vec<Made>) {
    let _is_array = json::elements(choices, |choice| {
        below(choice, &["message", "delta"], &mut |message| {
            below(message, &["audio"], &mut |audio| {
                below(audio, &["id"], &mut |id| found.extend(json::text(id).and_then(|id| named(&id))));
            });
        });
        true
    });
}

/// Calls `see` with the members of these names, if it is an object.
fn below(raw: &RawValue, names: &[&'static str], see: &mut dyn FnMut(&RawValue)) {
    if json::is_object(raw) {
        let _is_object = json::members(raw.get().as_bytes(), names, |_, raw| see(raw));
    }
}

/// The files with the results of a batch.
pub(super) fn results(message: &[u8], found: &mut Vec<Made>) {
    let _is_object = json::members(message, &["output_file_id", "error_file_id"], |_, raw| {
        found.extend(json::text(raw).and_then(|id| named(&id)));
    });
}

/// What is not dropped by itself.
const KEPT: &[&str] = &["file-", "file_", "vs_", "asst_", "thread_", "conv_", "upload_", "batch_"];

fn named(id: &str) -> Option<Made> {
    let passes = !KEPT.iter().any(|kept| id.starts_with(kept));
    ObjectName::parse(id).map(|name| Made { name, passes, chosen: None })
}

#[cfg(test)]
mod tests;
