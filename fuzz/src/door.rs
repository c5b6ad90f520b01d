//! What lets a request in: its credential, its query, and the signed address of an upload.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::control::Control;
use crate::domain::ids::KeyId;
use crate::domain::time::Micros;
use crate::providers::CredentialPlace;

#[path = "../../src/edge/auth.rs"]
mod auth;
#[path = "../../src/edge/query.rs"]
mod query;
#[path = "../../src/edge/ticket.rs"]
mod ticket;

use ticket::{Here, Ticket};

/// Percent-encoding undone by a reader that takes no shortcut.
fn decoded(text: &str) -> String {
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (bytes[at], digit(at + 1), digit(at + 2)) {
            out.push(u8::try_from(high * 16 + low).unwrap());
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A request has one credential or is refused: wherever another one could be read, it is the same one. Of the query nothing
/// goes on that is one, and nothing else is left out.
pub fn credentials(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (query, rest) = text.split_once('\n').unwrap_or((text, ""));
    let mut headers = HeaderMap::new();
    for line in rest.split('\n').take(16) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value.trim())) {
            headers.append(name, value);
        }
    }
    assert_eq!(query::percent_decoded(query), decoded(query));
    let name = |pair: &str| decoded(pair.split('=').next().unwrap());
    let in_query = query.split('&').filter(|pair| name(pair) == "key");
    let in_query = in_query.map(|pair| decoded(pair.split_once('=').map_or("", |(_, value)| value)));
    let mut all: Vec<String> = in_query.collect();
    let values = |name: &str| {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    all.extend(
        values("authorization").iter().filter_map(|value| value.split_once(' ')).map(|(_, key)| key.trim().to_owned()),
    );
    all.extend(values("x-goog-api-key").iter().chain(&values("api-key")).map(|value| value.trim().to_owned()));
    for protocol in values("sec-websocket-protocol").iter().flat_map(|value| value.split(',')) {
        all.extend(protocol.trim().strip_prefix("openai-insecure-api-key.").map(str::to_owned));
    }
    match auth::presented(&headers, Some(query)) {
        Ok(presented) => {
            assert!(!presented.secret.is_empty() && !all.is_empty());
            assert!(all.iter().all(|secret| *secret == *presented.secret), "{all:?}");
            assert_eq!(presented.place, auth::place(&headers, Some(query)));
            assert_ne!(presented.place, CredentialPlace::None);
        }
        Err(_) => assert!(
            all.is_empty()
                || all.len() > 1
                || all[0].is_empty()
                || headers.contains_key("authorization")
                || !headers.values().all(|value| value.to_str().is_ok())
        ),
    }
    if let Ok(attribution) = auth::attribution(&headers) {
        for id in [attribution.user_id, attribution.kb_id].into_iter().flatten() {
            assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        }
    }
    let passed = query::query_to_provider(query).unwrap_or_default();
    assert_eq!(query::keys_in_query(&passed).next(), None);
    let mut pairs = query.split('&');
    for pair in passed.split('&').filter(|pair| !pair.is_empty()) {
        assert!(pairs.any(|known| known == pair), "{pair} is new or out of order");
    }
    assert_eq!(query::query_to_provider(&passed).unwrap_or_default(), passed);
}

const SECRET: &str = "AIzaOfTheOperator";
const NOW: Micros = Micros(1_790_000_000_000_000);

/// An address of an upload says what was signed, and to whom; one that was changed says nothing.
pub fn uploads(data: &[u8]) {
    let mut control = Control(data);
    let (at, change) = (control.number(), control.byte());
    let key = (control.byte() % 2 == 0).then(|| KeyId::from_random(7));
    let Ok(text) = std::str::from_utf8(control.0) else { return };
    let (address, made_up) = text.split_once('\n').unwrap_or((text, ""));
    // Nobody guesses one.
    for text in [address, made_up] {
        assert!(Ticket::read(SECRET, "/upload/v1beta/files", Some(text), NOW).is_err(), "{text}");
        drop(Ticket::claimed(Some(text)));
    }
    let is_piece = ticket::is_piece(&HeaderMap::new(), Some(address));
    let names_one = address.split('&').any(|pair| decoded(pair.split('=').next().unwrap()) == "upload_id");
    assert!(is_piece || !(names_one || ticket::is_signed(Some(address))));
    let ticket = Ticket::new("acme".parse().unwrap(), key, NOW);
    let here = Here { origin: "http://gateway.test".to_owned(), prefix: String::new() };
    let Some(turned) = ticket.turned(address, SECRET, &here) else { return };
    assert!(turned.starts_with("http://gateway.test/upload/") && !turned.contains(SECRET), "{turned}");
    let Ok(uri) = turned.parse::<http::Uri>() else { return };
    assert_eq!(uri.host(), Some("gateway.test"));
    assert_eq!(Ticket::read(SECRET, uri.path(), uri.query(), NOW), Ok(ticket.clone()));
    assert_eq!(ticket.turned(&turned, SECRET, &here).as_ref(), Some(&turned), "turned twice it is signed once");
    assert!(Ticket::read("AIzaOfAnother", uri.path(), uri.query(), NOW).is_err());
    // Any other byte behind the path.
    let from = "http://gateway.test".len() + uri.path().len() + 1;
    let mut changed = turned.clone().into_bytes();
    let place = from + at % (changed.len() - from);
    changed[place] = b' ' + change % 95;
    if let Ok(changed) = String::from_utf8(changed)
        && changed != turned
        && let Ok(uri) = changed.parse::<http::Uri>()
        && let Ok(read) = Ticket::read(SECRET, uri.path(), uri.query(), NOW)
    {
        // What may be changed is what never goes to the provider, such as a key.
        assert_eq!(read, ticket);
        let passed = |uri: &http::Uri| uri.query().and_then(query::query_to_provider);
        assert_eq!(passed(&uri), passed(&turned.parse().unwrap()), "{changed}");
    }
}
