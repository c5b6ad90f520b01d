//! Sessions of OpenAI's Realtime API: turns are its responses.
//!
//! May use: the shared readers. A client asks for a response by `response.create`; where the provider listens for the end
//! of speech (`turn_detection`, as it does unless told otherwise) audio can begin one, too. Each response says in its
//! `response.done` what it charged, several may run at once, and transcripts of what was heard are charged apart.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::value::RawValue;

use crate::domain::refusal::Refusal;
use crate::providers::objects::{Named, named_in_message};
use crate::providers::prompt::BYTES_PER_TOKEN;
use crate::providers::session::{Asked, SessionReader, Tells, Turn, TurnName, at, text_at};
use crate::providers::text::{Anchor, Found, anchor, unescaped, walk};
use crate::providers::told::Told;
use crate::providers::usage::{self, Output, Reported};
use crate::providers::{AnswerReader, Reading, json};

use super::objects::InSessions;

use transcripts::Transcripts;

mod transcripts;

/// Ids of what was asked and not begun, and of responses that run: a session has one or two.
const IDS_MAX: usize = 64;

/// A second of audio is 10 tokens of input and 20 of output, and 48,000 bytes unless a narrower format was chosen
/// (OpenAI's guide to the costs of the Realtime API).
const INPUT_BYTES_PER_TOKEN: u64 = 4_800;
const OUTPUT_BYTES_PER_TOKEN: u64 = 2_400;

/// Members of a client's message, in the order of `client` below.
const OF_CLIENT: &[&str] = &["type", "event_id", "session", "response", "item", "audio"];

/// Members of a provider's message, in the order of `server` below.
const OF_SERVER: &[&str] = &["type", "response_id", "response", "session", "error", "item_id"];

/// Reads one session.
#[derive(Debug)]
pub(super) struct Realtime {
    /// As the address named it; empty for a session that only transcribes.
    model: String,
    /// As the provider says.
    answers: Option<String>,
    transcripts: Transcripts,
    /// Whether the provider may answer what it hears.
    listens: bool,
    /// The client's ids of what it asked for and what is not begun.
    asked: VecDeque<Option<Box<str>>>,
    begun: VecDeque<TurnName>,
    context: u64,
}

impl Realtime {
    pub(super) fn new(model: String) -> Self {
        Self {
            model,
            answers: None,
            transcripts: Transcripts::default(),
            listens: true,
            asked: VecDeque::new(),
            begun: VecDeque::new(),
            context: 0,
        }
    }

    /// A client changes the session. What it forbids holds only once the provider says so; what it allows, at once.
    fn changes(&mut self, session: &RawValue) -> Option<String> {
        self.listens |= detection(session).is_some_and(answers_what_it_hears);
        self.transcripts.changes(session)
    }

    fn is_changed(&mut self, session: &RawValue) {
        self.answers = text_at(session, &["model"]).or(self.answers.take());
        self.transcripts.is_changed(session);
        let only_transcribes = text_at(session, &["type"]).as_deref() == Some("transcription");
        self.listens = !only_transcribes && detection(session).is_none_or(answers_what_it_hears);
    }

    /// The turn with this id; whether it was known.
    fn turn_named(&mut self, id: &RawValue) -> (TurnName, bool) {
        let name = name_of(id);
        let is_known = self.begun.contains(&name);
        if !is_known {
            self.asked.pop_front();
            if self.begun.len() == IDS_MAX {
                self.begun.pop_front();
            }
            self.begun.push_back(name);
        }
        (name, is_known)
    }

    fn is_done(&mut self, response: &RawValue) -> Option<(TurnName, Turn)> {
        let (name, _) = self.turn_named(at(response, &["id"])?);
        self.begun.retain(|begun| *begun != name);
        match at(response, &["usage"]).filter(|usage| json::is_object(usage)) {
            Some(usage) => {
                if let Ok(Reported { tokens, .. }) = usage::openai(usage, Output::Counted) {
                    self.context = tokens.total();
                }
                Some((name, Turn::Over))
            }
            None if text_at(response, &["status"]).as_deref() == Some("failed") => Some((name, Turn::Failed)),
            None => Some((name, Turn::Over)),
        }
    }

