//! Counters that several gateways share: a store that forgets, and the exchange that makes up for it.
//!
//! May use: `domain`. One gateway's counters over this port are in `metering::node_counters`; Redis fills it in
//! `adapters::redis_counters`, and `adapters::memory_shared` is the model that it is compared with.
//!
//! # What is kept
//!
//! Of each tenant, in one place that is lost as a whole or not at all:
//!
//! ```text
//! for each counter      booked: what the ledger has
//! for each call (id)    its node, its state and amounts: every call that is held, or settled and not yet booked
//! for each node         its lease: units that it may give to calls without asking
//! ```
//!
//! So a counter is `booked + the calls listed + the leases`, and each message about a call says how the call is, not what to
//! add: said twice it changes nothing. A call is its own node's alone; no other speaks of it.
//!
//! # Open and in building
//!
//! A tenant that is not there, or was written by another process of the store than the one that answers now (an older copy
//! of the truth after a restart or a failover), is *unknown*: nobody is admitted on it. Whoever meets it calls
//! [`SharedCounters::join`], which begins *building* it under a new epoch, and has every live node do the same: each lists
//! its own calls. When all have joined, one node reads the ledger and calls [`SharedCounters::finish`], which opens it.
//!
//! Every operation that changes anything is done at once when the store gets it, or never: one that arrives after `within`
//! has passed since it was asked changes nothing, so that whoever gave it up knows that it does not happen later.

use std::fmt;
use std::time::Duration;

use crate::domain::counting::Counting;
use crate::domain::ids::{EventId, TenantId};
use crate::domain::time::{Period, Window};

use super::BoxFuture;
use super::counters::{Claim, CounterKey, CountersUnavailable};

/// One gateway, across its restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// 16 lowercase hexadecimal digits.
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One process of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Which gateway.
    pub node: NodeId,
    /// Another number at each start.
    pub life: u64,
}

/// One time that a tenant's counters were built. A new random number each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u128);

/// From which month and day on counters hold all that the ledger has: an earlier period is not known, a later one without
/// a counter is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floors {
    /// A month.
    pub month: Period,
    /// A day.
    pub day: Period,
}

impl Floors {
    /// Whether the counter is not known.
    pub fn are_above(&self, counter: &CounterKey) -> bool {
        let floor = match counter.period.window() {
            Window::Month => self.month,
            Window::Day => self.day,
        };
        counter.period < floor
    }
}

/// How a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallState {
    /// In flight.
    Held,
    /// Over, and not known to be in the ledger.
    Settled,
    /// In the ledger.
    Booked,
    /// Given back: as if it had never been.
    Gone,
}

/// A call and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Which call.
    pub id: EventId,
    /// How it stands.
    pub state: CallState,
    /// What it takes from which counters, of one tenant.
    pub amounts: Vec<(CounterKey, u64)>,
    /// Whether the store is known to list it. Anything else only with `Held` and `Settled`, and again until it is acknowledged.
    pub listing: Listing,
}

/// Whether the store is known to list a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// It is.
    Known,
    /// It is not: the call was taken from the node's lease, of which it takes a unit.
    FromLease,
    /// It is not: nothing was held for the call, which counts all the same. Only with `Settled`.
    Unheld,
}

/// A call that wants to be held.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who asks.
    pub member: Member,
    /// Whose counters.
    pub tenant: &'a TenantId,
    /// Which call.
    pub id: EventId,
    /// All or none. At least one.
    pub claims: &'a [Claim],
    /// The revision of tenants and plans that the claims follow from.
    pub revision: i64,
    /// What the node counts.
    pub counting: Counting,
    /// The node has no call of this tenant besides: it need not join.
    pub is_alone: bool,
    /// What to lease along with the hold. At most one such ask, or note that says what is left, is under way for a node and
    /// tenant.
    pub lease: Option<LeaseAsk>,
    /// After this the caller has given up.
    pub within: Duration,
}

/// Units that a node wants to give to calls without asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseAsk {
    /// At most so many.
    pub units_max: u64,
    /// At most one part in so many of what is left; above 0.
    pub parts: u64,
    /// How long the lease lasts without another ask.
    pub lasts: Duration,
    /// What is left of the lease that it has: units not spent, or spent on calls that may not be listed.
    pub left: u64,
}

