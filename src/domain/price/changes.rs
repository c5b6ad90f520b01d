//! What is not the same in two price books, by the names that calls are made with.
//!
//! May use: this layer.

use std::collections::{BTreeMap, BTreeSet};

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
    /// How it was, and who said so; `None` where there is no such price.
    pub before: Option<(i64, Origin)>,
    /// How it is, and who says so; `None` where there is no such price.
    pub after: Option<(i64, Origin)>,
}

type Place = (ServiceTier, Option<Micros>, u64, Kind);

/// Every price that another book has instead, has not or has beside.
pub fn changes(before: &PriceBook, after: &PriceBook) -> Vec<PriceChange> {
    let names: BTreeSet<(&str, String)> = [before, after].into_iter().flat_map(names).collect();
    let mut changes = Vec::new();
    for (provider, name) in names {
        let (old, new) = (before.model(provider, &name), after.model(provider, &name));
        let (old_prices, new_prices) = (places(old), places(new));
        let all: BTreeSet<&Place> = old_prices.keys().chain(new_prices.keys()).collect();
        for place in all {
            let (before, after) = (old_prices.get(place).copied(), new_prices.get(place).copied());
            if before != after {
                let (tier, from, above, kind) = *place;
                let of = |model: Option<&ModelPrices>, price: Option<i64>| Some((price?, model?.origin.clone()));
                let (before, after) = (of(old, before), of(new, after));
                let (provider, name) = (provider.to_owned(), name.clone());
                changes.push(PriceChange { provider, name, tier, from, above, kind, before, after });
            }
        }
    }
    changes
}

/// A name for each entry, of the book and of its base.
fn names(book: &PriceBook) -> impl Iterator<Item = (&str, String)> {
    let below = book.base().into_iter().flat_map(|base| base.own_models());
    let name = |model: &'_ ModelPrices| Some(model.names.first()?.shortest());
    book.own_models().chain(below).filter_map(move |model| Some((&*model.provider, name(model)?)))
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

    fn model(name: &str, pattern: &str, rates: Rates) -> ModelPrices {
        ModelPrices {
            provider: "openai".into(),
            name: name.into(),
            names: vec![Pattern::parse(pattern).unwrap()],
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
        let price = |priced: Option<(i64, Origin)>| priced.map(|(price, _)| price);
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
}
