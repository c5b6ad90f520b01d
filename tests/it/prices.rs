//! `tollgate prices`: what is charged, and why a call cost what it did.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::bodies::*;
use super::support::machine::until;
use super::support::*;
use super::verify::verify;

fn prices(data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(binary())
        .args(["prices", "--data-dir", data_dir.to_str().unwrap()])
        .args(arguments)
        .env_clear()
        .output()
        .expect("the binary runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complained(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// An answer with every kind of token that the model has a price for.
const MANY_KINDS: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4o-2024-08-06","choices":[],"usage":{
    "prompt_tokens":1000,"completion_tokens":50,"total_tokens":1050,"prompt_tokens_details":{"cached_tokens":600},
    "completion_tokens_details":{"reasoning_tokens":20}}}"#;

#[test]
fn an_event_is_explained_line_by_line_and_the_lines_are_what_was_booked() {
    let provider = Provider::always(Script::json(200, MANY_KINDS));
    let gateway = Setup::new(&provider).start();
    gateway.send(&chat("acme"));
    let event = gateway.event("acme");
    let (id, data_dir) = (event["id"].as_str().unwrap(), gateway.data_dir());
    let text = said(&prices(data_dir, &["explain", id]));
    // gpt-4o: 2.50, cached 1.25, output 10 dollars a million.
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in [
        &["input", "400", "2.5", "million", "0.001"][..],
        &["cached", "600", "1.25", "million", "0.00075"],
        &["output", "50", "10", "million", "0.0005"],
        &["total", "0.00225"],
        &["booked", "(priced)", "0.00225"],
    ] {
        assert!(lines.iter().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    let document: Value = serde_json::from_str(&said(&prices(data_dir, &["explain", id, "--json"]))).unwrap();
    assert_eq!(document["entry"]["model"], "gpt-4o", "{document}");
    assert_eq!(gateway::pico_usd_of(&document["computed_cost_usd"]), 2_250_000_000, "{document}");
    assert_eq!(document["computed_cost_usd"], document["booked_cost_usd"], "{document}");
    assert_eq!(document["lines"].as_array().unwrap().len(), 3, "{document}");

    let missing = prices(data_dir, &["explain", "019ac2f0-5b1e-7c3a-9d8e-0f1e2d3c4b5a"]);
    assert!(complained(&missing).contains("there is no event"));
}

#[test]
fn an_event_is_explained_by_the_prices_that_it_was_priced_by() {
    let provider = Provider::start(honest);
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own.json");
    let list = |input: u32| {
        format!(
            r#"{{"format":1,"models":[{{"provider":"openai","model":"gpt-4o","match":["gpt-4o*"],
            "rates":[{{"tier":"standard","input":{input},"output":5}}]}}]}}"#
        )
    };
    std::fs::write(&own, list(3)).unwrap();
    let gateway = Setup::new(&provider).set("TOLLGATE_PRICES_FILE", own.to_str().unwrap()).start();
    gateway.send(&chat("acme"));
    let event = gateway.event("acme");
    let (id, data_dir) = (event["id"].as_str().unwrap(), gateway.data_dir());
    // The ledger has every book that priced anything: no file has to be named.
    assert!(said(&prices(data_dir, &["explain", id])).contains("0.000000000068"));
    // Another file of the same form is not it.
    let other = directory.path().join("other.json");
    std::fs::write(&other, list(4)).unwrap();
    assert!(complained(&prices(data_dir, &["explain", id, "--file", other.to_str().unwrap()])).contains("--file FILE"));
    let text = said(&prices(data_dir, &["explain", id, "--file", own.to_str().unwrap()]));
    assert!(text.contains("booked (priced)") && text.contains("0.000000000068"), "{text}");

    let file = own.to_str().unwrap();
    let text = said(&prices(data_dir, &["diff", other.to_str().unwrap(), "--set", &format!("prices.file={file}")]));
    assert!(text.contains("input  0.000003   0.000004"), "{text}");
    let same = said(&prices(data_dir, &["diff", file, "--set", &format!("prices.file={file}")]));
    assert!(same.contains("has the prices of version"), "{same}");
}

