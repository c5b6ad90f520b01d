//! Which headers and which query go to the provider, and which come back to the client.
//!
//! Everything passes but what belongs to one connection (RFC 9110, 7.6.1), to this gateway, or to the account: a client
//! must not choose whose account at the provider is charged.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pingora_http::ResponseHeader;

use crate::domain::key;
use crate::domain::plan::{Metric, Scope};
use crate::domain::rate::RateMetric;
use crate::domain::refusal::Refusal;
use crate::metering::in_flight::LimitStanding;
use crate::metering::rates::RateRoom;
use crate::providers::CredentialHeader;

/// The event's id, on every answer.
pub const OUR_REQUEST_ID: HeaderName = HeaderName::from_static("x-tollgate-request-id");
/// The provider's id of the request, or ours where there is none.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Headers that are never passed on, in either direction: they are about one connection.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of a request that are never passed on: the framing is made anew, credentials and account are the gateway's,
/// a method override would turn a free GET into a billed POST, and a field mask would leave out what is billed.
const NOT_TO_PROVIDER: [&str; 21] = [
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "x-goog-user-project",
    "x-goog-fieldmask",
    "x-goog-iam-authorization-token",
    "x-goog-iam-authority-selector",
    "cookie",
    "openai-organization",
    "openai-project",
    "host",
    "content-length",
    "expect",
    "http2-settings",
    "accept-encoding",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-tollgate-user-id",
    "x-tollgate-kb-id",
];

/// Headers by whose names Vertex takes a call's service tier: by that of the body a call holds money.
const TIER_PREFIX: &str = "x-vertex-ai-llm-";

/// What the answer may be coded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is: something is to be taken out of it.
    Identity,
    /// gzip if the client takes it: the meter can read that.
    GzipIfAccepted,
    /// Whatever the client takes: nobody reads it here.
    AsAsked,
}

/// The headers of the request to the provider, without `Host`, `Content-Length` and credential. `presented` is the
/// client's credential: a header that repeats it is dropped, if it is a secret at all and not the name of a dev tenant. So is
/// one with another key of ours, such as the old one in a rotation or one in the address of a page (`Referer`).
pub fn to_provider(client: &HeaderMap, presented: &str, coding: Coding) -> HeaderMap {
    let nominated = nominated(client);
    let is_secret = key::is_well_formed(presented);
    let mut out = HeaderMap::with_capacity(client.len() + 4);
    for (name, value) in client {
        let dropped = is_hop_by_hop(name, &nominated)
            || NOT_TO_PROVIDER.contains(&name.as_str())
            || chooses_tier(name)
            || is_dashed_elsewhere(name)
            || (is_secret && memchr::memmem::find(value.as_bytes(), presented.as_bytes()).is_some())
            || key::is_in_bytes(value.as_bytes());
        if !dropped {
            out.append(name.clone(), value.clone());
        }
    }
    match (coding, client.get(header::ACCEPT_ENCODING)) {
        (Coding::AsAsked, Some(asked)) => out.append(header::ACCEPT_ENCODING, asked.clone()),
        (Coding::GzipIfAccepted, Some(asked)) if accepts_gzip(asked) => {
            out.append(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"))
        }
        _ => out.append(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
    };
    out
}

/// Refuses what says that its body is coded, or anything but JSON in UTF-8, where it is read as that: who goes by that reads
/// another body. Google's servers take members of a request from a form that is JSON as well. Plain text passes, as what sends
/// JSON without a type of its own (a browser's `fetch`) says so.
pub fn says_json(client: &HeaderMap) -> Result<(), Refusal> {
    if client.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::EncodedBody);
    }
    let said =
        client.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes).trim_ascii().to_ascii_lowercase();
    if said.starts_with(b"multipart/") || said.starts_with(b"application/x-www-form-urlencoded") {
        return Err(Refusal::FormBody);
    }
    // What puts two of the same together writes a comma.
    let is_json = std::str::from_utf8(&said)
        .is_ok_and(|said| said.is_empty() || said.split(',').all(|one| is_json_in_utf8(one.trim())));
    if is_json { Ok(()) } else { Err(Refusal::NotJson) }
}

