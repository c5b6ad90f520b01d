//! What is Postgres' own about the ledger: many gateways at once, months as partitions, schema versions, what its errors
//! say.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tollgate::adapters::postgres::PostgresLedger;
use tollgate::domain::audit::{Actor, Author};
use tollgate::domain::event::UsageEvent;
use tollgate::domain::ids::EventId;
use tollgate::domain::plan::{Limit, Metric, Plan, Scope};
use tollgate::domain::tenant::Tenant;
use tollgate::domain::time::{Micros, Period, Window};
use tollgate::domain::zone::Zone;
use tollgate::metering::verify::{Differences, ledger};
use tollgate::ports::StoreError;
use tollgate::ports::crossings::{CrossingsQuery, Watched};
use tollgate::ports::tenants::{Act, Answered, AuditFilter, AuditQuery, AuditStart, Digest, Done, Memory, TenantStore};
use tollgate::ports::usage::{EventsQuery, SumsQuery, UsageStore};

use super::conformance::{at, event, postgres, tenant};
use super::support::machine::full;
use super::support::postgres::Database;

/// Another gateway's way to the same ledger.
async fn node(database: &Database) -> Arc<PostgresLedger> {
    Arc::new(PostgresLedger::open(&database.url, Duration::ZERO).await.unwrap())
}

fn page(after: i64, events_max: u32) -> EventsQuery {
    EventsQuery { tenant: None, from: None, to: None, priced: None, after: Some(after), events_max }
}

/// Demands that every sum is the sum of its events.
async fn demand_no_difference(store: &dyn UsageStore) {
    let mut differences = Differences::default();
    ledger::compare(store, &mut differences, &mut |_, _| {}).await.unwrap();
    assert_eq!(differences.kept(), [], "{:?}", differences.kept());
}