    /// An error may be the answer to something that was asked for, which then is not begun.
    fn is_refused(&mut self, error: &RawValue) {
        self.transcripts.is_refused(error);
        if let Some(id) = text_at(error, &["event_id"]) {
            self.asked.retain(|asked| asked.as_deref() != Some(&*id));
        } else if text_at(error, &["code"]).as_deref() == Some("conversation_already_has_active_response") {
            self.asked.pop_front();
        }
    }
}

impl SessionReader for Realtime {
    fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    fn client(&mut self, message: &[u8]) -> Asked {
        let mut found = [None; OF_CLIENT.len()];
        let parsed = json::members(message, OF_CLIENT, |index, raw| {
            if let Some(place) = found.get_mut(index) {
                *place = Some(raw);
            }
        });
        let [kind, id, session, response, item, audio] = if parsed.is_ok() { found } else { Default::default() };
        let kind = kind.and_then(json::text);
        let mut asked = Asked::default();
        let worth = |raw: Option<&RawValue>| raw.map_or(0, worth);
        match kind.as_deref() {
            Some("response.create") => {
                // More are refused by whoever admits them.
                self.asked.push_back(id.and_then(json::text).map(|id| id.into()));
                asked.turns = self.asked.len();
                asked.prompt_bytes = worth(response);
            }
            Some("session.update") => asked.models.extend(session.and_then(|session| self.changes(session))),
            Some("input_audio_buffer.append" | "input_audio_buffer.commit") => {
                asked.turns = if self.listens { self.asked.len() + 1 } else { 0 };
                asked.prompt_bytes = audio.map_or(0, |audio| heard(audio.get().len(), INPUT_BYTES_PER_TOKEN));
                asked.begins_beside = kind.as_deref() == Some("input_audio_buffer.commit");
                if let Some(audio) = audio {
                    self.transcripts.hears(audio.get().len());
                }
                if asked.begins_beside {
                    self.transcripts.commits(id.and_then(json::text).map(|id| id.into()));
                }
                asked.beside = self.transcripts.asked();
            }
            Some("input_audio_buffer.clear") => self.transcripts.forgets(),
            Some("conversation.item.create") => asked.prompt_bytes = worth(item),
            Some(
                "output_audio_buffer.clear"
                | "response.cancel"
                | "conversation.item.delete"
                | "conversation.item.retrieve"
                | "conversation.item.truncate",
            ) => {}
            // What is not known, or not read here as it may be there, may begin a turn.
            _ => asked.turns = self.asked.len() + 1,
        }
        asked
    }

    fn names(&self, message: &[u8]) -> Result<Vec<Named>, Refusal> {
        named_in_message::<InSessions>(message)
    }

    fn server(&mut self, message: &[u8]) -> Tells {
        let mut found = [None; OF_SERVER.len()];
        let parsed = json::members(message, OF_SERVER, |index, raw| {
            if let Some(place) = found.get_mut(index) {
                *place = Some(raw);
            }
        });
        let [kind, response_id, response, session, error, item] =
            if parsed.is_ok() { found } else { Default::default() };
        let mut tells = Tells::default();
        match kind.and_then(json::text).as_deref() {
            Some("session.created" | "session.updated") => {
                if let Some(session) = session {
                    self.is_changed(session);
                }
            }
            Some("response.done") => tells.turn = response.and_then(|response| self.is_done(response)),
            Some("error") => {
                if let Some(error) = error {
                    self.is_refused(error);
                }
            }
            Some("input_audio_buffer.committed") => tells.beside = self.transcripts.begins(item.map(name_of)),
            Some("conversation.item.input_audio_transcription.delta") => {
                tells.beside = self.transcripts.goes(item.map(name_of));
            }
            Some("conversation.item.input_audio_transcription.completed") => {
                tells.beside = Some(self.transcripts.ends(item.map(name_of), Turn::Over));
            }
            Some("conversation.item.input_audio_transcription.failed") => {
                tells.beside = Some(self.transcripts.ends(item.map(name_of), Turn::Failed));
            }
            _ => {
                let id = response_id.or_else(|| response.and_then(|response| at(response, &["id"])));
                tells.turn = id.map(|id| (self.turn_named(id).0, Turn::Goes));
            }
        }
        tells
    }