/// How one counter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// What the ledger has, as far as nodes said so.
    pub booked: u64,
    /// What is settled and not booked.
    pub settled: u64,
    /// What is held by calls in flight.
    pub held: u64,
    /// What nodes have leased and not used.
    pub leased: u64,
}

/// The answer to [`SharedCounters::hold`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Every claim is taken, or was.
    Taken {
        /// Under which epoch.
        epoch: Epoch,
        /// The counters after that, in the order of the claims.
        counts: Vec<Count>,
        /// Units that the node may give to calls with the same claims from now on, besides what it had.
        leased: u64,
    },
    /// Nothing was taken: this claim does not fit. No lease is in the way.
    Full {
        /// Which, by its place.
        claim: usize,
        /// Its counter.
        count: Count,
    },
    /// Nothing was taken: this claim does not fit, and would if leases that other nodes have (or the asking one) came back.
    Leased {
        /// Which, by its place.
        claim: usize,
        /// Its counter.
        count: Count,
    },
    /// Nothing was taken: the tenant was changed in this revision, and the claims follow from an older one.
    Behind {
        /// The revision.
        revision: i64,
    },
    /// Nothing was taken: the tenant is unknown, or this node must join it first, or a claim is below its floors.
    Unjoined,
    /// Nothing was taken: the tenant is in building.
    Building,
}

/// What a node says of its calls of a tenant, for [`SharedCounters::note`].
#[derive(Debug, Clone, Copy)]
pub struct Noting<'a> {
    /// Who says it.
    pub member: Member,
    /// Of whose calls.
    pub tenant: &'a TenantId,
    /// The epoch that it is a part of.
    pub epoch: Epoch,
    /// How they stand.
    pub notes: &'a [Note],
    /// After these notes its lease has at most so many units, if this is said.
    pub lease_left: Option<u64>,
    /// After this the caller has given up.
    pub within: Duration,
}

/// The answer to [`SharedCounters::note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// Everything is taken in.
    Done,
    /// Nothing is: the epoch is another one, or another life of the node is a part of it. The node must join.
    Unjoined,
}

/// A node's own calls of a tenant, for [`SharedCounters::join`].
#[derive(Debug, Clone, Copy)]
pub struct Joining<'a> {
    /// Who joins.
    pub member: Member,
    /// Whose counters.
    pub tenant: &'a TenantId,
    /// The epoch to begin, if one is to begin; with other calls than the first ones, the epoch that these were answered with.
    pub epoch: Epoch,
    /// Begin one though the tenant is open, and take the calls in though the node is a part of one in building.
    pub is_forced: bool,
    /// The floors of the epoch, if it begins now. Where a tenant of the same process of the store has lower ones, those stay.
    pub floors: Floors,
    /// What the node counts.
    pub counting: Counting,
    /// Some or all of its calls, in whatever state but [`CallState::Gone`].
    pub calls: &'a [Note],
    /// These are the first ones: what the store lists of this node is replaced by them.
    pub is_first: bool,
    /// These are the last ones: the node has joined.
    pub is_last: bool,
    /// After this the caller has given up.
    pub within: Duration,
}

/// The answer to [`SharedCounters::join`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// It is open, and the node is a part of it.
    Open(Epoch),
    /// It is in building.
    Building(Epoch),
    /// Nothing is taken in: these were not the first calls, and the tenant is not in building under that epoch any more.
    Moved,
}

/// A tenant in building, for whoever wants to finish it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is not there.
    Unknown,
    /// It is open.
    Open(Epoch),
    /// Another node is finishing it.
    Busy {
        /// Whether the asking node has joined.
        is_joined: bool,
    },
    /// It is in building, and the asking node may finish it.
    Building {
        /// The epoch.
        epoch: Epoch,
        /// Grows with each message of nodes that join.
        joins: u64,
        /// Who has joined.
        joined: Vec<NodeId>,
        /// Every call that is listed.
        calls: Vec<EventId>,
        /// From where on the ledger is to be read.
        floors: Floors,
        /// What is to be read of it: all that any node counts.
        counting: Counting,
    },
}

