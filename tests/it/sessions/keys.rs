//! Keys that change while sessions are open: the client's own, and the one that the provider was opened with.

use super::*;

const MASTER: &str = "7c9e1f0ab35d48261e6f90c2d4a8b3757c9e1f0ab35d48261e6f90c2d4a8b375";

/// What is changed is in force on every gateway within this.
const WITHIN: Duration = Duration::from_secs(5);

/// A key of the tenant's own, or none.
fn set_own(gateway: &Gateway, tenant: &str, key: Option<&str>) {
    let target = format!("/admin/tenants/{tenant}/provider-keys/openai");
    let request = match key {
        Some(key) => Request::post(target, json!({"key": key}).to_string()).method("PUT"),
        None => Request::get(target).method("DELETE"),
    };
    assert!(gateway.admin(request).status < 300, "{tenant}");
}

#[test]
fn a_session_ends_when_the_key_that_its_provider_was_opened_with_is_another() {
    let provider = Sessions::start(honest);
    let gateway = Setup::at(&provider.url()).prod().set("TOLLGATE_SECRETS_KEY", MASTER).start();
    let (one, other) = (Some("sk-proj-planted-own-key-one"), Some("sk-proj-planted-own-key-other"));
    for (tenant, before, after) in
        [("set", None, one), ("exchanged", one, other), ("removed", one, None), ("stays", one, one)]
    {
        let key = gateway.issue(tenant, "pro");
        if before.is_some() {
            set_own(&gateway, tenant, before);
        }
        let mut peer = open(&gateway, &key);
        let changed = Instant::now();
        set_own(&gateway, tenant, after);
        if before == after {
            while changed.elapsed() < WITHIN {
                peer.say(&json!({"type": "input_audio_buffer.clear"}));
                thread::sleep(Duration::from_millis(100));
            }
            peer.say(&ask());
            peer.hear_until("response.done");
            continue;
        }
        let (code, reason) = peer.closed().expect("it is told why");
        assert!(changed.elapsed() < WITHIN, "{tenant}: {:?}", changed.elapsed());
        assert_eq!((code, reason.contains("Open the session again")), (1013, true), "{tenant}: {reason}");
        // As it is told.
        let mut peer = open(&gateway, &key);
        peer.say(&ask());
        peer.hear_until("response.done");
        let seen = provider.seen().pop().unwrap();
        let expected = format!("Bearer {}", after.unwrap_or(OPENAI_KEY));
        assert_eq!(seen.header("authorization"), Some(&*expected), "{tenant}");
    }
}

#[test]
fn a_silent_session_ends_when_its_key_is_revoked_or_its_tenant_suspended() {
    let provider = Sessions::start(|_: &Seen, mut peer: Peer| {
        let start = peer.hear().unwrap();
        peer.say(&json!({"type": "session.started", "session": start["session"]}));
        while peer.hear().is_some() {}
    });
    let gateway = Setup::at(&provider.url()).prod().start();
    let admin = |request: Request| assert_eq!(gateway.admin(request).status, 200);
    for (tenant, with_pings, is_suspended) in
        [("silent", false, false), ("pings", true, false), ("suspended", false, true)]
    {
        let first = gateway.issue(tenant, "starter");
        let second = gateway.issue_key(tenant, json!({"name": "second"}));
        let live = handshake("/v1/live/sessions").bearer(second["key"].as_str().unwrap());
        let (mut peer, _) = websocket::open(gateway.proxy, &live).ok().unwrap();
        peer.say(&json!({"type": "session.start", "session": {"model": "gpt-live-1"}}));
        peer.hear_until("session.started");
        let changed = Instant::now();
        if is_suspended {
            admin(Request::post(format!("/admin/tenants/{tenant}"), r#"{"suspended":true}"#).method("PATCH"));
        } else {
            let target = format!("/admin/tenants/{tenant}/keys/{}", second["id"].as_str().unwrap());
            admin(Request::get(target).method("DELETE"));
        }
        while with_pings && changed.elapsed() < Duration::from_millis(4_500) {
            peer.frame(PING, b"there?");
            thread::sleep(Duration::from_millis(50));
        }
        let (code, reason) = peer.closed().expect("it is told why");
        assert!(changed.elapsed() < WITHIN, "{tenant}: {:?}", changed.elapsed());
        let said = if is_suspended { "Tenant suspended is suspended" } else { "Incorrect API key" };
        assert_eq!((code, reason.starts_with(said)), (1008, true), "{tenant}: {reason}");
        if !is_suspended {
            assert_eq!(gateway.booked(&first, 1).chats, 1, "{tenant}");
        }
    }
}
