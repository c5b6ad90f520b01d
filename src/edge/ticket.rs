//! Tickets of resumable uploads: what stands in their addresses, signed, and says whose they are and until when.
//!
//! May use: `domain`, `providers`. Pure: the time and the provider's key come in as values.

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ring::hmac::{self, HMAC_SHA256};
use tracing::warn;

use crate::domain::ids::{KeyId, TenantId};
use crate::domain::refusal::Refusal;
use crate::domain::time::{MICROS_PER_SECOND, Micros};
use crate::providers::{self, CredentialPlace, Kind};

use super::query::{percent_decoded, query_to_provider};

/// The parameter of an address that signs it: `seconds.tenant.key.signature`.
const PARAMETER: &str = "tollgate_upload";

/// What signatures of addresses are made for: a key is never used for two things.
const PURPOSE: &[u8] = b"tollgate address of an upload 1";

/// How long an address can be used: a gibibyte over a thin line takes hours, and a file is kept for two days.
const USABLE_FOR_S: i64 = 24 * 60 * 60;

/// Headers of an answer that hold an address to send pieces to.
const ADDRESSES: [HeaderName; 3] = [
    HeaderName::from_static("x-goog-upload-url"),
    HeaderName::from_static("x-goog-upload-control-url"),
    header::LOCATION,
];

/// What a request of an upload does: `start`, `upload`, `upload, finalize`, `query`, `cancel`.
const COMMAND: &str = "x-goog-upload-command";

/// Whose an upload is, and until when its address is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) tenant: TenantId,
    /// `None` for a dev tenant.
    pub(super) key: Option<KeyId>,
    /// Seconds since 1970.
    until_s: i64,
}

/// Whether a request without a key may be let in by the address that it came to.
pub(super) fn is_signed(query: Option<&str>) -> bool {
    signatures(query).next().is_some()
}

/// Where the client sees the gateway.
pub(super) struct Here {
    /// `http://host:port`; empty where the client named no host: an address without an origin is at the same one.
    pub(super) origin: String,
    /// `/gemini` or nothing.
    pub(super) prefix: String,
}

impl Ticket {
    pub(super) fn new(tenant: TenantId, key: Option<KeyId>, now: Micros) -> Self {
        Self { tenant, key, until_s: seconds(now).saturating_add(USABLE_FOR_S) }
    }

    /// What the signature on an address says, whoever wrote it.
    pub(super) fn claimed(query: Option<&str>) -> Result<Self, Refusal> {
        let (claims, _) = signature(query)?;
        Self::parse(claims).ok_or(Refusal::BadUpload)
    }

    /// What the signature on an address says, if it is ours and still good.
    pub(super) fn read(secret: &str, path: &str, query: Option<&str>, now: Micros) -> Result<Self, Refusal> {
        let (claims, tag) = signature(query)?;
        let tag = hex::decoded(tag).ok_or(Refusal::BadUpload)?;
        let signed = to_sign(claims, path, query.and_then(unsigned).as_deref());
        hmac::verify(&signer(secret), &signed, &tag).map_err(|_| Refusal::BadUpload)?;
        let ticket = Self::parse(claims).ok_or(Refusal::BadUpload)?;
        if seconds(now) < ticket.until_s { Ok(ticket) } else { Err(Refusal::BadUpload) }
    }

    fn parse(claims: &str) -> Option<Self> {
        let mut parts = claims.split('.');
        let (until_s, tenant, key) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?);
        let key = if key.is_empty() { None } else { Some(key.parse().ok()?) };
        parts.next().is_none().then_some(Self { tenant, key, until_s })
    }

    fn claims(&self) -> String {
        let Self { tenant, key, until_s } = self;
        format!("{until_s}.{tenant}.{}", key.as_ref().map_or("", KeyId::as_str))
    }

    /// Turns the addresses of an answer to this gateway. One that cannot be turned is left out: whoever followed it would
    /// pass by the gateway.
    pub(super) fn lead_back(&self, answer: &mut HeaderMap, secret: &str, here: &Here) {
        for name in ADDRESSES {
            let Some(address) = answer.remove(&name) else { continue };
            let turned = address.to_str().ok().and_then(|address| self.turned(address, secret, here));
            match turned.and_then(|turned| HeaderValue::from_str(&turned).ok()) {
                Some(turned) => {
                    answer.insert(name, turned);
                }
                None => {
                    warn!(header = %name, "A provider gave an address for an upload that the gateway does not know.")
                }
            }
        }
    }

    pub(super) fn turned(&self, address: &str, secret: &str, here: &Here) -> Option<String> {
        let uri: http::Uri = address.parse().ok()?;
        let (_, endpoint) = providers::route(&Method::POST, uri.path(), CredentialPlace::Google).ok()?;
        let is_ours = endpoint.kind == Kind::Unbilled && providers::is_upload(&endpoint.path);
        let query = uri.query().and_then(query_to_provider).and_then(|query| unsigned(&query));
        let claims = self.claims();
        let tag = hmac::sign(&signer(secret), &to_sign(&claims, &endpoint.path, query.as_deref()));
        let (Here { origin, prefix }, path, tag) = (here, &endpoint.path, hex::encoded(tag.as_ref()));
        let query = query.map(|query| format!("{query}&")).unwrap_or_default();
        let turned = format!("{origin}{prefix}{path}?{query}{PARAMETER}={claims}.{tag}");
        // A provider may repeat in its address what it was asked with.
        (is_ours && !turned.contains(secret)).then_some(turned)
    }
}