#[test]
fn a_book_that_is_put_in_force_counts_at_once_and_over_restarts_and_leaves_what_is_booked() {
    let provider = Provider::start(honest);
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own.json");
    let list = r#"{"format":1,"source":"contract 4711, 2026-11-01","models":[{"provider":"openai","model":"contract",
        "match":["gpt-4o*"],"rates":[{"tier":"standard","input":3,"output":5}]}]}"#;
    std::fs::write(&own, list).unwrap();
    let own = own.to_str().unwrap();
    let mut gateway = Setup::new(&provider).start();
    let data_dir = gateway.data_dir().to_owned();
    gateway.send(&chat("first"));
    let first = gateway.event("first");
    let looked = said(&prices(&data_dir, &["update", "--from", own, "--dry-run"]));
    assert!(looked.contains("contract 4711") && looked.contains("Nothing was changed."), "{looked}");
    assert!(complained(&prices(&data_dir, &["update", "--from", own])).contains("say --yes"));
    assert!(said(&prices(&data_dir, &["update", "--from", own, "--yes"])).contains("is in force in all gateways"));
    // Within the poll of the refresher, every two seconds.
    let in_force = |gateway: &Gateway, wanted: &str| {
        let version = || gateway.admin(Request::get("/admin/prices")).json()["version"].clone();
        until("the book is in force", Duration::from_secs(10), || version() == wanted);
    };
    let books: Value = serde_json::from_str(&said(&prices(&data_dir, &["books", "--json"]))).unwrap();
    let version = books["version"].as_str().unwrap();
    assert_ne!(version, first["price_version"], "{books}");
    in_force(&gateway, version);
    gateway.send(&chat("second"));
    let second = gateway.event("second");
    assert_eq!(second["price_version"], version, "{second}");
    assert_eq!(gateway::pico_usd_of(&second["estimated_cost_usd"]), 68, "{second}");
    // What is booked stays, and is explained by what priced it.
    assert_eq!(gateway.event("first"), first);
    assert!(said(&prices(&data_dir, &["explain", first["id"].as_str().unwrap()])).contains("built-in"));
    let text = said(&prices(&data_dir, &["explain", second["id"].as_str().unwrap()]));
    assert!(text.contains("operator (contract 4711, 2026-11-01)"), "{text}");

    gateway.stop();
    let gateway = Setup::new(&provider).on_ledger_of(&gateway).start();
    gateway.send(&chat("third"));
    assert_eq!(gateway.event("third")["price_version"], version);
    let text = said(&prices(&data_dir, &["update", "--configured", "--yes"]));
    assert!(text.contains("its own configuration"), "{text}");
    let built_in = first["price_version"].as_str().unwrap();
    in_force(&gateway, built_in);
    // Any book that is kept can be put in force again.
    said(&prices(&data_dir, &["update", "--version", version, "--yes"]));
    in_force(&gateway, version);
}

