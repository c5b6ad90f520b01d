//! Sessions of OpenAI's Live API, which speaks and listens at once: there are no turns in them, so a session is one.
//!
//! May use: the shared readers. It says in seconds what it charges, summed up from its begin, and the last sum counts.
//! What it delegates is charged apart, in tokens, by responses and decisions that say so themselves.

use serde_json::value::RawValue;

use crate::domain::refusal::Refusal;
use crate::providers::answer::Wire;
use crate::providers::objects::{Named, named_in_message};
use crate::providers::session::{Asked, Beside, SessionReader, Tells, Turn, TurnName, at, text_at};
use crate::providers::told::Told;
use crate::providers::usage;
use crate::providers::{AnswerReader, Reading, Reads, json};

use super::objects::InSessions;
use super::realtime::name_of;
use super::wire::OpenAiWire;

/// Members of a client's message, in the order of `client` below.
const OF_CLIENT: &[&str] = &["type", "session"];

/// Members of a provider's message, in the order of `server` below.
const OF_SERVER: &[&str] = &["type", "event", "usage", "delegation_id"];

/// Responses that are delegated at once. A client has one or two.
const RUNNING_MAX: usize = 64;

/// Where a session's configuration names models.
const MODELS: &[&[&str]] = &[&["model"], &["delegation", "responses", "model"], &["delegation", "decisions", "model"]];

/// Reads one session.
#[derive(Debug, Default)]
pub(super) struct Live {
    model: Option<String>,
    /// A session may be started again where it was closed.
    number: u64,
    is_open: bool,
    is_closing: bool,
    /// Responses that were delegated and have not ended.
    running: Vec<TurnName>,
}

impl SessionReader for Live {
    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn client(&mut self, message: &[u8]) -> Asked {
        let (mut kind, mut session) = (None, None);
        let parsed = json::members(message, OF_CLIENT, |index, raw| match index {
            0 => kind = json::text(raw),
            _ => session = Some(raw),
        });
        let kind = kind.filter(|_| parsed.is_ok());
        let models: Vec<String> =
            session.into_iter().flat_map(|session| MODELS.iter().filter_map(|names| text_at(session, names))).collect();
        if kind.as_deref() == Some("session.start") {
            self.model = session.and_then(|session| text_at(session, &["model"])).or(self.model.take());
        }
        self.is_closing |= kind.as_deref() == Some("session.close");
        // Whatever is sent to a session that does not run yet may start it.
        Asked { turns: usize::from(!self.is_open && !self.is_closing), models, ..Asked::default() }
    }

    fn names(&self, message: &[u8]) -> Result<Vec<Named>, Refusal> {
        named_in_message::<InSessions>(message)
    }

    fn server(&mut self, message: &[u8]) -> Tells {
        let (mut kind, mut event, mut usage, mut delegation) = (None, None, None, None);
        let parsed = json::members(message, OF_SERVER, |index, raw| match index {
            0 => kind = json::text(raw),
            1 => event = Some(raw),
            2 => usage = Some(raw),
            _ => delegation = Some(raw),
        });
        let kind = kind.filter(|_| parsed.is_ok());
        let mut tells = Tells::default();
        match kind.as_deref() {
            Some("session.closed") => {
                self.begin();
                tells.turn = Some((self.number, Turn::Over));
                (self.is_open, self.is_closing) = (false, false);
            }
            Some(kind) if kind.starts_with("session.") => {
                self.begin();
                tells.turn = Some((self.number, Turn::Goes));
                let told = usage.and_then(|usage| usage::lasted(at(usage, &["seconds"])).ok());
                tells.lasted_ms = told.and_then(|told| told.audio_ms);
            }
            Some("response.event") => tells.beside = event.and_then(|event| self.responds(event, delegation)),
            Some("decision.event") => tells.beside = event.and_then(decides),
            _ => {}
        }
        tells
    }

    fn turn(&self) -> Box<dyn AnswerReader> {
        Box::<Charged>::default()
    }

    fn asked(&self) -> usize {
        0
    }

    fn context_bytes(&self) -> u64 {
        0
    }

    fn ends_by_itself(&self) -> bool {
        // Without its client it only listens on, and charges for that.
        self.is_closing
    }

    fn charges_by_time(&self) -> bool {
        true
    }
}

impl Live {
    fn begin(&mut self) {
        if !self.is_open {
            self.number += 1;
            self.is_open = true;
        }
    }

