//! Which provider serves a path, and the table of all routes.
//!
//! May use: `domain`, the providers beside it.

use std::borrow::Cow;

use http::Method;

use crate::domain::refusal::Refusal;

use super::gemini::{self, GEMINI, GEMINI_OPENAI};
use super::openai::{self, OPENAI};
use super::table::Route;
use super::{CredentialPlace, Endpoint, Kind, Provider, Reads, path};

/// One line of the table of routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The provider's short name.
    pub provider: String,
    /// Its methods, as in an `Allow` header.
    pub methods: &'static str,
    /// Its path; `{a,b}` is one of these segments, `{…}` any segment, `**` any rest, also none. Where it begins with
    /// `{model}`, that is any of [`places_of_models`].
    pub path: &'static str,
    /// The endpoint's name.
    pub name: &'static str,
    /// How it counts.
    pub kind: Kind,
    /// How its answers say what they charged.
    pub reads: Reads,
}

/// Finds who serves a request and as what, by its path (without the query) and where its credential stood.
///
/// Refuses with [`Refusal::UnknownRoute`] or [`Refusal::MethodNotAllowed`]; [`dialect_of`] says in whose words.
pub fn route(
    method: &Method,
    path: &str,
    place: CredentialPlace,
) -> Result<(&'static dyn Provider, Endpoint), Refusal> {
    let route = found(method, path, place)?;
    // A provider reads a letter in percent-encoding as the letter. Where that makes it another route, the call would be billed
    // as another than it is.
    if let Cow::Owned(plain) = path::with_plain_letters(path) {
        let same = |(provider, endpoint): &(&dyn Provider, Endpoint)| (provider.id(), endpoint.name, endpoint.kind);
        if !found(method, &plain, place).is_ok_and(|as_read| same(&as_read) == same(&route)) {
            return Err(Refusal::UnknownRoute);
        }
    }
    Ok(route)
}

fn found(method: &Method, path: &str, place: CredentialPlace) -> Result<(&'static dyn Provider, Endpoint), Refusal> {
    let (provider, path) = owner(path, place).ok_or(Refusal::UnknownRoute)?;
    Ok((provider, provider.endpoint(method, path)?))
}

/// Whose dialect a refusal is in when there is no route: OpenAI's, unless the path or the credential is Google's.
pub fn dialect_of(path: &str, place: CredentialPlace) -> &'static dyn Provider {
    match owner(path, place) {
        Some((provider, _)) => provider,
        None if place == CredentialPlace::Google || path.starts_with("/ws/") => &GEMINI,
        None => &OPENAI,
    }
}

/// Whether a path of Gemini's API is one that Vertex serves, which may be at another origin.
pub fn is_vertex(path: &str) -> bool {
    path.starts_with("/v1beta1/") || path.starts_with("/v1/projects/") || path.contains("/publishers/google/")
}

/// Whether a path is one that Gemini takes uploads at.
pub fn is_upload(path: &str) -> bool {
    path.starts_with("/upload/")
}

/// All routes, for documentation.
pub fn table() -> Vec<Row> {
    let tables: [(&dyn Provider, &[Route]); 3] =
        [(&OPENAI, openai::ROUTES), (&GEMINI, gemini::ROUTES), (&GEMINI_OPENAI, gemini::OPENAI_ROUTES)];
    let row = |provider: &dyn Provider, route: &Route| Row {
        provider: provider.id().as_str().to_owned(),
        methods: route.methods,
        path: route.path,
        name: route.name,
        kind: route.kind,
        reads: route.reads,
    };
    tables.into_iter().flat_map(|(provider, routes)| routes.iter().map(move |route| row(provider, route))).collect()
}

/// What `{model}` at the begin of a row's path stands for.
pub fn places_of_models() -> impl Iterator<Item = String> {
    gemini::MODELS.iter().map(|place| format!("{place}/{}", gemini::MODEL))
}

/// The provider whose path it is, and the path without our prefix.
fn owner(path: &str, place: CredentialPlace) -> Option<(&'static dyn Provider, &str)> {
    if let Some(path) = path.strip_prefix("/openai").filter(|path| path.starts_with('/')) {
        return Some((&OPENAI, path));
    }
    if let Some(path) = path.strip_prefix("/gemini").filter(|path| path.starts_with('/')) {
        return Some((google(path), path));
    }
    // Google's SDK for Node puts two slashes before its sessions.
    let path = path.strip_prefix('/').filter(|rest| rest.starts_with("/ws/")).unwrap_or(path);
    let first = path.strip_prefix('/')?.split('/').next()?;
    let provider = match first {
        // A websocket's key may have to stand in its address, whosoever it is.
        "v1" if openai::is_session_path(path) => &OPENAI as &'static dyn Provider,
        "v1" if place == CredentialPlace::Google || gemini::is_google_path(path) => &GEMINI,
        "v1" => &OPENAI,
        "v1beta" | "v1alpha" | "v1beta1" | "upload" | "download" | "ws" => google(path),
        _ => return None,
    };
    Some((provider, path))
}

fn google(path: &str) -> &'static dyn Provider {
    if path.starts_with(gemini::OPENAI_BASE) { &GEMINI_OPENAI } else { &GEMINI }
}

#[cfg(test)]
mod tests;
