//! How operations are written for the script, and its answers read.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use redis::{Cmd, Value};

use crate::domain::counting::Counting;
use crate::domain::ids::EventId;
use crate::domain::plan::{Metric, Scope, Subject};
use crate::domain::time::{Period, Window};
use crate::ports::counters::CounterKey;
use crate::ports::shared::{CallState, Count, Epoch, Listing, NodeId, Note};

/// Lua's numbers are doubles: whole ones are exact up to this.
pub(super) const EXACT_MAX: u64 = (1 << 53) - 1;

/// Half of what a 64-bit sum in Redis holds: what is added to it later still fits.
const SUM_MAX: u64 = 1 << 62;

/// The arguments of one operation behind its name and time, in one piece of memory.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// An answer, read from its front.
#[derive(Debug)]
pub(super) struct Answer(std::vec::IntoIter<Value>);

/// It is not what the script answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strange;

impl Arguments {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.end()
    }

    pub(super) fn text(&mut self, text: impl std::fmt::Display) -> &mut Self {
        // Writing to memory does not fail.
        drop(write!(self.bytes, "{text}"));
        self.end()
    }

    pub(super) fn flag(&mut self, flag: bool) -> &mut Self {
        self.bytes(if flag { b"1" } else { b"0" })
    }

    pub(super) fn count(&mut self, list: &[impl Sized]) -> &mut Self {
        self.text(list.len())
    }

    /// A number that the script computes with; larger ones count as the largest.
    pub(super) fn exact(&mut self, number: u64) -> &mut Self {
        self.text(number.min(EXACT_MAX))
    }

    /// A sum that is kept.
    pub(super) fn sum(&mut self, number: u64) -> &mut Self {
        self.text(number.min(SUM_MAX))
    }

    pub(super) fn nothing(&mut self) -> &mut Self {
        self.end()
    }

    pub(super) fn epoch(&mut self, epoch: Epoch) -> &mut Self {
        self.text(format_args!("{:032x}", epoch.0))
    }

    pub(super) fn id(&mut self, id: EventId) -> &mut Self {
        self.bytes(&id.to_bytes())
    }

    pub(super) fn counter(&mut self, counter: &CounterKey) -> &mut Self {
        self.text(Named(counter))
    }

    /// A call: its id, and how it stands as one word that the script keeps as it is.
    pub(super) fn note(&mut self, node: NodeId, note: &Note) -> &mut Self {
        self.id(note.id);
        let state = match (note.state, note.listing) {
            (CallState::Held, Listing::Known | Listing::Unheld) => 'H',
            (CallState::Held, Listing::FromLease) => 'h',
            (CallState::Settled, Listing::Known) => 'S',
            (CallState::Settled, Listing::FromLease) => 's',
            (CallState::Settled, Listing::Unheld) => 'N',
            (CallState::Booked, _) => 'B',
            (CallState::Gone, _) => 'G',
        };
        // Writing to memory does not fail.
        drop(write!(self.bytes, "{state} {node}"));
        for (counter, amount) in &note.amounts {
            drop(write!(self.bytes, " {} {}", Named(counter), (*amount).min(EXACT_MAX)));
        }
        self.end()
    }

    /// Puts them behind what a command has.
    pub(super) fn put(&self, command: &mut Cmd) {
        let mut begin = 0;
        for &end in &self.ends {
            command.arg(self.bytes.get(begin..end).unwrap_or_default());
            begin = end;
        }
    }

    fn end(&mut self) -> &mut Self {
        self.ends.push(self.bytes.len());
        self
    }
}

impl Answer {
    pub(super) fn new(value: Value) -> Result<Self, Strange> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(Strange),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, Strange> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(bytes),
            Some(Value::Int(number)) => Ok(number.to_string().into_bytes()),
            _ => Err(Strange),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Strange> {
        String::from_utf8(self.bytes()?).map_err(|_| Strange)
    }

