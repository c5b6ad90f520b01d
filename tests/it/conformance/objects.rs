//! What every [`ObjectStore`] promises: who was noted first stays the owner, and only what passes is forgotten.

use std::sync::Arc;

use tollgate::domain::ids::{ProviderId, TenantId};
use tollgate::domain::object::{Made, ObjectName, OwnedObject};
use tollgate::domain::time::Micros;
use tollgate::ports::objects::ObjectStore;

use super::{Keep, postgres, sqlite, tenant};

async fn adapters() -> [(&'static str, Arc<dyn ObjectStore>, Keep); 2] {
    let (sqlite, directory) = sqlite().await;
    let (postgres, database) = postgres().await;
    [("sqlite", sqlite, Box::new(directory)), ("postgres", postgres, Box::new(database))]
}

const OPENAI: ProviderId = ProviderId::new("openai");

fn name(text: &str) -> ObjectName {
    ObjectName::parse(text).unwrap()
}

fn object(provider: &ProviderId, text: &str, of: &str, passes: bool) -> OwnedObject {
    OwnedObject {
        provider: provider.clone(),
        made: Made { name: name(text), passes, chosen: None },
        tenant: tenant(of),
    }
}

async fn owners(store: &dyn ObjectStore, provider: &ProviderId, names: &[&str]) -> Vec<(String, TenantId)> {
    let names: Vec<ObjectName> = names.iter().map(|text| name(text)).collect();
    let found = store.owners(provider, &names).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|(name, owner)| (name.to_string(), owner)).collect();
    found.sort();
    found
}

#[tokio::test]
async fn who_was_noted_first_stays_the_owner() {
    let gemini = ProviderId::new("gemini");
    for (adapter, store, _keep) in adapters().await {
        let store = store.as_ref();
        store.note_objects(&[], Micros(1)).await.unwrap();
        assert_eq!(owners(store, &OPENAI, &[]).await, [], "{adapter}");
        let first = [object(&OPENAI, "resp_1", "acme", true), object(&OPENAI, "file-1", "acme", false)];
        store.note_objects(&first, Micros(1)).await.unwrap();
        let later = [
            object(&OPENAI, "resp_1", "globex", true),
            object(&gemini, "resp_1", "globex", true),
            object(&OPENAI, "resp_2", "globex", true),
            object(&OPENAI, "resp_2", "acme", true),
        ];
        store.note_objects(&later, Micros(2)).await.unwrap();
        let owned = |text: &str, of: &str| (text.to_owned(), tenant(of));
        assert_eq!(
            owners(store, &OPENAI, &["resp_1", "resp_2", "resp_3", "file-1", "RESP_1"]).await,
            [owned("file-1", "acme"), owned("resp_1", "acme"), owned("resp_2", "globex")],
            "{adapter}"
        );
        assert_eq!(owners(store, &gemini, &["resp_1", "file-1"]).await, [owned("resp_1", "globex")], "{adapter}");
    }
}

#[tokio::test]
async fn only_what_passes_by_itself_is_forgotten_and_in_steps() {
    for (adapter, store, _keep) in adapters().await {
        let store = store.as_ref();
        let many: Vec<_> = (0..2_500).map(|number| object(&OPENAI, &format!("resp_{number}"), "acme", true)).collect();
        for some in many.chunks(250) {
            store.note_objects(some, Micros(10)).await.unwrap();
        }
        let stay = [object(&OPENAI, "file-1", "acme", false), object(&OPENAI, "file-2", "acme", true)];
        store.note_objects(&stay[..1], Micros(1)).await.unwrap();
        store.note_objects(&stay[1..], Micros(11)).await.unwrap();
        assert_eq!(store.forget_objects(Micros(10)).await, Ok(0), "{adapter}");
        let (mut forgotten, mut steps) = (0, 0);
        loop {
            match store.forget_objects(Micros(11)).await.unwrap() {
                0 => break,
                some => (forgotten, steps) = (forgotten + some, steps + 1),
            }
        }
        assert_eq!((forgotten, steps > 1), (2_500, true), "{adapter}");
        assert_eq!(owners(store, &OPENAI, &["resp_1", "file-1", "file-2"]).await.len(), 2, "{adapter}");
    }
}

#[tokio::test]
async fn a_chosen_name_is_whose_object_was_made_last_and_nobodys_once_that_is_dropped() {
    for (adapter, store, _keep) in adapters().await {
        let store = store.as_ref();
        let chosen = |text: &str, of: &str, at: i64| {
            let object = object(&OPENAI, text, of, true);
            OwnedObject { made: Made { chosen: Some(Micros(at)), ..object.made }, ..object }
        };
        let owner = async || owners(store, &OPENAI, &["files/a"]).await.pop().map(|(_, owner)| owner);
        store.note_objects(&[chosen("files/a", "acme", 10)], Micros(99)).await.unwrap();
        store.note_objects(&[object(&OPENAI, "files/a", "globex", true)], Micros(99)).await.unwrap();
        assert_eq!(owner().await, Some(tenant("acme")), "{adapter}");
        for (of, at, whose) in [("globex", 10, "acme"), ("globex", 11, "globex"), ("acme", 10, "globex")] {
            let more = object(&OPENAI, "resp_1", "acme", true);
            store.note_objects(&[more, chosen("files/a", of, at)], Micros(99)).await.unwrap();
            assert_eq!(owner().await, Some(tenant(whose)), "{adapter} {of} {at}");
        }
        // Twice in one note.
        store
            .note_objects(&[chosen("files/a", "acme", 12), chosen("files/a", "globex", 13)], Micros(99))
            .await
            .unwrap();
        assert_eq!(owner().await, Some(tenant("globex")), "{adapter}");
        store.drop_object(&OPENAI, &name("files/a"), &tenant("acme")).await.unwrap();
        assert_eq!(owner().await, Some(tenant("globex")), "{adapter}");
        store.drop_object(&OPENAI, &name("files/a"), &tenant("globex")).await.unwrap();
        assert_eq!(owner().await, None, "{adapter}");
        assert_eq!(owners(store, &OPENAI, &["resp_1"]).await.len(), 1, "{adapter}");
    }
}
