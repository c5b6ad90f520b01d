//! One line of a provider's table of routes, and how a request finds its line.
//!
//! May use: `domain`. The tables are allow lists: a path without a line is not forwarded, and a line says how its answers
//! are metered. Matching allocates nothing; common routes stand first.

use http::Method;
use memchr::memchr2;

use crate::domain::refusal::Refusal;

use super::{BodyRule, Endpoint, Kind, Reads};

/// One line.
#[derive(Debug)]
pub(super) struct Route {
    /// Its methods, as in an `Allow` header.
    pub(super) methods: &'static str,
    /// Its path. `{a,b}` is one of these, also within a segment, `{…}` any segment, `**` any rest, also none.
    pub(super) path: &'static str,
    /// The endpoint's name.
    pub(super) name: &'static str,
    /// How it counts.
    pub(super) kind: Kind,
    /// How its answers say what they charged.
    pub(super) reads: Reads,
    body: BodyRule,
}

/// A generation request.
pub(super) const fn chat(path: &'static str, name: &'static str, reads: Reads) -> Route {
    Route { methods: "POST", path, name, kind: Kind::Chat, reads, body: BodyRule::Json }
}

/// What is billed and no chat.
pub(super) const fn billed(path: &'static str, name: &'static str, reads: Reads) -> Route {
    Route { methods: "POST", path, name, kind: Kind::Billed, reads, body: BodyRule::Json }
}

/// What is billed, is no chat and comes as a form.
pub(super) const fn form(path: &'static str, name: &'static str, reads: Reads) -> Route {
    Route { methods: "POST", path, name, kind: Kind::Billed, reads, body: BodyRule::Form }
}

/// A session: a websocket, in which each turn is one chat.
pub(super) const fn session(path: &'static str, name: &'static str, reads: Reads) -> Route {
    Route { methods: "GET", path, name, kind: Kind::Chat, reads, body: BodyRule::Streamed }
}

/// What is not billed, and tells how something stands that is billed when it is done; a DELETE takes it away.
pub(super) const fn tells(methods: &'static str, path: &'static str, name: &'static str, reads: Reads) -> Route {
    Route { methods, path, name, kind: Kind::Unbilled, reads, body: BodyRule::Streamed }
}

/// What is not billed.
pub(super) const fn free(methods: &'static str, path: &'static str, name: &'static str) -> Route {
    Route { methods, path, name, kind: Kind::Unbilled, reads: Reads::Nothing, body: BodyRule::Streamed }
}

impl Route {
    /// The endpoint for a request with this path.
    pub(super) fn endpoint(&self, path: &str) -> Endpoint {
        let Self { methods: _, path: _, name, kind, reads, body } = *self;
        Endpoint { name, kind, reads, body, model: None, path: path.to_owned() }
    }
}

/// The first line whose path `fits` and that has the method.
pub(super) fn find(
    routes: &'static [Route],
    method: &Method,
    fits: impl Fn(&'static str) -> bool,
) -> Result<&'static Route, Refusal> {
    let has_method = |route: &Route| route.methods.split(", ").any(|name| name == method.as_str());
    if let Some(route) = routes.iter().find(|route| fits(route.path) && has_method(route)) {
        return Ok(route);
    }
    let others: Vec<&Route> = routes.iter().filter(|route| fits(route.path)).collect();
    // What only a wildcard fits is not known to be there at all.
    if others.iter().all(|route| route.path.ends_with("**")) {
        return Err(Refusal::UnknownRoute);
    }
    let mut allow: Vec<&str> = Vec::new();
    for method in others.iter().flat_map(|route| route.methods.split(", ")) {
        if !allow.contains(&method) {
            allow.push(method);
        }
    }
    Err(Refusal::MethodNotAllowed { allow: allow.join(", ") })
}

/// Whether a path is one of those that a pattern stands for.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    if memchr2(b'{', b'*', pattern.as_bytes()).is_none() {
        return pattern == path;
    }
    let (mut patterns, mut segments) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some(wanted), Some(segment)) if fits_segment(wanted, segment) => {}
            _ => return false,
        }
    }
}

fn fits_segment(wanted: &str, segment: &str) -> bool {
    let Some((before, rest)) = wanted.split_once('{') else { return wanted == segment };
    let (names, after) = rest.split_once('}').unwrap_or((rest, ""));
    let Some(segment) = segment.strip_prefix(before) else { return false };
    match names.contains(',') {
        true => names.split(',').any(|name| segment.strip_prefix(name).is_some_and(|rest| fits_segment(after, rest))),
        false => !segment.is_empty() && after.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_its_segments_and_no_others() {
        for (pattern, fitting, others) in [
            ("/v1/a", &["/v1/a"][..], &["/v1/a/", "/v1", "/v1/ab", "/v1/a/b", ""][..]),
            ("/{v1,v2}/{x}/b", &["/v1/a/b", "/v2/{x}/b"], &["/v3/a/b", "/v1//b", "/v1/a/c", "/v1/a", "/{v1,v2}/a/b"]),
            ("/a.{b,bc}.{d,de}", &["/a.b.d", "/a.bc.de"], &["/a.b.", "/a.b.def", "/a.bcd.d", "/x.b.d", "/a.b/d"]),
            ("/v1/a/**", &["/v1/a", "/v1/a/b", "/v1/a/b/c"], &["/v1/ab", "/v1", "/v2/a/b"]),
        ] {
            for path in fitting {
                assert!(fits(pattern, path), "{pattern} {path}");
            }
            for path in others {
                assert!(!fits(pattern, path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn the_first_line_with_the_method_wins_and_the_methods_of_all_are_named() {
        static ROUTES: [Route; 4] = [
            free("POST", "/v1/a", "first"),
            free("PATCH", "/v1/**", "rest"),
            free("GET, HEAD", "/v1/{x}", "second"),
            free("POST, DELETE", "/v1/{x}", "third"),
        ];
        let found = |method: Method, path: &'static str| {
            find(&ROUTES, &method, |pattern| fits(pattern, path)).map(|route| route.name)
        };
        assert_eq!(found(Method::POST, "/v1/a"), Ok("first"));
        assert_eq!(found(Method::POST, "/v1/b"), Ok("third"));
        assert_eq!(found(Method::HEAD, "/v1/a"), Ok("second"));
        assert_eq!(found(Method::PATCH, "/v1/b/c"), Ok("rest"));
        let allow = "PATCH, GET, HEAD, POST, DELETE".to_owned();
        assert_eq!(found(Method::PUT, "/v1/b"), Err(Refusal::MethodNotAllowed { allow }));
        assert_eq!(found(Method::POST, "/v1/b/c"), Err(Refusal::UnknownRoute));
    }
}
