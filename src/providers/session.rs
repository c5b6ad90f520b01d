//! What the messages of a session (a websocket) mean: which of a client's begins a turn, and which of a provider's says
//! what a turn charged.
//!
//! May use: `domain`. A turn is one generation: one chat, one event. A provider may begin one by itself, as when it hears
//! that somebody stopped speaking, so what makes it able to is admitted as if it did.

use serde_json::value::RawValue;

use super::AnswerReader;
use super::json;

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
}

/// Something that is billed beside the turns, and is no chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// Its name in events.
    pub endpoint: &'static str,
    /// The model that it was asked of.
    pub model: String,
}

/// Reads one session. It is shown whole messages, in the order in which they go on.
pub trait SessionReader: Send {
    /// The model that the session was opened for; `None` where a message will name it.
    fn model(&self) -> Option<&str>;

    /// Looks at a message of the client.
    fn client(&mut self, message: &[u8]) -> Asked;

    /// Looks at a message of the provider.
    fn server(&mut self, message: &[u8]) -> Tells;

    /// A reader of one turn, and of what is billed beside turns. Each of its pieces is a whole message.
    fn turn(&self) -> Box<dyn AnswerReader>;

    /// How many turns the client has asked for by itself that are not begun.
    fn asked(&self) -> usize;

    /// Whether turns that are begun come to their end without the client.
    fn ends_by_itself(&self) -> bool {
        true
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
