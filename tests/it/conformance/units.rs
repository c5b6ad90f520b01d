//! What every [`UnitStore`] promises: a unit comes with its event, is given to one of all that ask, and waits its time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tollgate::domain::event::{Outcome, UsageEvent};
use tollgate::domain::ids::ProviderId;
use tollgate::domain::time::Micros;
use tollgate::domain::unit::Unit;
use tollgate::ports::units::{Pauses, UnitStore};
use tollgate::ports::usage::UsageStore;

use super::{Keep, at, event, postgres, sqlite};

type Ledger = (&'static str, Arc<dyn UsageStore>, Arc<dyn UnitStore>, Keep);

async fn ledgers() -> [Ledger; 2] {
    let (sqlite, directory) = sqlite().await;
    let (postgres, database) = postgres().await;
    [
        ("sqlite", sqlite.clone(), sqlite, Box::new(directory)),
        ("postgres", postgres.clone(), postgres, Box::new(database)),
    ]
}

const PAUSES: Pauses = Pauses { first: Duration::from_secs(10), longest: Duration::from_secs(60) };

/// A call that began a unit.
fn begun(number: u64, name: &str) -> UsageEvent {
    // One in two is in a tenant's own account.
    let (own_account, output_max) = (number.is_multiple_of(2), (!number.is_multiple_of(2)).then_some(number));
    let name = name.parse().unwrap();
    let unit = Unit { name, prompt_tokens: number, delivered_tokens: 7 * number, output_max, own_account };
    UsageEvent { outcome: Outcome::Deferred, unit: Some(Box::new(unit)), ..event(number) }
}

fn after(seconds: i64) -> Micros {
    Micros(at("2026-11-24T10:00:00Z").0 + seconds * 1_000_000)
}

#[tokio::test]
async fn a_unit_comes_with_its_event_and_goes_with_its_bill() {
    let openai = ProviderId::new("openai");
    for (name, usage, units, _keep) in ledgers().await {
        let rich = UsageEvent { kb_id: Some("kb".into()), ..begun(1, "responses/r1") };
        let plain = UsageEvent { key: None, user_id: None, kb_id: None, ..begun(2, "batches/b1") };
        let bill = UsageEvent { outcome: Outcome::Completed, ..begun(3, "responses/r3") };
        let twice = begun(4, "responses/r1");
        assert_eq!(usage.append(&[rich.clone(), event(9), plain.clone(), bill.clone(), twice]).await, Ok(5), "{name}");
        // Again, as after an answer that was lost.
        assert_eq!(usage.append(&[rich.clone(), plain.clone(), bill]).await, Ok(0), "{name}");
        for event in [rich, plain] {
            let begun = *event.unit.clone().unwrap();
            let unit = begun.name;
            let found = units.waiting(&openai, &unit).await.unwrap().unwrap();
            assert_eq!((&found.provider, &found.name, found.event), (&openai, &unit, event.id), "{name}");
            assert_eq!(
                (found.requested_at, &found.tenant, &found.key),
                (event.requested_at, &event.tenant, &event.key)
            );
            assert_eq!((&found.user_id, &found.kb_id, &found.model), (&event.user_id, &event.kb_id, &event.model));
            assert_eq!((found.requested_model, found.endpoint.as_str()), (event.requested_model, &*event.endpoint));
            let said = (found.prompt_tokens, found.delivered_tokens, found.output_max, found.own_account);
            let begun = (begun.prompt_tokens, begun.delivered_tokens, begun.output_max, begun.own_account);
            assert_eq!(said, begun, "{name}");
            assert_eq!(units.waiting(&ProviderId::new("gemini"), &unit).await, Ok(None), "{name}");
        }
        let r1 = "responses/r1".parse().unwrap();
        assert_eq!(units.waiting(&openai, &"responses/r3".parse().unwrap()).await, Ok(None), "{name}");
        units.settled(&openai, &r1, after(5)).await.unwrap();
        units.settled(&openai, &r1, after(6)).await.unwrap();
        assert_eq!(units.waiting(&openai, &r1).await, Ok(None), "{name}");
        let due = units.claim(after(60), PAUSES, 10).await.unwrap();
        assert_eq!(due.len(), 1, "{name}: {due:?}");
        assert_eq!((units.forget(after(5)).await, units.forget(after(6)).await), (Ok(0), Ok(1)), "{name}");
        // What is forgotten does not come back with its event.
        assert_eq!(usage.append(&[begun(1, "responses/r1")]).await, Ok(0), "{name}");
        assert_eq!(units.waiting(&openai, &r1).await, Ok(None), "{name}");
    }
}

#[tokio::test]
async fn units_are_found_below_a_path_and_no_others() {
    let openai = ProviderId::new("openai");
    for (name, usage, units, _keep) in ledgers().await {
        let names =
            ["threads/t_1/runs/r1", "threads/t_1/runs/r2", "threads/t_10/runs/r3", "threads/tx1/runs/r4", "batches/b5"];
        let events: Vec<UsageEvent> = (1..).zip(names).map(|(number, name)| begun(number, name)).collect();
        usage.append(&events).await.unwrap();
        units.settled(&openai, &names[1].parse().unwrap(), after(5)).await.unwrap();
        let (owner, other) = (events[0].tenant.clone(), "nobody".parse().unwrap());
        let below = async |provider: &ProviderId, path, tenant, max| {
            let found = units.below(provider, path, tenant, max).await.unwrap();
            found.into_iter().map(|unit| unit.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(below(&openai, "threads/t_1", None, 9).await, [names[0]], "{name}");
        assert_eq!(below(&openai, names[0], Some(&owner), 9).await, [names[0]], "{name}");
        assert_eq!(below(&openai, "batches", Some(&owner), 9).await, [names[4]], "{name}");
        assert_eq!(below(&openai, "threads", None, 9).await, [names[0], names[2], names[3]], "{name}");
        assert_eq!(below(&openai, "threads", None, 2).await.len(), 2, "{name}");
        for (provider, path, tenant) in [
            (&openai, "batches", Some(&other)),
            (&openai, "thread", None),
            (&ProviderId::new("gemini"), "threads", None),
        ] {
            assert_eq!(below(provider, path, tenant, 9).await, Vec::<String>::new(), "{name} {path}");
        }
    }
}

#[tokio::test]
async fn a_unit_is_asked_for_again_after_pauses_that_double() {
    for (name, usage, units, _keep) in ledgers().await {
        usage.append(&[begun(1, "responses/r1")]).await.unwrap();
        let mut asked = Vec::new();
        for second in -1..200 {
            asked.extend(units.claim(after(second), PAUSES, 10).await.unwrap().iter().map(|_| second));
        }
        assert_eq!(asked, [0, 10, 30, 70, 130, 190], "{name}");
    }
}

#[tokio::test]
async fn each_unit_is_given_to_one_of_all_that_ask_at_once() {
    for (name, usage, units, _keep) in ledgers().await {
        let events: Vec<UsageEvent> = (0..60).map(|number| begun(number, &format!("batches/b{number}"))).collect();
        usage.append(&events).await.unwrap();
        let asking = (0..4).map(|_| {
            let units = Arc::clone(&units);
            tokio::spawn(async move {
                let mut taken = Vec::new();
                loop {
                    let some = units.claim(after(1), PAUSES, 7).await.unwrap();
                    if some.is_empty() {
                        return taken;
                    }
                    assert!(some.len() <= 7);
                    taken.extend(some.into_iter().map(|unit| unit.name));
                }
            })
        });
        let mut taken = Vec::new();
        for asked in asking.collect::<Vec<_>>() {
            taken.extend(asked.await.unwrap());
        }
        // Where others hold some, one that asks may find none though some are due; nobody gets one twice.
        let different: BTreeSet<_> = taken.iter().cloned().collect();
        assert_eq!(taken.len(), different.len(), "{name}");
        let mut rest = units.claim(after(1), PAUSES, 60).await.unwrap();
        rest.retain(|unit| !different.contains(&unit.name));
        assert_eq!(taken.len() + rest.len(), 60, "{name}");
    }
}