/// Whether a type in small letters is of JSON, or of text that may be it, and names no charset but UTF-8, or one in which no
/// byte of ASCII is anything else: in that a body has the same members, and what is no UTF-8 is refused anyway.
fn is_json_in_utf8(said: &str) -> bool {
    let mut parts = said.split(';').map(str::trim);
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b));
    let is_json = match parts.next().and_then(|kind| kind.split_once('/')) {
        Some(("text", "plain")) => true,
        // Those of RPC have a frame around it.
        Some((kind, name)) if is_name(kind) && is_name(name) => {
            name == "json" || (name.ends_with("+json") && !name.starts_with("grpc") && !name.starts_with("connect"))
        }
        _ => false,
    };
    // A parameter that is not read as it was meant is refused rather than missed.
    let is_utf8 = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        !name.trim_start().starts_with("charset")
            || matches!(value, "utf-8" | "utf8" | "us-ascii" | "ascii" | "iso-8859-1")
    };
    is_json && parts.all(is_utf8)
}

/// The provider's own key as a header value; `None` when the key cannot stand in a header.
pub fn credential(form: CredentialHeader, key: &str) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(&format!("{}{key}", form.prefix)).ok()?;
    value.set_sensitive(true);
    Some((HeaderName::from_static(form.name), value))
}

/// Whether it asks for a service tier that the body does not name; however its dashes are written, as below.
fn chooses_tier(name: &HeaderName) -> bool {
    let name = name.as_str().bytes().map(|b| if b == b'_' { b'-' } else { b });
    name.take(TIER_PREFIX.len()).eq(TIER_PREFIX.bytes())
}

/// Whether a name is one of those that stay here for servers that read an underscore as a dash, as those do that put headers
/// into variables.
fn is_dashed_elsewhere(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is = |held: &&str| {
        held.len() == name.len() && held.bytes().eq(name.bytes().map(|b| if b == b'_' { b'-' } else { b }))
    };
    memchr::memchr(b'_', name.as_bytes()).is_some() && HOP_BY_HOP.iter().chain(&NOT_TO_PROVIDER).any(is)
}

/// The provider's head as the client gets it, with the headers of the gateway. `None` when a header cannot be written.
pub fn to_client(provider: &http::response::Parts, keep_length: bool) -> Option<ResponseHeader> {
    let nominated = nominated(&provider.headers);
    let mut out = ResponseHeader::build(provider.status, Some(provider.headers.len() + 6)).ok()?;
    for (name, value) in &provider.headers {
        let is_length = *name == header::CONTENT_LENGTH && !keep_length;
        if !is_length && !is_hop_by_hop(name, &nominated) {
            out.append_header(name.clone(), value.clone()).ok()?;
        }
    }
    Some(out)
}

