//! The turns of one session (a websocket): admitted before the bytes that can begin them go on, booked as each says what
//! it charged.
//!
//! A turn waits until the provider begins it, and is open from then on. Each is an [`InFlight`] from its admission, so a
//! session that is dropped settles all of its turns. What a provider begins although nothing waits for it (it hears a
//! second question in audio that it had already) is admitted when it begins; is nothing left then, the session has to end,
//! and what was begun is booked all the same. So it is with what is billed beside the turns: nothing is held for that, but
//! there has to be room for all of it that is not told yet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tracing::error;

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::ObjectName;
use crate::domain::refusal::Refusal;
use crate::domain::settlement::Ending;
use crate::providers::{
    Beside, Call, Endpoint, Kind, Prompt, Provider, SessionReader, Turn, TurnName, estimate, objects,
};

use super::identity::{Identities, Identity};
use super::in_flight::{Caller, InFlight};
use super::meter::{self, Meter, Room};
use super::vault::OwnKeys;

use lasting::Lasting;

mod lasting;

/// A session that goes on is asked for its key again after this. A revoked one is to open nothing after 5 seconds, of which up
/// to 2 go by until this node knows.
const KEY_FOR_US: u64 = 2_500_000;

/// Audio that goes on without a turn is asked after this whether there is room for what it may cost.
const ROOM_FOR_US: u64 = 1_000_000;

/// Turns of one session at once, waiting and open. A client has two or three.
const TURNS_MAX: usize = 32;

/// How often a tenant may be changed while room is taken for it: more than twice is an accident.
const CHANGES_MAX: usize = 3;

/// What one session has charged beside its turns at once. A client has two or three transcripts.
const BESIDE_MAX: usize = 64;

/// The turns of one session.
pub struct Turns {
    meter: Arc<Meter>,
    identities: Arc<Identities>,
    caller: Caller,
    /// The tenant's own keys when the session was opened: one of them, or the operator's, is what its connection goes by.
    opened_with: OwnKeys,
    /// What the client presented: it is looked up again for each turn, since a session may outlive its key.
    secret: SecretString,
    provider: &'static dyn Provider,
    endpoint: Endpoint,
    reader: Box<dyn SessionReader>,
    waiting: VecDeque<InFlight>,
    open: Vec<(TurnName, InFlight)>,
    /// What is billed beside the turns and is not told yet, the one that nothing was heard of for the longest time first.
    beside: Vec<Going>,
    /// When there was room last for what may be billed beside the turns.
    room_us: Option<u64>,
    /// Nothing was left behind what was billed beside the turns.
    used_up: Option<Refusal>,
    /// What is booked as it was estimated, as there were too many.
    given_up: VecDeque<TurnName>,
    /// The time of the turn that goes, where that is what is charged.
    lasting: Option<Lasting>,
    /// When the key was looked up last.
    known_us: u64,
    /// The provider's id of the handshake.
    request_id: Option<Box<str>>,
    /// What was added to the prompt while no turn waited.
    unasked_bytes: u64,
}

/// Something that is billed beside the turns, once it began.
struct Going {
    name: TurnName,
    prompt_bytes: u64,
    audio_ms: u64,
    charged: InFlight,
}

/// Who opens a session, and of whom.
pub struct Opening {
    /// Who calls.
    pub caller: Caller,
    /// The credential that was presented.
    pub secret: SecretString,
    /// The provider.
    pub provider: &'static dyn Provider,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Reads the session.
    pub reader: Box<dyn SessionReader>,
    /// The provider's id of the handshake.
    pub request_id: Option<Box<str>>,
}

/// Objects that a message of a client names.
pub struct Named {
    /// Who names them.
    pub tenant: TenantId,
    /// Who keeps them.
    pub provider: ProviderId,
    /// What they are called.
    pub names: Vec<ObjectName>,
}

impl Turns {
    /// A session without turns.
    pub fn new(meter: Arc<Meter>, identities: Arc<Identities>, opening: Opening) -> Self {
        let Opening { caller, secret, provider, endpoint, reader, request_id } = opening;
        let known_us = meter.monotonic_us();
        let opened_with = caller.account.own_keys.clone();
        Self {
            meter,
            identities,
            caller,
            opened_with,
            secret,
            provider,
            endpoint,
            reader,
            waiting: VecDeque::new(),
            open: Vec::new(),
            beside: Vec::new(),
            room_us: None,
            used_up: None,
            given_up: VecDeque::new(),
            lasting: None,
            known_us,
            request_id,
            unasked_bytes: 0,
        }
    }

