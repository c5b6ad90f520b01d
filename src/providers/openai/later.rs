//! What OpenAI finishes later than it answers: how units and their results are told.
//!
//! May use: `domain`, the shared readers. A batch says what it used when it is completed, since September 2025; older ones,
//! and those that ended before, say it line by line in their output file.

use serde_json::value::RawValue;

use super::wire::OpenAiWire;
use crate::domain::unit::{UnitName, UnitState};
use crate::providers::answer::{DONE, Message, Wire};
use crate::providers::json;
use crate::providers::session::text_at;
use crate::providers::told::Told;
use crate::providers::usage::{self, Output, Usages};
use crate::providers::{Reading, Reads, Results, ToldUnit};

/// The messages that tell of batches and of runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaterWire {
    /// Of which of the two.
    pub(super) reads: Reads,
    /// Whether it is the answer to what began the unit or moved it on. That charges nothing itself, whatever it says: the
    /// unit is billed once, by its name.
    pub(super) begins: bool,
}

/// Members of a message, in the order of `see` below.
const MEMBERS: &[&str] =
    &["id", "object", "status", "thread_id", "model", "usage", "output_file_id", "service_tier", "tools"];

/// How a response stands that says so.
pub(super) fn state_of_response(status: &str) -> Option<UnitState> {
    Some(match status {
        "queued" | "in_progress" => UnitState::Running,
        "completed" | "incomplete" => UnitState::Done,
        "failed" => UnitState::Failed,
        "cancelled" => UnitState::Cancelled,
        _ => return None,
    })
}

fn state_of_batch(status: &str) -> UnitState {
    match status {
        "completed" => UnitState::Done,
        "failed" => UnitState::Failed,
        "expired" | "cancelled" => UnitState::Cancelled,
        _ => UnitState::Running,
    }
}

fn state_of_run(status: &str) -> UnitState {
    match status {
        "completed" | "incomplete" => UnitState::Done,
        "failed" => UnitState::Failed,
        "expired" | "cancelled" => UnitState::Cancelled,
        _ => UnitState::Running,
    }
}

/// Whether a run has a tool that is charged by the time that it runs, or one that is not known here. What it did with its tools
/// is in its steps, which nobody asks for.
fn may_run_programs(tools: &RawValue) -> bool {
    let mut may = false;
    json::elements(tools.get().as_bytes(), |tool| {
        may |= !matches!(text_at(tool, &["type"]).as_deref(), Some("function" | "file_search"));
        true
    })
    .unwrap_or_default();
    may
}

impl LaterWire {
    fn read_members(self, message: &[u8], told: &mut Told) {
        let [mut id, mut object, mut status, mut thread, mut file] = [const { None }; 5];
        let (mut model, mut tier, mut tools) = (None, None, None);
        let mut usages = Usages::default();
        let parsed = json::members(message, MEMBERS, |index, raw| match index {
            0 => id = json::text(raw),
            1 => object = json::text(raw),
            2 => status = json::text(raw),
            3 => thread = json::text(raw),
            4 => model = Some(raw),
            5 => usages.push(raw),
            6 => file = json::text(raw),
            7 => tier = Some(raw),
            _ => tools = Some(raw),
        });
        let [id, object, status, thread] = [id, object, status, thread].map(Option::unwrap_or_default);
        let (name, state) = match self.reads {
            Reads::Batch if object == "batch" => (UnitName::of("batches", &id), state_of_batch(&status)),
            Reads::Run if object == "thread.run" => {
                let runs = UnitName::of("threads", &thread).map(|thread| format!("{thread}/runs"));
                (runs.and_then(|runs| UnitName::of(&runs, &id)), state_of_run(&status))
            }
            // Events of a run tell of its steps and messages as well.
            _ => return,
        };
        let Some(name) = name.filter(|_| parsed.is_ok()) else { return };
        if let Some(model) = model {
            told.answered_by(model);
        }
        if let Some(tier) = tier {
            told.served_at(tier);
        }
        let state = if self.begins { UnitState::Running } else { state };
        if state != UnitState::Running {
            told.uncounted |= self.reads == Reads::Run && tools.is_some_and(may_run_programs);
            usages.objects().for_each(|usage| {
                told.used(match self.reads {
                    Reads::Batch => usage::openai_unit(usage),
                    _ => usage::openai(usage, Output::Counted),
                });
            });
        }
        let file = file.and_then(|id| UnitName::of("files", &id)).filter(|_| state != UnitState::Running);
        let results = file.map_or(Results::None, |file| Results::File(format!("/v1/{file}/content")));
        told.unit = Some(Box::new(ToldUnit { name, state, results }));
    }
}

impl Wire for LaterWire {
    fn read(&self, message: &[u8], _whole: bool, told: &mut Told) -> Message {
        if message == DONE {
            return Message { usage_only: false, last: true };
        }
        self.read_members(message, told);
        Message::default()
    }

    fn nothing_is_possible(&self) -> bool {
        true
    }

    fn text_is_output(&self) -> bool {
        false
    }
}

/// Whether a file, by what is said of it, may hold the results of a batch: it is none that a client uploaded.
pub(super) fn may_be_results(file: &[u8]) -> bool {
    let mut purpose = None;
    json::members(file, &["purpose"], |_, raw| purpose = json::text(raw)).unwrap_or_default();
    let uploads = ["batch", "assistants", "fine-tune", "vision", "user_data", "evals"];
    purpose.is_none_or(|purpose| !uploads.contains(&&*purpose))
}

/// What a line of an output file says: what its request was answered. `None` where that was an error, which costs nothing.
pub(super) fn result(line: &[u8]) -> Option<Reading> {
    let (mut response, mut status, mut body) = (None, None, None);
    if json::members(line, &["response"], |_, raw| response = Some(raw)).is_err() {
        // What it used is not known.
        return Some(Reading::default());
    }
    let response = response.filter(|raw| json::is_object(raw))?;
    let answer = |index, raw| match index {
        0 => status = Some(raw),
        _ => body = Some(raw),
    };
    json::members(response.get().as_bytes(), &["status_code", "body"], answer).unwrap_or_default();
    if status.is_some_and(|status: &RawValue| matches!(status.get().as_bytes(), [b'4' | b'5', _, _])) {
        return None;
    }
    let body = body.map(|body| body.get().as_bytes()).unwrap_or_default();
    let (mut told, wire) = (Told::default(), OpenAiWire::told(reads_of(body)));
    wire.read(body, true, &mut told);
    Some(told.reading(wire.nothing_is_possible(), wire.text_is_output()))
}

/// How the answer of one request of a batch is read.
fn reads_of(body: &[u8]) -> Reads {
    let mut object = None;
    json::members(body, &["object"], |_, raw| object = json::text(raw)).unwrap_or_default();
    match object.as_deref() {
        Some("response") => Reads::Responses,
        Some("list") => Reads::Embeddings,
        Some("text_completion") => Reads::Completions,
        _ => Reads::Chat,
    }
}