/// What the ledger says of a tenant in building.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// Whose counters.
    pub tenant: &'a TenantId,
    /// Under which epoch it was read.
    pub epoch: Epoch,
    /// How many had joined when the listed calls were read.
    pub joins: u64,
    /// Who wrote the other sums, where there are others.
    pub writer: Option<u64>,
    /// The sums of the ledger, or the last of them.
    pub sums: &'a [(CounterKey, u64)],
    /// Which of the listed calls are in these sums.
    pub known: &'a [EventId],
    /// After this the caller has given up.
    pub within: Duration,
}

/// Some of what the ledger says of a tenant in building, before [`SharedCounters::finish`].
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Whose counters.
    pub tenant: &'a TenantId,
    /// Under which epoch it was read.
    pub epoch: Epoch,
    /// How many had joined when the listed calls were read.
    pub joins: u64,
    /// Who writes it: another number for each time that the ledger was read.
    pub writer: u64,
    /// It is the first.
    pub is_first: bool,
    /// These sums.
    pub sums: &'a [(CounterKey, u64)],
    /// After this the caller has given up.
    pub within: Duration,
}

/// What a node is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wanted {
    /// To join a tenant that is built under this epoch. One that is a part of it has done so: and what is said of an earlier
    /// build, or that it is done, does not touch this one.
    Join(Epoch),
    /// To give back what is left of its lease.
    Lease,
}

/// A node's sign of life.
#[derive(Debug, Clone, Copy)]
pub struct Beat<'a> {
    /// Whose.
    pub member: Member,
    /// The revision of tenants and keys that it has.
    pub revision: i64,
    /// All nodes are wanted for these from now on, for [`WANTED_FOR`].
    pub wanted: &'a [(TenantId, Wanted)],
    /// Nobody is wanted for these any more.
    pub done: &'a [(TenantId, Wanted)],
    /// It is its last.
    pub is_last: bool,
    /// After this the caller has given up.
    pub within: Duration,
}

/// Another node, as the store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub member: Member,
    /// How long ago its last sign of life was, in milliseconds of the store.
    pub quiet_ms: u64,
    /// The revision of tenants and keys that it had then.
    pub revision: i64,
}

/// The answer to [`SharedCounters::beat`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pulse {
    /// For how long the store has known of nodes, in milliseconds: those that beat seldomer than this may be missing.
    pub known_for_ms: u64,
    /// Every node that was heard of within the last minute, the asking one included.
    pub peers: Vec<Peer>,
    /// What nodes are wanted for, at most [`WANTED_MAX`].
    pub wanted: Vec<(TenantId, Wanted)>,
}

/// Tenants in one answer: the rest comes with the next.
pub const WANTED_MAX: usize = 1_000;

/// A wish ends by itself after this, unless somebody has it again.
pub const WANTED_FOR: Duration = Duration::from_secs(5);

/// Whether a store may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Not known now.
    #[error(transparent)]
    Unavailable(#[from] CountersUnavailable),
    /// It holds the counters of another ledger, or cannot do what is needed; says what helps.
    #[error("{0}")]
    Unfit(String),
}