/// The provider's trailers without what must not stand there (RFC 9110, 6.5.1): framing, and what is about a connection.
pub fn trailers_to_client(provider: HeaderMap) -> HeaderMap {
    let framing = [header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::CONTENT_TYPE, header::HOST];
    let mut out = HeaderMap::with_capacity(provider.len());
    for (name, value) in &provider {
        if !is_hop_by_hop(name, &[]) && !framing.contains(name) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// Puts the gateway's ids and the standing of the caller's limits and rates on an answer.
pub fn add_ours(
    answer: &mut ResponseHeader,
    id: &str,
    (limits, rates): (&[LimitStanding], &[RateRoom]),
    now: crate::domain::time::Micros,
) -> Option<()> {
    answer.insert_header(OUR_REQUEST_ID, id).ok()?;
    if !answer.headers.contains_key(&REQUEST_ID) {
        answer.insert_header(REQUEST_ID, id).ok()?;
    }
    let (policy, standing) = rate_limit(limits, rates, now);
    if !policy.is_empty() {
        answer.insert_header(RATE_LIMIT_POLICY, policy).ok()?;
        answer.insert_header(RATE_LIMIT, standing).ok()?;
    }
    Some(())
}

/// Nano-dollars in a micro-dollar.
const NANO_PER_MICRO: u64 = 1_000;

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
fn rate_limit(limits: &[LimitStanding], rates: &[RateRoom], now: crate::domain::time::Micros) -> (String, String) {
    use std::fmt::Write;
    let (mut policy, mut standing) = (String::new(), String::new());
    for LimitStanding { limit, period, bounds: [start, end], standing: at } in
        limits.iter().filter(|limit| limit.limit.scope == Scope::Tenant)
    {
        // These are whole numbers: cost is told in micro-dollars, what is left of it rounded down.
        let (metric, per_unit) = match limit.metric {
            Metric::Cost => ("cost-microusd", NANO_PER_MICRO),
            metric => (metric.as_str(), 1),
        };
        // The monthly limit is the plan's main one and has the plain name.
        let suffix = if period.window() == crate::domain::time::Window::Month { "" } else { "-day" };
        let comma = if policy.is_empty() { "" } else { ", " };
        let (max, remaining) = (limit.max / per_unit, at.remaining(limit.max) / per_unit);
        let resets = now.seconds_until(*end);
        // Writing to a String cannot fail.
        write!(policy, "{comma}\"{metric}{suffix}\";q={max};w={}", start.seconds_until(*end)).unwrap_or_default();
        write!(standing, "{comma}\"{metric}{suffix}\";r={remaining};t={resets}").unwrap_or_default();
    }
    for RateRoom { metric, max, left, resets_s } in rates {
        let name = match metric {
            RateMetric::Requests => "requests",
            // Tokens have limits of other windows, which are told by the plain name.
            RateMetric::Tokens => "tokens-minute",
            RateMetric::Concurrent => continue,
        };
        let comma = if policy.is_empty() { "" } else { ", " };
        write!(policy, "{comma}\"{name}\";q={max};w=60").unwrap_or_default();
        write!(standing, "{comma}\"{name}\";r={left};t={resets_s}").unwrap_or_default();
    }
    (policy, standing)
}

fn accepts_gzip(asked: &HeaderValue) -> bool {
    let Ok(asked) = asked.to_str() else { return false };
    asked.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = parts.any(|part| {
            matches!(
                part.split_once('=').map(|(k, v)| (k.trim(), v.trim())),
                Some(("q" | "Q", "0" | "0." | "0.0" | "0.00" | "0.000"))
            )
        });
        is_gzip && !is_refused
    })
}

/// The headers that `Connection` names: they too are about one connection.
fn nominated(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !name.is_empty() && name != "keep-alive" && name != "close").collect()
}

