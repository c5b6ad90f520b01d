//! Sessions of Gemini's Live API: a turn is what the model says until its `turnComplete`.
//!
//! May use: the shared readers. The model answers what it is asked and what it hears, so all that a client sends behind its
//! `setup` may begin a turn, except for the answer to a call of a tool inside one. `usageMetadata` stands in one of the
//! turn's messages, mostly its last; where it comes in one of its own behind the turn, the turn waits for it.

use serde_json::value::RawValue;

use crate::domain::refusal::Refusal;
use crate::providers::objects::{Named, named_in_message};
use crate::providers::prompt::BYTES_PER_TOKEN;
use crate::providers::session::{Asked, Beside, SessionReader, Tells, Turn, TurnName, at, text_at};
use crate::providers::text::{Anchor, Found, anchor, unescaped, walk};
use crate::providers::told::Told;
use crate::providers::usage::{self, Reported};
use crate::providers::{AnswerReader, Reading, json};

use super::objects::InGemini;
use super::wire::{Grounding, grounding_of};

/// A second of audio is 25 tokens (Google's guide to the Live API), and 32,000 bytes going in, 48,000 coming out.
const INPUT_BYTES_PER_TOKEN: u64 = 1_280;
const OUTPUT_BYTES_PER_TOKEN: u64 = 1_920;

/// A frame of a video, or an image.
const IMAGE_TOKENS: u64 = 258;

/// Members of a client's message, in the order of `client` below. Google's APIs read both spellings.
const OF_CLIENT: &[&str] =
    &["setup", "toolResponse", "tool_response", "clientContent", "client_content", "realtimeInput", "realtime_input"];

/// Members of a provider's message, in the order of `server` below.
const OF_SERVER: &[&str] = &["serverContent", "toolCall", "usageMetadata"];

/// Reads one session.
#[derive(Debug, Default)]
pub(super) struct Live {
    model: Option<String>,
    /// Of the turn that goes, or went last.
    number: TurnName,
    state: State,
    /// Questions that were put whole and are not begun.
    asked: usize,
    context: u64,
    /// The last usage that was read, to know it again.
    last_usage: Option<Box<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// The model says nothing.
    #[default]
    Silent,
    /// It does; whether it has said what that charged.
    Speaks { has_usage: bool },
    /// It is done, and has not said what that charged.
    Owes,
}

/// Usage objects are small.
const USAGE_BYTES_MAX: usize = 4 * 1024;

impl Live {
    /// Whether the message is part of what the model says.
    fn speaks(content: Option<&RawValue>, tool_call: Option<&RawValue>) -> bool {
        let has = |name| content.and_then(|content| at(content, &[name])).is_some_and(|value| value.get() != "null");
        tool_call.is_some() || has("modelTurn") || has("outputTranscription") || has("generationComplete")
    }

    /// Takes a usage object; whether it is a new one that charges something.
    fn charges(&mut self, usage: &RawValue) -> bool {
        let is_known = self.last_usage.as_deref() == Some(usage.get());
        self.last_usage = Some(usage.get()).filter(|text| text.len() <= USAGE_BYTES_MAX).map(Box::from);
        match usage::gemini(usage) {
            Ok(Reported { tokens, .. }) => {
                self.context = tokens.total();
                tokens.total() > 0 && !is_known
            }
            Err(_) => !is_known,
        }
    }

    fn is_over(&mut self) {
        self.state = State::Silent;
        self.asked = 0;
    }
}

impl SessionReader for Live {
    fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    fn client(&mut self, message: &[u8]) -> Asked {
        let (mut setup, mut answers, mut asks) = (None, false, false);
        let mut prompt_bytes = 0u64;
        let parsed = json::members(message, OF_CLIENT, |index, raw| match index {
            0 => {
                setup = Some(raw);
                prompt_bytes = prompt_bytes.saturating_add(worth(raw));
            }
            1 | 2 => {
                answers = true;
                prompt_bytes = prompt_bytes.saturating_add(worth(raw));
            }
            3 | 4 => {
                asks = ["turnComplete", "turn_complete"]
                    .iter()
                    .any(|name| at(raw, &[*name]).is_some_and(|complete| complete.get() == "true"));
                prompt_bytes = prompt_bytes.saturating_add(worth(raw));
            }
            _ => prompt_bytes = prompt_bytes.saturating_add(worth(raw)),
        });
        let model = setup.and_then(|setup| text_at(setup, &["model"])).map(|model| name_of(&model).to_owned());
        self.model = model.clone().or(self.model.take());
        let models = Vec::from_iter(model);
        let goes_on = answers && matches!(self.state, State::Speaks { .. });
        if parsed.is_ok() && is_object_of_one(message) && (setup.is_some() || goes_on) {
            return Asked { turns: 0, models, prompt_bytes, ..Asked::default() };
        }
        // What is not known, or not read here as it may be there, may begin a turn.
        let turns = self.asked + 1;
        self.asked += usize::from(asks);
        Asked { turns, models, prompt_bytes, ..Asked::default() }
    }

    fn names(&self, message: &[u8]) -> Result<Vec<Named>, Refusal> {
        named_in_message::<InGemini>(message)
    }

