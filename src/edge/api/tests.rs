//! Tests of the routers: both listeners over ports in memory.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::domain::audit::{Actor, Author};
use crate::metering::admin::Order;
use crate::metering::fakes::{STORE_WORDS, StoppedClock, World, event};
use crate::metering::identity::{Identities, Mode, hash};
use crate::ports::counters::CountersHealth;
use crate::ports::journal::Backlog;
use crate::ports::usage::UsageStore;

use super::health::Pulse;
use super::*;

mod isolation;
mod once;
mod openapi;
mod routes;

/// How far the ledger is behind in these tests.
const BEHIND: Backlog = Backlog {
    events: 3,
    waiting_us: 70_500,
    in_flight: 2,
    bytes: 4_096,
    bytes_max: 1_048_576,
    full: false,
    quarantined: 1,
};

const ADMIN_KEY: &str = "an-admin-key-of-at-least-32-characters";

/// Both routers over one world, with a key of each tenant.
struct Site {
    world: World,
    state: ApiState,
    acme_key: String,
    globex_key: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Site {
    async fn open(mode: Mode) -> Self {
        let world = World::open().await;
        let key = async |tenant: &str| {
            let author = Author::of(Actor::Cli);
            world
                .admin
                .issue_key(Order::by(&author), &tenant.parse().unwrap(), "test".to_owned(), None, None)
                .await
                .unwrap()
                .1
        };
        let (acme_key, globex_key) = (key("acme").await, key("globex").await);
        let now = "2026-11-24T10:00:00Z";
        let events = [
            event("acme", 1, "openai", "gpt-4o-mini", now),
            event("globex", 2, "openai", "gpt-4", now),
            event("acme", 3, "gemini", "gemini-1.5-pro", "2026-11-02T00:00:00Z"),
        ];
        world.store.append(&events).await.unwrap();
        let identities = Identities::new(
            mode,
            hash(ADMIN_KEY),
            "starter".parse().unwrap(),
            world.snapshots.clone(),
            world.store.clone(),
            Arc::new(StoppedClock(World::now())),
        );
        let state = ApiState {
            admin: world.admin.clone(),
            reports: world.reports.clone(),
            counting: world.counting(),
            identities: Arc::new(identities),
            strangers: Arc::new(Strangers::new(Arc::new(StoppedClock(World::now())), drop)),
            admin_strangers: Arc::new(Strangers::new(Arc::new(StoppedClock(World::now())), drop)),
            pulse: Arc::new(|| Pulse { backlog: BEHIND, ..Pulse::default() }),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            store_timeout: STORE_TIMEOUT,
        };
        Self { world, state, acme_key, globex_key }
    }

    async fn send(&self, router: Router, request: Request<Body>) -> Answer {
        let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// A request on the admin listener; an empty key sends none.
    async fn admin(&self, method: &str, uri: &str, key: &str, body: &str) -> Answer {
        self.send(admin_router(self.state.clone()), request(method, uri, key, body)).await
    }

    /// A request on the proxy listener.
    async fn proxy(&self, method: &str, uri: &str, key: &str, body: &str) -> Answer {
        self.send(proxy_router(self.state.clone()), request(method, uri, key, body)).await
    }
}

fn request(method: &str, uri: &str, key: &str, body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    request.body(Body::from(body.to_owned())).unwrap()
}