    fn turn(&self) -> Box<dyn AnswerReader> {
        let mut told = Told::default();
        told.model.clone_from(&self.answers);
        Box::new(Response { told, complete: false })
    }

    fn beside(&self) -> Box<dyn AnswerReader> {
        // No transcript is by the session's model: it is by the one that it was asked of.
        Box::new(Response { told: Told::default(), complete: false })
    }

    fn asked(&self) -> usize {
        self.asked.len()
    }

    fn asks_beside(&self) -> bool {
        self.transcripts.are_asked()
    }

    fn context_bytes(&self) -> u64 {
        self.context.saturating_mul(BYTES_PER_TOKEN)
    }
}

/// Reads one response, or one transcript.
#[derive(Debug)]
struct Response {
    told: Told,
    complete: bool,
}

/// Members of a message that say what a response charges.
const OF_RESPONSE: &[&str] = &["type", "delta", "response", "usage", "transcript"];

impl AnswerReader for Response {
    fn look(&mut self, message: &[u8]) {
        static DELTA: Anchor = anchor!("delta");
        static TRANSCRIPT: Anchor = anchor!("transcript");
        let mut found = [None; OF_RESPONSE.len()];
        let parsed = json::members(message, OF_RESPONSE, |index, raw| {
            if let Some(place) = found.get_mut(index) {
                *place = Some(raw);
            }
        });
        let [kind, delta, response, usage, transcript] = if parsed.is_ok() { found } else { Default::default() };
        match kind.and_then(json::text).as_deref() {
            Some("response.done") => {
                self.complete = true;
                if let Some(usage) =
                    response.and_then(|response| at(response, &["usage"])).filter(|raw| raw.get() != "null")
                {
                    self.told.used(usage::openai(usage, Output::Counted));
                }
            }
            Some(kind) if kind.ends_with("audio.delta") => {
                let heard = delta.map_or(0, |delta| heard(delta.get().len(), OUTPUT_BYTES_PER_TOKEN));
                self.told.output.bytes = self.told.output.bytes.saturating_add(heard);
            }
            Some(kind) if kind.ends_with(".delta") => self.told.output.collect(message, &DELTA),
            Some("conversation.item.input_audio_transcription.completed") => {
                self.complete = true;
                match usage.filter(|raw| raw.get() != "null") {
                    Some(usage) => self.told.used(usage::openai(usage, Output::Counted)),
                    None if transcript.is_some() => self.told.output.collect(message, &TRANSCRIPT),
                    None => {}
                }
            }
            _ => {}
        }
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn reading(&mut self) -> Reading {
        // One that was cancelled before its first word used nothing, and says so.
        self.told.reading(true, true)
    }
}

/// What so much base64 of audio is worth, in bytes of text.
fn heard(base64: usize, bytes_per_token: u64) -> u64 {
    (u64::try_from(base64).unwrap_or(u64::MAX) / 4).saturating_mul(3).div_ceil(bytes_per_token) * BYTES_PER_TOKEN
}

/// What an item, or the settings of a response, add to a prompt.
fn worth(raw: &RawValue) -> u64 {
    let mut bytes = 0u64;
    walk(raw.get().as_bytes(), |found| {
        if let Found::Text { of, text } = found {
            let worth = match of {
                b"audio" => heard(text.len(), INPUT_BYTES_PER_TOKEN),
                _ => u64::try_from(unescaped(text).len()).unwrap_or(u64::MAX),
            };
            bytes = bytes.saturating_add(worth);
        }
    });
    bytes
}

/// A session's `turn_detection`, where it stands now or stood in the beta.
fn detection(session: &RawValue) -> Option<&RawValue> {
    at(session, &["audio", "input", "turn_detection"]).or_else(|| at(session, &["turn_detection"]))
}

fn answers_what_it_hears(detection: &RawValue) -> bool {
    json::is_object(detection) && at(detection, &["create_response"]).is_none_or(|create| create.get() != "false")
}

pub(super) fn name_of(id: &RawValue) -> TurnName {
    let mut hasher = DefaultHasher::new();
    json::text(id).as_deref().unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
