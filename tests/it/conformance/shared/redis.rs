//! Shared counters in a Redis that forgets, comes back with an older copy, is full, hangs, or is not what it should be.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollgate::adapters::redis_counters::RedisCounters;
use tollgate::adapters::system_clock::SystemClock;
use tollgate::domain::counting::Counting;
use tollgate::domain::plan::{Metric, Scope, Subject};
use tollgate::domain::time::{Period, Window};
use tollgate::ports::counters::{Claim, CounterKey};
use tollgate::ports::shared::{CallState, ClaimError, Count, Held, Joined, Look, Noted, Part, SharedCounters};

use super::bench::{Bench, LEDGER, Store, booked, connected, day, runtime, taken};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::machine::figures;
use crate::support::redis::{Data, RedisCluster, RedisServer, Reply};

const BOUND: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// A Redis of this test's own, and a gateway at it.
async fn own(name: &str) -> (RedisServer, Bench) {
    own_with(name, &[]).await
}

async fn own_with(name: &str, settings: &'static [&'static str]) -> (RedisServer, Bench) {
    let server = blocking(move || RedisServer::with(settings)).await;
    let store: Store = connected(&server.url()).await;
    let bench = Bench::new(&store, name);
    (server, bench)
}

/// Starting servers and asking them by hand takes a thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Polls until it is so.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < BOUND, "not within {BOUND:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

fn start(url: &str) -> RedisCounters {
    RedisCounters::start(url.parse().unwrap(), Arc::new(SystemClock::new()), runtime().handle())
}

/// What counters at an address say when they are claimed.
async fn refused(url: &str, ledger: &str) -> String {
    match start(url).claim(ledger).await {
        Err(ClaimError::Unfit(text)) => text,
        other => panic!("not refused: {other:?}"),
    }
}

/// Whether the tenant is missing for whoever looks.
async fn is_unknown(bench: &Bench) -> bool {
    bench.store.look(bench.member.node, &bench.tenant).await == Ok(Look::Unknown)
}

#[tokio::test]
async fn scripts_that_were_flushed_are_loaded_again_and_nothing_is_lost() {
    let (server, bench) = own("scripts").await;
    bench.open(5).await;
    server.done(&["SCRIPT", "FLUSH"]);
    assert_eq!(taken(bench.hold(1, 10).await).0, Count { booked: 5, held: 1, ..Count::default() });
    assert_eq!(bench.count().await, Some(Count { booked: 5, held: 1, ..Count::default() }));
}

#[tokio::test]
async fn after_a_flushall_nothing_is_known() {
    let (server, bench) = own("flushall").await;
    bench.open(5).await;
    server.flush();
    assert_eq!(bench.hold(1, 10).await, Held::Unjoined);
    assert!(is_unknown(&bench).await);
    assert_eq!(bench.count().await, None);
}

#[tokio::test]
async fn a_restart_with_an_older_copy_is_a_loss_of_all() {
    let (mut server, bench) = own("stale").await;
    let epoch = bench.open(5).await;
    server.done(&["SAVE"]);
    taken(bench.hold(1, 7).await);
    taken(bench.hold(2, 7).await);
    let server = blocking(move || {
        server.restart(Data::Kept);
        server
    })
    .await;
    // The copy is there, and says that two more calls fit.
    let key = format!("tollgate:2:5e1f0c9a:{{{}}}", bench.tenant);
    assert_eq!(server.text(&["HGET", &key, "st"]), "o");
    // The first answer already, whichever way it is found.
    let mut answer = None;
    eventually("it is connected", async || {
        answer = bench.hold_or_error(3).await.ok();
        answer.is_some()
    })
    .await;
    assert_eq!(answer, Some(Held::Unjoined));
    assert_eq!(bench.note(epoch, &[bench.call(1, CallState::Settled, 1)], None).await, Noted::Unjoined);
    assert!(is_unknown(&bench).await);
    assert!(bench.store.list().await.unwrap().is_empty());
    assert!(matches!(bench.join().await, Joined::Building(_)));
    let Look::Building { calls, .. } = bench.look().await else { panic!("in building") };
    assert!(calls.is_empty());
}

