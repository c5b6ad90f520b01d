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

/// Whose letters a path is compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    /// The table's own.
    Exact,
    /// A server's to which small and capital letters are the same.
    Either,
}

impl Letters {
    /// Whether a name of the table stands for what a request says.
    pub(super) fn same(self, name: &str, said: &str) -> bool {
        match self {
            Self::Exact => name == said,
            Self::Either => name.eq_ignore_ascii_case(said),
        }
    }

    fn without_prefix<'a>(self, prefix: &str, said: &'a str) -> Option<&'a str> {
        let (begin, rest) = said.split_at_checked(prefix.len())?;
        self.same(prefix, begin).then_some(rest)
    }
}

/// The first line whose path `fits` and that has the method.
///
/// Refuses what a server that takes small and capital letters for the same would find another line for: the call would be
/// billed as another than it is. Names within a path keep their letters, which are theirs.
pub(super) fn find(
    routes: &'static [Route],
    method: &Method,
    fits: impl Fn(&'static str, Letters) -> bool,
) -> Result<&'static Route, Refusal> {
    let has_method = |route: &Route| route.methods.split(", ").any(|name| name == method.as_str());
    let first = |letters| routes.iter().find(|route| fits(route.path, letters) && has_method(route));
    if let Some(route) = first(Letters::Exact) {
        let is_same = first(Letters::Either).is_some_and(|other| other.path == route.path);
        return if is_same { Ok(route) } else { Err(Refusal::UnknownRoute) };
    }
    let others: Vec<&Route> = routes.iter().filter(|route| fits(route.path, Letters::Exact)).collect();
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
pub(super) fn fits(pattern: &str, path: &str, letters: Letters) -> bool {
    if memchr2(b'{', b'*', pattern.as_bytes()).is_none() {
        return letters.same(pattern, path);
    }
    let (mut patterns, mut segments) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), segments.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some(wanted), Some(segment)) if fits_segment(wanted, segment, letters) => {}
            _ => return false,
        }
    }
}

fn fits_segment(wanted: &str, segment: &str, letters: Letters) -> bool {
    let Some((before, rest)) = wanted.split_once('{') else { return letters.same(wanted, segment) };
    let (names, after) = rest.split_once('}').unwrap_or((rest, ""));
    let Some(segment) = letters.without_prefix(before, segment) else { return false };
    match names.contains(',') {
        true => names
            .split(',')
            .any(|name| letters.without_prefix(name, segment).is_some_and(|rest| fits_segment(after, rest, letters))),
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
                assert!(fits(pattern, path, Letters::Exact), "{pattern} {path}");
                assert!(fits(pattern, &path.to_uppercase(), Letters::Either), "{pattern} {path}");
            }
            for path in others {
                assert!(!fits(pattern, path, Letters::Exact), "{pattern} {path}");
                assert!(!fits(pattern, &path.to_uppercase(), Letters::Either), "{pattern} {path}");
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
            find(&ROUTES, &method, |pattern, letters| fits(pattern, path, letters)).map(|route| route.name)
        };
        assert_eq!(found(Method::POST, "/v1/a"), Ok("first"));
        assert_eq!(found(Method::POST, "/v1/b"), Ok("third"));
        assert_eq!(found(Method::HEAD, "/v1/a"), Ok("second"));
        assert_eq!(found(Method::PATCH, "/v1/b/c"), Ok("rest"));
        let allow = "PATCH, GET, HEAD, POST, DELETE".to_owned();
        assert_eq!(found(Method::PUT, "/v1/b"), Err(Refusal::MethodNotAllowed { allow }));
        assert_eq!(found(Method::POST, "/v1/b/c"), Err(Refusal::UnknownRoute));
        // What is the first line to some and the third to others is neither.
        assert_eq!(found(Method::POST, "/v1/A"), Err(Refusal::UnknownRoute));
        assert_eq!(found(Method::DELETE, "/v1/A"), Ok("third"));
    }
}
