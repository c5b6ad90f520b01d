//! The disk is full, or the journal is: new calls are told to come back, running ones end and are booked, and it serves
//! again as soon as there is room, without a restart.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::crash::this_month;
use super::support::audit::{Ledger, audit};
use super::support::load::{self, End, Load, Made, Paused, Plan, Tenant};
use super::support::machine::{Chance, SmallDisk, figures, until};
use super::support::*;

/// The smallest journal: some thousand calls fill it.
const CONFIG: &str = "[journal]\nbytes_max = \"1MiB\"\n";
const DISK_MIB: u32 = 48;
/// Streams that are under way when there is no room any more.
const STREAMS: u64 = 8;
/// The longest pause between two tries of the ledger (5 s), with room.
const RECOVERS_MAX: Duration = Duration::from_secs(30);

struct World {
    provider: Provider,
    gateway: Gateway,
    tenants: Arc<Vec<Tenant>>,
    numbers: Arc<AtomicU64>,
    chance: Chance,
    made: Vec<Made>,
}

impl World {
    fn new(setup: impl FnOnce(&Provider) -> Setup) -> Self {
        let provider = Provider::start(load::charging);
        let gateway = setup(&provider).prod().config(CONFIG).start();
        let tenants = load::tenants(&gateway, &[("acme", "pro")]);
        let (numbers, made) = (Arc::default(), Vec::new());
        Self { provider, gateway, tenants, numbers, chance: Chance::new(), made }
    }

    fn pause_streams(&self) -> Paused {
        Paused::open(&self.gateway, &self.provider, &self.tenants[0], &self.numbers, STREAMS)
    }

    /// Calls until each client was told to come back later.
    fn call_until_refused(&mut self) {
        let plan = Plan::new(self.gateway.proxy, &self.tenants, &self.numbers);
        let load = Load::start(&Plan { until_refused: true, ..plan }, &mut self.chance);
        self.made.extend(load.join());
        let refused = self.gateway.send(&load::call(u64::MAX / 6 * 6, &self.tenants[0].key));
        if refused.status == 503 {
            assert!(refused.json()["error"]["message"].is_string(), "{}", refused.text());
            assert_ne!(self.gateway.ready()["status"], "ready");
        }
    }

    /// Calls until one is served: how long that took.
    fn demand_served_again(&mut self) -> Duration {
        let (gateway, tenant, numbers) = (&self.gateway, &self.tenants[0], &self.numbers);
        let made = &mut self.made;
        until("a call is served", RECOVERS_MAX, || {
            made.push(load::call_once(gateway, tenant, numbers));
            made.last().is_some_and(|made| made.end == End::Whole)
        })
    }

    fn demand_all_right(&self) -> load::Account {
        load::caught_up(&self.gateway);
        let booked = audit(&self.gateway, &this_month());
        load::account(&self.made, &self.provider.seen(), &booked, &[503])
    }
}

#[test]
fn on_a_full_disk_new_calls_wait_running_ones_are_booked_and_room_is_seen_at_once() {
    let Some(disk) = SmallDisk::mount(DISK_MIB) else {
        figures("disk full: left out, this user may not mount a small disk");
        return;
    };
    let data = disk.path().join("data");
    let on_disk = |provider: &Provider| Setup::new(provider).set("TOLLGATE_DATA_DIR", data.to_str().unwrap());
    let mut world = World::new(on_disk);
    let streams = world.pause_streams();
    let full = disk.fill();
    world.call_until_refused();
    world.made.extend(streams.finish());
    drop(full);
    let recovered = world.demand_served_again();
    let account = world.demand_all_right();
    assert_eq!((account.booked, account.interrupted), (account.whole, 0), "{account:?}");

    // Once more, and this time it is killed while there is no room.
    let streams = world.pause_streams();
    let full = disk.fill();
    world.call_until_refused();
    world.gateway.kill();
    world.made.extend(streams.give_up());
    drop(full);
    world.gateway = on_disk(&world.provider).on_ledger_of(&world.gateway).prod().config(CONFIG).start();
    world.demand_served_again();
    let account = world.demand_all_right();
    assert_eq!(account.interrupted, usize::try_from(STREAMS).unwrap(), "{account:?}");
    figures(&format!(
        "disk full: {} calls, {} refused with 503, {} booked, lost 0, twice 0, served again {} ms after there was room",
        account.calls,
        account.refused,
        account.booked,
        recovered.as_millis()
    ));
}

#[test]
fn when_the_journal_is_full_new_calls_wait_running_ones_are_booked_and_it_serves_again() {
    let mut world = World::new(Setup::new);
    let lock = Ledger::locked(&world.gateway.ledger_file());
    let streams = world.pause_streams();
    world.call_until_refused();
    world.made.extend(streams.finish());
    drop(lock);
    let recovered = world.demand_served_again();
    let account = world.demand_all_right();
    assert_eq!((account.booked, account.interrupted), (account.whole, 0), "{account:?}");
    figures(&format!(
        "journal full: {} calls, {} refused with 503, {} booked, lost 0, twice 0, served again {} ms after the ledger was",
        account.calls,
        account.refused,
        account.booked,
        recovered.as_millis()
    ));
}
