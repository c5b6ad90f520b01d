//! How an event stands in a record: its fields in a fixed order, numbers as LEB128, texts with their length before them.
//!
//! May use: `domain`. A field is only ever added at the end, together with a new format version (see [`super::segment`]).
//! Version 1 ended before `unit`, version 2 behind it, version 3 before what else is known of a unit.

use std::borrow::Cow;
use std::str::FromStr;

use crate::domain::event::{Corrected, Outcome, UsageEvent, UsageSource};
use crate::domain::ids::{EventId, ProviderId};
use crate::domain::money::PicoUsd;
use crate::domain::price::{Priced, ServiceTier};
use crate::domain::quantities::Quantities;
use crate::domain::time::Micros;
use crate::domain::tokens::Tokens;
use crate::domain::unit::Unit;

/// Appends `event` to `out`.
pub(super) fn encode(event: &UsageEvent, out: &mut Vec<u8>) {
    let UsageEvent {
        id,
        tenant,
        key,
        user_id,
        kb_id,
        provider,
        model,
        requested_model,
        endpoint,
        chats,
        tokens,
        quantities,
        source,
        cost,
        billable,
        priced,
        price_version,
        service_tier,
        requested_at,
        utc_offset_s,
        duration_us,
        first_byte_us,
        overhead_us,
        status,
        outcome,
        request_id,
        unit,
        corrects,
    } = event;
    out.extend_from_slice(&id.to_bytes());
    text(out, tenant.as_str());
    text_some(out, key.as_ref().map(|key| key.as_str()));
    text_some(out, user_id.as_deref());
    text_some(out, kb_id.as_deref());
    text(out, provider.as_str());
    text(out, model);
    text(out, requested_model);
    text(out, endpoint);
    number(out, *chats);
    for count in kinds_of_old(tokens) {
        number(out, count);
    }
    text(out, source.as_str());
    money_some(out, *cost);
    text(out, priced.as_str());
    text(out, price_version);
    text(out, service_tier.as_str());
    out.extend_from_slice(&requested_at.0.to_le_bytes());
    number(out, *duration_us);
    number_some(out, *first_byte_us);
    number(out, *overhead_us);
    number(out, u64::from(*status));
    text(out, outcome.as_str());
    text_some(out, request_id.as_deref());
    unit_some(out, unit.as_deref());
    number(out, tokens.cache_write_long);
    for quantity in quantities.kinds() {
        number(out, quantity);
    }
    money_some(out, *billable);
    out.extend_from_slice(&utc_offset_s.to_le_bytes());
    corrected_some(out, *corrects);
    if let Some(unit) = unit {
        number(out, unit.delivered_tokens);
        number_some(out, unit.output_max);
        out.push(u8::from(unit.own_account));
    }
}

/// The kinds of token that there were in version 1, in their order.
fn kinds_of_old(tokens: &Tokens) -> [u64; 10] {
    let Tokens {
        prompt,
        cached,
        cache_write,
        cache_write_long: _, // behind all that was there before it
        prompt_audio,
        prompt_image,
        cached_audio,
        completion,
        reasoning,
        completion_audio,
        completion_image,
    } = *tokens;
    [
        prompt,
        cached,
        cache_write,
        prompt_audio,
        prompt_image,
        cached_audio,
        completion,
        reasoning,
        completion_audio,
        completion_image,
    ]
}