#[tokio::test]
async fn a_replica_that_was_promoted_in_a_cluster_knows_nothing() {
    let cluster = blocking(|| RedisCluster::with_replicas(true)).await;
    let store: Store = connected(&cluster.url()).await;
    let bench = Bench::new(&store, "failover");
    bench.open(5).await;
    taken(bench.hold(1, 7).await);
    let key = format!("tollgate:2:5e1f0c9a:{{{}}}", bench.tenant);
    let owner = cluster.owner(&key).port;
    let at = cluster.masters.iter().position(|server| server.port == owner).unwrap();
    let replica = &cluster.replicas[at];
    eventually("the replica has it", async || {
        replica.ask(&["READONLY"]);
        replica.info("slave_repl_offset") == cluster.masters[at].info("master_repl_offset")
    })
    .await;
    replica.done(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    eventually("it is the master", async || replica.info("role") == "master").await;
    assert_eq!(replica.text(&["HGET", &key, "st"]), "o");
    eventually("the gateway finds it", async || {
        bench.store.hold(&bench.ask(2, &[bench.claim(7)])).await == Ok(Held::Unjoined)
    })
    .await;
    bench.open(6).await;
    taken(bench.hold(2, 7).await);
}

#[tokio::test]
async fn a_master_of_a_cluster_that_dies_is_replaced_by_its_replica() {
    let mut cluster = blocking(|| RedisCluster::with_replicas(true)).await;
    let store: Store = connected(&cluster.url()).await;
    let bench = Bench { within: Duration::from_millis(50), ..Bench::new(&store, "dies") };
    bench.open(5).await;
    let key = format!("tollgate:2:5e1f0c9a:{{{}}}", bench.tenant);
    let owner = cluster.owner(&key).port;
    let cluster = blocking(move || {
        cluster.masters.iter_mut().find(|server| server.port == owner).unwrap().kill();
        cluster
    })
    .await;
    let began = Instant::now();
    eventually("a promoted replica answers", async || {
        bench.store.hold(&bench.ask(1, &[bench.claim(7)])).await == Ok(Held::Unjoined)
    })
    .await;
    figures(&format!("shared counters: a dead master of a cluster is replaced after {:?}", began.elapsed()));
    bench.open(5).await;
    drop(cluster);
}

#[tokio::test]
async fn a_slot_that_moves_takes_no_count_along_that_is_believed() {
    let cluster = blocking(RedisCluster::start).await;
    let store: Store = connected(&cluster.url()).await;
    let bench = Bench::new(&store, "moves");
    bench.open(5).await;
    let key = format!("tollgate:2:5e1f0c9a:{{{}}}", bench.tenant);
    let Reply::Number(slot) = cluster.masters[0].ask(&["CLUSTER", "KEYSLOT", &key]) else { panic!("a slot") };
    let slot = slot.to_string();
    let from = cluster.owner(&key);
    let to = cluster.masters.iter().find(|server| server.port != from.port).unwrap();
    let (from_id, to_id) = (from.text(&["CLUSTER", "MYID"]), to.text(&["CLUSTER", "MYID"]));
    to.done(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.done(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    // Still there: as before.
    assert_eq!(bench.count().await, Some(booked(5)));
    from.done(&["MIGRATE", "127.0.0.1", &to.port.to_string(), &key, "0", "5000"]);
    // On its way: the old owner says where to ask.
    assert_eq!(bench.hold(1, 7).await, Held::Unjoined);
    for server in [to, from] {
        server.done(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    assert_eq!(bench.hold(1, 7).await, Held::Unjoined);
    bench.open(6).await;
    taken(bench.hold(1, 7).await);
}

#[tokio::test]
async fn of_several_hosts_the_one_that_is_the_master_is_used() {
    let (first, second) = blocking(|| (RedisServer::start(), RedisServer::start())).await;
    second.done(&["REPLICAOF", "127.0.0.1", &first.port.to_string()]);
    eventually("it follows", async || second.info("master_link_status") == "up").await;
    let url = format!("redis://127.0.0.1:{},127.0.0.1:{}", second.port, first.port);
    let store: Store = connected(&url).await;
    let bench = Bench::new(&store, "several");
    bench.open(5).await;
    assert_eq!(first.ask(&["DBSIZE"]), Reply::Number(2));
    eventually("it is copied", async || second.ask(&["DBSIZE"]) == Reply::Number(2)).await;
    // What Sentinel does.
    second.done(&["REPLICAOF", "NO", "ONE"]);
    first.done(&["REPLICAOF", "127.0.0.1", &second.port.to_string()]);
    eventually("the new master is found", async || {
        bench.store.hold(&bench.ask(1, &[bench.claim(7)])).await == Ok(Held::Unjoined)
    })
    .await;
    bench.open(5).await;
    taken(bench.hold(1, 7).await);
    assert!(second.calls("evalsha") > 0);
}

#[tokio::test]
async fn a_server_without_memory_is_unavailable_and_does_nothing_by_halves() {
    let (server, bench) = own_with("memory", &["--maxmemory-policy", "noeviction"]).await;
    let epoch = bench.open(5).await;
    server.config("maxmemory", "1");
    let error = bench.store.hold(&bench.ask(1, &[bench.claim(7)])).await.unwrap_err();
    assert!(error.0.contains("out of memory"), "{error}");
    assert_eq!(bench.count().await, Some(booked(5)), "reading goes on");
    server.config("maxmemory", "0");
    assert_eq!(taken(bench.hold(1, 7).await).0, Count { booked: 5, held: 1, ..Count::default() });
    assert_eq!(bench.note(epoch, &[bench.call(1, CallState::Booked, 1)], None).await, Noted::Done);
    assert_eq!(bench.count().await, Some(booked(6)));
}

#[tokio::test]
async fn a_server_that_became_a_replica_is_unavailable_until_it_is_the_master_again() {
    let (server, bench) = own("readonly").await;
    bench.open(5).await;
    server.done(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = bench.store.hold(&bench.ask(1, &[bench.claim(7)])).await.unwrap_err();
    assert!(error.0.contains("replica"), "{error}");
    server.done(&["REPLICAOF", "NO", "ONE"]);
    eventually("it is found again", async || bench.store.hold(&bench.ask(1, &[bench.claim(7)])).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_refuses_connections_is_refused_at_once_and_found_when_it_is_back() {
    let (mut server, bench) = own("dead").await;
    bench.open(5).await;
    server.kill();
    eventually("it is seen", async || bench.store.hold(&bench.ask(1, &[bench.claim(7)])).await.is_err()).await;
    let began = Instant::now();
    for call in 0..20 {
        assert!(bench.store.hold(&bench.ask(call, &[bench.claim(7)])).await.is_err());
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let server = blocking(move || {
        server.restart(Data::Lost);
        server
    })
    .await;
    let began = Instant::now();
    eventually("it is back", async || bench.hold_or_error(1).await == Ok(Held::Unjoined)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(server);
}

#[tokio::test]
async fn a_command_that_hung_and_arrives_late_does_nothing() {
    let server = blocking(RedisServer::start).await;
    let proxy = FaultProxy::start(server.address());
    let store: Store = connected(&format!("redis://{}", proxy.address)).await;
    let bench = Bench { within: Duration::from_millis(50), ..Bench::new(&store, "late") };
    let epoch = bench.open(5).await;
    taken(bench.hold(1, 9).await);
    proxy.set(Fault::Hang);
    let began = Instant::now();
    let note = [bench.call(1, CallState::Booked, 1)];
    let noting = tollgate::ports::shared::Noting {
        member: bench.member,
        tenant: &bench.tenant,
        epoch,
        notes: &note,
        lease_left: None,
        within: bench.within,
    };
    let claims = [bench.claim(9)];
    let ask = bench.ask(2, &claims);
    let (hold, noted, changed) =
        tokio::join!(store.hold(&ask), store.note(&noting), store.changed(&bench.tenant, 9, bench.within));
    assert!(hold.is_err() && noted.is_err() && changed.is_err());
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    let before = server.calls("evalsha");
    proxy.set(Fault::None);
    eventually("they arrive", async || server.calls("evalsha") >= before + 3).await;
    assert_eq!(bench.count().await, Some(Count { booked: 5, held: 1, ..Count::default() }));
    assert_eq!(taken(bench.hold(3, 9).await).0.held, 2, "the revision is the old one");
}

#[tokio::test]
async fn commands_at_a_server_that_stood_still_do_nothing_when_it_goes_on() {
    let (server, bench) = own("still").await;
    let bench = Bench { within: Duration::from_millis(50), ..bench };
    bench.open(5).await;
    server.stop();
    for call in 0..3 {
        let began = Instant::now();
        assert!(bench.store.hold(&bench.ask(call, &[bench.claim(9)])).await.is_err());
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    }
    server.cont();
    eventually("it goes on", async || bench.hold_or_error(9).await.is_ok()).await;
    assert_eq!(bench.count().await, Some(Count { booked: 5, held: 1, ..Count::default() }));
}

#[tokio::test]
async fn a_connection_that_hangs_is_replaced_and_one_that_was_cut_too() {
    let server = blocking(RedisServer::start).await;
    let proxy = FaultProxy::start(server.address());
    let store: Store = connected(&format!("redis://{}", proxy.address)).await;
    let bench = Bench { within: Duration::from_millis(50), ..Bench::new(&store, "hangs") };
    bench.open(5).await;
    for fault in [Fault::Hang, Fault::HangAnswers, Fault::Cut] {
        proxy.set(fault);
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(2_500) {
            let asked = Instant::now();
            assert!(bench.hold_or_error(1).await.is_err(), "{fault:?}");
            assert!(asked.elapsed() < Duration::from_millis(500), "{fault:?}: {:?}", asked.elapsed());
            tokio::time::sleep(POLL).await;
        }
        proxy.set(Fault::None);
        let began = Instant::now();
        eventually("it is back", async || bench.hold_or_error(1).await.is_ok()).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{fault:?}: {:?}", began.elapsed());
    }
    // The hold whose answer was swallowed was taken once.
    assert_eq!(bench.count().await, Some(Count { booked: 5, held: 1, ..Count::default() }));
}

#[tokio::test]
async fn a_slow_network_is_no_reason_to_refuse() {
    let server = blocking(RedisServer::start).await;
    let proxy = FaultProxy::start(server.address());
    let (there, back) = (Duration::from_millis(5), Duration::from_millis(20));
    proxy.set(Fault::Delay(there, back));
    let store: Store = connected(&format!("redis://{}", proxy.address)).await;
    let bench = Bench { within: Duration::from_millis(150), ..Bench::new(&store, "slow") };
    bench.open(5).await;
    for call in 0..10 {
        taken(bench.hold(call, 20).await);
    }
}

#[tokio::test]
async fn the_counters_of_another_ledger_are_refused_in_one_line_that_says_what_helps() {
    let (server, _bench) = own("ledgers").await;
    let text = refused(&server.url(), "00000000-1111-4222-8333-444444444444").await;
    assert!(text.contains("another ledger") && text.contains("of its own") && !text.contains('\n'), "{text}");
    // Its own is claimed as often as it likes.
    start(&server.url()).claim(LEDGER).await.unwrap();
}

#[tokio::test]
async fn a_claim_that_was_lost_is_renewed() {
    let (server, _bench) = own("renewed").await;
    server.flush();
    eventually("it is there again", async || server.ask(&["GET", "tollgate:ledger"]) == Reply::Text(LEDGER.into()))
        .await;
}

#[tokio::test]
async fn what_will_not_do_is_refused_in_one_line_that_says_what_helps() {
    let (single, secret) = blocking(|| (RedisServer::start(), RedisServer::with(&["--requirepass", "hunter2"]))).await;
    let of = |server: &RedisServer, scheme: &str, login: &str| format!("{scheme}://{login}127.0.0.1:{}", server.port);
    let text = refused(&of(&single, "redis+cluster", ""), LEDGER).await;
    assert!(text.contains("use redis:// or rediss://"), "{text}");
    for login in ["", ":wrong@", "user:wrong@"] {
        let text = refused(&of(&secret, "redis", login), LEDGER).await;
        assert!(text.contains("set user and password in counters.url"), "{text}");
        assert!(!text.contains("wrong") && !text.contains('\n'), "{text}");
    }
    start(&of(&secret, "redis", ":hunter2@")).claim(LEDGER).await.unwrap();
    single.done(&["ACL", "SETUSER", "little", "on", ">pw", "~*", "+@all", "-eval", "-evalsha", "-script"]);
    let text = refused(&of(&single, "redis", "little:pw@"), LEDGER).await;
    assert!(text.contains("permit"), "{text}");
    let nobody = start("redis://127.0.0.1:1").claim(LEDGER).await;
    assert!(matches!(nobody, Err(ClaimError::Unavailable(_))), "{nobody:?}");
}

/// What is logged on this thread while the value lives.
fn logged() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn times(&self, text: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(text).count()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_redis_that_evicts_is_warned_of_once() {
    let (log, _logged) = logged();
    let mut server = blocking(|| RedisServer::with(&["--maxmemory-policy", "allkeys-lru"])).await;
    let clock = Arc::new(SystemClock::new());
    let url = server.url().parse().unwrap();
    let store = RedisCounters::start(url, clock, &tokio::runtime::Handle::current());
    store.claim(LEDGER).await.unwrap();
    assert_eq!(log.times("set maxmemory-policy to noeviction"), 1);
    let server = blocking(move || {
        server.restart(Data::Lost);
        server
    })
    .await;
    eventually("it is connected again", async || log.times("Redis is connected.") == 2).await;
    assert_eq!(log.times("set maxmemory-policy to noeviction"), 1);
    drop(server);
}

#[tokio::test]
async fn a_node_of_a_cluster_is_not_used_alone() {
    let cluster = blocking(RedisCluster::start).await;
    let text = refused(&cluster.masters[0].url(), LEDGER).await;
    assert!(text.contains("redis+cluster://"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds_a_second_and_their_latency() {
    let (server, bench) = own("figure").await;
    bench.open(0).await;
    for callers in [1_u64, 8, 64] {
        let until = Duration::from_millis(if crate::support::machine::full() { 3_000 } else { 300 });
        let began = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let bench = bench.clone();
                tokio::spawn(async move {
                    let mut calls = 0_u64;
                    while began.elapsed() < until {
                        calls += 1;
                        taken(bench.hold((callers * 100 + caller) * 1_000_000 + calls, 1_000_000_000).await);
                    }
                    calls
                })
            })
            .collect();
        let mut calls = 0;
        for task in tasks {
            calls += task.await.unwrap();
        }
        let took = began.elapsed();
        let mean = took * u32::try_from(callers).unwrap() / u32::try_from(calls).unwrap();
        let rate = u128::from(calls) * 1_000_000 / took.as_micros();
        figures(&format!("shared counters in Redis: {callers} callers: {rate} holds/s, {mean:?} each"));
    }
    let own = server.info("cmdstat_evalsha");
    let own = own.split(',').find_map(|part| part.strip_prefix("usec_per_call=")).unwrap();
    figures(&format!("shared counters in Redis: {own} µs of Redis a hold"));
}

/// Twenty thousand users of one tenant: what each operation takes of the server's time, which all tenants share.
#[tokio::test]
async fn a_tenant_of_many_users_keeps_no_other_waiting() {
    const USERS: u64 = 20_000;
    let (_server, bench) = own("crowd").await;
    let bench = Bench { within: BOUND, ..bench };
    let users = Counting::TENANT | Counting::one(Scope::User, Metric::Cost, Window::Day);
    let of = |user: u64, day: Period| {
        let subject = Subject::User(format!("user-{user}@example.org").into());
        CounterKey { subject, metric: Metric::Cost, ..bench.counter(day) }
    };
    let mut told: Vec<(&str, Duration, Duration)> = Vec::new();
    let mut timed = |what: &'static str, times: Vec<Duration>| {
        let (sum, most) = (times.iter().sum::<Duration>(), times.iter().max().copied().unwrap_or_default());
        told.push((what, sum / u32::try_from(times.len().max(1)).unwrap(), most));
    };
    let (first, second) = (day("2026-11-24"), day("2026-11-25"));
    let Joined::Building(epoch) = bench.join_counting(users).await else { panic!("it is there") };
    let Look::Building { joins, .. } = bench.look().await else { panic!("not in building") };
    let sums: Vec<(CounterKey, u64)> = (0..USERS).map(|user| (of(user, first), user)).collect();
    let mut times = Vec::new();
    for (at, sums) in sums.chunks(2_000).enumerate() {
        let part =
            Part { tenant: &bench.tenant, epoch, joins, writer: 7, is_first: at == 0, sums, within: bench.within };
        let began = Instant::now();
        assert!(bench.store.sums(&part).await.unwrap());
        times.push(began.elapsed());
    }
    timed("sums, 2,000 at once", times);
    let began = Instant::now();
    assert!(bench.finish_as(Some(7), epoch, joins, &[], &[]).await);
    timed("finish", vec![began.elapsed()]);
    // The next days: every user's counter is new, and old ones are let go on the way.
    let mut times = Vec::new();
    for (at, day) in [second, day("2026-11-26"), day("2026-11-27"), day("2026-11-28")].into_iter().enumerate() {
        for user in 0..USERS / 20 {
            let claims = [Claim { counter: of(user, day), amount: 5, max: Some(1_000) }];
            let call = u64::try_from(at).unwrap() * USERS + user;
            let began = Instant::now();
            assert!(matches!(bench.asked(bench.ask(call, &claims)).await, Held::Taken { .. }));
            times.push(began.elapsed());
        }
    }
    timed("hold, new users of new days", times);
    let began = Instant::now();
    let listed = bench.store.list().await.unwrap().len();
    timed("list, in pages", vec![began.elapsed()]);
    assert_eq!(u64::try_from(listed).unwrap(), USERS / 20 * 3, "three days are kept");
    let began = Instant::now();
    assert!(matches!(bench.join_with(epoch, true, &[]).await, Joined::Building(_)));
    timed("join that builds anew", vec![began.elapsed()]);
    for (what, mean, most) in &told {
        figures(&format!("redis, {USERS} users: {what}: {mean:?} each, {most:?} at most"));
        // Beside other tests.
        assert!(*most < Duration::from_secs(1) || what.starts_with("list"), "{what}: {most:?}");
    }
}