    /// The objects that a message of the client names in the operator's account: a session that was opened with a tenant's own
    /// key is in the tenant's, and stays there whatever becomes of the key.
    pub fn named(&self, message: &[u8]) -> Result<Option<Named>, Refusal> {
        let provider = self.provider.id();
        // Read also where nobody asks whose they are: how deep and how many there may be is judged by that.
        let named = self.reader.names(message)?;
        if named.is_empty() || self.opened_with.get(&provider).is_some() {
            return Ok(None);
        }
        let names = named.into_iter().map(objects::Named::name).collect::<Result<_, _>>()?;
        Ok(Some(Named { tenant: self.caller.account.tenant.id.clone(), provider, names }))
    }

    /// When [`Turns::watch`] has something to look at.
    pub fn watch_in(&self) -> Duration {
        let room_us = self.lasting.as_ref().map_or(u64::MAX, Lasting::due_us);
        let next_us = self.known_us.saturating_add(KEY_FOR_US).min(room_us);
        Duration::from_micros(next_us.saturating_sub(self.meter.monotonic_us()))
    }

    /// Looks after what changes while nobody says anything: why the session may not go on.
    pub async fn watch(&mut self) -> Result<(), Refusal> {
        if self.meter.monotonic_us().saturating_sub(self.known_us) >= KEY_FOR_US {
            self.look_up().await?;
        }
        self.keep_room().await
    }

    /// A message of the client is about to go on: admits what it may begin, or says why it must not go on.
    pub async fn client(&mut self, message: &[u8]) -> Result<(), Refusal> {
        self.watch().await?;
        let asked = self.reader.client(message);
        for model in &asked.models {
            meter::may_use(&self.caller, model)?;
        }
        self.unasked_bytes = self.unasked_bytes.saturating_add(asked.prompt_bytes);
        if let Some(turn) = self.waiting.back_mut() {
            turn.asks_more(std::mem::take(&mut self.unasked_bytes));
        }
        if let Some(beside) = &asked.beside
            && (asked.begins_beside || (asked.turns == 0 && self.is_room_old()))
        {
            self.look_for_room(beside).await?;
        }
        while self.waiting.len() < asked.turns {
            if self.waiting.len() + self.open.len() >= TURNS_MAX {
                return Err(Refusal::TooManyTurns);
            }
            let turn = self.admit().await?;
            self.waiting.push_back(turn);
        }
        Ok(())
    }

    /// A message of the provider is about to go on: books what it says. A refusal ends the session at once.
    pub async fn server(&mut self, message: &[u8], client_left: bool) -> Result<(), Refusal> {
        let whole = if client_left { Ending::ClientLeft } else { Ending::Whole };
        let tells = self.reader.server(message);
        if let Some(turn) = tells.ended.and_then(|name| self.take(name)) {
            turn.settle(whole).await;
        }
        if let Some((name, state)) = tells.turn {
            let begun = if self.open.iter().any(|(open, _)| *open == name) { Ok(()) } else { self.begin(name).await };
            if let Some((_, turn)) = self.open.iter_mut().find(|(open, _)| *open == name) {
                turn.look(message);
            }
            begun?;
            if state != Turn::Goes
                && let Some(mut turn) = self.take(name)
            {
                if state == Turn::Failed {
                    turn.fails();
                }
                turn.settle(whole).await;
                self.lasting = None;
            }
        }
        if let Some(beside) = tells.beside {
            self.book_beside(beside, message, whole).await?;
        }
        if let (Some(lasting), Some(lasted_ms)) = (&mut self.lasting, tells.lasted_ms) {
            lasting.told(lasted_ms);
        }
        if let Err(refusal) = self.keep_room().await {
            self.used_up = Some(refusal);
        }
        Ok(())
    }

    /// Why nothing more of the client may go on, where what its provider charged beside the turns used up what was left.
    pub fn used_up(&mut self) -> Option<Refusal> {
        self.used_up.take()
    }

    /// Whether the provider is at work on something that the client asked for.
    pub fn are_awaited(&self) -> bool {
        let turns_are = !self.open.is_empty() || self.reader.asked().min(self.waiting.len()) > 0;
        self.reader.ends_by_itself() && (turns_are || !self.beside.is_empty() || self.reader.asks_beside())
    }

    /// The session is over: settles what is left of its turns.
    pub async fn end(mut self, ending: Ending) {
        let beside = self.beside.drain(..).map(|going| going.charged);
        for turn in self.open.drain(..).map(|(_, turn)| turn).chain(beside) {
            turn.settle(ending).await;
        }
        for turn in self.waiting.drain(..) {
            turn.settle_unbegun(ending).await;
        }
    }

    fn take(&mut self, name: TurnName) -> Option<InFlight> {
        let at = self.open.iter().position(|(open, _)| *open == name)?;
        Some(self.open.swap_remove(at).1)
    }