    /// A response that was delegated begins, goes on or has ended. Where the one that it is delegated by has no id, only its
    /// begin and its end are known.
    fn responds(&mut self, event: &RawValue, delegation: Option<&RawValue>) -> Option<Beside> {
        let kind = text_at(event, &["type"])?;
        let has_ended = has_ended(&kind);
        let name = delegation.or_else(|| at(event, &["response", "id"])).map(name_of);
        let known = self.running.iter().position(|running| Some(*running) == name);
        let has_usage = at(event, &["response", "usage"]).is_some_and(json::is_object);
        let state = match known {
            Some(at) if has_ended => {
                self.running.swap_remove(at);
                if kind == "response.failed" && !has_usage { Turn::Failed } else { Turn::Over }
            }
            Some(_) => Turn::Goes,
            None if has_ended && has_usage => Turn::Over,
            None if kind == "response.created" && self.running.len() < RUNNING_MAX => {
                self.running.push(name?);
                Turn::Goes
            }
            None => return None,
        };
        let model = text_at(event, &["response", "model"]).unwrap_or_default();
        Some(Beside { endpoint: "live.responses", model, goes: name.map(|name| (name, state)), ..Beside::default() })
    }
}

/// Whether an event of a response is its last.
fn has_ended(kind: &str) -> bool {
    matches!(kind, "response.completed" | "response.incomplete" | "response.failed")
}

/// A decision that was made.
fn decides(event: &RawValue) -> Option<Beside> {
    let model = text_at(event, &["decision", "model"]).unwrap_or_default();
    at(event, &["decision", "usage"]).filter(|usage| json::is_object(usage)).map(|_| Beside {
        endpoint: "live.decisions",
        model,
        ..Beside::default()
    })
}

/// Reads what a session charges, or something that it delegated.
#[derive(Debug, Default)]
struct Charged {
    told: Told,
    complete: bool,
}

