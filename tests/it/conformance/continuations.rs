//! What every [`Continuations`] promises.

use std::sync::Arc;
use std::time::Duration;

use tollgate::adapters::memory_continuations::MemoryContinuations;
use tollgate::adapters::redis_counters::RedisCounters;
use tollgate::adapters::system_clock::SystemClock;
use tollgate::ports::continuations::{Continuations, TokenHash};
use tollgate::ports::shared::SharedCounters;

use super::super::support::redis::{RedisCluster, RedisServer};
use super::{Keep, event_id, tenant};

const LEDGER: &str = "aaaaaaaabbbbbbbb";
const WITHIN: Duration = Duration::from_secs(10);
const TOKEN: TokenHash = TokenHash([7; 32]);

/// Two gateways' views of one memory, which are the same one in a process.
struct Memory {
    name: &'static str,
    here: Arc<dyn Continuations>,
    there: Arc<dyn Continuations>,
    _keep: Vec<Keep>,
}

async fn redis(name: &'static str, url: String, server: Keep) -> Memory {
    let mut views: Vec<Arc<dyn Continuations>> = Vec::new();
    let mut keep = vec![server];
    for _ in 0..2 {
        let clock = Arc::new(SystemClock::new());
        let counters = RedisCounters::start(url.parse().unwrap(), clock, &tokio::runtime::Handle::current());
        counters.claim(LEDGER).await.unwrap();
        views.push(Arc::new(counters.continuations(WITHIN)));
        keep.push(Box::new(counters));
    }
    let [here, there] = views.try_into().unwrap_or_else(|_| panic!("two views"));
    Memory { name, here, there, _keep: keep }
}

async fn adapters() -> Vec<Memory> {
    let own: Arc<dyn Continuations> = Arc::new(MemoryContinuations::new(Arc::new(SystemClock::new())));
    let (server, cluster) =
        tokio::task::spawn_blocking(|| (RedisServer::start(), RedisCluster::start())).await.unwrap();
    vec![
        Memory { name: "memory", here: own.clone(), there: own, _keep: Vec::new() },
        redis("redis", server.url(), Box::new(server)).await,
        redis("cluster", cluster.url(), Box::new(cluster)).await,
    ]
}

#[tokio::test]
async fn a_token_is_taken_once_and_by_its_tenant() {
    for Memory { name, here, there, _keep } in adapters().await {
        let (acme, other) = (tenant("acme"), tenant("other"));
        let [first, second, third] = [1, 2, 3].map(event_id);
        assert!(!here.take(&acme, TOKEN, first).await, "{name}: nobody was given it");
        here.issue(&acme, TOKEN).await;
        assert!(!there.take(&other, TOKEN, first).await, "{name}: another tenant");
        assert!(!there.take(&acme, TokenHash([8; 32]), first).await, "{name}: another token");
        assert!(there.take(&acme, TOKEN, first).await, "{name}");
        assert!(here.take(&acme, TOKEN, first).await, "{name}: the same call again");
        assert!(!here.take(&acme, TOKEN, second).await, "{name}: a second call");
        there.issue(&acme, TOKEN).await;
        assert!(here.take(&acme, TOKEN, third).await, "{name}: it was given back");
        assert!(!here.take(&acme, TOKEN, first).await, "{name}: the one that had it before");
    }
}

#[tokio::test]
async fn of_many_that_take_a_token_at_once_one_has_it() {
    for Memory { name, here, there, _keep } in adapters().await {
        let acme = tenant("acme");
        here.issue(&acme, TOKEN).await;
        let takes = (0..100).map(|call| {
            let view = if call % 2 == 0 { &here } else { &there };
            view.take(&acme, TOKEN, event_id(call))
        });
        let taken = futures_util::future::join_all(takes).await;
        assert_eq!(taken.into_iter().filter(|taken| *taken).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_memory_that_is_gone_has_forgotten_and_does_not_wait() {
    let server = tokio::task::spawn_blocking(RedisServer::start).await.unwrap();
    let Memory { here, there: _there, _keep, .. } = redis("redis", server.url(), Box::new(())).await;
    let acme = tenant("acme");
    here.issue(&acme, TOKEN).await;
    drop(server);
    assert!(!here.take(&acme, TOKEN, event_id(1)).await);
    here.issue(&acme, TOKEN).await;
}
