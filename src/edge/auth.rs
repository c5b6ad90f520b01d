//! The credential that a request presents, and the attribution beside it.

use std::fmt;
use std::net::IpAddr;

use http::header::{self, AUTHORIZATION, HeaderName};
use http::uri::Authority;
use http::{HeaderMap, Uri};
use secrecy::zeroize::Zeroizing;

use crate::domain::refusal::Refusal;
use crate::providers::CredentialPlace;

use super::query::keys_in_query;

/// `x-tollgate-user-id`.
pub const USER_ID: HeaderName = HeaderName::from_static("x-tollgate-user-id");
/// `x-tollgate-kb-id`.
pub const KB_ID: HeaderName = HeaderName::from_static("x-tollgate-kb-id");

/// What stands before a key among the protocols of a websocket: browsers cannot set headers for one.
pub(super) const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Attribution is at most this long: it keys groups in reports.
const ATTRIBUTION_CHARS_MAX: usize = 128;

/// One credential and where it stood. The credential is overwritten when it is dropped, and not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    /// The credential as it was sent.
    pub secret: Zeroizing<String>,
    /// Where it stood.
    pub place: CredentialPlace,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({:?})", self.place)
    }
}

/// Where a request presents its credential, whether or not it is any good. For the dialect of refusals.
pub fn place(headers: &HeaderMap, query: Option<&str>) -> CredentialPlace {
    if headers.contains_key("x-goog-api-key") || query.is_some_and(|query| keys_in_query(query).next().is_some()) {
        CredentialPlace::Google
    } else if headers.contains_key(AUTHORIZATION)
        || headers.contains_key("api-key")
        || keys_in_protocols(headers).next().is_some()
    {
        CredentialPlace::Bearer
    } else {
        CredentialPlace::None
    }
}

/// The one credential of a request. Two places may repeat the same one; two different ones are refused, since the
/// provider and the gateway might each choose another.
pub fn presented(headers: &HeaderMap, query: Option<&str>) -> Result<Presented, Refusal> {
    let mut secrets: Vec<Zeroizing<String>> = Vec::with_capacity(1);
    for value in headers.get_all(AUTHORIZATION) {
        let text = value.to_str().map_err(|_| Refusal::BadKey)?;
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::BadKey);
        }
        secrets.push(token.trim().to_owned().into());
    }
    for name in ["x-goog-api-key", "api-key"] {
        for value in headers.get_all(name) {
            secrets.push(value.to_str().map_err(|_| Refusal::BadKey)?.trim().to_owned().into());
        }
    }
    secrets.extend(query.into_iter().flat_map(keys_in_query).map(Zeroizing::new));
    secrets.extend(keys_in_protocols(headers).map(str::to_owned).map(Zeroizing::new));
    let (first, rest) = secrets.split_first().ok_or(Refusal::NoKey)?;
    if rest.iter().any(|other| other != first) {
        return Err(Refusal::TwoKeys);
    }
    if first.is_empty() {
        return Err(Refusal::NoKey);
    }
    Ok(Presented { secret: first.clone(), place: place(headers, query) })
}

/// Keys among the protocols of a request.
pub(super) fn keys_in_protocols(client: &HeaderMap) -> impl Iterator<Item = &str> {
    protocols(client).filter_map(|protocol| protocol.strip_prefix(KEY_PROTOCOL))
}

/// The protocols that a request of a websocket names.
pub(super) fn protocols(client: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = client.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// For whom a tenant makes a call, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attribution {
    /// `x-tollgate-user-id`.
    pub user_id: Option<Box<str>>,
    /// `x-tollgate-kb-id`.
    pub kb_id: Option<Box<str>>,
}

/// Refuses what a browser sends for a page that is not of this machine. Forms and websockets go anywhere without being asked
/// first, and both can name a key (`?key=`, [`KEY_PROTOCOL`]). What is no page, such as an app with an origin of its own scheme,
/// knows as much as any program here.
pub fn is_of_here(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_of_here = |origin: &[u8]| {
        let after = |scheme: &str| origin.strip_prefix(scheme.as_bytes());
        let Some(host) = after("http://").or(after("https://")) else { return origin != b"null" };
        let Ok(authority) = Authority::try_from(host) else { return false };
        let name = authority.host();
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
    };
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if origins.all(|origin| is_of_here(origin.as_bytes())) { Ok(()) } else { Err(Refusal::ForeignPage) }
}