    /// The provider begins a turn.
    async fn begin(&mut self, name: TurnName) -> Result<(), Refusal> {
        let admitted = match self.waiting.pop_front() {
            Some(turn) => Ok(turn),
            None if self.open.len() >= TURNS_MAX => Err(Refusal::TooManyTurns),
            None => self.admit().await,
        };
        let (mut turn, refused) = match admitted {
            Ok(turn) => (turn, Ok(())),
            Err(refusal) => {
                let (endpoint, call) = (self.endpoint_of(self.endpoint.name, Kind::Billed), self.call());
                (self.admit_charged(endpoint, call).await?, Err(refusal))
            }
        };
        turn.begins(self.reader.turn(), self.request_id.as_deref());
        // It may have been admitted before its model was named.
        turn.asks_for(self.reader.model());
        if self.reader.charges_by_time() {
            turn.lasts();
            self.lasting = Some(Lasting::new(self.meter.monotonic_us()));
        }
        self.open.push((name, turn));
        refused
    }

    /// Books what is billed beside the turns, once it is known or the session is over.
    async fn book_beside(&mut self, beside: Beside, message: &[u8], ending: Ending) -> Result<(), Refusal> {
        let (name, state) = beside.goes.map_or((None, Turn::Over), |(name, state)| (Some(name), state));
        if name.is_some_and(|name| self.given_up.contains(&name)) {
            return Ok(());
        }
        let known = self.beside.iter().position(|going| Some(going.name) == name);
        let mut going = match known {
            Some(at) => self.beside.remove(at),
            None if state == Turn::Failed => return Ok(()),
            None => {
                let charged = self.begin_beside(&beside).await?;
                Going { name: name.unwrap_or_default(), prompt_bytes: 0, audio_ms: 0, charged }
            }
        };
        if beside.audio_ms > 0 && self.meter.is_by_length(&self.caller, self.provider, &beside.model) {
            going.charged.hears_more(beside.audio_ms);
        } else if beside.prompt_bytes > 0 {
            going.charged.asks_more(beside.prompt_bytes);
        }
        going.prompt_bytes = going.prompt_bytes.saturating_add(beside.prompt_bytes);
        going.audio_ms = going.audio_ms.saturating_add(beside.audio_ms);
        going.charged.look(message);
        match (state, name) {
            (Turn::Goes, Some(_)) => {
                self.beside.push(going);
                self.give_up(ending).await;
                return Ok(());
            }
            (Turn::Failed, _) => going.charged.fails(),
            _ => {}
        }
        going.charged.settle(ending).await;
        let next = self.call_beside(&beside.model, 1, 1);
        let endpoint = self.endpoint_of(beside.endpoint, Kind::Billed);
        if let Err(refusal @ Refusal::QuotaUsedUp(_)) =
            self.meter.could_charge(&self.caller, (self.provider, &endpoint), &next).await
        {
            self.used_up = Some(refusal);
        }
        Ok(())
    }

    fn is_room_old(&self) -> bool {
        let now = self.meter.monotonic_us();
        self.room_us.is_none_or(|looked| now.saturating_sub(looked) >= ROOM_FOR_US)
    }

    /// Whether there is room for all that is begun beside the turns, and for this.
    async fn look_for_room(&mut self, beside: &Beside) -> Result<(), Refusal> {
        let call = self.all_beside(beside);
        let endpoint = self.endpoint_of(beside.endpoint, Kind::Billed);
        self.meter.could_charge(&self.caller, (self.provider, &endpoint), &call).await?;
        self.room_us = Some(self.meter.monotonic_us());
        Ok(())
    }

    fn all_beside(&self, beside: &Beside) -> Call {
        let sum =
            |first: u64, of: fn(&Going) -> u64| self.beside.iter().map(of).fold(first.max(1), u64::saturating_add);
        let prompt_bytes = sum(beside.prompt_bytes, |going| going.prompt_bytes);
        self.call_beside(&beside.model, prompt_bytes, sum(beside.audio_ms, |going| going.audio_ms))
    }

    /// What a provider may charge for so much audio: no transcript has more tokens than that.
    fn call_beside(&self, model: &str, prompt_bytes: u64, audio_ms: u64) -> Call {
        let mut call = Call::new(model.to_owned(), Prompt::TextBytes(prompt_bytes));
        // Four bytes for each token of audio: more than its price is above that of text.
        call.body_bytes = prompt_bytes;
        call.output_max = Some(estimate::of_prompt(&call.prompt).prompt);
        if self.meter.is_by_length(&self.caller, self.provider, model) {
            call.quantities.audio_ms = audio_ms;
        }
        call
    }

