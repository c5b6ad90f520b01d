//! Objects that Google keeps: where paths, bodies and answers name them.
//!
//! May use: `domain`, the shared readers. A name is a collection and an id, such as `files/1`, wherever it stands: below a
//! version, a project, a model, or in an address.

use http::Method;

use crate::domain::object::Made;
use crate::providers::json;
use crate::providers::objects::{Item, Makes, Named, Naming, Touches};
use crate::providers::{Call, Endpoint, Kind, Reads, path};

/// The collections of objects that calls make. What stands below one of them is its.
const COLLECTIONS: &[&str] = &["files", "cachedContents", "batches", "fileSearchStores", "interactions", "operations"];

/// In the names of hosts that serve objects. An address elsewhere is no object of the account's.
const HOSTS: &[&str] = &["generativelanguage", "aiplatform"];

/// What a request has to do with objects.
pub(super) fn touches(method: &Method, endpoint: &Endpoint) -> Touches {
    let is_post = *method == Method::POST;
    let makes = match (endpoint.kind, endpoint.reads, endpoint.name) {
        // What is asked for most names nothing in its path.
        (Kind::Chat, Reads::Interaction, _) => Makes::UnlessNotStored,
        (Kind::Billed, Reads::Cache | Reads::Batches, _) | (_, _, "predictLongRunning") => Makes::All,
        (Kind::Unbilled, _, "files" | "fileSearchStores") if is_post => Makes::All,
        // Also a DELETE, before which batches are looked into.
        (Kind::Unbilled, _, "files") => Makes::Nothing,
        (Kind::Unbilled, Reads::Batches, _) | (_, _, "operations") => Makes::Results,
        (Kind::Unbilled, _, "models") => Makes::Results,
        (Kind::Unbilled, ..) => Makes::Nothing,
        _ => return Touches::default(),
    };
    let refers = is_post && endpoint.kind == Kind::Unbilled && !endpoint.path.starts_with("/upload/");
    let decoded: Option<Vec<_>> = endpoint.path.split('/').skip(1).map(path::decoded).collect();
    let Some(segments) = decoded else {
        return Touches { named: Some(Named::nothing(&endpoint.path)), ..Touches::default() };
    };
    let at = segments.iter().position(|segment| COLLECTIONS.contains(&without_verb(segment)));
    let named = at.and_then(|at| Some((segments.get(at)?, segments.get(at + 1)?)));
    let named = named.map(|(of, id)| Named::of(&format!("{}/{}", without_verb(of), without_verb(id))));
    // A place of objects without the name of one.
    let lists = at.is_some() && named.is_none() && !is_post && endpoint.kind == Kind::Unbilled;
    // A model's own page makes nothing.
    let makes = if makes == Makes::Results && named.is_none() && !is_post { Makes::Nothing } else { makes };
    Touches { named, lists, refers, makes }
}

fn without_verb(segment: &str) -> &str {
    segment.split_once(':').map_or(segment, |(name, _)| name)
}

/// Whether a body that was read has to be looked through for names.
pub(super) fn may_refer(endpoint: &Endpoint, call: &Call) -> bool {
    match endpoint.reads {
        Reads::Generate | Reads::Embed | Reads::Interaction | Reads::Chat | Reads::ChatWithinTotal => call.refers,
        _ => true,
    }
}

/// How Google's bodies name objects.
pub(super) struct InGemini;

impl Naming for InGemini {
    const MEMBERS: &'static [&'static str] = &[
        "fileUri",
        "file_uri",
        "uri",
        "cachedContent",
        "cached_content",
        "previous_interaction_id",
        "previousInteractionId",
        "fileName",
        "file_name",
        "fileSearchStoreNames",
        "file_search_store_names",
        "operationName",
        // Behind the endpoint that is compatible with OpenAI's.
        "file_id",
    ];

    fn named(member: &str, text: &str) -> Option<Named> {
        match member {
            "fileUri" | "file_uri" | "uri" => of_address(text),
            "previous_interaction_id" | "previousInteractionId" => Some(Named::of(&format!("interactions/{text}"))),
            _ => Some(of_path(text)),
        }
    }

    fn item(_: &str, _: &Item) -> Option<Named> {
        None
    }
}

/// What an address names, if it is one of the account's: a name alone, or an address at Google's API.
fn of_address(address: &str) -> Option<Named> {
    let Some((scheme, rest)) = address.split_once("://") else {
        // What is inline is no object of the account.
        return (!address.starts_with("data:")).then(|| of_path(address));
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let authority = path::decoded(authority).unwrap_or_default().to_ascii_lowercase();
    let is_ours = scheme.to_ascii_lowercase().starts_with("http") && HOSTS.iter().any(|host| authority.contains(host));
    is_ours.then(|| of_path(path))
}

/// The object in a path, wherever it stands; none at all where there is none.
fn of_path(text: &str) -> Named {
    let path = text.split(['?', '#']).next().unwrap_or(text);
    let Some(path) = path::decoded(path).filter(|path| !path.contains('%')) else { return Named::nothing(text) };
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    // A server may read another name where these are.
    if segments.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
        return Named::nothing(text);
    }
    let at = segments.iter().position(|segment| COLLECTIONS.contains(segment));
    match at.and_then(|at| Some((segments.get(at)?, segments.get(at + 1)?))) {
        Some((of, id)) => Named::of(&format!("{of}/{}", without_verb(id))),
        None => Named::nothing(text),
    }
}

/// The objects that a message tells of.
pub(super) fn made(message: &[u8], found: &mut Vec<Made>) {
    let (mut name, mut file, mut id, mut interaction) = (None, None, None, None);
    let read = json::members(message, &["name", "file", "id", "interaction"], |index, raw| match index {
        0 => name = json::text(raw),
        1 => file = Some(raw),
        2 => id = json::text(raw),
        _ => interaction = Some(raw),
    });
    if read.is_err() {
        return;
    }
    found.extend(name.and_then(|name| noted(of_path(&name))));
    found.extend(id.and_then(|id| noted(Named::of(&format!("interactions/{id}")))));
    for below in [file, interaction].into_iter().flatten().filter(|raw| json::is_object(raw)) {
        made(below.get().as_bytes(), found);
    }
}

/// The files with the results of a batch or an operation.
pub(super) fn results(message: &[u8], found: &mut Vec<Made>) {
    let files = crate::providers::objects::references::<Results>(message).unwrap_or_default();
    found.extend(files.into_iter().filter_map(noted));
}

/// How results name files.
struct Results;

impl Naming for Results {
    const SKIPPED: &'static [&'static str] = &[];
    const MEMBERS: &'static [&'static str] = &["responsesFile", "uri"];

    fn named(_: &str, text: &str) -> Option<Named> {
        of_address(text).filter(|named| matches!(named, Named::Object(name) if name.as_str().starts_with("files/")))
    }

    fn item(_: &str, _: &Item) -> Option<Named> {
        None
    }
}

/// Files are kept for two days, interactions for some weeks; caches and batches end too. Stores stay.
fn noted(named: Named) -> Option<Made> {
    let Named::Object(name) = named else { return None };
    let passes = !name.as_str().starts_with("fileSearchStores/");
    Some(Made { name, passes })
}

#[cfg(test)]
mod tests;