/// Events of one flusher: its own ids, the same tenants and models as all others, in an order of its own.
fn batch_of(flusher: u64, batch: u64, events: u64) -> Vec<UsageEvent> {
    (0..events)
        .map(|number| {
            let of = (number * (flusher * 2 + 1)) % 7;
            UsageEvent {
                tenant: tenant(["acme", "beta", "gamma", "delta", "eps", "zeta", "eta"][usize::try_from(of).unwrap()]),
                model: ["gpt-4o", "o3", "gpt-4o-mini"][usize::try_from((number + flusher) % 3).unwrap()].into(),
                ..event(flusher * 1_000_000 + batch * 1_000 + number)
            }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_pages_by_row_misses_no_event_of_any_gateway() {
    let (reader, database) = postgres().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for flusher in 1..=6 {
        let node = node(&database).await;
        writers.push(tokio::spawn(async move {
            for batch in 0..40 {
                node.append(&batch_of(flusher, batch, 5)).await.unwrap();
            }
        }));
    }
    let pager = tokio::spawn({
        let (reader, is_over) = (reader.clone(), is_over.clone());
        async move {
            let (mut last, mut seen) = (0, Vec::new());
            loop {
                let was_over = is_over.load(Ordering::SeqCst);
                let found = reader.events(&page(last, 50)).await.unwrap();
                last = found.last().map_or(last, |stored| stored.row);
                seen.extend(found.iter().map(|stored| stored.event.id));
                if found.is_empty() && was_over {
                    return seen;
                }
            }
        }
    });
    for writer in writers {
        writer.await.unwrap();
    }
    is_over.store(true, Ordering::SeqCst);
    let seen = pager.await.unwrap();
    let expected: BTreeSet<EventId> = (1..=6)
        .flat_map(|flusher| (0..40).flat_map(move |batch| batch_of(flusher, batch, 5)))
        .map(|event| event.id)
        .collect();
    assert_eq!(seen.len(), expected.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gateways_that_cross_a_threshold_at_once_note_it_once() {
    let (reader, database) = postgres().await;
    let limit = Limit { scope: Scope::Tenant, metric: Metric::Chats, window: Window::Month, max: 100 };
    let plan = Arc::new(Plan { limits: vec![limit], ..Plan::unlimited("small".parse().unwrap()) });
    let mut writers = Vec::new();
    for flusher in 1..=6_u64 {
        let (node, plan) = (node(&database).await, plan.clone());
        writers.push(tokio::spawn(async move {
            let watched: Watched = [(tenant("acme"), plan)].into_iter().collect();
            let mut crossed = Vec::new();
            for number in 0..30 {
                let one = [event(flusher * 1_000_000 + number)];
                crossed.extend(node.append_watched(&one, &watched).await.unwrap().crossed);
            }
            crossed
        }));
    }
    let mut told = Vec::new();
    for writer in writers {
        told.extend(
            writer.await.unwrap().into_iter().map(|crossing| (crossing.percent, crossing.used, crossing.event)),
        );
    }
    told.sort_unstable();
    let listed = CrossingsQuery { tenant: None, after: 0, crossings_max: 100 };
    let listed = reader.crossings(&listed).await.unwrap().into_iter().map(|stored| stored.crossing);
    let listed: Vec<_> = listed.map(|crossing| (crossing.percent, crossing.used, crossing.event)).collect();
    assert_eq!(told, listed);
    assert_eq!(told.iter().map(|(percent, used, _)| (*percent, *used)).collect::<Vec<_>>(), [(80, 80), (100, 100)]);
    // The events that crossed are those that were booked as the 80th and the 100th.
    let events = reader.events(&page(0, 1_000)).await.unwrap();
    assert_eq!([events[79].event.id, events[99].event.id], [told[0].2, told[1].2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_gateways_that_write_the_same_sums_lose_nothing_and_never_lock_each_other_out() {
    let (store, database) = postgres().await;
    let batches = if full() { 40 } else { 8 };
    let mut flushers = Vec::new();
    for flusher in 1..=16 {
        let node = node(&database).await;
        flushers.push(tokio::spawn(async move {
            for batch in 0..batches {
                let events = batch_of(flusher, batch, 60);
                assert_eq!(node.append(&events).await, Ok(60));
                // Sent again, as after an answer that was lost.
                assert_eq!(node.append(&events[..20]).await, Ok(0));
            }
        }));
    }
    for flusher in flushers {
        flusher.await.unwrap();
    }
    let total = SumsQuery { tenant: None, period: None, group_by: Vec::new() };
    assert_eq!(store.sums(&total).await.unwrap()[0].sums.requests, 16 * batches * 60);
    demand_no_difference(&*store).await;
    let deadlocks = database.say("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()");
    assert_eq!(deadlocks, "0");
}

fn made(id: &str) -> Tenant {
    let plan = "starter".parse().unwrap();
    Tenant { id: tenant(id), name: id.to_owned(), plan, suspended: false, zone: Zone::UTC, created_at: Micros(1) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revision_hides_no_older_change_of_another_gateway() {
    let (reader, database) = postgres().await;
    let mut admins = Vec::new();
    for admin in 0..6 {
        let node = node(&database).await;
        admins.push(tokio::spawn(async move {
            for number in 0..15 {
                let act = Act::by(Author::of(Actor::Admin), Micros(1));
                node.create_tenant(&made(&format!("t{admin}-{number}")), &act).await.unwrap();
            }
        }));
    }
    let mut between = 0;
    while !admins.iter().all(tokio::task::JoinHandle::is_finished) {
        // Each change makes one tenant.
        let seen = reader.load().await.unwrap();
        assert_eq!(i64::try_from(seen.tenants.len()).unwrap(), seen.revision);
        between += u32::from(seen.revision < 90);
    }
    for admin in admins {
        admin.await.unwrap();
    }
    assert_eq!(reader.revision().await, Ok(90));
    assert!(between > 1, "{between} looks between the changes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_gateways_with_the_same_key_one_makes_the_change_and_the_others_hear_its_answer() {
    let (store, database) = postgres().await;
    let mut tries = Vec::new();
    for number in 0..10_u8 {
        let node = node(&database).await;
        tries.push(tokio::spawn(async move {
            let answered = Answered { request: Digest([1; 32]), sealed: vec![number] };
            let memory = Memory { id: Digest([7; 32]), key_sha256: Digest([7; 32]), answered };
            let act = Act { memory: Some(memory), ..Act::by(Author::of(Actor::Admin), Micros(1)) };
            (number, node.create_tenant(&made("acme"), &act).await.unwrap())
        }));
    }
    let (mut done, mut told) = (Vec::new(), Vec::new());
    for one in tries {
        match one.await.unwrap() {
            (number, Done::Now(())) => done.push(vec![number]),
            (_, Done::Before(answered)) => told.push(answered.sealed),
        }
    }
    assert_eq!((done.len(), told.len()), (1, 9));
    assert!(told.iter().all(|answer| *answer == done[0]));
    assert_eq!(store.revision().await, Ok(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_processes_may_make_the_schema_at_once() {
    for _ in 0..3 {
        let database = Database::new();
        let nodes = join_all((0..10).map(|_| node(&database))).await;
        for made in join_all(nodes.iter().map(|node| node.migrate())).await {
            assert_eq!(made, Ok(()));
        }
        assert_eq!(nodes[0].ready().await, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_gateways_may_need_a_new_month_at_once() {
    let (store, database) = postgres().await;
    let nodes = join_all((0..10).map(|_| node(&database))).await;
    for month in 1..=6 {
        let requested_at = at(&format!("2027-{month:02}-15T00:00:00Z"));
        let number = |node: u64| node * 100 + u64::try_from(month).unwrap();
        let events: Vec<UsageEvent> = (0..10).map(|node| UsageEvent { requested_at, ..event(number(node)) }).collect();
        let appends = nodes.iter().zip(&events).map(|(node, event)| node.append(std::slice::from_ref(event)));
        for appended in join_all(appends).await {
            assert_eq!(appended, Ok(1));
        }
    }
    demand_no_difference(&*store).await;
}

#[tokio::test]
async fn what_was_changed_past_the_gateway_is_found_by_verify() {
    let id = event(1).id;
    let daily = "usage_daily acme 2026-11-24 openai gpt-4o";
    for (statements, expected) in [
        ("SELECT 1", vec![]),
        (
            "UPDATE usage_daily SET requests = -1, chats = -9223372036854775808",
            vec![
                format!("{daily}: requests: expected 3, found -1"),
                format!("{daily}: chats: expected 3, found -9223372036854775808"),
            ],
        ),
        (
            "DELETE FROM usage_daily",
            vec![format!(
                "{daily}: row: expected requests 3, chats 3, prompt_tokens 33, completion_tokens 21, \
                 estimated_cost_pico_usd 292500000, billable_cost_pico_usd 292500000, found none"
            )],
        ),
        (
            "UPDATE usage_events SET cached_audio_tokens = 12, outcome = 'lost', status = -1 WHERE row = 1;
             UPDATE usage_daily SET cached_audio_tokens = 12; UPDATE usage_monthly SET cached_audio_tokens = 12",
            vec![
                format!("event {id}: status is below 1000: expected that, found -1"),
                format!(
                    "event {id}: cached_audio_tokens is a part of cached_tokens and prompt_audio_tokens: expected that, found 12"
                ),
                format!("event {id}: outcome is a known one: expected that, found lost"),
            ],
        ),
        (
            "UPDATE usage_events SET priced = 'unpriced' WHERE row = 1;
             UPDATE usage_daily SET unpriced_requests = 1; UPDATE usage_monthly SET unpriced_requests = 1",
            vec![format!(
                "event {id}: a cost is there exactly where there is a price: expected that, found 97500000, unpriced"
            )],
        ),
        (
            "UPDATE usage_events SET id = (SELECT id FROM usage_events WHERE row = 1), requested_at = requested_at + 1
             WHERE row = 2",
            vec![format!("event {id}: an id is one event's: expected that, found 2 events")],
        ),
    ] {
        let (store, database) = postgres().await;
        store.append(&[event(1), event(2), event(3)]).await.unwrap();
        database.say(statements);
        let mut differences = Differences::default();
        ledger::compare(&*store, &mut differences, &mut |_, _| {}).await.unwrap();
        let told: Vec<String> = differences.kept().iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{statements}");
    }
}

#[tokio::test]
async fn an_event_of_any_year_is_booked() {
    let (store, _database) = postgres().await;
    let instants = [
        Micros(i64::MIN),
        Micros(-1),
        Micros(0),
        at("1999-12-31T23:59:59.999999Z"),
        at("2000-01-01T00:00:00Z"),
        at("2199-12-31T23:59:59.999999Z"),
        at("2200-01-01T00:00:00Z"),
        at("9999-12-30T00:00:00Z"),
        Micros(i64::MAX),
    ];
    let events: Vec<UsageEvent> =
        (0..).zip(instants).map(|(number, requested_at)| UsageEvent { requested_at, ..event(number) }).collect();
    assert_eq!(store.append(&events).await, Ok(9));
    assert_eq!(store.append(&events).await, Ok(0));
    let listed = store.events(&page(0, 100)).await.unwrap();
    assert_eq!(listed.into_iter().map(|stored| stored.event).collect::<Vec<_>>(), events);
    let total = SumsQuery { tenant: Some(tenant("acme")), period: None, group_by: Vec::new() };
    assert_eq!(store.sums(&total).await.unwrap()[0].sums.requests, 9);
}

#[tokio::test]
async fn a_text_that_postgres_cannot_hold_keeps_no_event_from_the_ledger() {
    let (store, _database) = postgres().await;
    let odd = UsageEvent { model: "gpt\0-4o".into(), request_id: Some("\0".into()), ..event(1) };
    assert_eq!(store.append(&[odd]).await, Ok(1));
    let stored = store.event(None, event(1).id).await.unwrap().unwrap();
    assert_eq!(&*stored.event.model, "gpt\u{fffd}-4o");
}

#[tokio::test]
async fn a_partition_that_was_dropped_is_made_again() {
    let (store, database) = postgres().await;
    store.append(&[event(1)]).await.unwrap();
    database.say("DROP TABLE usage_events_2026_11");
    assert_eq!(store.append(&[event(2)]).await, Ok(1));
    assert_eq!(database.say("SELECT COUNT(*) FROM usage_events_2026_11"), "1");
}

#[tokio::test]
async fn a_schema_that_is_older_or_newer_says_what_to_do() {
    let database = Database::new();
    let store = node(&database).await;
    let before = store.ready().await.unwrap_err();
    assert!(before.to_string().contains("tollgate migrate"), "{before}");
    let unbooked = store.append(&[event(1)]).await.unwrap_err();
    assert!(matches!(&unbooked, StoreError::Unavailable(why) if why.contains("tollgate migrate")), "{unbooked}");
    store.migrate().await.unwrap();
    assert_eq!(store.ready().await, Ok(()));
    database.say(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9000, 'from the future', TRUE, '', 0)",
    );
    for refused in [store.migrate().await, store.ready().await] {
        assert!(matches!(&refused, Err(StoreError::Corrupt(why)) if why.contains("9000")), "{refused:?}");
    }
}

/// What a gateway of the third version of the schema gives a row.
const COLUMNS_OF_BEFORE: &str = "tenant_id, key_id, user_id, kb_id, provider, model, requested_model, endpoint, chats, \
    prompt_tokens, cached_tokens, cache_write_tokens, prompt_audio_tokens, prompt_image_tokens, cached_audio_tokens, \
    completion_tokens, reasoning_tokens, completion_audio_tokens, completion_image_tokens, usage_source, \
    estimated_cost_pico_usd, priced, price_version, service_tier, requested_at, duration_us, first_byte_us, status, outcome, \
    request_id";

#[tokio::test]
async fn a_gateway_of_before_the_newest_schema_keeps_what_it_would_book_wrong() {
    let (store, database) = postgres().await;
    store.append(&[event(1)]).await.unwrap();
    let columns = COLUMNS_OF_BEFORE;
    let insert = |more: &str, value: &str| {
        format!(
            "INSERT INTO usage_events (id, {columns}{more}) SELECT gen_random_uuid(), {columns}{value} FROM usage_events"
        )
    };
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let refused = sqlx::raw_sql(AssertSqlSafe(insert("", ""))).execute(&mut connection).await.unwrap_err();
    let refused = refused.as_database_error().unwrap();
    assert!(refused.message().contains("start a newer tollgate"), "{refused}");
    // What it takes for a refusal of that one row it would set aside, and go on.
    let code = refused.code().unwrap();
    assert!(!["22", "23", "54"].contains(&&code[..2]), "{code}");
    database.say(&insert(", utc_offset_s", ", 0"));
    assert_eq!(database.say("SELECT COUNT(*) FROM usage_events"), "2");
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_month_that_some_of_stays_is_dropped_without_keeping_anybody_out() {
    let (store, database) = postgres().await;
    let day_us = 86_400_000_000;
    let mut events: Vec<UsageEvent> = (0..12_000)
        .map(|number| {
            let requested_at = Micros(at("2026-10-01T12:00:00Z").0 + i64::try_from(number % 30).unwrap() * day_us);
            UsageEvent { requested_at, ..event(number) }
        })
        .collect();
    // In Tokyo November has begun.
    let of_tokyo = UsageEvent { requested_at: at("2026-10-31T16:00:00Z"), utc_offset_s: 9 * 3_600, ..event(20_000) };
    events.insert(6_000, of_tokyo.clone());
    for batch in events.chunks(1_500) {
        store.append(batch).await.unwrap();
    }
    // As `tollgate verify` reads, and pg_dump.
    let mut reader = PgConnection::connect(&database.url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE usage_events IN ACCESS SHARE MODE").execute(&mut reader).await.unwrap();
    let mut told = Vec::new();
    let before = Period::parse_month("2026-11").unwrap();
    // It tries for two minutes to have the table alone.
    let mut tell = |done| told.push(done);
    let dropping = tokio::time::timeout(Duration::from_secs(60), store.drop_events(before, &mut tell));
    dropping.await.unwrap().unwrap();
    assert_eq!(told.last(), Some(&12_000), "{told:?}");
    assert!(told.is_sorted() && told.len() > 3, "{told:?}");
    let left = store.events(&page(0, 9)).await.unwrap();
    assert_eq!(left.into_iter().map(|stored| stored.event).collect::<Vec<_>>(), [of_tokyo]);
    demand_no_difference(&*store).await;
    reader.close().await.unwrap();
    // A month later all of it goes at once.
    store.drop_events(Period::parse_month("2026-12").unwrap(), &mut |_| {}).await.unwrap();
    assert_eq!(database.say("SELECT to_regclass('usage_events_2026_10') IS NULL"), "t");
    demand_no_difference(&*store).await;
}

#[tokio::test]
async fn what_cannot_be_connected_to_says_why_and_never_the_password() {
    let database = Database::new();
    let (server, name) = database.url.rsplit_once('/').unwrap();
    let host = server.rsplit_once('@').unwrap().1;
    for (url, words) in [
        (format!("postgres://nobody:hunter2@{host}/{name}"), "give user and password"),
        (format!("postgres://tollgate:hunter2@{host}/elsewhere"), "createdb"),
        ("postgres://tollgate:hunter2@127.0.0.1:1/x".to_owned(), "start Postgres"),
        (format!("postgres://tollgate:hunter2@{host}/{name}?sslmode=require"), "sslmode"),
        ("postgres://tollgate:hunter2@127.0.0.1:x/x".to_owned(), "no URL"),
    ] {
        let error = PostgresLedger::open(&url, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
    }
    let ledger = PostgresLedger::open(&database.url, Duration::ZERO).await.unwrap();
    assert_eq!(ledger.name(), format!("postgres://{host}/{name}"));
    assert!(!format!("{ledger:?}").contains("tollgate@"), "{ledger:?}");
}

#[tokio::test]
async fn an_entry_of_the_audit_log_stays_as_it_is() {
    let (store, database) = postgres().await;
    let act = Act::by(Author::of(Actor::Admin), Micros(1));
    store.create_tenant(&made("acme"), &act).await.unwrap();
    let query = AuditQuery { filter: AuditFilter::default(), start: AuditStart::After(0), entries_max: 10 };
    let before = store.audit(&query).await.unwrap();
    assert_eq!(before.len(), 1);
    for text in ["UPDATE audit_log SET actor = 'cli'", "DELETE FROM audit_log", "TRUNCATE audit_log"] {
        database.say(&format!(
            "DO $$ BEGIN {text}; RAISE 'it was done'; \
             EXCEPTION WHEN raise_exception THEN \
                 IF SQLERRM NOT LIKE '%append-only' THEN RAISE; END IF; END $$"
        ));
    }
    // Whoever may only write rows opens the log by no mark of its own: in no schema, and by no table or path that hides the
    // system's.
    database.say(
        "CREATE ROLE clerk; GRANT ALL ON SCHEMA public TO clerk; \
         GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON audit_log TO clerk",
    );
    for opening in [
        "CREATE TEMP TABLE unfinished_copy ()",
        "CREATE TABLE public.unfinished_copy ()",
        "CREATE TEMP TABLE pg_class AS SELECT oid, 'unfinished_copy'::name AS relname, relnamespace, relowner \
             FROM pg_catalog.pg_class WHERE relname = 'audit_log'",
        "CREATE FUNCTION public.equal(name, name) RETURNS bool LANGUAGE sql AS 'SELECT true'; \
             CREATE OPERATOR public.= (leftarg = name, rightarg = name, function = public.equal); \
             SET search_path = public, pg_catalog",
    ] {
        for text in ["UPDATE audit_log SET actor = 'cli'", "DELETE FROM audit_log", "TRUNCATE audit_log"] {
            database.say(&format!(
                "BEGIN; SET LOCAL ROLE clerk; {opening}; DO $$ BEGIN {text}; RAISE 'it was done'; \
                 EXCEPTION WHEN raise_exception THEN \
                     IF SQLERRM NOT LIKE '%append-only' THEN RAISE; END IF; END $$; ROLLBACK"
            ));
        }
    }
    database.say("DROP OWNED BY clerk; DROP ROLE clerk");
    assert_eq!(store.audit(&query).await.unwrap(), before);
    // What a copy wrote it may put right until it is finished.
    database.say("CREATE TABLE unfinished_copy (x INT); DELETE FROM audit_log; DROP TABLE unfinished_copy");
    assert_eq!(store.audit(&query).await.unwrap(), []);
}
