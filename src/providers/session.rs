//! What the messages of a session (a websocket) mean: which of a client's begins a turn, and which of a provider's says
//! what a turn charged.
//!
//! May use: `domain`. A turn is one generation: one chat, one event. A provider may begin one by itself, as when it hears
//! that somebody stopped speaking, so what makes it able to is admitted as if it did.

use serde_json::value::RawValue;

use crate::domain::refusal::Refusal;

use super::AnswerReader;
use super::json;
use super::objects::Named;

/// Names a turn within its session.
pub type TurnName = u64;

/// What a client's message needs before it may go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// So many turns have to be admitted and not yet answered.
    pub turns: usize,
    /// The models that it asks for.
    pub models: Vec<String>,
    /// What it adds to the prompt, in bytes of text.
    pub prompt_bytes: u64,
    /// What the provider may charge beside the turns then, of which it has told nothing yet.
    pub beside: Option<Beside>,
    /// Whether that begins with this message.
    pub begins_beside: bool,
}

/// How a turn stands after a provider's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// There is more of it to come.
    Goes,
    /// This was the last of it.
    Over,
    /// It failed, and nothing was charged.
    Failed,
}

/// What a provider's message says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tells {
    /// A turn that had ended before, without another word.
    pub ended: Option<TurnName>,
    /// The turn that the message belongs to, which begins with it if it is not known.
    pub turn: Option<(TurnName, Turn)>,
    /// It says what something beside the turns charged.
    pub beside: Option<Beside>,
    /// How long the turn has lasted by now, in milliseconds, where that is what is charged.
    pub lasted_ms: Option<u64>,
}

/// Something that is billed beside the turns, and is no chat.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beside {
    /// Its name in events.
    pub endpoint: &'static str,
    /// The model that it was asked of.
    pub model: String,
    /// Which it is and how it stands, where the provider is at work on it for a while. Else all of it is said at once.
    pub goes: Option<(TurnName, Turn)>,
    /// What it is asked with by this message, in bytes of text.
    pub prompt_bytes: u64,
    /// The same where its model is charged by the length of audio.
    pub audio_ms: u64,
}

/// Reads one session. It is shown whole messages, in the order in which they go on.
pub trait SessionReader: Send {
    /// The model that the session was opened for; `None` where a message will name it.
    fn model(&self) -> Option<&str>;

    /// Looks at a message of the client.
    fn client(&mut self, message: &[u8]) -> Asked;

    /// The objects of the account's that a message of the client names.
    fn names(&self, message: &[u8]) -> Result<Vec<Named>, Refusal>;

    /// Looks at a message of the provider.
    fn server(&mut self, message: &[u8]) -> Tells;

    /// A reader of one turn. Each of its pieces is a whole message.
    fn turn(&self) -> Box<dyn AnswerReader>;

    /// A reader of what is billed beside turns, by whole messages, too.
    fn beside(&self) -> Box<dyn AnswerReader> {
        self.turn()
    }

    /// How many turns the client has asked for by itself that are not begun.
    fn asked(&self) -> usize;

    /// Whether the client has asked for something beside the turns that is not begun.
    fn asks_beside(&self) -> bool {
        false
    }

    /// Whether turns that are begun come to their end without the client.
    fn ends_by_itself(&self) -> bool {
        true
    }

    /// Whether a turn is charged by how long it lasts, also while nobody says anything.
    fn charges_by_time(&self) -> bool {
        false
    }

    /// What the next turn has to read again of those before, in bytes of text.
    fn context_bytes(&self) -> u64;
}

/// The value that the names lead to, one object within the other.
pub(super) fn at<'a>(raw: &'a RawValue, names: &[&'static str]) -> Option<&'a RawValue> {
    names.iter().try_fold(raw, |raw, name| {
        let mut found = None;
        json::members(raw.get().as_bytes(), &[*name], |_, raw| found = Some(raw)).ok()?;
        found
    })
}

/// The text that the names lead to.
pub(super) fn text_at(raw: &RawValue, names: &[&'static str]) -> Option<String> {
    at(raw, names).and_then(json::text).map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::{CredentialPlace, route};
    use super::*;

    const PATHS: &[&str] = &[
        "/v1/realtime",
        "/v1/live/sessions",
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
    ];

    const MESSAGES: &[&str] = &[
        r#"{"type":"response.create","event_id":"e","response":{"instructions":"Say hi."}}"#,
        r#"{"type":"session.update","session":{"audio":{"input":{"turn_detection":null,"transcription":{"model":"m"}}}}}"#,
        r#"{"type":"response.created","response":{"id":"a","usage":null}}"#,
        r#"{"type":"response.output_audio.delta","response_id":"a","delta":"AAAA"}"#,
        r#"{"type":"response.done","response":{"id":"a","usage":{"input_tokens":9,"output_tokens":1,"total_tokens":10}}}"#,
        r#"{"type":"error","error":{"event_id":"e","code":"x"}}"#,
        r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{"type":"duration","seconds":1}}"#,
        r#"{"type":"session.closed","usage":{"seconds":4.5}}"#,
        r#"{"type":"response.event","event":{"type":"response.completed","response":{"model":"m","usage":{"input_tokens":1,"output_tokens":1}}}}"#,
        r#"{"setup":{"model":"models/m"}}"#,
        r#"{"clientContent":{"turns":[{"parts":[{"text":"Hi"}]}],"turnComplete":true}}"#,
        r#"{"realtimeInput":{"audio":{"data":"AAAA","mimeType":"audio/pcm"}}}"#,
        r#"{"serverContent":{"modelTurn":{"parts":[{"text":"Hi"},{"inlineData":{"data":"AAAA"}}]}}}"#,
        r#"{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":9,"responseTokenCount":1,"totalTokenCount":10}}"#,
    ];

    fn reader(path: &str) -> Box<dyn SessionReader> {
        let (provider, endpoint) = route(&Method::GET, path, CredentialPlace::Bearer).unwrap();
        provider.session(&endpoint, Some("model=m")).unwrap()
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_read_and_what_is_not_understood_is_admitted(
            path in select(PATHS),
            messages in proptest::collection::vec((select(MESSAGES), any::<Index>(), any::<Index>(), ".{0,3}"), 1..8)
        ) {
            let mut session = reader(path);
            for (message, from, to, instead) in messages {
                let mut changed = message.as_bytes().to_vec();
                let (from, to) = (from.index(changed.len() + 1), to.index(changed.len() + 1));
                changed.splice(from.min(to)..from.max(to), instead.bytes());
                let is_json = serde_json::from_slice::<serde_json::Value>(&changed).is_ok_and(|value| value.is_object());
                let asked = reader(path).client(&changed);
                prop_assert!(asked.turns > 0 || is_json, "{path} {:?}", String::from_utf8_lossy(&changed));
                session.client(&changed);
                session.server(&changed);
                let mut turn = session.turn();
                turn.look(message.as_bytes());
                turn.look(&changed);
                let tokens = turn.reading().tokens.unwrap_or_default();
                prop_assert!(tokens.checked().is_ok());
            }
        }
    }
}