/// Whether a request carries on an upload that was begun before. In doubt it does: then its address must be signed.
pub(super) fn is_piece(headers: &HeaderMap, query: Option<&str>) -> bool {
    let is_begin = |value: &HeaderValue| {
        let commands = value.to_str().unwrap_or_default();
        commands.split(',').any(|command| command.trim().eq_ignore_ascii_case("start"))
    };
    // However it is written: the provider would undo that, too.
    let is_id = |pair: &str| pair.split('=').next().map(percent_decoded).as_deref() == Some("upload_id");
    let names_one = |query: &str| query.split('&').any(is_id);
    is_signed(query) || query.is_some_and(names_one) || !headers.get_all(COMMAND).iter().all(is_begin)
}

fn seconds(at: Micros) -> i64 {
    at.0.div_euclid(MICROS_PER_SECOND)
}

fn signer(secret: &str) -> hmac::Key {
    let root = hmac::Key::new(HMAC_SHA256, secret.as_bytes());
    hmac::Key::new(HMAC_SHA256, hmac::sign(&root, PURPOSE).as_ref())
}

/// What is signed. None of the parts but the last holds a line feed, so no two addresses run together to the same text.
fn to_sign(claims: &str, path: &str, query: Option<&str>) -> Vec<u8> {
    format!("{claims}\n{path}\n{}", query.and_then(query_to_provider).unwrap_or_default()).into_bytes()
}

/// The one signature of an address: what it claims, and the tag.
fn signature(query: Option<&str>) -> Result<(&str, &str), Refusal> {
    let mut signatures = signatures(query);
    let (Some(signature), None) = (signatures.next(), signatures.next()) else { return Err(Refusal::BadUpload) };
    signature.rsplit_once('.').ok_or(Refusal::BadUpload)
}

fn signatures(query: Option<&str>) -> impl Iterator<Item = &str> {
    let pairs = query.into_iter().flat_map(|query| query.split('&'));
    pairs.filter_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))
}

/// The query without what signs it; `None` when nothing is left.
pub(super) fn unsigned(query: &str) -> Option<String> {
    let is_ours = |pair: &&str| pair.strip_prefix(PARAMETER).is_some_and(|rest| rest.starts_with('='));
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_ours(pair)).collect();
    let joined = kept.join("&");
    (!joined.is_empty()).then_some(joined)
}

mod hex {
    //! Lower-case hexadecimal digits.

    use std::fmt::Write;

    pub(super) fn encoded(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing to a String cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text
    }