/// Reads an event; `None` when `bytes` are not exactly one.
pub(super) fn decode(bytes: &[u8]) -> Option<UsageEvent> {
    let mut from = Fields(bytes);
    let mut event = UsageEvent {
        id: EventId::from_bytes(from.array()?),
        tenant: from.parsed()?,
        key: from.some(Fields::parsed)?,
        user_id: from.some(|from| from.text().map(Into::into))?,
        kb_id: from.some(|from| from.text().map(Into::into))?,
        provider: ProviderId::from_row(from.text()?.to_owned()),
        model: from.text()?.into(),
        requested_model: from.text()?.into(),
        endpoint: Cow::Owned(from.text()?.to_owned()),
        chats: from.number()?,
        tokens: from.tokens()?,
        source: UsageSource::parse(from.text()?)?,
        cost: from.some(Fields::money)?,
        priced: Priced::parse(from.text()?)?,
        price_version: from.text()?.into(),
        service_tier: ServiceTier::parse(from.text()?)?,
        requested_at: Micros(i64::from_le_bytes(from.array()?)),
        duration_us: from.number()?,
        first_byte_us: from.some(Fields::number)?,
        overhead_us: from.number()?,
        status: from.number()?.try_into().ok()?,
        outcome: Outcome::parse(from.text()?)?,
        request_id: from.some(|from| from.text().map(Into::into))?,
        // A record's length is checked before, so one that ends here was written so.
        unit: if from.0.is_empty() { None } else { from.some(Fields::unit)? },
        quantities: Quantities::default(),
        billable: None,
        utc_offset_s: 0,
        corrects: None,
    };
    // Until version 2 there was none of these, and everybody was billed the cost.
    event.billable = event.cost;
    if !from.0.is_empty() {
        event.tokens.cache_write_long = from.number()?;
        event.quantities = from.quantities()?;
        event.billable = from.some(Fields::money)?;
        event.utc_offset_s = i32::from_le_bytes(from.array()?);
        event.corrects = from.some(Fields::corrected)?;
    }
    if let Some(unit) = event.unit.as_mut().filter(|_| !from.0.is_empty()) {
        unit.delivered_tokens = from.number()?;
        unit.output_max = from.some(Fields::number)?;
        unit.own_account = match from.byte()? {
            0 => false,
            1 => true,
            _ => return None,
        };
    }
    from.0.is_empty().then_some(event)
}

/// The id of the event that `bytes` begin with.
pub(super) fn id(bytes: &[u8]) -> Option<EventId> {
    Fields(bytes).array().map(EventId::from_bytes)
}

/// A number, seven bits to a byte, the lowest first; the high bit says that more follow.
pub(super) fn number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    number(out, u64::try_from(text.len()).unwrap_or(u64::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn text_some(out: &mut Vec<u8>, some: Option<&str>) {
    match some {
        None => out.push(0),
        Some(some) => {
            out.push(1);
            text(out, some);
        }
    }
}

fn unit_some(out: &mut Vec<u8>, some: Option<&Unit>) {
    match some {
        None => out.push(0),
        // The rest of it stands at the end.
        Some(Unit { name, prompt_tokens, .. }) => {
            out.push(1);
            text(out, name.as_str());
            number(out, *prompt_tokens);
        }
    }
}

fn corrected_some(out: &mut Vec<u8>, some: Option<Corrected>) {
    match some {
        None => out.push(0),
        Some(Corrected { event, priced }) => {
            out.push(1);
            out.extend_from_slice(&event.to_bytes());
            text(out, priced.as_str());
        }
    }
}

fn money_some(out: &mut Vec<u8>, some: Option<PicoUsd>) {
    match some {
        None => out.push(0),
        Some(PicoUsd(amount)) => {
            out.push(1);
            out.extend_from_slice(&amount.to_le_bytes());
        }
    }
}

fn number_some(out: &mut Vec<u8>, some: Option<u64>) {
    match some {
        None => out.push(0),
        Some(some) => {
            out.push(1);
            number(out, some);
        }
    }
}

/// What is left to be read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn parsed<T: FromStr>(&mut self) -> Option<T> {
        self.text()?.parse().ok()
    }

    fn some<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    fn unit(&mut self) -> Option<Box<Unit>> {
        let (name, prompt_tokens) = (self.parsed()?, self.number()?);
        // Until version 3 nothing else was known, and nobody had a key of its own.
        Some(Box::new(Unit { name, prompt_tokens, delivered_tokens: 0, output_max: None, own_account: false }))
    }

    fn money(&mut self) -> Option<PicoUsd> {
        Some(PicoUsd(i128::from_le_bytes(self.array()?)))
    }

    fn corrected(&mut self) -> Option<Corrected> {
        Some(Corrected { event: EventId::from_bytes(self.array()?), priced: Priced::parse(self.text()?)? })
    }

    fn quantities(&mut self) -> Option<Quantities> {
        let mut kinds = Quantities::default().kinds();
        for kind in &mut kinds {
            *kind = self.number()?;
        }
        Some(Quantities::from_kinds(kinds))
    }

    /// In the order of [`kinds_of_old`].
    fn tokens(&mut self) -> Option<Tokens> {
        Some(Tokens {
            prompt: self.number()?,
            cached: self.number()?,
            cache_write: self.number()?,
            cache_write_long: 0,
            prompt_audio: self.number()?,
            prompt_image: self.number()?,
            cached_audio: self.number()?,
            completion: self.number()?,
            reasoning: self.number()?,
            completion_audio: self.number()?,
            completion_image: self.number()?,
        })
    }
}
