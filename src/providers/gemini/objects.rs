//! Objects that Google keeps: where paths, bodies and answers name them.
//!
//! May use: `domain`, the shared readers. A name is a collection and an id, such as `files/1`, wherever it stands: below a
//! version, a project, a model, or in an address.

use http::Method;
use serde_json::value::RawValue;

use crate::domain::object::Made;
use crate::providers::json;
use crate::providers::objects::{Item, Makes, Named, Naming, Touches};
use crate::providers::session::{at, text_at};
use crate::providers::{Endpoint, Kind, Reads, path};

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
        (Kind::Unbilled, _, "files") if is_post => Makes::Chosen,
        (Kind::Unbilled, _, "fileSearchStores") if is_post => Makes::All,
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
    let frees = *method == Method::DELETE && endpoint.name == "files";
    let at = segments.iter().position(|segment| COLLECTIONS.contains(&without_verb(segment)));
    let named = at.and_then(|at| Some((segments.get(at)?, segments.get(at + 1)?)));
    let named = named.map(|(of, id)| Named::of(&format!("{}/{}", without_verb(of), without_verb(id))));
    // A place of objects without the name of one.
    let lists = at.is_some() && named.is_none() && !is_post && endpoint.kind == Kind::Unbilled;
    // A model's own page makes nothing.
    let makes = if makes == Makes::Results && named.is_none() && !is_post { Makes::Nothing } else { makes };
    Touches { named, lists, refers, makes, frees }
}

fn without_verb(segment: &str) -> &str {
    segment.split_once(':').map_or(segment, |(name, _)| name)
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
        "operation_name",
        // Behind the endpoint that is compatible with OpenAI's.
        "file_id",
        "url",
        "image_url",
        "file_url",
    ];

    fn named(member: &str, text: &str) -> Option<Named> {
        match member {
            "fileUri" | "file_uri" | "uri" => of_address(text),
            "url" | "image_url" | "file_url" => of_any_address(text),
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
    let is_ours =
        scheme.trim().to_ascii_lowercase().starts_with("http") && HOSTS.iter().any(|host| authority.contains(host));
    is_ours.then(|| of_path(path))
}

/// What is named where any address may stand, and media themselves: a file of the account's by its address, or by its name
/// alone.
fn of_any_address(text: &str) -> Option<Named> {
    match of_address(text)? {
        Named::Nothing(_) if !text.contains("://") => None,
        named => Some(named),
    }
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

/// The file that an upload made. Its name may be one that another file had before, until that was deleted or its time was
/// over: of the two, that which was made later is there. An upload's end may be told again long after it.
pub(super) fn uploaded(message: &[u8], found: &mut Vec<Made>) {
    let Ok(message) = serde_json::from_slice::<&RawValue>(message) else { return };
    let made = text_at(message, &["file", "name"]).and_then(|name| noted(of_path(&name)));
    let chosen = text_at(message, &["file", "createTime"]).and_then(|at| at.parse().ok());
    found.extend(made.map(|made| Made { chosen, ..made }));
}

/// The files with the results of a batch or an operation, where Google names them: elsewhere an answer repeats what clients
/// said.
pub(super) fn results(message: &[u8], found: &mut Vec<Made>) {
    let Ok(message) = serde_json::from_slice::<&RawValue>(message) else { return };
    let of_batches: [&[&str]; 2] = [&["metadata", "output", "responsesFile"], &["response", "responsesFile"]];
    found.extend(of_batches.iter().filter_map(|names| result(&text_at(message, names)?)));
    if let Some(samples) = at(message, &["response", "generateVideoResponse", "generatedSamples"]) {
        let _is_array = json::elements(samples.get().as_bytes(), |sample| {
            found.extend(text_at(sample, &["video", "uri"]).and_then(|uri| result(&uri)));
            true
        });
    }
}

fn result(address: &str) -> Option<Made> {
    let is_file = |named: &Named| matches!(named, Named::Object(name) if name.as_str().starts_with("files/"));
    of_address(address).filter(is_file).and_then(noted)
}

/// Files are kept for two days, interactions for some weeks; caches and batches end too. Stores stay.
fn noted(named: Named) -> Option<Made> {
    let Named::Object(name) = named else { return None };
    let passes = !name.as_str().starts_with("fileSearchStores/");
    Some(Made { name, passes, chosen: None })
}

#[cfg(test)]
mod tests;
