//! What is not the same in two price books, by the names that calls are made with.
//!
//! May use: this layer.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::rates::Kind;
use super::{ModelPrices, Origin, PriceBook, PriceRow, ServiceTier};
use crate::domain::time::Micros;

/// One price that is not the same in both books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceChange {
    /// Who sells it.
    pub provider: String,
    /// A name that the model is called by.
    pub name: String,
    /// The service tier.
    pub tier: ServiceTier,
    /// From when on it holds; `None` for always.
    pub from: Option<Micros>,
    /// It holds for inputs longer than this.
    pub above: u64,
    /// What is sold.
    pub kind: Kind,
    /// How it was; `None` where there is no such price.
    pub before: Option<Said>,
    /// How it is; `None` where there is no such price.
    pub after: Option<Said>,
}

/// A price of one of the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The price.
    pub pico: i64,
    /// Who says so.
    pub origin: Origin,
    /// Whether it could not be verified, so that costs by it are incomplete.
    pub is_unverified: bool,
}

type Place = (ServiceTier, Option<Micros>, u64, Kind);

/// Every price that another book has instead, has not or has beside. What is the same for many names of one entry is told
/// once.
pub fn changes(before: &PriceBook, after: &PriceBook) -> Vec<PriceChange> {
    let mut told: HashSet<(Option<*const ModelPrices>, Option<*const ModelPrices>)> = HashSet::new();
    let mut changes = Vec::new();
    for (provider, name) in names(before, after) {
        let (old, new) = (before.model(provider, &name), after.model(provider, &name));
        let entry = |model: Option<&ModelPrices>| model.map(std::ptr::from_ref);
        if !told.insert((entry(old), entry(new))) {
            continue;
        }
        let (old_prices, new_prices) = (places(old), places(new));
        let all: BTreeSet<&Place> = old_prices.keys().chain(new_prices.keys()).collect();
        for place in all {
            let of = |model: Option<&ModelPrices>, prices: &BTreeMap<Place, i64>| {
                let (model, pico) = (model?, *prices.get(place)?);
                Some(Said { pico, origin: model.origin.clone(), is_unverified: model.unverified.is_some() })
            };
            let (before, after) = (of(old, &old_prices), of(new, &new_prices));
            let is_same = |one: &Said, other: &Said| one.pico == other.pico && one.is_unverified == other.is_unverified;
            if !before.as_ref().zip(after.as_ref()).is_some_and(|(before, after)| is_same(before, after)) {
                let ((tier, from, above, kind), provider, name) = (*place, provider.to_owned(), name.clone());
                changes.push(PriceChange { provider, name, tier, from, above, kind, before, after });
            }
        }
    }
    let place = |change: &PriceChange| (change.tier, change.from, change.above, change.kind);
    changes.sort_by(|a, b| (&a.provider, &a.name, place(a)).cmp(&(&b.provider, &b.name, place(b))));
    changes
}

/// Every name that an entry of the books or of their bases is for, one for each pattern: those that entries begin with
/// first, as they tell most.
fn names<'a>(before: &'a PriceBook, after: &'a PriceBook) -> impl Iterator<Item = (&'a str, String)> {
    let own = |book: &'a PriceBook| book.own_models().chain(book.base().into_iter().flat_map(|base| base.own_models()));
    let of = |places: std::ops::Range<usize>| -> BTreeSet<(&'a str, String)> {
        let name = |model: &'a ModelPrices| {
            let names = model.names.iter().take(places.end).skip(places.start);
            names.map(|name| (&*model.provider, name.shortest()))
        };
        own(before).chain(own(after)).flat_map(name).collect()
    };
    of(0..1).into_iter().chain(of(1..usize::MAX))
}

