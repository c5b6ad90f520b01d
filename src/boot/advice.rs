//! What of prices is right and yet hardly meant: said at the start, at a reload and by `tollgate check`.
//!
//! May use: `domain`, the plans of the metering layer.

use crate::domain::price::PriceBook;
use crate::domain::price::tariff::{LeftOut, left_out};
use crate::metering::snapshot::Plans;

/// More lines about one file say no more than these: a file in the wrong unit has one for each of its prices.
const LINES_MAX: usize = 5;

/// What can be said of the prices of a configuration and of its plans.
pub fn of_prices(prices: &PriceBook, plans: &Plans) -> Vec<String> {
    let mut lines = of_book("prices.file", prices);
    for (name, plan) in plans {
        let Some(own) = &plan.pricing.own else { continue };
        let key = format!("plans.{name}.prices");
        lines.extend(of_book(&key, own));
        let percent = plan.pricing.percent;
        let told = left_out(prices, own).into_iter().map(|LeftOut { provider, model, tier, kind, is_listed }| {
            let instead = if is_listed {
                format!("it is billed by the price list, at {percent} %")
            } else {
                "nor has the price list, so that it is billed as nothing".to_owned()
            };
            let (tier, kind) = (tier.as_str(), kind.as_str());
            format!("{key}: {provider}/{model}, tier {tier}, has no price of {kind}: {instead}")
        });
        lines.extend(few(told));
    }
    lines
}

/// What can be said of one price file by itself.
pub fn of_book(key: &str, book: &PriceBook) -> Vec<String> {
    let told = book.implausible().map(|(model, kind, pico)| {
        let (provider, model, kind) = (&model.provider, &model.name, kind.as_str());
        format!(
            "{key}: {provider}/{model}: {pico} pico-dollars for a token of {kind} is hardly meant: \
             1 USD for a million tokens is 1000000"
        )
    });
    few(told)
}

/// Different lines, and not too many.
fn few(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for line in lines {
        if told.len() < LINES_MAX && !told.contains(&line) {
            told.push(line);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::price_file;
    use crate::domain::plan::Plan;

    #[test]
    fn slips_in_price_files_are_told() {
        let file = |rates: &str| {
            format!(
                r#"{{"format":1,"models":[{{"provider":"openai","model":"m","match":["gpt-4o-mini"],"rates":[
                {{"tier":"standard",{rates}}}]}}]}}"#
            )
        };
        let builtin = price_file::builtin().unwrap();
        assert_eq!(of_prices(&builtin, &Plans::default()), [""; 0]);
        let dollars = price_file::parse(file(r#""input":2,"cached":0,"output":8000000,"image":5"#).as_bytes()).unwrap();
        let told = of_prices(&dollars, &Plans::default());
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("openai/m: 2 pico-dollars") && told[0].contains("is 1000000"), "{told:?}");

        let own = price_file::parse_of_plan(file(r#""input":500000"#).as_bytes()).unwrap();
        let mut plan = Plan::unlimited("pro".parse().unwrap());
        plan.pricing.own = Some(Arc::new(own));
        let plans = Plans::from([(plan.name.clone(), Arc::new(plan))]);
        let told = of_prices(&builtin, &plans);
        assert!(told[0].starts_with("plans.pro.prices: openai/m, tier standard, has no price of output"), "{told:?}");
        assert!(told[0].ends_with("it is billed by the price list, at 100 %"), "{told:?}");
    }
}
