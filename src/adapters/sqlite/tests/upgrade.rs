//! Ledgers of earlier versions: what their rows meant they mean still.

use std::borrow::Cow;

use super::*;
use crate::domain::event::Outcome;
use crate::domain::money::PicoUsd;
use crate::ports::usage::{Entry, EventsQuery, SumsQuery};

/// What the fifth version of the schema wrote for a call, and for its day and month.
const OF_BEFORE: &str = "
    INSERT INTO usage_events (id, tenant_id, provider, model, requested_model, endpoint, chats, prompt_tokens, cached_tokens,
        cache_write_tokens, prompt_audio_tokens, prompt_image_tokens, cached_audio_tokens, completion_tokens, reasoning_tokens,
        completion_audio_tokens, completion_image_tokens, usage_source, estimated_cost_pico_usd, priced, price_version,
        service_tier, requested_at, duration_us, status, outcome)
    VALUES (unhex('019ab697e80070008000000000000001'), 'acme', 'openai', 'gpt-4o', 'gpt-4o', 'chat.completions', 1, 11, 2, 3,
        0, 0, 0, 7, 0, 0, 0, 'provider', 97500001, 'priced', 'v', 'standard', 1764000000000000, 5, 200, 'completed');
    INSERT INTO usage_daily (tenant_id, period, provider, model, requests, chats, failed_requests, prompt_tokens,
        cached_tokens, cache_write_tokens, prompt_audio_tokens, prompt_image_tokens, cached_audio_tokens, completion_tokens,
        reasoning_tokens, completion_audio_tokens, completion_image_tokens, estimated_cost_micro_usd,
        estimated_cost_rest_pico_usd, unpriced_requests, estimated_requests, estimated_prompt_tokens,
        estimated_completion_tokens, first_row, last_row)
    VALUES ('acme', '2025-11-24', 'openai', 'gpt-4o', 1, 1, 0, 11, 2, 3, 0, 0, 0, 7, 0, 0, 0, 97, 500001, 0, 0, 0, 0, 1, 1);
    INSERT INTO usage_monthly (tenant_id, period, provider, model, requests, chats, failed_requests, prompt_tokens,
        cached_tokens, cache_write_tokens, prompt_audio_tokens, prompt_image_tokens, cached_audio_tokens, completion_tokens,
        reasoning_tokens, completion_audio_tokens, completion_image_tokens, estimated_cost_micro_usd,
        estimated_cost_rest_pico_usd, unpriced_requests, estimated_requests, estimated_prompt_tokens,
        estimated_completion_tokens)
    VALUES ('acme', '2025-11', 'openai', 'gpt-4o', 1, 1, 0, 11, 2, 3, 0, 0, 0, 7, 0, 0, 0, 97, 500001, 0, 0, 0, 0);";

#[tokio::test]
async fn rows_of_before_there_were_two_costs_are_billed_their_cost() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = open(&directory).await;
    let migrations = MIGRATOR.iter().filter(|migration| migration.version <= 5).cloned().collect();
    let fifth = Migrator { migrations: Cow::Owned(migrations), ..Migrator::DEFAULT };
    fifth.run(&ledger.writer).await.unwrap();
    sqlx::raw_sql(OF_BEFORE).execute(&ledger.writer).await.unwrap();
    ledger.migrate().await.unwrap();
    let all = EventsQuery { tenant: None, from: None, to: None, priced: None, after: None, events_max: 9 };
    let event = ledger.events(&all).await.unwrap().remove(0).event;
    assert_eq!((event.cost, event.billable), (Some(PicoUsd(97_500_001)), Some(PicoUsd(97_500_001))));
    assert!(event.quantities.is_nothing() && event.corrects.is_none());
    assert_eq!((event.utc_offset_s, event.tokens.cache_write, event.outcome), (0, 3, Outcome::Completed));
    let sums =
        ledger.sums(&SumsQuery { tenant: None, period: None, group_by: Vec::new() }).await.unwrap().remove(0).sums;
    assert_eq!((sums.cost, sums.billable), (PicoUsd(97_500_001), PicoUsd(97_500_001)));
    let (mut seen, mut counted, mut used) = ((Vec::new(), Vec::new()), Vec::new(), Vec::new());
    let mut see = |entry| match entry {
        Entry::Events(stratum) => seen.0.push(stratum.values()),
        Entry::Sum(sum) => seen.1.push(sum.1),
        Entry::Counted(stratum) => counted.extend(stratum.keys().into_iter().map(|key| (key, stratum.values))),
        Entry::Used(sum) => used.push(*sum),
        Entry::Begin { .. } => {}
        other => panic!("{other:?}"),
    };
    ledger.walk(&mut see).await.unwrap();
    assert_eq!(seen, (vec![sums.values()], vec![sums.values(); 2]));
    counted.sort();
    used.sort();
    assert_eq!(used, counted);
    assert_eq!(used.into_iter().map(|(_, values)| values).collect::<Vec<_>>(), [[1, 18, 97_501]; 2]);
}
