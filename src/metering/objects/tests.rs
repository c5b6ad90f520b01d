//! Owners over a store in memory that two nodes share.

use std::sync::atomic::Ordering;

use super::*;
use crate::metering::fakes::StoppedClock;
use crate::metering::fakes::objects::FakeObjects;

const OPENAI: ProviderId = ProviderId::new("openai");

fn tenant(id: &str) -> TenantId {
    id.parse().unwrap()
}

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn node(store: &Arc<FakeObjects>) -> Arc<Objects> {
    Arc::new(Objects::new(store.clone(), Arc::new(StoppedClock(Micros(1)))))
}

fn made(text: &str) -> Vec<Made> {
    vec![Made { name: name(text), passes: true, chosen: None }]
}

fn unknown(text: &str) -> Result<(), Refusal> {
    Err(Refusal::UnknownObject { name: text.into() })
}

impl Objects {
    async fn may(&self, of: &str, text: &str) -> Result<(), Refusal> {
        self.check(&tenant(of), &OPENAI, vec![name(text)], UnknownObjects::Refuse).await
    }
}

#[tokio::test]
async fn what_a_tenant_made_is_its_own_here_at_once_and_everywhere_when_its_answer_ends() {
    let store = Arc::new(FakeObjects::default());
    let (one, other) = (node(&store), node(&store));
    let mut noting = Noting::default();
    one.note(&tenant("acme"), &OPENAI, made("resp_1"), &mut noting);
    assert_eq!(one.may("acme", "resp_1").await, Ok(()));
    assert_eq!(one.may("globex", "resp_1").await, unknown("resp_1"));
    assert_eq!(store.asked.load(Ordering::SeqCst), 0, "it is known here");
    assert_eq!(other.may("acme", "resp_1").await, unknown("resp_1"));

    let carrier = tokio::spawn({
        let one = one.clone();
        async move { one.run().await }
    });
    noting.done().await;
    assert_eq!(other.may("acme", "resp_1").await, Ok(()));
    assert_eq!(other.may("globex", "resp_1").await, unknown("resp_1"));
    let asked = store.asked.load(Ordering::SeqCst);
    assert_eq!(other.may("acme", "resp_1").await, Ok(()));
    assert_eq!(store.asked.load(Ordering::SeqCst), asked, "it is remembered");
    // Of another provider there is none of that name.
    let gemini = ProviderId::new("gemini");
    let refused = other.check(&tenant("acme"), &gemini, vec![name("resp_1")], UnknownObjects::Refuse).await;
    assert_eq!(refused, unknown("resp_1"));
    carrier.abort();
}

#[tokio::test]
async fn who_was_first_stays_the_owner_on_every_node() {
    let store = Arc::new(FakeObjects::default());
    let (one, other) = (node(&store), node(&store));
    for (node, of) in [(&one, "acme"), (&other, "globex")] {
        let mut noting = Noting::default();
        node.note(&tenant(of), &OPENAI, made("file-1"), &mut noting);
        let carrier = tokio::spawn({
            let node = node.clone();
            async move { node.run().await }
        });
        noting.done().await;
        carrier.abort();
    }
    for node in [&one, &other] {
        assert_eq!(node.may("acme", "file-1").await, Ok(()));
        assert_eq!(node.may("globex", "file-1").await, unknown("file-1"));
    }
}

#[tokio::test]
async fn an_object_of_nobody_is_refused_unless_that_is_allowed_and_anothers_always() {
    let store = Arc::new(FakeObjects::default());
    let node = node(&store);
    node.note(&tenant("acme"), &OPENAI, made("file-1"), &mut Noting::default());
    let check = async |of: &str, names: &[&str], unknown| {
        node.check(&tenant(of), &OPENAI, names.iter().map(|text| name(text)).collect(), unknown).await
    };
    let (refuse, allow) = (UnknownObjects::Refuse, UnknownObjects::Allow);
    assert_eq!(check("acme", &["file-1", "file-2"], refuse).await, unknown("file-2"));
    assert_eq!(check("acme", &["file-1", "file-2"], allow).await, Ok(()));
    assert_eq!(check("globex", &["file-2", "file-1"], allow).await, unknown("file-1"));
    // As they say nothing else, nobody learns which of the two it was.
    let (nobodys, anothers) = (check("globex", &["file-2"], refuse).await, check("globex", &["file-1"], refuse).await);
    let told = |refused: Result<(), Refusal>| refused.unwrap_err().to_string().replace("file-2", "file-1");
    assert_eq!(told(nobodys), told(anothers));
}

#[tokio::test(start_paused = true)]
async fn without_the_ledger_what_is_known_goes_on_and_what_is_not_is_refused_for_a_while() {
    let store = Arc::new(FakeObjects::default());
    store.away.store(true, Ordering::SeqCst);
    let node = node(&store);
    let carrier = tokio::spawn({
        let node = node.clone();
        async move { node.run().await }
    });
    let mut noting = Noting::default();
    node.note(&tenant("acme"), &OPENAI, made("resp_1"), &mut noting);
    let began = Instant::now();
    noting.done().await;
    assert_eq!(began.elapsed(), NOTED_MAX, "an answer waits no longer");
    assert_eq!(node.may("acme", "resp_1").await, Ok(()));
    assert_eq!(node.may("acme", "resp_2").await, Err(Refusal::ObjectsDown));
    let lenient = node.check(&tenant("acme"), &OPENAI, vec![name("resp_2")], UnknownObjects::Allow).await;
    assert_eq!(lenient, Err(Refusal::ObjectsDown), "it could be anybody's");
    store.away.store(false, Ordering::SeqCst);
    tokio::time::sleep(PAUSE_MAX * 2).await;
    let another = self::node(&store);
    assert_eq!(another.may("acme", "resp_1").await, Ok(()), "it was tried until the ledger took it");
    carrier.abort();
}

#[tokio::test]
async fn a_name_that_clients_choose_is_whose_object_was_made_last_on_every_node() {
    let store = Arc::new(FakeObjects::default());
    let (one, other) = (node(&store), node(&store));
    let upload = async |node: &Arc<Objects>, of: &str, at: i64| {
        let mut noting = Noting::default();
        let made = Made { name: name("files/report"), passes: true, chosen: Some(Micros(at)) };
        node.note(&tenant(of), &OPENAI, vec![made], &mut noting);
        let carrier = tokio::spawn({
            let node = node.clone();
            async move { node.run().await }
        });
        noting.done().await;
        carrier.abort();
    };
    let is_of = async |of: &str, not: &str| {
        for node in [&one, &other] {
            assert_eq!(node.may(of, "files/report").await, Ok(()), "{of}");
            assert_eq!(node.may(not, "files/report").await, unknown("files/report"), "{not}");
        }
    };
    upload(&one, "globex", 10).await;
    is_of("globex", "acme").await;
    // Its first file is gone, or the name would have been refused.
    upload(&other, "acme", 20).await;
    is_of("acme", "globex").await;
    // The end of the first upload is told once more.
    upload(&one, "globex", 10).await;
    is_of("acme", "globex").await;
    // Deleting what it had is nothing to the other's.
    one.freed(&tenant("globex"), &OPENAI, &name("files/report")).await;
    is_of("acme", "globex").await;
    other.freed(&tenant("acme"), &OPENAI, &name("files/report")).await;
    assert_eq!(one.may("acme", "files/report").await, unknown("files/report"));
    upload(&one, "globex", 15).await;
    is_of("globex", "acme").await;
}