#[test]
fn a_plan_bills_beside_what_the_provider_charges_and_events_are_priced_again_without_being_changed() {
    let provider = Provider::start(honest);
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own.json");
    let list = |price: u64| {
        let list = format!(
            r#"{{"format":1,"models":[{{"provider":"openai","model":"m","match":["gpt-4o-mini*"],
            "rates":[{{"tier":"standard","input":{price},"output":{price}}}]}}]}}"#
        );
        std::fs::write(&own, list).unwrap();
    };
    let config = "[plans.starter]\nprice_percent = 120.5\n";
    let gateway = Setup::new(&provider).config(config).start();
    let (data_dir, config) = (gateway.data_dir(), gateway.config_file());
    let config = config.to_str().unwrap();
    gateway.send(&chat("acme"));
    let event = gateway.event("acme");
    let billed = |cost: u64| (cost * 1_205).div_ceil(1_000);
    assert_eq!(gateway::pico_usd_of(&event["estimated_cost_usd"]), CHAT_PICO_USD, "{event}");
    assert_eq!(gateway::pico_usd_of(&event["billable_cost_usd"]), billed(CHAT_PICO_USD), "{event}");
    assert!(event["price_version"].as_str().unwrap().ends_with("x120.5"), "{event}");

    let text = said(&prices(data_dir, &["explain", event["id"].as_str().unwrap()]));
    assert!(text.contains("billed at 120.5 % of it") && text.contains("booked as billed"), "{text}");

    let rerate = || -> Value {
        let arguments = ["rerate", "--from", "2026-01-01", "--json", "--yes", "--config", config];
        serde_json::from_str(&said(&prices(data_dir, &arguments))).unwrap()
    };
    let costs = |usage: &Value| {
        (gateway::pico_usd_of(&usage["estimated_cost_usd"]), gateway::pico_usd_of(&usage["billable_cost_usd"]))
    };
    assert_eq!(rerate()["total"]["corrected"], 0);
    // Up, and back to where it was.
    for (price, cost) in [(Some(1_000_001), 18 * 1_000_001), (None, CHAT_PICO_USD)] {
        match price {
            Some(price) => {
                list(price);
                said(&prices(data_dir, &["update", "--from", own.to_str().unwrap(), "--yes"]));
            }
            None => drop(said(&prices(data_dir, &["update", "--configured", "--yes"]))),
        }
        let looked = prices(data_dir, &["rerate", "--from", "2026-01-01", "--config", config, "--dry-run"]);
        assert!(said(&looked).contains("1 corrections would be written"));
        assert!(said(&looked).contains("bills 120.5 % of them"));
        // Nothing is written without being asked for, and nobody can be asked here.
        let silent = prices(data_dir, &["rerate", "--from", "2026-01-01", "--config", config]);
        assert!(complained(&silent).contains("say --yes"));
        let document = rerate();
        assert_eq!(document["total"]["corrected"], 1, "{document}");
        assert_eq!(gateway::pico_usd_of(&document["total"]["cost_usd"]["after"]), cost, "{document}");
        assert_eq!(rerate()["total"]["corrected"], 0);
        let usage = gateway.json("acme", "/billing/usage?range=month");
        assert_eq!((costs(&usage), &usage["requests"]), ((cost, billed(cost)), &json!(1)), "{usage}");
        let verified = verify(data_dir, Some(gateway.admin), &["--json"]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    }
    let events = gateway.events("acme");
    assert_eq!((events.len(), &events[0]), (3, &event));
}

#[test]
fn a_plan_s_own_prices_bill_what_the_list_does_not_know() {
    let provider = Provider::always(Script::json(200, CHAT_ANSWER.replace("gpt-4o-mini", "in-house")));
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own.json");
    let list = r#"{"format":1,"models":[{"provider":"openai","model":"in-house","match":["in-house"],
        "rates":[{"tier":"standard","input":2,"output":3}]}]}"#;
    std::fs::write(&own, list).unwrap();
    let config = format!("[plans.starter]\nprice_percent = 200\nprices = {own:?}\n");
    let gateway = Setup::new(&provider).config(&config).start();
    gateway.send(&chat("acme"));
    let event = gateway.event("acme");
    assert_eq!((&event["priced"], &event["estimated_cost_usd"]), (&json!("unpriced"), &json!(null)), "{event}");
    assert_eq!(gateway::pico_usd_of(&event["billable_cost_usd"]), 11 * 2 + 7 * 3, "{event}");
    let id = event["id"].as_str().unwrap();
    let explained = said(&prices(gateway.data_dir(), &["explain", id, "--json"]));
    let document: Value = serde_json::from_str(&explained).unwrap();
    assert_eq!(document["billing"]["lines"].as_array().unwrap().len(), 2, "{document}");
    assert_eq!(document["billing"]["computed_usd"], document["billing"]["booked_usd"], "{document}");
}

