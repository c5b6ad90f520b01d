//! The configuration file, price files, and other texts that are parsed at the door.

use std::path::PathBuf;

use crate::config::{Config, Environment, price_file};
use crate::control::Control;
use crate::domain::ids::{EventId, KeyId, PlanName, TenantId};
use crate::domain::key;
use crate::domain::price::ServiceTier;
use crate::domain::time::{Micros, Period};
use crate::domain::tokens::Tokens;
use crate::domain::zone::Zone;

struct Nothing;

impl Environment for Nothing {
    fn get(&self, _: &str) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

const SECRET: &str = "sk-planted-5e1f0c9ab7d24836";

/// Whether the secret stands only where secrets do: a name, or a value that is none, is shown.
fn is_in_its_place(path: &str, value: &toml::Value) -> bool {
    const PLACES: [&str; 5] =
        [".providers.openai.api_key", ".providers.gemini.api_key", ".admin.key", ".storage.url", ".counters.url"];
    match value {
        toml::Value::Table(table) => table
            .iter()
            .all(|(name, value)| !name.contains(SECRET) && is_in_its_place(&format!("{path}.{name}"), value)),
        toml::Value::Array(values) => values.iter().all(|value| is_in_its_place(path, value)),
        toml::Value::String(text) => !text.contains(SECRET) || PLACES.contains(&path),
        _ => true,
    }
}

/// A configuration is right, or every error is a line; a secret in it is in no error and in no explanation.
pub fn config(data: &[u8]) {
    thread_local! {
        static FILE: PathBuf = std::env::temp_dir().join(format!("tollgate-fuzz-{}.toml", std::process::id()));
    }
    let text = std::str::from_utf8(data).unwrap_or_default();
    // Of what is no TOML, nobody can say what is a name and what a value.
    let is_kept = toml::from_str::<toml::Table>(text).is_ok_and(|table| is_in_its_place("", &table.into()));
    FILE.with(|file| {
        std::fs::write(file, data).unwrap();
        let load = || Config::load(&[], &Nothing, Some(file));
        let lines = match load() {
            Ok(config) => {
                let explained: Vec<String> = config.explain().iter().map(|setting| format!("{setting:?}")).collect();
                let again: Vec<String> =
                    load().unwrap().explain().iter().map(|setting| format!("{setting:?}")).collect();
                assert_eq!(explained, again);
                let others = config.advice().into_iter().chain(config.warnings.clone());
                explained.into_iter().chain(others).collect()
            }
            Err(errors) => {
                assert!(!errors.0.is_empty());
                errors.0
            }
        };
        for line in lines {
            assert!(!is_kept || !line.contains(SECRET), "{line}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    });
}

/// A price file that is taken is written and read again as the same book, and what it charges is no less for more.
pub fn prices(data: &[u8]) {
    let Ok(book) = price_file::parse_of_plan(data) else {
        drop(price_file::parse(data));
        return;
    };
    let document = book.document().clone();
    let again = price_file::read(&document, None);
    // A file over no base says so, or has none.
    let again = again.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.version(), book.version());
    let at = Micros(1_790_000_000_000_000);
    let used = Tokens { prompt: 1_000, cached: 100, completion: 50, reasoning: 10, ..Tokens::default() };
    let more = Tokens { prompt: 1_000, cached: 100, completion: 60, reasoning: 10, ..Tokens::default() };
    for model in book.own_models() {
        for name in &model.names {
            let name = name.shortest();
            for tier in [ServiceTier::Standard, ServiceTier::Batch] {
                let charge = book.charge(&model.provider, &name, tier, &used, at);
                assert_eq!(again.charge(&model.provider, &name, tier, &used, at), charge);
                let most = book.charge(&model.provider, &name, tier, &more, at);
                if let (Some(less), Some(most)) = (charge.cost, most.cost) {
                    assert!(less <= most && less.0 >= 0, "{name}: {less:?} {most:?}");
                }
                let zero = book.charge(&model.provider, &name, tier, &Tokens::default(), at);
                assert!(zero.cost.is_none_or(|cost| cost.0 >= 0));
            }
        }
    }
}

/// Ids, keys and times that are parsed are written as they were read.
pub fn ids(data: &[u8]) {
    let mut control = Control(data);
    let which = control.byte() % 8;
    let Ok(text) = std::str::from_utf8(control.0) else { return };
    match which {
        0 => {
            if let Ok(id) = text.parse::<TenantId>() {
                assert_eq!(id.as_str(), text);
                assert!(
                    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic()) && !key::is_well_formed(text)
                );
            }
        }
        1 => drop(text.parse::<PlanName>().map(|name| assert_eq!(name.as_str(), text))),
        2 => drop(text.parse::<KeyId>().map(|id| assert_eq!(id.as_str(), text))),
        3 => {
            if let Ok(id) = text.parse::<EventId>() {
                assert!(id.to_string().eq_ignore_ascii_case(text));
                assert_eq!(EventId::from_bytes(id.to_bytes()), id);
                assert_eq!(id.of_bill().of_bill(), id);
            }
        }
        4 => {
            let mut random = [0; 32];
            random.iter_mut().zip(control.0).for_each(|(to, from)| *to = *from);
            let minted = key::mint(random);
            assert!(key::is_well_formed(&minted) && minted.parse::<TenantId>().is_err());
            assert!(minted.ends_with(&key::last4(&minted)));
            // One changed character is never a key.
            let at = usize::from(control.byte()) % minted.len();
            let changed: String = minted
                .char_indices()
                .map(|(i, c)| if i == at { if c == 'a' { 'b' } else { 'a' } } else { c })
                .collect();
            assert!(!key::is_well_formed(&changed), "{minted} {changed}");
        }
        5 => {
            if key::is_well_formed(text) {
                assert!(text.starts_with("tg_live_") && text.len() == 46);
            }
            key::last4(text);
        }
        6 => {
            if let Ok(at) = text.parse::<Micros>() {
                assert_eq!(at.to_string().parse::<Micros>().ok(), Some(at), "{text} {at}");
            }
            for period in [Period::parse_day(text), Period::parse_month(text)].into_iter().flatten() {
                assert_eq!(period.to_string(), text);
                assert!(period.start() < period.end());
            }
        }
        _ => {
            if let Ok(zone) = text.parse::<Zone>() {
                let month = Period::parse_month("2026-10").unwrap();
                assert!(zone.start(month) < zone.end(month), "{text}");
            }
        }
    }
}