    pub(super) fn int(&mut self) -> Result<i64, Strange> {
        match self.0.next() {
            Some(Value::Int(number)) => Ok(number),
            Some(Value::BulkString(bytes)) => {
                std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).ok_or(Strange)
            }
            _ => Err(Strange),
        }
    }

    /// A number that cannot be negative. A sum below 0 there is one that was taken off before it was added: 0.
    pub(super) fn unsigned(&mut self) -> Result<u64, Strange> {
        match self.0.as_slice().first() {
            Some(Value::Int(_)) => Ok(u64::try_from(self.int()?).unwrap_or(0)),
            _ => {
                let text = self.text()?;
                text.parse::<u64>().or_else(|_| text.parse::<i64>().map(|_| 0)).map_err(|_| Strange)
            }
        }
    }

    pub(super) fn counting(&mut self) -> Result<Counting, Strange> {
        u32::try_from(self.unsigned()?).map(Counting::from_bits).map_err(|_| Strange)
    }

    pub(super) fn place(&mut self) -> Result<usize, Strange> {
        usize::try_from(self.unsigned()?).map_err(|_| Strange)
    }

    pub(super) fn list(&mut self) -> Result<Self, Strange> {
        Self::new(self.0.next().ok_or(Strange)?)
    }

    pub(super) fn epoch(&mut self) -> Result<Epoch, Strange> {
        u128::from_str_radix(&self.text()?, 16).map(Epoch).map_err(|_| Strange)
    }

    pub(super) fn node(&mut self) -> Result<NodeId, Strange> {
        u64::from_str_radix(&self.text()?, 16).map(NodeId).map_err(|_| Strange)
    }

    pub(super) fn id(&mut self) -> Result<EventId, Strange> {
        self.bytes()?.try_into().map(EventId::from_bytes).map_err(|_| Strange)
    }

    pub(super) fn period(&mut self, window: Window) -> Result<Period, Strange> {
        window.parse(&self.text()?).map_err(|_| Strange)
    }

    pub(super) fn sums(&mut self) -> Result<Count, Strange> {
        Ok(Count {
            booked: self.unsigned()?,
            settled: self.unsigned()?,
            held: self.unsigned()?,
            leased: self.unsigned()?,
        })
    }

    /// Counts until the end of the answer.
    pub(super) fn all_sums(&mut self) -> Result<Vec<Count>, Strange> {
        let mut found = Vec::with_capacity(self.0.as_slice().len() / 4);
        while !self.is_over() {
            found.push(self.sums()?);
        }
        Ok(found)
    }
}

/// The name of a counter in Redis: `chats:2026-11` of the tenant, `user/alice/chats:2026-11` of one of its users. There is one
/// colon, before the period, and no blank: ids are percent-encoded.
struct Named<'a>(&'a CounterKey);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CounterKey { tenant: _, subject, metric, period } = self.0;
        if *subject != Subject::Tenant {
            write!(f, "{}/", subject.scope().as_str())?;
            for byte in subject.id().bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => f.write_char(byte.into())?,
                    other => write!(f, "%{other:02X}")?,
                }
            }
            f.write_char('/')?;
        }
        write!(f, "{}:{period}", metric.as_str())
    }
}

/// What a counter's name in Redis says.
pub(super) fn counter_named(name: &str) -> Result<(Subject, Metric, Period), Strange> {
    let (what, period) = name.split_once(':').ok_or(Strange)?;
    let (subject, metric) = match what.rsplit_once('/') {
        None => (Subject::Tenant, what),
        Some((of, metric)) => {
            let (scope, id) = of.split_once('/').ok_or(Strange)?;
            let scope = Scope::parse(scope).filter(|scope| *scope != Scope::Tenant).ok_or(Strange)?;
            (Subject::of(scope, &decoded(id)?).ok_or(Strange)?, metric)
        }
    };
    let metric = Metric::parse(metric).ok_or(Strange)?;
    let period = Window::Month.parse(period).or_else(|_| Window::Day.parse(period)).map_err(|_| Strange)?;
    Ok((subject, metric, period))
}

fn decoded(id: &str) -> Result<String, Strange> {
    let mut bytes = Vec::with_capacity(id.len());
    let mut rest = id.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first == b'%' {
            let (code, behind) = behind.split_at_checked(2).ok_or(Strange)?;
            let code = std::str::from_utf8(code).ok().and_then(|code| u8::from_str_radix(code, 16).ok());
            bytes.push(code.ok_or(Strange)?);
            rest = behind;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).map_err(|_| Strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_counter_is_one_word_with_one_colon_and_is_read_back() {
        let subjects = [
            (Subject::Tenant, "chats:2026-11"),
            (Subject::User("alice".into()), "user/alice/chats:2026-11"),
            (Subject::Kb("".into()), "kb//chats:2026-11"),
            (Subject::User("a b:c/%\u{e9}".into()), "user/a%20b%3Ac%2F%25%C3%A9/chats:2026-11"),
        ];
        for (subject, name) in subjects {
            let period = Period::parse_month("2026-11").unwrap();
            let key = CounterKey { tenant: "acme".parse().unwrap(), subject, metric: Metric::Chats, period };
            assert_eq!(Named(&key).to_string(), name);
            assert_eq!(counter_named(name), Ok((key.subject, key.metric, key.period)));
        }
        for bad in ["chats", "words:2026-11", "tenant//chats:2026-11", "user/%4/chats:2026-11", "user/a/chats:26"] {
            assert_eq!(counter_named(bad), Err(Strange), "{bad}");
        }
    }
}
