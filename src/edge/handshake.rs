//! The handshake of a websocket (RFC 6455, 4): what of it goes to the provider, and what comes back.
//!
//! `Sec-WebSocket-Key` and its answer pass, so the provider itself agrees with the client. `Sec-WebSocket-Extensions` does
//! not: without extensions frames are not compressed, and what they say can be read on their way. Browsers cannot set
//! headers and name their key as a protocol; it stays here, as keys do.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version, response};
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;

use crate::domain::refusal::Refusal;

use super::auth::{KEY_PROTOCOL, protocols};
use super::headers;

/// Protocols that choose an account at the provider, as the headers of these names do.
const ACCOUNT_PROTOCOLS: [&str; 2] = ["openai-organization.", "openai-project."];

/// Refuses a request that does not ask for a websocket as the protocol says.
pub fn check(session: &ServerSession) -> Result<(), Refusal> {
    let head = session.req_header();
    let names = |name: HeaderName, wanted: &str| {
        let values = head.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let asks = head.method == Method::GET
        && head.version == Version::HTTP_11
        && names(header::UPGRADE, "websocket")
        && names(header::CONNECTION, "upgrade")
        && names(header::SEC_WEBSOCKET_VERSION, "13")
        && head.headers.contains_key(header::SEC_WEBSOCKET_KEY);
    if asks { Ok(()) } else { Err(Refusal::NoUpgrade) }
}

/// Makes the headers for a provider, `out`, those of a handshake. `client` is what the client sent.
pub fn ask(client: &HeaderMap, out: &mut HeaderMap) {
    out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    out.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    out.remove(header::ACCEPT_ENCODING);
    out.remove(header::SEC_WEBSOCKET_PROTOCOL);
    let is_account = |protocol: &&str| ACCOUNT_PROTOCOLS.iter().any(|account| protocol.starts_with(account));
    let kept: Vec<&str> =
        protocols(client).filter(|protocol| !protocol.starts_with(KEY_PROTOCOL) && !is_account(protocol)).collect();
    if let Some(value) = Some(kept.join(", ")).filter(|kept| !kept.is_empty()).and_then(|kept| kept.parse().ok()) {
        out.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

/// The head that tells the client that its connection is switched. `None` when the provider did not switch as it was
/// asked: it agreed on an extension, which makes frames that nobody here can read.
pub fn agreed(provider: &response::Parts) -> Option<ResponseHeader> {
    let upgrade = provider.headers.get(header::UPGRADE)?.to_str().ok()?;
    let is_asked = provider.status == StatusCode::SWITCHING_PROTOCOLS
        && upgrade.eq_ignore_ascii_case("websocket")
        && !provider.headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
    let mut head = headers::to_client(provider, false).filter(|_| is_asked)?;
    head.insert_header(header::CONNECTION, "Upgrade").ok()?;
    head.insert_header(header::UPGRADE, "websocket").ok()?;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_key_and_the_account_stay_here_and_the_other_protocols_go_on() {
        let client = map(&[
            ("sec-websocket-protocol", "realtime, openai-insecure-api-key.tg_1 ,openai-organization.org"),
            ("sec-websocket-protocol", "openai-beta.realtime-v1"),
        ]);
        assert_eq!(super::super::auth::keys_in_protocols(&client).collect::<Vec<_>>(), ["tg_1"]);
        let mut out = map(&[("sec-websocket-extensions", "permessage-deflate"), ("sec-websocket-key", "k")]);
        ask(&client, &mut out);
        assert_eq!(out["sec-websocket-protocol"], "realtime, openai-beta.realtime-v1");
        assert_eq!(
            (&out["connection"], &out["upgrade"], &out["sec-websocket-key"]),
            (
                &HeaderValue::from_static("Upgrade"),
                &HeaderValue::from_static("websocket"),
                &HeaderValue::from_static("k")
            )
        );
        assert!(!out.contains_key("sec-websocket-extensions"));
        let mut out = HeaderMap::new();
        ask(&map(&[("sec-websocket-protocol", "openai-insecure-api-key.tg_1")]), &mut out);
        assert!(!out.contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn an_extension_that_was_not_offered_is_not_agreed_on() {
        let head = |pairs: &[(&'static str, &'static str)]| {
            let mut head = http::Response::builder().status(101).body(()).unwrap().into_parts().0;
            head.headers = map(pairs);
            agreed(&head).map(|head| head.headers.len())
        };
        assert_eq!(head(&[("upgrade", "WebSocket"), ("sec-websocket-accept", "a")]), Some(3));
        assert_eq!(head(&[("upgrade", "websocket"), ("sec-websocket-extensions", "permessage-deflate")]), None);
        assert_eq!(head(&[("upgrade", "h2c")]), None);
        assert_eq!(head(&[]), None);
    }
}
