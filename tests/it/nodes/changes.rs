//! What is changed through one gateway, or on the command line, is in force on all of them.

use std::time::{Duration, Instant};

use super::{Stage, World, ended, said};
use crate::support::load::{End, Tenant};
use crate::support::machine::figures;
use crate::support::*;

const NODES: usize = 3;
const LIMIT: usize = 20;
/// What is changed past all gateways is in force within this.
const WITHIN: Duration = Duration::from_secs(5);

fn set_plan(gateway: &Gateway, tenant: &str, plan: &str) {
    let body = format!(r#"{{"tenant_id":"{tenant}","plan":"{plan}"}}"#);
    let changed = gateway.admin(Request::post("/billing/plan", body));
    assert_eq!(changed.status, 200, "{}", changed.text());
}

/// The very next call on a gateway.
fn next(gateway: &Gateway, key: &str) -> u16 {
    gateway.send(&chat(key)).status
}

/// The same, by a tenant whose calls are counted by the load.
fn next_of(world: &mut World, tenant: &Tenant, node: usize) -> End {
    let made = world.calls_to(tenant, 1, &[world.nodes[node].proxy]);
    made[0].end
}

#[test]
fn a_key_that_is_made_on_one_gateway_works_on_the_next_call_of_any() {
    let world = World::start(Stage::new(true, LIMIT), NODES);
    world.provider.now_does(bodies::honest);
    for round in 0..20 {
        let by = round % NODES;
        let name = format!("tenant-{round}");
        let key = world.nodes[by].issue(&name, "tight");
        for (at, node) in world.nodes.iter().enumerate() {
            assert_eq!(next(node, &key), 200, "round {round}: made on {by}, used on {at}");
        }
        let second = world.nodes[by].issue_key(&name, serde_json::json!({"name": "second"}));
        assert_eq!(next(&world.nodes[(by + 1) % NODES], second["key"].as_str().unwrap()), 200, "round {round}");
    }
    // One that is made on the command line is looked up as well.
    let made = world.tollgate(&["key", "create", "tenant-0", "--json"]).output().unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    for node in &world.nodes {
        assert_eq!(next(node, made["key"].as_str().unwrap()), 200);
    }
    figures("changes: 40 keys made on one gateway, 1 on the command line: the next call of every other has 200");
}

/// Upgrade and downgrade through one gateway while the others remember that the limit is used up.
fn plans_change(leases: bool) {
    let mut world = World::start(Stage::new(leases, LIMIT), NODES);
    let acme = world.tenant("acme", "tight");
    let rounds = 5;
    for round in 0..rounds {
        let by = round % NODES;
        if round == 0 {
            let made = world.calls(&acme, LIMIT);
            assert_eq!(ended(&made, End::Whole), LIMIT);
        }
        // Each remembers the denial.
        for node in 0..NODES {
            for _ in 0..3 {
                assert_eq!(next_of(&mut world, &acme, node), End::Refused(402), "round {round}, gateway {node}");
            }
        }
        set_plan(&world.nodes[by], "acme", "wide");
        for node in 0..NODES {
            assert_eq!(next_of(&mut world, &acme, node), End::Whole, "round {round}: upgraded on {by}, asked {node}");
        }
        set_plan(&world.nodes[by], "acme", "tight");
        for node in 0..NODES {
            let end = next_of(&mut world, &acme, node);
            assert_eq!(end, End::Refused(402), "round {round}: downgraded on {by}, asked {node}");
        }
    }
    world.demand_all_right(&[&acme], &[402]);
    world.demand_verified();
    figures(&format!(
        "changes, {}: {rounds} upgrades and downgrades through one gateway act on the next call of all {NODES}",
        world.stage.told()
    ));
}

#[test]
fn a_plan_that_is_changed_through_one_gateway_acts_on_the_next_call_of_all() {
    plans_change(false);
}

#[test]
fn a_plan_that_is_changed_through_one_gateway_with_leases_acts_on_the_next_call_of_all() {
    plans_change(true);
}

#[test]
fn a_key_that_is_revoked_is_refused_by_every_gateway() {
    let world = World::start(Stage::new(true, LIMIT), NODES);
    world.provider.now_does(bodies::honest);
    world.nodes[0].issue("acme", "wide");
    let mut slowest = Duration::ZERO;
    for round in 0..9 {
        let made = world.nodes[round % NODES].issue_key("acme", serde_json::json!({"name": "gone soon"}));
        let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
        for node in &world.nodes {
            assert_eq!(next(node, key), 200);
        }
        let target = format!("/admin/tenants/acme/keys/{id}");
        let by_hand = round % 3 == 2;
        if by_hand {
            let revoked = world.tollgate(&["key", "revoke", "acme", id]).output().unwrap();
            assert!(revoked.status.success(), "{}", said(&revoked));
        } else {
            let revoked = world.nodes[(round + 1) % NODES].admin(Request::get(target).method("DELETE"));
            assert_eq!(revoked.status, 200, "{}", revoked.text());
        }
        let began = Instant::now();
        for (at, node) in world.nodes.iter().enumerate() {
            while next(node, key) != 401 {
                assert!(by_hand, "round {round}: revoked through a gateway, and gateway {at} takes it");
                assert!(began.elapsed() < WITHIN, "round {round}: gateway {at} takes a revoked key");
            }
        }
        slowest = slowest.max(began.elapsed());
    }
    figures(&format!(
        "changes: keys revoked through one gateway are refused by all at once; on the command line within {} ms",
        slowest.as_millis()
    ));
}