    async fn begin_beside(&mut self, beside: &Beside) -> Result<InFlight, Refusal> {
        let endpoint = self.endpoint_of(beside.endpoint, Kind::Billed);
        let call = Call::new(beside.model.clone(), Prompt::TextBytes(0));
        let mut charged = self.admit_charged(endpoint, call).await?;
        charged.begins(self.reader.beside(), self.request_id.as_deref());
        Ok(charged)
    }

    /// A session keeps no more than so many: one that its provider forgot is estimated, and not booked twice.
    async fn give_up(&mut self, ending: Ending) {
        if self.beside.len() > BESIDE_MAX {
            let Going { name, charged, .. } = self.beside.remove(0);
            charged.settle(ending).await;
            if self.given_up.len() == BESIDE_MAX {
                self.given_up.pop_front();
            }
            self.given_up.push_back(name);
        }
    }

    /// Takes room for what is charged by its time, ahead of it. Where that is refused none is left, and the session ends:
    /// nothing is asked for again while it does, nor once the client has said that it is done.
    async fn keep_room(&mut self) -> Result<(), Refusal> {
        while let Some(lasting) = self.lasting.as_ref().filter(|_| !self.reader.ends_by_itself())
            && let Some(more_ms) = lasting.needs_ms(self.meter.monotonic_us())
        {
            match self.take_room(more_ms).await {
                Ok(room) => {
                    if let Some(lasting) = &mut self.lasting {
                        lasting.takes(room, more_ms);
                    }
                }
                Err(refusal) => {
                    if let Some(lasting) = &mut self.lasting {
                        lasting.takes_no_more();
                    }
                    if matches!(refusal, Refusal::QuotaUsedUp(_) | Refusal::BudgetHeld(_)) {
                        self.open.iter_mut().for_each(|(_, turn)| turn.cut());
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Room in the periods of the turn that is open, in which all of it is booked.
    async fn take_room(&mut self, audio_ms: u64) -> Result<Room, Refusal> {
        let mut call = Call::new(self.reader.model().unwrap_or_default().to_owned(), Prompt::TextBytes(0));
        (call.output_max, call.quantities.audio_ms) = (Some(0), audio_ms);
        let endpoint = self.endpoint_of(self.endpoint.name, Kind::Billed);
        for _ in 0..CHANGES_MAX {
            let at = self.open.first().and_then(|(_, turn)| turn.admitted_at());
            if let Some(room) = self.meter.take_room((&self.caller, at), (self.provider, &endpoint), &call).await? {
                return Ok(room);
            }
            self.look_up().await?;
        }
        Err(Refusal::CountersDown)
    }

    /// Whose the key is by now.
    async fn look_up(&mut self) -> Result<(), Refusal> {
        let Identity::Tenant(account, key) = self.identities.find(self.secret.expose_secret()).await? else {
            return Err(Refusal::BadKey);
        };
        let provider = self.provider.id();
        if !account.own_keys.is_same(&self.opened_with, &provider) {
            // Its connection goes on with the key that it was opened with, and whoever that is would go on to pay.
            return Err(Refusal::ProviderKeyChanged { provider: provider.to_string() });
        }
        (self.caller.account, self.caller.key) = (account, key);
        self.known_us = self.meter.monotonic_us();
        Ok(())
    }

    async fn admit(&mut self) -> Result<InFlight, Refusal> {
        self.look_up().await?;
        let call = self.call();
        let endpoint = self.endpoint.clone();
        let mut turn = self.meter.admit(self.caller.clone(), self.provider, endpoint, call).await?;
        turn.sending();
        Ok(turn)
    }

    async fn admit_charged(&mut self, endpoint: Endpoint, call: Call) -> Result<InFlight, Refusal> {
        let admitted = self.meter.admit_charged(self.caller.clone(), self.provider, endpoint, call).await;
        if let Err(refusal) = &admitted {
            error!(tenant = %self.caller.account.tenant.id, %refusal, "What a session was charged could not be booked.");
        }
        let mut charged = admitted?;
        charged.sending();
        Ok(charged)
    }

    fn call(&mut self) -> Call {
        let bytes = self.reader.context_bytes().saturating_add(std::mem::take(&mut self.unasked_bytes));
        let model = self.reader.model().unwrap_or_default().to_owned();
        // A turn is asked with audio, and within a conversation that the provider keeps.
        let (has_media, refers) = (true, true);
        Call { stream: true, body_bytes: bytes, has_media, refers, ..Call::new(model, Prompt::TextBytes(bytes)) }
    }

    fn endpoint_of(&self, name: &'static str, kind: Kind) -> Endpoint {
        Endpoint { name, kind, ..self.endpoint.clone() }
    }
}

#[cfg(test)]
mod tests;