impl AnswerReader for Charged {
    fn look(&mut self, message: &[u8]) {
        let (mut kind, mut event, mut usage) = (None, None, None);
        let parsed = json::members(message, OF_SERVER, |index, raw| match index {
            0 => kind = json::text(raw),
            1 => event = Some(raw),
            2 => usage = Some(raw),
            _ => {}
        });
        let kind = kind.filter(|_| parsed.is_ok());
        match kind.as_deref() {
            Some("response.event") => {
                if let Some(event) = event {
                    OpenAiWire::told(Reads::Responses).read(event.get().as_bytes(), false, &mut self.told);
                    self.complete |= text_at(event, &["type"]).is_some_and(|kind| has_ended(&kind));
                }
            }
            Some("decision.event") => {
                if let Some(decision) = event.and_then(|event| at(event, &["decision"])) {
                    OpenAiWire::told(Reads::Responses).read(decision.get().as_bytes(), true, &mut self.told);
                }
                self.complete = true;
            }
            Some(kind) => {
                self.complete |= kind == "session.closed";
                if let Some(usage) = usage.filter(|usage| usage.get() != "null") {
                    self.told.used(usage::lasted(at(usage, &["seconds"])));
                }
            }
            None => {}
        }
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn reading(&mut self) -> Reading {
        self.told.reading(false, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::quantities::Quantities;
    use crate::domain::tokens::Tokens;

    const STARTED: &str = r#"{"type":"session.started","session":{"model":"gpt-live-1"}}"#;

    fn read(messages: &[&str]) -> (bool, Reading) {
        let mut reader = Live::default().turn();
        messages.iter().for_each(|message| reader.look(message.as_bytes()));
        (reader.is_complete(), reader.reading())
    }

    #[test]
    fn a_session_is_one_turn_from_its_start_to_its_end() {
        let mut session = Live::default();
        let start = br#"{"type":"session.start","session":{"model":"gpt-live-1","delegation":{"responses":{"model":"gpt-5"}}}}"#;
        let asked = session.client(start);
        assert_eq!((asked.turns, asked.models), (1, vec!["gpt-live-1".to_owned(), "gpt-5".to_owned()]));
        assert_eq!(session.model(), Some("gpt-live-1"));
        let audio = br#"{"type":"session.input_audio.append","audio":"AAAA"}"#;
        assert_eq!(session.client(audio).turns, 1);
        assert_eq!(session.server(STARTED.as_bytes()).turn, Some((1, Turn::Goes)));
        assert_eq!((session.client(audio).turns, session.client(b"broken").turns), (0, 0));
        assert!(!session.ends_by_itself());
        assert_eq!(session.server(br#"{"type":"error"}"#), Tells::default());
        session.client(br#"{"type":"session.close"}"#);
        assert!(session.ends_by_itself());
        let updated = br#"{"type":"session.usage.updated","usage":{"seconds":4.5}}"#;
        assert_eq!(session.server(updated).lasted_ms, Some(4_500));
        let closed = br#"{"type":"session.closed","usage":{"seconds":9.5}}"#;
        assert_eq!(session.server(closed).turn, Some((1, Turn::Over)));
        assert_eq!(session.client(start).turns, 1, "another is another");
        assert_eq!(session.server(STARTED.as_bytes()).turn, Some((2, Turn::Goes)));
    }

    #[test]
    fn its_seconds_are_a_sum_and_have_no_tokens() {
        let updated = r#"{"type":"session.usage.updated","usage":{"seconds":4.5}}"#;
        let closed = r#"{"type":"session.closed","usage":{"seconds":9}}"#;
        let (complete, reading) = read(&[STARTED, updated, updated, closed]);
        assert_eq!((complete, reading.tokens, reading.uncounted), (true, Some(Tokens::default()), false));
        assert_eq!(reading.quantities, Quantities { audio_ms: 9_000, ..Quantities::default() });
        assert!(!reading.distrusted);
        let (complete, reading) = read(&[STARTED]);
        assert_eq!((complete, reading.tokens, reading.quantities), (false, None, Quantities::default()));
        let lie = r#"{"type":"session.usage.updated","usage":{"seconds":"many"}}"#;
        let lie = read(&[updated, lie]).1;
        assert_eq!((lie.tokens, lie.quantities, lie.distrusted), (None, Quantities::default(), true));
    }

    #[test]
    fn what_is_delegated_is_charged_apart_by_its_own_model() {
        let usage = r#"{"input_tokens":11,"output_tokens":7,"total_tokens":18}"#;
        let response = |kind: &str| {
            format!(
                r#"{{"type":"response.event","event":{{"type":"{kind}","response":{{"model":"gpt-5-mini","usage":{usage}}}}}}}"#
            )
        };
        let decision = format!(
            r#"{{"type":"decision.event","event":{{"type":"decision.completed","decision":{{"model":"gpt-d","usage":{usage}}}}}}}"#
        );
        let mut session = Live::default();
        let mut beside =
            |message: &str| session.server(message.as_bytes()).beside.map(|beside| (beside.endpoint, beside.model));
        assert_eq!(beside(&response("response.completed")), Some(("live.responses", "gpt-5-mini".to_owned())));
        assert_eq!(
            beside(r#"{"type":"response.event","event":{"type":"response.output_text.delta","delta":"x"}}"#),
            None
        );
        assert_eq!(beside(&decision), Some(("live.decisions", "gpt-d".to_owned())));
        assert_eq!(
            beside(r#"{"type":"response.event","event":{"type":"response.completed","response":{"usage":null}}}"#),
            None
        );
        let event = |event: &str| format!(r#"{{"type":"response.event","delegation_id":"d","event":{{{event}}}}}"#);
        let begins = event(r#""type":"response.created","response":{"id":"r","model":"gpt-5-mini","usage":null}"#);
        let says = event(r#""type":"response.output_text.delta","delta":"Hello""#);
        let fails = event(r#""type":"response.failed","response":{"id":"r","usage":null}"#);
        let mut state = |message: &str| {
            session.server(message.as_bytes()).beside.and_then(|beside| beside.goes).map(|(_, state)| state)
        };
        assert_eq!(state(&says), None, "nothing was begun");
        assert_eq!(
            [&begins, &says, &fails].map(|message| state(message)),
            [Turn::Goes, Turn::Goes, Turn::Failed].map(Some)
        );
        assert_eq!(state(&says), None, "it has ended");
        let (complete, reading) = read(&[&begins, &says]);
        assert_eq!((complete, reading.tokens, reading.output_bytes), (false, None, 5));
        let tokens = Tokens { prompt: 11, completion: 7, ..Tokens::default() };
        for message in [response("response.completed"), decision] {
            let (complete, reading) = read(&[&message]);
            assert_eq!((complete, reading.tokens, reading.uncounted), (true, Some(tokens), false), "{message}");
        }
    }
}