/// Counters that several gateways share. The contract is that of each operation; all of them are atomic, and one that fails
/// with [`CountersUnavailable`] was done or not, at once or never.
pub trait SharedCounters: Send + Sync {
    /// Makes the store this ledger's.
    fn claim<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), ClaimError>>;

    /// Takes all claims of a call, or none.
    ///
    /// In this order: an unknown tenant is [`Held::Unjoined`]; one in building is [`Held::Building`]; a member that is not a
    /// part of the epoch is [`Held::Unjoined`], unless it is alone, no call of its node is listed and all that it counts was
    /// counted by all, and by one at least, since the tenant was opened: then it becomes a part of it (and a lease of an earlier life ends). A revision below the tenant's is [`Held::Behind`]. A call that is listed already
    /// is [`Held::Taken`] again, without a lease; what it claims below the floors counts 0 then, gone or not. A claim on a period below the floors is [`Held::Unjoined`]. Then every claim
    /// must fit: `booked + settled + held + leased + amount <= max`. If one does not, leases that are over end first; what then
    /// does not fit is [`Held::Full`], or [`Held::Leased`] if it would without leases. The call is listed as held.
    ///
    /// With the first claim on a counter, old ones are let go: the floors rise to the third newest month and day that was
    /// spoken of, and those below that nothing is settled, held or leased of are gone.
    ///
    /// Where it asks for a lease and all amounts are 1: what the node has leased becomes at most `left`, and then `n =
    /// min(units_max, min over claims of (what is left after the call and all leases) / parts)` units of all these counters are
    /// added to it (`units_max` where nothing is limited); with `n` above 0 the lease lasts `lasts` from now. If there are units
    /// left of one on other counters, `n` is 0. A refused call leaves the lease as it is.
    fn hold<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Held, CountersUnavailable>>;

    /// Says how calls of a node stand. Never refused for lack of room.
    ///
    /// A call that is not listed is listed as the note says if it is not known to be, and takes a unit of the node's lease if
    /// it is from that; if it is known to be, it was booked long ago and nothing happens. A call that is listed: `Held` and `Settled` put it in
    /// that state with these amounts; `Booked` adds the amounts to `booked` and takes it off the list (in building it stays, in
    /// that state); `Gone` takes it off.
    fn note<'a>(&'a self, noting: &'a Noting<'a>) -> BoxFuture<'a, Result<Noted, CountersUnavailable>>;

    /// Makes a node a part of a tenant's epoch.
    ///
    /// With its first calls: a tenant of whose epoch the member is a part stays as it is, unless this is forced. An unknown one
    /// begins in building, with nothing listed. An open one stays open and the member becomes a part of it if it has no calls,
    /// none of its node is listed, all that it counts was counted by all, and by one at least, since it was opened, and it is not
    /// forced. Else it is in building from now: nobody has joined, all leases and sums
    /// are gone, the calls that are listed stay, and so does the revision. In building these calls replace those of its node.
    ///
    /// With others: they are added, or it is [`Joined::Moved`]. With the last ones it has joined, and not before.
    fn join<'a>(&'a self, joining: &'a Joining<'a>) -> BoxFuture<'a, Result<Joined, CountersUnavailable>>;

    /// How far the building of a tenant is. Whoever gets [`Look::Building`] may finish it for the next second, in which others
    /// get [`Look::Busy`]; after that it is whoever looks first.
    fn look<'a>(&'a self, node: NodeId, tenant: &'a TenantId) -> BoxFuture<'a, Result<Look, CountersUnavailable>>;

    /// Takes some of the sums of a tenant in building. `false`, and nothing is changed, if the epoch or `joins` is another by
    /// now, or somebody else began to write sums since this writer did.
    fn sums<'a>(&'a self, part: &'a Part<'a>) -> BoxFuture<'a, Result<bool, CountersUnavailable>>;

    /// Opens a tenant: `booked` is the sums, with those that its writer wrote before, listed calls that are known are taken off, of the others those in state `Booked`
    /// are added to `booked` and taken off, the rest count as held or settled. `false`, and nothing is changed, if the epoch,
    /// `joins` or the writer is another by now.
    fn finish<'a>(&'a self, finish: &'a Finish<'a>) -> BoxFuture<'a, Result<bool, CountersUnavailable>>;

    /// How counters of a tenant stand; `None` where it is not open, or one is below its floors. A period without a counter is 0.
    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        counters: &'a [CounterKey],
    ) -> BoxFuture<'a, Result<Option<Vec<Count>>, CountersUnavailable>>;

    /// Every counter of every open tenant that is not below its floors. Each is read at one instant, not all at the same one.
    fn list(&self) -> BoxFuture<'_, Result<Vec<(CounterKey, Count)>, CountersUnavailable>>;

    /// From now on claims on this tenant follow from this revision at least. Nothing if the tenant is not there.
    fn changed<'a>(
        &'a self,
        tenant: &'a TenantId,
        revision: i64,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), CountersUnavailable>>;

    /// A node's sign of life, and what became of the others.
    fn beat<'a>(&'a self, beat: &'a Beat<'a>) -> BoxFuture<'a, Result<Pulse, CountersUnavailable>>;
}