fn places(model: Option<&ModelPrices>) -> BTreeMap<Place, i64> {
    let mut places = BTreeMap::new();
    for PriceRow { tier, from, above, rates } in model.into_iter().flat_map(|model| &model.rows) {
        for (kind, price) in rates.kinds() {
            if let Some(price) = price {
                places.insert((*tier, *from, *above, kind), price);
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::price::pattern::Pattern;
    use crate::domain::price::rates::Rates;

    fn model(name: &str, patterns: &str, rates: Rates) -> ModelPrices {
        ModelPrices {
            provider: "openai".into(),
            name: name.into(),
            names: patterns.split(' ').map(|pattern| Pattern::parse(pattern).unwrap()).collect(),
            except: Vec::new(),
            unverified: None,
            rows: vec![PriceRow { tier: ServiceTier::Standard, from: None, above: 0, rates }],
            origin: Origin::default(),
        }
    }

    fn book(models: Vec<ModelPrices>) -> PriceBook {
        PriceBook::new("v".into(), models).unwrap()
    }

    fn told(before: &PriceBook, after: &PriceBook) -> Vec<(String, &'static str, Option<i64>, Option<i64>)> {
        let price = |said: Option<Said>| said.map(|said| said.pico);
        let told = |change: PriceChange| (change.name, change.kind.as_str(), price(change.before), price(change.after));
        changes(before, after).into_iter().map(told).collect()
    }

    #[test]
    fn a_difference_is_told_for_each_price() {
        let before = || book(vec![model("a", "a", Rates { input: Some(1), output: Some(2), ..Rates::default() })]);
        let rates = Rates { input: Some(1), output: Some(3), cached: Some(1), ..Rates::default() };
        assert_eq!(told(&before(), &before()), []);
        let after = book(vec![model("a", "a*", rates)]);
        let row = |kind, before, after| ("a".to_owned(), kind, before, after);
        assert_eq!(told(&before(), &after), [row("cached", None, Some(1)), row("output", Some(2), Some(3))]);
        let other = book(vec![model("b", "b", Rates { input: Some(1), output: Some(2), ..Rates::default() })]);
        assert_eq!(told(&before(), &other).len(), 4);
    }

    #[test]
    fn an_entry_that_lies_over_others_is_told_by_their_names() {
        let of = |input| Rates { input: Some(input), ..Rates::default() };
        let base =
            Arc::new(book(vec![model("m", "m", of(1)), model("m-mini", "m-mini", of(2)), model("n", "n", of(3))]));
        let own = book(vec![model("contract", "m*", of(9))]).over(base.clone()).unwrap();
        let row = |name: &str, before| (name.to_owned(), "input", Some(before), Some(9));
        assert_eq!(told(&base, &own), [row("m", 1), row("m-mini", 2)]);
    }

    #[test]
    fn a_name_that_is_not_the_first_of_its_entry_is_compared_too() {
        let of = |input| Rates { input: Some(input), ..Rates::default() };
        let base = || Arc::new(book(vec![model("gpt-4o", "gpt-4o gpt-4o-####", of(2))]));
        let both = book(vec![model("house", "house gpt-4o-2024", of(99))]).over(base()).unwrap();
        let one = book(vec![model("house", "house", of(99))]).over(base()).unwrap();
        let row = |before, after| ("gpt-4o-2024".to_owned(), "input", Some(before), Some(after));
        assert_eq!(told(&both, &one), [row(99, 2)]);
        assert_eq!(told(&one, &both), [row(2, 99)]);
        // An entry of many names is told once.
        let dearer = Arc::new(book(vec![model("gpt-4o", "gpt-4o gpt-4o-####", of(3))]));
        assert_eq!(told(&base(), &dearer), [("gpt-4o".to_owned(), "input", Some(2), Some(3))]);
    }

    #[test]
    fn a_price_that_is_no_longer_verified_is_a_change() {
        let rates = Rates { input: Some(1), ..Rates::default() };
        let doubtful = || ModelPrices { unverified: Some("nobody knows".into()), ..model("m", "m", rates) };
        let (sure, unsure) = (book(vec![model("m", "m", rates)]), book(vec![doubtful()]));
        assert_eq!(changes(&unsure, &book(vec![doubtful()])), []);
        let found = changes(&sure, &unsure);
        let unverified = |said: &Option<Said>| said.as_ref().map(|said| said.is_unverified);
        assert_eq!(found.len(), 1);
        assert_eq!((unverified(&found[0].before), unverified(&found[0].after)), (Some(false), Some(true)));
    }
}