/// Refuses a host that a name of the web can be: a page of that name asks without an `Origin` for what it takes for its own,
/// and its name may lead here by then. `ours` is the host that the operator says the gateway has.
pub fn is_host_of_here(uri: &Uri, headers: &HeaderMap, ours: Option<&str>) -> Result<(), Refusal> {
    let is_known = |host: &[u8]| {
        // HTTP/1.0 needs none, and browsers always say one.
        host.is_empty() || Authority::try_from(host).is_ok_and(|authority| is_no_public_name(authority.host(), ours))
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_known = hosts.all(|host| is_known(host.as_bytes().trim_ascii()))
        && uri.authority().is_none_or(|authority| is_no_public_name(authority.host(), ours));
    if is_known { Ok(()) } else { Err(Refusal::ForeignHost) }
}

/// Whether public DNS serves no such name: an address, a single label (as compose names services), `localhost`, `test`
/// (RFC 6761), or what Docker and Podman call the machine below. `local` and `internal` are not among them, as anybody near may serve those.
fn is_no_public_name(host: &str, ours: Option<&str>) -> bool {
    let host = host.to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok()
        || !host.contains('.')
        || host.ends_with(".localhost")
        || host.ends_with(".test")
        || ["host.docker.internal", "gateway.docker.internal", "host.containers.internal"].contains(&host.as_str())
        || ours.is_some_and(|ours| host.eq_ignore_ascii_case(ours))
}

/// The attribution of a request.
pub fn attribution(headers: &HeaderMap) -> Result<Attribution, Refusal> {
    let user_id = label(headers, &USER_ID, "x-tollgate-user-id")?;
    Ok(Attribution { user_id, kb_id: label(headers, &KB_ID, "x-tollgate-kb-id")? })
}

fn label(headers: &HeaderMap, name: &HeaderName, shown: &'static str) -> Result<Option<Box<str>>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| {
        (1..=ATTRIBUTION_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    });
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text.into())),
        _ => Err(Refusal::BadAttribution { header: shown }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    type Headers = &'static [(&'static str, &'static str)];
    type Row = (Headers, Option<&'static str>, Result<(&'static str, CredentialPlace), Refusal>);

    #[test]
    fn a_request_has_one_credential() {
        let google = CredentialPlace::Google;
        let rows: [Row; 14] = [
            (&[("authorization", "Bearer k")], None, Ok(("k", CredentialPlace::Bearer))),
            (&[("authorization", "bearer  k ")], None, Ok(("k", CredentialPlace::Bearer))),
            (&[("api-key", "k")], None, Ok(("k", CredentialPlace::Bearer))),
            (&[("x-goog-api-key", "k")], None, Ok(("k", google))),
            (&[], Some("key=k"), Ok(("k", google))),
            (&[("authorization", "Bearer k"), ("x-goog-api-key", "k")], None, Ok(("k", google))),
            (&[("authorization", "Bearer k"), ("x-goog-api-key", "l")], None, Err(Refusal::TwoKeys)),
            (&[("x-goog-api-key", "k")], Some("key=k&%6bey=l"), Err(Refusal::TwoKeys)),
            (&[("authorization", "Bearer k"), ("authorization", "Bearer l")], None, Err(Refusal::TwoKeys)),
            (&[("authorization", "Basic k")], None, Err(Refusal::BadKey)),
            (
                &[("sec-websocket-protocol", "realtime, openai-insecure-api-key.k")],
                None,
                Ok(("k", CredentialPlace::Bearer)),
            ),
            (
                &[("sec-websocket-protocol", "openai-insecure-api-key.k"), ("authorization", "Bearer l")],
                None,
                Err(Refusal::TwoKeys),
            ),
            (&[("authorization", "Bearer ")], None, Err(Refusal::NoKey)),
            (&[], None, Err(Refusal::NoKey)),
        ];
        for (headers, query, want) in rows {
            let got = presented(&map(headers), query);
            assert_eq!(
                got,
                want.map(|(secret, place)| Presented { secret: secret.to_owned().into(), place }),
                "{headers:?} {query:?}"
            );
        }
    }

    #[test]
    fn a_page_of_elsewhere_uses_no_name_as_a_key() {
        let here =
            ["http://localhost:3000", "https://app.localhost", "http://127.0.0.1", "http://[::1]:8080", "app://x"];
        let elsewhere = ["https://evil.example", "http://localhost.evil.example", "http://10.0.0.1", "null", "http://"];
        for origin in here {
            assert_eq!(is_of_here(&map(&[("origin", origin)])), Ok(()), "{origin}");
        }
        for origin in elsewhere {
            assert_eq!(is_of_here(&map(&[("origin", origin)])), Err(Refusal::ForeignPage), "{origin}");
        }
        assert_eq!(is_of_here(&map(&[])), Ok(()));
        assert!(is_of_here(&map(&[("origin", "http://localhost"), ("origin", "https://evil.example")])).is_err());
    }

    #[test]
    fn a_host_is_none_that_a_name_of_the_web_can_be() {
        let judge = |host: &'static str, ours| is_host_of_here(&Uri::from_static("/"), &map(&[("host", host)]), ours);
        for host in [
            "localhost:8080",
            "LOCALHOST",
            "a.localhost",
            "127.0.0.1:8080",
            "192.0.2.7",
            "[::1]:8080",
            "gateway",
            "gateway:8080",
            "host.docker.internal:8080",
            "a.test",
            "",
        ] {
            assert_eq!(judge(host, None), Ok(()), "{host}");
        }
        for host in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1.",
            "localhost.",
            "printer.local",
            "evil.internal",
            "a b",
        ] {
            assert_eq!(judge(host, None), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(judge("LLM.example:8443", Some("llm.example")), Ok(()));
        assert_eq!(judge("a.llm.example", Some("llm.example")), Err(Refusal::ForeignHost));
        let of_target = |uri| is_host_of_here(&Uri::from_static(uri), &map(&[]), None);
        assert_eq!((of_target("/"), of_target("http://localhost/")), (Ok(()), Ok(())));
        assert_eq!(of_target("http://evil.example/"), Err(Refusal::ForeignHost));
        assert!(
            is_host_of_here(&Uri::from_static("/"), &map(&[("host", "a"), ("host", "evil.example")]), None).is_err()
        );
    }

    #[test]
    fn attribution_is_short_printable_and_single() {
        assert_eq!(
            attribution(&map(&[("x-tollgate-user-id", "u 1")])),
            Ok(Attribution { user_id: Some("u 1".into()), kb_id: None })
        );
        assert!(attribution(&map(&[("x-tollgate-user-id", "")])).is_err());
        assert!(attribution(&map(&[("x-tollgate-kb-id", "a"), ("x-tollgate-kb-id", "b")])).is_err());
        let long: &'static str = Box::leak("x".repeat(129).into_boxed_str());
        assert!(attribution(&map(&[("x-tollgate-kb-id", long)])).is_err());
    }
}