#[test]
fn what_has_no_price_or_cost_nothing_is_explained_too() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    provider.now_does(|_| Script::json(200, CHAT_ANSWER.replace("gpt-4o", "unheard-of")));
    gateway.send(&chat_with("unpriced", CHAT_REQUEST.replace("gpt-4o", "unheard-of")));
    provider.now_does(|_| Script::json(500, "{}"));
    gateway.send(&chat("failed"));
    for (tenant, remark) in [("unpriced", "The model has no price at that date."), ("failed", "Nothing was charged.")] {
        let event = gateway.event(tenant);
        let text = said(&prices(gateway.data_dir(), &["explain", event["id"].as_str().unwrap()]));
        assert!(text.contains(remark), "{tenant}: {text}");
    }
}

#[test]
fn an_alias_that_answers_with_a_model_without_a_price_counts_on_a_limit_of_cost() {
    let provider = Provider::always(Script::json(200, CHAT_ANSWER.replace("gpt-4o-mini", "model-of-tomorrow")));
    let gateway = Setup::new(&provider).config("[plans.starter]\ncost_usd_per_month = 1\n").start();
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    let event = gateway.event("acme");
    assert_eq!((&event["model"], &event["priced"]), (&json!("model-of-tomorrow"), &json!("incomplete")), "{event}");
    // As gpt-4o-mini: 11 x 0.15 and 7 x 0.60 dollars a million.
    assert_eq!(gateway::pico_usd_of(&event["billable_cost_usd"]), 5_850_000, "{event}");
    let limits = gateway.json("acme", "/billing/limits")["limits"].clone();
    let cost = limits.as_array().unwrap().iter().find(|limit| limit["metric"] == "cost_usd").unwrap();
    assert_eq!(gateway::pico_usd_of(&cost["used"]), 5_850_000, "{cost}");
    let text = said(&prices(gateway.data_dir(), &["explain", event["id"].as_str().unwrap()]));
    assert!(text.contains("it is priced as the one that was asked for") && text.contains("gpt-4o-mini"), "{text}");
    assert!(!text.contains("no count says"), "{text}");
}

#[test]
fn prices_are_those_of_the_day_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let input = |at: &str| -> i64 {
        let shown = said(&prices(directory.path(), &["show", "gemini-3.8-flash", "--at", at, "--json"]));
        let document: Value = serde_json::from_str(&shown).unwrap();
        let rows = document["models"][0]["prices"].as_array().unwrap();
        let standard = rows.iter().find(|row| row["tier"] == "standard").unwrap();
        standard["picodollars_per_token"]["input"].as_i64().unwrap()
    };
    // It doubles with the year, at midnight UTC.
    assert_eq!(input("2027-01-01"), 2 * input("2026-12-31"));
    let wrong = prices(directory.path(), &["show", "gemini-3.8-flash", "--at", "tomorrow"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn a_preview_says_what_a_call_would_cost_and_books_nothing() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let preview = |body: Value| {
        let answer = gateway.admin(Request::post("/admin/prices/preview", body.to_string()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let call =
        json!({"provider": "gemini", "model": "gemini-2.5-pro", "prompt_tokens": 200_000, "completion_tokens": 10});
    let body = preview(call.clone());
    assert_eq!((&body["entry"]["above"], &body["priced"]), (&json!(0), &json!("priced")), "{body}");
    assert_eq!(gateway::pico_usd_of(&body["estimated_cost_usd"]), 200_000 * 1_250_000 + 10 * 10_000_000, "{body}");
    // One token more, and the whole call is at the price of long inputs.
    let mut long = call;
    long["prompt_tokens"] = json!(200_001);
    let body = preview(long);
    assert_eq!((&body["entry"]["above"], body["lines"].as_array().unwrap().len()), (&json!(200_000), 2), "{body}");
    assert_eq!(gateway::pico_usd_of(&body["estimated_cost_usd"]), 200_001 * 2_500_000 + 10 * 15_000_000, "{body}");
    gateway.send(&chat("acme"));
    assert_eq!(gateway.booked("acme", 1).cost(), CHAT_PICO_USD);
}
