//! What transcripts of a session are asked with: audio of items that were committed while something is to write them down.
//!
//! May use: the shared readers. The provider says which item has what was in the buffer, then what was said in it, at last
//! what it charged. Should it never say that, the length of the audio is what there is to go by.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use crate::providers::prompt::BYTES_PER_TOKEN;
use crate::providers::session::{Beside, Turn, TurnName, text_at};

/// Commits that no item has answered: a client has one.
const COMMITS_MAX: usize = 64;

/// Of 24 kHz in 16 bits, and of the formats of telephones.
const BYTES_PER_MS: u64 = 48;
const NARROW_BYTES_PER_MS: u64 = 8;

/// Ten tokens a second.
const MS_PER_TOKEN: u64 = 100;

/// The transcripts of one session.
#[derive(Debug, Default)]
pub(super) struct Transcripts {
    /// The model that writes down what is heard, as the provider says.
    model: Option<String>,
    /// The same as a client asked for it, until the provider answers.
    wanted: Option<String>,
    is_narrow: bool,
    /// Bytes of audio that no item has yet.
    buffered: u64,
    /// The client's ids of its commits that no item has answered, and their audio.
    commits: VecDeque<(Option<Box<str>>, u64)>,
}

impl Transcripts {
    /// A client changes the session: the model that it asks for.
    pub fn changes(&mut self, session: &RawValue) -> Option<String> {
        let wanted = transcription(session);
        self.wanted = wanted.clone().or(self.wanted.take());
        wanted
    }

    pub fn is_changed(&mut self, session: &RawValue) {
        (self.model, self.wanted) = (transcription(session), None);
        let format = text_at(session, &["audio", "input", "format", "type"])
            .or_else(|| text_at(session, &["input_audio_format"]))
            .unwrap_or_default();
        self.is_narrow = ["pcmu", "pcma", "g711"].iter().any(|narrow| format.contains(narrow));
    }

    pub fn hears(&mut self, base64: usize) {
        let bytes = u64::try_from(base64).unwrap_or(u64::MAX) / 4 * 3;
        self.buffered = self.buffered.saturating_add(bytes);
    }

    pub fn forgets(&mut self) {
        self.buffered = 0;
    }

    pub fn commits(&mut self, id: Option<Box<str>>) {
        let bytes = std::mem::take(&mut self.buffered);
        if self.model.is_some() || self.wanted.is_some() {
            if self.commits.len() == COMMITS_MAX {
                self.commits.pop_front();
            }
            self.commits.push_back((id, bytes));
        }
    }

    /// An error may be the answer to a commit.
    pub fn is_refused(&mut self, error: &RawValue) {
        if let Some(id) = text_at(error, &["event_id"]) {
            self.commits.retain(|(commit, _)| commit.as_deref() != Some(&*id));
        } else if text_at(error, &["code"]).is_some_and(|code| code.starts_with("input_audio_buffer_commit")) {
            self.commits.pop_front();
        }
    }

    pub fn are_asked(&self) -> bool {
        !self.commits.is_empty()
    }

    /// All that was heard and that no item has yet; `None` where nothing writes it down.
    pub fn asked(&self) -> Option<Beside> {
        let model = self.wanted.as_ref().or(self.model.as_ref())?;
        let bytes = self.commits.iter().fold(self.buffered, |sum, (_, bytes)| sum.saturating_add(*bytes));
        Some(Beside { model: model.clone(), goes: None, ..self.beside(0, Turn::Goes, bytes) })
    }

    /// What was in the buffer became an item.
    pub fn begins(&mut self, item: Option<TurnName>) -> Option<Beside> {
        let bytes = self.commits.pop_front().map_or_else(|| std::mem::take(&mut self.buffered), |(_, bytes)| bytes);
        item.filter(|_| self.model.is_some()).map(|item| self.beside(item, Turn::Goes, bytes))
    }

    /// Some of an item is written down, which may begin before all of it was heard.
    pub fn goes(&self, item: Option<TurnName>) -> Option<Beside> {
        Some(self.beside(item?, Turn::Goes, 0))
    }

    pub fn ends(&self, item: Option<TurnName>, state: Turn) -> Beside {
        Beside { goes: item.map(|item| (item, state)), ..self.beside(0, state, 0) }
    }

    fn beside(&self, item: TurnName, state: Turn, bytes: u64) -> Beside {
        let audio_ms = bytes.div_ceil(if self.is_narrow { NARROW_BYTES_PER_MS } else { BYTES_PER_MS });
        Beside {
            endpoint: "realtime.transcription",
            model: self.model.clone().unwrap_or_default(),
            goes: Some((item, state)),
            prompt_bytes: audio_ms.div_ceil(MS_PER_TOKEN).saturating_mul(BYTES_PER_TOKEN),
            audio_ms,
        }
    }
}

/// The model that writes down what is heard, if one is to.
fn transcription(session: &RawValue) -> Option<String> {
    text_at(session, &["audio", "input", "transcription", "model"])
        .or_else(|| text_at(session, &["input_audio_transcription", "model"]))
}
