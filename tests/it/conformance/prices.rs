//! What every [`PriceStore`] promises, and what the store of tenants says of it.

use std::sync::Arc;

use tollgate::domain::audit::{Action, Actor, Author};
use tollgate::domain::time::Micros;
use tollgate::ports::prices::{ActiveBook, KeptBook};
use tollgate::ports::tenants::{Act, AuditFilter, AuditQuery, AuditStart, Done, TenantStore};

use super::{Keep, postgres, sqlite};

type Store = Arc<dyn TenantStore>;

/// Every adapter, empty, with what has to live as long as it does.
async fn adapters() -> Vec<(&'static str, Store, Keep)> {
    let (sqlite, directory) = sqlite().await;
    let (postgres, database) = postgres().await;
    vec![("sqlite", sqlite, Box::new(directory)), ("postgres", postgres, Box::new(database))]
}

fn book(version: &str, base: Option<&str>) -> KeptBook {
    let document = format!("{{\"of\": \"{version} ü\"}}");
    KeptBook { version: version.into(), document: document.into(), base: base.map(Into::into) }
}

fn act(at: i64) -> Act {
    Act::by(Author::of(Actor::Cli), Micros(at))
}

#[tokio::test]
async fn books_are_kept_once_and_never_changed() {
    for (name, store, _keep) in adapters().await {
        let revision = store.revision().await.unwrap();
        let (base, own) = (book("b", None), book("o", Some("b")));
        store.keep_price_books(std::slice::from_ref(&base), "gateway", Micros(5)).await.unwrap();
        let other = KeptBook { document: "another".into(), ..base.clone() };
        store.keep_price_books(&[other, own.clone()], "cli", Micros(6)).await.unwrap();
        assert_eq!(store.price_book("b").await, Ok(Some(base)), "{name}");
        assert_eq!(store.price_book("o").await, Ok(Some(own)), "{name}");
        assert_eq!(store.price_book("B").await, Ok(None), "{name}");
        let listed = store.price_books().await.unwrap();
        let told: Vec<_> =
            listed.iter().map(|b| (&*b.version, b.base.as_deref(), b.added_at.0, &*b.added_by)).collect();
        assert_eq!(told, [("o", Some("b"), 6, "cli"), ("b", None, 5, "gateway")], "{name}");
        assert_eq!(store.revision().await, Ok(revision), "{name}");
        assert_eq!(store.load().await.unwrap().prices, None, "{name}");
    }
}

#[tokio::test]
async fn a_book_is_in_force_until_another_is_and_each_change_is_told_once() {
    for (name, store, _keep) in adapters().await {
        let before = store.revision().await.unwrap();
        let books = [book("b", None), book("o", Some("b"))];
        assert_eq!(store.set_prices(Some(&books), &act(7)).await, Ok(Done::Now(())), "{name}");
        let active = |version: &str, since| {
            Some(ActiveBook { version: version.into(), since: Micros(since), by: "cli".to_owned() })
        };
        assert_eq!(store.load().await.unwrap().prices, active("o", 7), "{name}");
        assert_eq!(store.price_book("b").await, Ok(Some(books[0].clone())), "{name}");
        assert_eq!(store.revision().await, Ok(before + 1), "{name}");
        // What is in force already changes nothing.
        store.set_prices(Some(&books), &act(8)).await.unwrap();
        assert_eq!(store.load().await.unwrap().prices, active("o", 7), "{name}");
        store.set_prices(Some(&books[..1]), &act(9)).await.unwrap();
        assert_eq!(store.load().await.unwrap().prices, active("b", 9), "{name}");
        for at in [10, 11] {
            store.set_prices(None, &act(at)).await.unwrap();
            assert_eq!(store.load().await.unwrap().prices, None, "{name}");
        }
        assert_eq!(store.revision().await, Ok(before + 3), "{name}");
        let query = AuditQuery { filter: AuditFilter::default(), start: AuditStart::After(0), entries_max: 10 };
        let told: Vec<_> = store.audit(&query).await.unwrap().into_iter().map(|entry| entry.change).collect();
        assert!(told.iter().all(|change| change.action == Action::PricesSet && change.tenant.is_none()), "{name}");
        let told: Vec<_> = told.into_iter().map(|change| (change.before.prices, change.after.prices)).collect();
        let pair = |before: &str, after: &str| (Some(before.to_owned()), Some(after.to_owned()));
        assert_eq!(told, [pair("configured", "o"), pair("o", "b"), pair("b", "configured")], "{name}");
        // A tenant's log has nothing of it.
        let of_acme = AuditFilter { tenant: Some("acme".parse().unwrap()), ..AuditFilter::default() };
        let of_acme = AuditQuery { filter: of_acme, ..query };
        assert_eq!(store.audit(&of_acme).await, Ok(Vec::new()), "{name}");
    }
}