fn is_hop_by_hop(name: &HeaderName, nominated: &[String]) -> bool {
    HOP_BY_HOP.contains(&name.as_str()) || nominated.iter().any(|nominated| nominated == name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::{Limit, Standing};
    use crate::domain::time::{Micros, Window};

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn credentials_account_and_connection_headers_stay_here() {
        let secret = key::mint([7; 32]);
        let mut client = map(&[
            ("authorization", "Bearer secret"),
            ("x-goog-user-project", "p"),
            ("openai-organization", "o"),
            ("cookie", "c"),
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("x-http-method-override", "POST"),
            ("x_goog_user_project", "p"),
            ("transfer_encoding", "chunked"),
            ("x-vertex-ai-llm-shared-request-type", "priority"),
            ("x-vertex-ai-llm-request-type", "shared"),
            ("x_vertex_ai_llm_shared_request_type", "priority"),
            ("x-stainless-lang", "python"),
            ("accept-encoding", "gzip, br"),
        ]);
        client.insert("x-echo", HeaderValue::from_str(&format!("my {secret} is out")).unwrap());
        let out = to_provider(&client, &secret, Coding::GzipIfAccepted);
        let names: Vec<&str> = out.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-stainless-lang", "accept-encoding"]);
        assert_eq!(out["accept-encoding"], "gzip");
    }

    #[test]
    fn another_key_of_ours_stays_here_too() {
        let (presented, other) = (key::mint([7; 32]), key::mint([8; 32]));
        let mut client = map(&[("x-says", "keys begin with tg_live_"), ("x-other", "tg_test_1")]);
        for (name, value) in [
            ("x-old-token", other.clone()),
            ("referer", format!("https://app.example/?key={other}&a=b")),
            ("x-odd", format!("tg_live_ caf\u{e9} {other}")),
        ] {
            client.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        for presented in [presented.as_str(), "acme"] {
            let out = to_provider(&client, presented, Coding::Identity);
            let names: Vec<&str> = out.keys().map(HeaderName::as_str).collect();
            assert_eq!(names, ["x-says", "x-other", "accept-encoding"], "{presented}");
        }
    }

    #[test]
    fn every_limit_of_the_tenant_is_told_in_whole_numbers() {
        let now: Micros = "2026-11-24T10:00:00Z".parse().unwrap();
        let of = |scope, metric, window: Window, max, used| LimitStanding {
            limit: Limit { scope, metric, window, max },
            period: window.period(now),
            bounds: [window.period(now).start(), window.period(now).end()],
            standing: Standing { used, held: 0 },
        };
        let limits = [
            of(Scope::Tenant, Metric::Chats, Window::Month, 500, 1),
            of(Scope::User, Metric::Tokens, Window::Month, 9, 0),
            of(Scope::Tenant, Metric::Cost, Window::Day, 2_000_000_000, 1),
        ];
        let (policy, standing) = rate_limit(&limits, &[], now);
        assert_eq!(policy, r#""chats";q=500;w=2592000, "cost-microusd-day";q=2000000;w=86400"#);
        assert_eq!(standing, r#""chats";r=499;t=568800, "cost-microusd-day";r=1999999;t=50400"#);
        let rates = [
            RateRoom { metric: RateMetric::Requests, max: 60, left: 59, resets_s: 1 },
            RateRoom { metric: RateMetric::Tokens, max: 900, left: 0, resets_s: 60 },
        ];
        let (policy, standing) = rate_limit(&limits[..2], &rates, now);
        assert_eq!(policy, r#""chats";q=500;w=2592000, "requests";q=60;w=60, "tokens-minute";q=900;w=60"#);
        assert_eq!(standing, r#""chats";r=499;t=568800, "requests";r=59;t=1, "tokens-minute";r=0;t=60"#);
        assert_eq!(rate_limit(&limits[1..2], &[], now), (String::new(), String::new()), "a user's is not told");
    }

    #[test]
    fn a_body_that_is_read_as_json_is_not_said_to_be_a_form() {
        let said = |pairs: &[(&'static str, &'static str)]| says_json(&map(pairs));
        for fine in ["application/json", "Application/JSON; charset=utf-8", "text/plain;charset=UTF-8", ""] {
            assert_eq!(said(&[("content-type", fine)]), Ok(()), "{fine}");
        }
        for form in ["multipart/form-data; boundary=x", " Multipart/Related", "application/X-www-form-urlencoded"] {
            assert_eq!(said(&[("content-type", form)]), Err(Refusal::FormBody), "{form}");
        }
        assert_eq!((said(&[]), said(&[("content-encoding", "gzip")])), (Ok(()), Err(Refusal::EncodedBody)));
    }

    #[test]
    fn a_body_that_is_read_as_json_is_not_said_to_be_of_another_charset_or_format() {
        let said = |said| says_json(&map(&[("content-type", said)]));
        for fine in [
            "application/json;",
            "application/json; charset=\"utf8\"",
            "application/json; charset=us-ascii; odata=verbose",
            "application/vnd.toll+json",
            "text/json",
            "text/plain; charset=ISO-8859-1",
            "application/json, application/json; charset=ascii",
        ] {
            assert_eq!(said(fine), Ok(()), "{fine}");
        }
        for other in [
            "application/json; charset=utf-16",
            "application/json;charset=\"UTF-7\"",
            "application/json; a=\"b;c\"; Charset = utf-32",
            "application/json; charset=utf-8; charset=utf-16",
            "application/json; charset*=utf-16",
            "application/x-protobuf",
            "application/json+protobuf",
            "application/grpc+json",
            "application/x-protobuf, application/json",
            "application/json, application/x-protobuf",
            "application/json,",
            "application/octet-stream",
            "json",
        ] {
            assert_eq!(said(other), Err(Refusal::NotJson), "{other}");
        }
    }

    #[test]
    fn the_meter_only_asks_for_what_it_can_read() {
        for (asked, gzip) in
            [("gzip", true), ("br;q=1, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false), ("x-gzip", false)]
        {
            let client = map(&[("accept-encoding", asked)]);
            let want = if gzip { "gzip" } else { "identity" };
            assert_eq!(to_provider(&client, "s", Coding::GzipIfAccepted)["accept-encoding"], want, "{asked}");
            assert_eq!(to_provider(&client, "s", Coding::Identity)["accept-encoding"], "identity");
            assert_eq!(to_provider(&client, "s", Coding::AsAsked)["accept-encoding"], asked);
        }
    }
}
