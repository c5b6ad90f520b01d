//! Hostile clients and providers over raw sockets, against the real binary: each row is one kind of fault in all the forms
//! that it takes, and says of each form what comes back and what the provider gets.
//!
//! A table of what was tried stands at the end of `tests/run`. Floods and slow clients have tests of their own.

mod content;
mod syntax;
mod targets;
mod upstream;
mod who;

use std::io::{ErrorKind, Read};
use std::time::Duration;

use super::support::bodies::*;
use super::support::gateway::{GEMINI_KEY, OPENAI_KEY};
use super::support::machine::{figures, tell};
use super::support::provider::Seen;
use super::support::wire::Head;
use super::support::*;

/// A form that is not answered within this is not answered.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Stands in everything that must not get to a provider.
const CANARY: &str = "canary-9d1f";

/// What has to become of one form.
enum Comes {
    /// One refusal with one of these statuses, then the end of the connection; the provider hears nothing.
    Refused(&'static [u16]),
    /// A refusal of a request that is well formed; the provider hears nothing. The connection may live.
    Denied(&'static [u16]),
    /// The provider hears one request, of which this holds, and the client gets 200.
    Served(fn(&Seen) -> bool),
    /// The client is refused, or gets 200 for what the provider hears. The connection may live.
    ServedOrRefused(&'static [u16]),
}

/// One form of a fault.
struct Form {
    name: String,
    bytes: Vec<u8>,
    comes: Comes,
}

/// One kind of fault.
struct Row {
    /// `A1`: its number in the list of faults.
    number: &'static str,
    what: &'static str,
    forms: Vec<Form>,
}

impl Row {
    fn new(number: &'static str, what: &'static str) -> Self {
        Self { number, what, forms: Vec::new() }
    }

    fn form(mut self, name: impl Into<String>, bytes: impl Into<Vec<u8>>, comes: Comes) -> Self {
        self.forms.push(Form { name: name.into(), bytes: bytes.into(), comes });
        self
    }

    /// Forms that are all refused with one of these statuses.
    fn refused<N: Into<String>, B: Into<Vec<u8>>>(
        self,
        statuses: &'static [u16],
        forms: impl IntoIterator<Item = (N, B)>,
    ) -> Self {
        forms.into_iter().fold(self, |row, (name, bytes)| row.form(name, bytes, Comes::Refused(statuses)))
    }

    /// Forms of which the provider hears what is good of them.
    fn served<N: Into<String>, B: Into<Vec<u8>>>(
        self,
        holds: fn(&Seen) -> bool,
        forms: impl IntoIterator<Item = (N, B)>,
    ) -> Self {
        forms.into_iter().fold(self, |row, (name, bytes)| row.form(name, bytes, Comes::Served(holds)))
    }
}

/// Plays every form of every row and fails with all that went wrong.
fn play(gateway: &Gateway, provider: &Provider, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in rows {
        let (mut refused, mut heard) = (0, 0);
        for form in &row.forms {
            let before = provider.count();
            match play_form(gateway, provider, form) {
                Ok(true) => refused += 1,
                Ok(false) => {}
                Err(reason) => wrong.push(format!("{} {}: {reason}", row.number, form.name)),
            }
            heard += provider.count() - before;
        }
        assert!(!row.forms.is_empty(), "{}", row.number);
        let served = row.forms.len() - refused;
        let outcome = format!("{refused} refused, {served} made plain, {heard} requests at the provider");
        tell(row.number, row.what, row.forms.len(), &outcome);
    }
    assert!(wrong.is_empty(), "{} forms:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(gateway.send(&chat("after")).status, 200, "an ordinary call goes on");
}

/// Whether a form was refused, if what came is what has to come.
fn play_form(gateway: &Gateway, provider: &Provider, form: &Form) -> Result<bool, String> {
    let before = provider.count();
    let mut wire = Wire::open(gateway.proxy);
    wire.stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    // Whoever takes the form for something shorter than it is meets another request behind it.
    let behind = match form.comes {
        Comes::Refused(_) => hidden(),
        Comes::Denied(_) | Comes::Served(_) | Comes::ServedOrRefused(_) => Vec::new(),
    };
    // The gateway may have answered and closed before all is sent.
    drop(wire.try_send(&[form.bytes.as_slice(), &behind].concat()));
    let first = wire.answer().ok_or("no answer")?;
    let heard = provider.seen_from(before);
    if let Some(seen) = heard.iter().find(|seen| seen.everything().contains(CANARY)) {
        return Err(format!("the canary got to the provider: {}", seen.everything()));
    }
    if let Some(seen) = heard.iter().find(|seen| !is_ours(seen)) {
        return Err(format!("the provider got what is not the gateway's: {}", seen.everything()));
    }
    let text = first.text();
    let is_told = |statuses: &[u16]| {
        let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|body| body["error"].is_object());
        if !statuses.contains(&first.status) {
            Err(format!("{} and not one of {statuses:?}: {text}", first.status))
        } else if !is_json || text.contains(CANARY) {
            Err(format!("told by {text}"))
        } else if !heard.is_empty() {
            Err(format!("refused with {} and sent to the provider", first.status))
        } else {
            Ok(true)
        }
    };
    let ends = |wire: &mut Wire| match wire.answer() {
        Some(second) => Err(format!("answered with {} and then with {}", first.status, second.status)),
        None if !is_closed(wire) => Err(format!("{} and not closed", first.status)),
        None => Ok(()),
    };
    match form.comes {
        Comes::Refused(statuses) => {
            is_told(statuses)?;
            ends(&mut wire).map(|()| true)
        }
        Comes::Denied(statuses) => is_told(statuses),
        Comes::Served(holds) => match heard.as_slice() {
            [seen] if first.status == 200 && holds(seen) => Ok(false),
            _ => Err(format!("{} {text}, and the provider heard {heard:?}", first.status)),
        },
        Comes::ServedOrRefused(_) if first.status == 200 && heard.len() == 1 => Ok(false),
        Comes::ServedOrRefused(statuses) => is_told(statuses),
    }
}

/// Whether the gateway ends the connection, which silence is not.
fn is_closed(wire: &mut Wire) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match wire.stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// A request of another tenant that must never be served.
fn hidden() -> Vec<u8> {
    Request::get(format!("/v1/models/{CANARY}")).bearer("hidden").bytes()
}

/// Whether a request has exactly what the gateway puts on each: one host, its own key, one framing.
fn is_ours(seen: &Seen) -> bool {
    let of = |names: &[&str]| -> Vec<&str> {
        let named = seen.headers.iter().filter(|(name, _)| names.contains(&name.as_str()));
        named.map(|(_, value)| value.as_str()).collect()
    };
    let bearer = format!("Bearer {OPENAI_KEY}");
    matches!(of(&["authorization", "x-goog-api-key"]).as_slice(), [key] if *key == bearer || *key == GEMINI_KEY)
        && of(&["host"]).len() == 1
        && of(&["content-length", "transfer-encoding"]).len() <= 1
        && of(&["connection", "upgrade", "te", "trailer", "expect"]).is_empty()
}

/// A head of these lines.
fn head(line: &str, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("{line}\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

const LINE: &str = "POST /v1/chat/completions HTTP/1.1";
const HOST: &str = "Host: x";
const AUTH: &str = "Authorization: Bearer acme";
const JSON: &str = "Content-Type: application/json";
const CHUNKED: &str = "Transfer-Encoding: chunked";

/// The length of [`CHAT_REQUEST`] as a header.
fn length() -> String {
    format!("Content-Length: {}", CHAT_REQUEST.len())
}

/// A chat with these headers beside host, key and type, and its body.
fn chat_of(headers: &[&str]) -> Vec<u8> {
    let mut bytes = head(LINE, &[&[HOST, AUTH, JSON], headers].concat());
    bytes.extend_from_slice(CHAT_REQUEST.as_bytes());
    bytes
}

/// A chat with these bytes as its chunks.
fn chunked(body: &[u8]) -> Vec<u8> {
    [head(LINE, &[HOST, AUTH, JSON, CHUNKED]), body.to_vec()].concat()
}

/// A `GET` of the models with these headers beside the key.
fn get_with(line: &str, headers: &[&str]) -> Vec<u8> {
    head(line, &[&[AUTH], headers].concat())
}

fn is_chat(seen: &Seen) -> bool {
    seen.target == CHAT && seen.body == CHAT_REQUEST.as_bytes()
}

#[test]
fn the_table_has_its_rows() {
    let rows: Vec<Row> = syntax::rows().into_iter().chain(content::rows()).chain(targets::rows()).collect();
    let forms: usize = rows.iter().map(|row| row.forms.len()).sum();
    assert!(forms >= 121, "{forms} forms");
    figures(&format!("hostile: {} rows of {forms} forms over raw sockets, and those of who and upstream", rows.len()));
}