    pub(super) fn decoded(text: &str) -> Option<Vec<u8>> {
        let digit = |byte: &u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        pairs.iter().map(|[high, low]| Some((digit(high)? << 4) | digit(low)?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "AIzaOfTheOperator";
    const GOOGLE: &str = "https://generativelanguage.googleapis.com/upload/v1beta/files";

    fn now() -> Micros {
        "2026-11-24T10:00:00Z".parse().unwrap()
    }

    fn ticket() -> Ticket {
        Ticket::new("acme".parse().unwrap(), Some(KeyId::from_random(7)), now())
    }

    fn here() -> Here {
        Here { origin: "http://gateway.test:8080".to_owned(), prefix: "/gemini".to_owned() }
    }

    fn turned(address: &str) -> String {
        ticket().turned(address, SECRET, &here()).unwrap()
    }

    /// What a request to an address finds in its signature.
    fn read(address: &str, secret: &str, at: Micros) -> Result<Ticket, Refusal> {
        let uri: http::Uri = address.parse().unwrap();
        let path = uri.path().strip_prefix("/gemini").unwrap_or(uri.path());
        Ticket::read(secret, path, uri.query(), at)
    }

    #[test]
    fn an_address_leads_back_and_says_whose_it_is() {
        let address = turned(&format!("{GOOGLE}?upload_id=ABC-_1&upload_protocol=resumable"));
        let begin = "http://gateway.test:8080/gemini/upload/v1beta/files?upload_id=ABC-_1&upload_protocol=resumable&";
        assert!(address.starts_with(begin), "{address}");
        assert_eq!(read(&address, SECRET, now()), Ok(ticket()));
        // Turned twice it is signed once, and a client may come with its key in the query.
        assert_eq!(turned(&address), address);
        assert_eq!(read(&format!("{address}&key=tg_live_x"), SECRET, now()), Ok(ticket()));
        let dev = Ticket { key: None, ..ticket() };
        let address = dev.turned(&format!("{GOOGLE}?upload_id=1"), SECRET, &here()).unwrap();
        assert_eq!(read(&address, SECRET, now()), Ok(dev));
    }

    #[test]
    fn any_other_character_another_key_or_time_is_refused() {
        let address = turned(&format!("{GOOGLE}?upload_id=ABC"));
        let from = address.find("/files").unwrap() + "/files?".len();
        for at in from..address.len() {
            let mut wrong = address.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(read(&wrong, SECRET, now()), Err(Refusal::BadUpload), "{wrong}");
        }
        for end in from..address.len() {
            assert_eq!(read(address.get(..end).unwrap(), SECRET, now()), Err(Refusal::BadUpload));
        }
        assert_eq!(read(&address.replace("v1beta", "v1alpha"), SECRET, now()), Err(Refusal::BadUpload));
        assert_eq!(read(&format!("{address}&upload_id=B"), SECRET, now()), Err(Refusal::BadUpload));
        let (_, signature) = address.split_once(PARAMETER).unwrap();
        let twice = format!("{address}&{PARAMETER}{signature}");
        assert_eq!(read(&twice, SECRET, now()), Err(Refusal::BadUpload));
        assert_eq!(read(&address, "AIzaOfAnother", now()), Err(Refusal::BadUpload));
        let after = |seconds: i64| Micros(now().0 + seconds * MICROS_PER_SECOND);
        assert_eq!(read(&address, SECRET, after(USABLE_FOR_S - 1)), Ok(ticket()));
        assert_eq!(read(&address, SECRET, after(USABLE_FOR_S)), Err(Refusal::BadUpload));
    }

    #[test]
    fn an_address_that_is_no_upload_or_tells_the_key_is_left_out() {
        for address in [
            "https://storage.googleapis.com/resumable/x?upload_id=1",
            "https://generativelanguage.googleapis.com/v1beta/models/gemini:generateContent",
            "https://generativelanguage.googleapis.com/upload/v1beta/../v1beta/files",
            "not an address",
            "",
        ] {
            assert_eq!(ticket().turned(address, SECRET, &here()), None, "{address}");
        }
        assert_eq!(ticket().turned(&format!("{GOOGLE}?upload_id=1&at={SECRET}"), SECRET, &here()), None);
        let without = turned(&format!("{GOOGLE}?key={SECRET}&upload_id=1"));
        assert!(!without.contains(SECRET) && read(&without, SECRET, now()).is_ok(), "{without}");
        let mut answer = HeaderMap::new();
        answer.insert("x-goog-upload-url", HeaderValue::from_static("https://elsewhere.test/x"));
        answer.insert("x-goog-upload-status", HeaderValue::from_static("active"));
        ticket().lead_back(&mut answer, SECRET, &here());
        assert_eq!(answer.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-goog-upload-status"]);
    }

    #[test]
    fn whatever_is_not_plainly_a_begin_is_a_piece() {
        let piece = |command: Option<&'static str>, query: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(command) = command {
                headers.insert(COMMAND, HeaderValue::from_static(command));
            }
            is_piece(&headers, query)
        };
        assert!(!piece(None, None) && !piece(Some("start"), Some("uploadType=multipart")));
        assert!(!piece(Some("start, upload, finalize"), None));
        for (command, query) in [
            (Some("upload, finalize"), None),
            (Some("query"), None),
            (Some(""), None),
            (None, Some("upload_id=1")),
            (None, Some("a=b&upload%5Fi%64=1")),
            (Some("start"), Some("a=b&upload_id=1")),
            (Some("start"), Some("tollgate_upload=x")),
        ] {
            assert!(piece(command, query), "{command:?} {query:?}");
        }
    }
}
