//! Thresholds of limits, end to end: noted once in a window, and told in limits, in the admin's list and in a metric, whatever
//! becomes of the gateways.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::support::postgres::Database;
use super::support::redis::RedisServer;
use super::support::*;

const TEN_CHATS: &str = "[plans.starter]\nchats_per_month = 10\nuser_chats_per_day = 4\n";

fn chat(key: &str) -> Request {
    Request::post(bodies::CHAT, r#"{"model":"gpt-4o","messages":[]}"#).bearer(key)
}

fn chats(gateways: &[&Gateway], key: &str, calls: usize) {
    for at in 0..calls {
        let answer = gateways[at % gateways.len()].send(&chat(key));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Percents of the chats limit, and whether each was crossed.
fn crossed(limits: &Value) -> Vec<(u64, bool)> {
    let thresholds = limits["limits"][0]["thresholds"].as_array().unwrap_or_else(|| panic!("{limits}"));
    let one = |row: &Value| {
        let at = row["crossed_at"].as_str();
        assert!(at.is_none_or(|at| at.ends_with('Z')) && row.as_object().unwrap().len() == 2, "{row}");
        (row["percent"].as_u64().unwrap(), at.is_some())
    };
    thresholds.iter().map(one).collect()
}

/// The admin's list.
fn listed(gateway: &Gateway, query: &str) -> Value {
    let answer = gateway.admin(Request::get(format!("/admin/threshold-crossings{query}")));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Percents of chats of the tenant, in the order of the list.
fn percents(gateway: &Gateway) -> Vec<u64> {
    let list = listed(gateway, "?tenant_id=acme");
    let chats = list["crossings"].as_array().unwrap().iter().filter(|row| row["scope"] == "tenant");
    chats.map(|row| row["percent"].as_u64().unwrap()).collect()
}

/// How often a process has counted the crossing of a percent of chats.
fn counted(gateway: &Gateway, percent: u64) -> u64 {
    let name = format!("tollgate_threshold_crossings_total{{metric=\"chats\",percent=\"{percent}\"}} ");
    let text = gateway.admin(Request::get("/metrics")).text();
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn ten_chats_cross_two_thresholds_once_also_over_kill_9() {
    let provider = Provider::start(bodies::honest);
    let mut first = Setup::new(&provider).config(TEN_CHATS).start();
    chats(&[&first], "acme", 7);
    first.booked("acme", 7);
    assert_eq!(crossed(&first.limits("acme")), [(80, false), (100, false)]);
    assert_eq!(listed(&first, ""), json!({"crossings": [], "next_cursor": null}));
    chats(&[&first], "acme", 1);
    // Whoever asks right after a call sees what it crossed.
    assert_eq!(crossed(&first.limits("acme")), [(80, true), (100, false)]);
    let list = listed(&first, "");
    let row = &list["crossings"][0];
    let event = &first.events("acme")[7];
    let expected = json!({
        "id": row["id"], "at": row["at"], "tenant_id": "acme", "plan": "starter", "scope": "tenant", "metric": "chats",
        "window": "month", "period": row["period"], "percent": 80, "limit": 10, "used": 8, "event_id": event["id"],
    });
    assert_eq!((row, list["crossings"].as_array().unwrap().len()), (&expected, 1));
    assert_eq!((counted(&first, 80), counted(&first, 100)), (1, 0));

    // Two more that nobody waits for to be booked.
    chats(&[&first], "acme", 2);
    first.kill();
    let second = Setup::new(&provider).on_ledger_of(&first).config(TEN_CHATS).start();
    second.booked("acme", 10);
    assert_eq!(crossed(&second.limits("acme")), [(80, true), (100, true)]);
    assert_eq!(percents(&second), [80, 100]);
    assert_eq!(counted(&second, 80), 0, "it was counted by the process that wrote it");
    assert_eq!(second.send(&chat("acme")).status, 402);
    second.booked("acme", 10);
    assert_eq!(percents(&second), [80, 100]);
    let next = listed(&second, "?limit=1")["next_cursor"].clone();
    let rest = listed(&second, &format!("?limit=1&cursor={}", next.as_str().unwrap()));
    assert_eq!((&rest["crossings"][0]["percent"], &rest["next_cursor"]), (&json!(100), &json!(null)));
    // What is noted stays noted when the limit is another one.
    let raised = TEN_CHATS.replace("= 10", "= 100");
    drop(second);
    let third = Setup::new(&provider).on_ledger_of(&first).config(&raised).start();
    assert_eq!(crossed(&third.limits("acme")), [(80, true), (100, true)]);
    chats(&[&third], "acme", 1);
    third.booked("acme", 11);
    assert_eq!(percents(&third), [80, 100]);
}

#[test]
fn a_user_has_thresholds_of_its_own_and_a_plan_may_have_none() {
    let provider = Provider::start(bodies::honest);
    let gateway = Setup::new(&provider).config(&format!("{TEN_CHATS}thresholds = [50]\n")).start();
    for user in ["alice", "bob", "alice"] {
        assert_eq!(gateway.send(&chat("acme").header("x-tollgate-user-id", user)).status, 200);
    }
    let limits = gateway.json("acme", "/billing/limits?user_id=alice");
    let users = limits["limits"].as_array().unwrap().iter().find(|row| row["subject"] == "alice");
    let users = users.unwrap_or_else(|| panic!("{limits}"));
    assert_eq!((&users["metric"], &users["thresholds"][0]["percent"]), (&json!("chats"), &json!(50)));
    assert!(users["thresholds"][0]["crossed_at"].is_string(), "{limits}");
    let list = listed(&gateway, "");
    let rows: Vec<_> =
        list["crossings"].as_array().unwrap().iter().map(|row| (&row["subject"], &row["used"])).collect();
    assert_eq!(rows, [(&json!("alice"), &json!(2))]);

    let silent = Setup::new(&provider).config(&format!("{TEN_CHATS}thresholds = []\n")).start();
    chats(&[&silent], "acme", 10);
    silent.booked("acme", 10);
    assert_eq!(silent.limits("acme")["limits"][0]["thresholds"], json!([]));
    assert_eq!(listed(&silent, "")["crossings"], json!([]));
    assert_eq!(Request::get("/admin/threshold-crossings").bearer("acme").send(silent.proxy).status, 404);
}

#[test]
fn of_several_gateways_one_notes_a_threshold() {
    let (provider, redis, database) = (Provider::start(bodies::honest), RedisServer::start(), Database::new());
    let setup = || {
        let setup = Setup::new(&provider).prod().set("DATABASE_URL", &database.url).set("REDIS_URL", &redis.url());
        setup.config(TEN_CHATS).start()
    };
    let nodes = [setup(), setup(), setup()];
    let key = nodes[0].issue("acme", "starter");
    chats(&nodes.each_ref(), &key, 10);
    nodes[0].booked(&key, 10);
    for node in &nodes {
        assert_eq!(percents(node).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([80, 100]));
        assert_eq!(percents(node).len(), 2);
        assert_eq!(crossed(&node.limits(&key)), [(80, true), (100, true)]);
    }
    for percent in [80, 100] {
        assert_eq!(nodes.iter().map(|node| counted(node, percent)).sum::<u64>(), 1, "{percent}");
    }
}
