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
    let unit = Unit { name: name.parse().unwrap(), prompt_tokens: number };
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
            let Unit { name: unit, prompt_tokens } = *event.unit.clone().unwrap();
            let found = units.waiting(&openai, &unit).await.unwrap().unwrap();
            assert_eq!((&found.provider, &found.name, found.event), (&openai, &unit, event.id), "{name}");
            assert_eq!(
                (found.requested_at, &found.tenant, &found.key),
                (event.requested_at, &event.tenant, &event.key)
            );
            assert_eq!((&found.user_id, &found.kb_id, &found.model), (&event.user_id, &event.kb_id, &event.model));
            assert_eq!((found.requested_model, found.endpoint.as_str()), (event.requested_model, &*event.endpoint));
            assert_eq!(found.prompt_tokens, prompt_tokens, "{name}");
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