    fn server(&mut self, message: &[u8]) -> Tells {
        let (mut content, mut tool_call, mut usage) = (None, None, None);
        let parsed = json::members(message, OF_SERVER, |index, raw| match index {
            0 => content = Some(raw),
            1 => tool_call = Some(raw),
            _ => usage = Some(raw).filter(|usage| json::is_object(usage)),
        });
        if parsed.is_err() {
            return Tells::default();
        }
        let speaks = Self::speaks(content, tool_call);
        let is_complete =
            content.and_then(|content| at(content, &["turnComplete"])).is_some_and(|complete| complete.get() == "true");
        let charges = usage.is_some_and(|usage| self.charges(usage));
        let mut tells = Tells::default();
        if self.state == State::Owes {
            if usage.is_some() && !speaks {
                self.is_over();
                tells.turn = Some((self.number, Turn::Over));
                return tells;
            }
            if speaks || is_complete {
                tells.ended = Some(self.number);
                self.is_over();
            }
        }
        if self.state == State::Silent {
            let begins = speaks || (is_complete && charges);
            if !begins {
                // Said behind a turn that had its usage: charged, and of no turn.
                tells.beside = charges.then(|| {
                    let model = self.model.clone().unwrap_or_default();
                    Beside { endpoint: "bidiGenerateContent", model, ..Beside::default() }
                });
                self.asked = if is_complete { 0 } else { self.asked };
                return tells;
            }
            self.number += 1;
            self.asked = self.asked.saturating_sub(1);
            self.state = State::Speaks { has_usage: false };
        }
        if let State::Speaks { has_usage } = &mut self.state {
            *has_usage |= usage.is_some();
            let has_usage = *has_usage;
            let state = match (is_complete, has_usage) {
                (true, true) => {
                    self.is_over();
                    Turn::Over
                }
                (true, false) => {
                    self.state = State::Owes;
                    Turn::Goes
                }
                (false, _) => Turn::Goes,
            };
            tells.turn = Some((self.number, state));
        }
        tells
    }

    fn turn(&self) -> Box<dyn AnswerReader> {
        Box::new(Said::default())
    }

    fn asked(&self) -> usize {
        self.asked
    }

    fn context_bytes(&self) -> u64 {
        self.context.saturating_mul(BYTES_PER_TOKEN)
    }
}

/// Reads what the model says in one turn.
#[derive(Debug, Default)]
struct Said {
    told: Told,
    complete: bool,
}

impl AnswerReader for Said {
    fn look(&mut self, message: &[u8]) {
        static TEXT: Anchor = anchor!("text");
        static ARGS: Anchor = anchor!("args");
        let (mut content, mut usage, mut tool_call) = (None, None, None);
        let parsed = json::members(message, OF_SERVER, |index, raw| match index {
            0 => content = Some(raw),
            1 => tool_call = Some(raw),
            _ => usage = Some(raw),
        });
        if parsed.is_err() {
            return;
        }
        if let Some(usage) = usage.filter(|usage| usage.get() != "null") {
            self.told.used(usage::gemini(usage));
        }
        if let Some(calls) = tool_call {
            self.told.output.collect(calls.get().as_bytes(), &ARGS);
        }
        let Some(content) = content else { return };
        let Grounding { searches, others } = grounding_of(content);
        self.told.quantities.web_searches = self.told.quantities.web_searches.max(searches);
        self.told.uncounted |= others;
        self.complete |= at(content, &["turnComplete"]).is_some_and(|complete| complete.get() == "true");
        if let Some(turn) = at(content, &["modelTurn"]) {
            self.told.output.collect(turn.get().as_bytes(), &TEXT);
            let mut audio = 0;
            walk(turn.get().as_bytes(), |found| {
                if let Found::Text { of: b"data", text } = found {
                    audio += text.len();
                }
            });
            let heard = heard(audio, OUTPUT_BYTES_PER_TOKEN);
            self.told.output.bytes = self.told.output.bytes.saturating_add(heard);
        }
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn reading(&mut self) -> Reading {
        self.told.reading(true, true)
    }
}

/// Whether the message is an object of one member.
fn is_object_of_one(message: &[u8]) -> bool {
    let mut members = 0;
    json::values(message, |_| members += 1).is_ok() && members == 1
}

/// A model's name without its collection, as prices have it.
fn name_of(model: &str) -> &str {
    model.rsplit_once('/').map_or(model, |(_, name)| name)
}

/// What so much base64 of audio is worth, in bytes of text.
fn heard(base64: usize, bytes_per_token: u64) -> u64 {
    (u64::try_from(base64).unwrap_or(u64::MAX) / 4).saturating_mul(3).div_ceil(bytes_per_token) * BYTES_PER_TOKEN
}

/// What a part of a client's message adds to a prompt.
fn worth(raw: &RawValue) -> u64 {
    // Of a medium both the kind and the bytes are strings beside each other.
    let is_image = memchr::memmem::find(raw.get().as_bytes(), b"\"image/").is_some();
    let mut bytes = 0u64;
    walk(raw.get().as_bytes(), |found| {
        if let Found::Text { of, text } = found {
            let worth = match of {
                b"data" if is_image => IMAGE_TOKENS * BYTES_PER_TOKEN,
                b"data" => heard(text.len(), INPUT_BYTES_PER_TOKEN),
                _ => u64::try_from(unescaped(text).len()).unwrap_or(u64::MAX),
            };
            bytes = bytes.saturating_add(worth);
        }
    });
    bytes
}

#[cfg(test)]
mod tests;
