//! What a cost is made of: a line for each kind of what is charged, and one for the rest, which together are the cost to the last
//! digit.
//!
//! May use: `domain`, `ports`. The ledger sums quantities and money, and not money by kinds. So a line is a quantity times the
//! list price of the time that it is about, and what the ledger has beside them (steps of long inputs, other tiers, prices that
//! changed within that time, prices of requests, corrections) is the line `other`.

use crate::domain::money::PicoUsd;
use crate::domain::price::rates::{Kind, Line, Rates, Unit, Used};
use crate::ports::usage::Sums;

/// A whole has so many parts, so that shares are told to the ten-thousandth of a percent.
pub const SHARES: i128 = 1_000_000;

/// List prices of tokens are told for so many.
const TOKENS_PER_PRICE: u64 = 1_000_000;

/// The kind of the line that is no kind of its own.
pub const OTHER: &str = "other";

/// One part of a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CostLine {
    /// A kind of what is charged, or [`OTHER`].
    pub kind: &'static str,
    /// How many.
    pub quantity: u64,
    /// Of what; `None` of nothing that is counted.
    pub unit: Option<Unit>,
    /// At how many pico-dollars for [`Unit::per`] of them; `None` for what has no one price.
    pub pico: Option<i64>,
    /// What the provider charges for it.
    pub cost: PicoUsd,
    /// What the tenant is billed for it.
    pub billable: PicoUsd,
}

impl CostLine {
    /// The list price as people tell it, and for how many it is.
    pub fn price(&self) -> Option<(PicoUsd, u64)> {
        let (unit, pico) = self.unit.zip(self.pico)?;
        match unit {
            Unit::Token => Some((PicoUsd::of(TOKENS_PER_PRICE, pico).ok()?, TOKENS_PER_PRICE)),
            unit => Some((PicoUsd::from(pico), unit.per())),
        }
    }
}

/// The lines of sums: none where nothing was used, and [`OTHER`] last. Their costs add up to that of the sums, and what is
/// billable likewise.
pub fn lines(sums: &Sums, rates: Option<&Rates>) -> Vec<CostLine> {
    let bill = rates.map(|rates| rates.bill(Used { tokens: sums.tokens, quantities: sums.quantities }).lines);
    let of_kind = |line: &Line| {
        let Line { kind, quantity, pico } = *line;
        // Of sums nobody knows how many of their requests had such a price.
        let is_of_requests = matches!(kind, Kind::Request | Kind::Grounded);
        let cost = line.cost().ok().filter(|_| quantity > 0 && !is_of_requests)?;
        Some(CostLine { kind: kind.as_str(), quantity, unit: Some(kind.unit()), pico, cost, billable: cost })
    };
    let mut lines: Vec<CostLine> = bill.iter().flatten().filter_map(of_kind).collect();
    let explained = lines.iter().try_fold(0i128, |sum, line| sum.checked_add(line.cost.0));
    let rest = explained.and_then(|explained| sums.cost.0.checked_sub(explained));
    let (rest, quantity) = match rest {
        Some(rest) => (rest, if rates.is_none() { sums.tokens.total() } else { 0 }),
        // Prices that no sum of ours holds explain nothing.
        None => {
            lines.clear();
            (sums.cost.0, sums.tokens.total())
        }
    };
    if rest != 0 || quantity > 0 || sums.billable != sums.cost {
        let cost = PicoUsd(rest);
        let unit = (quantity > 0).then_some(Unit::Token);
        lines.push(CostLine { kind: OTHER, quantity, unit, pico: None, cost, billable: cost });
    }
    bill_out(&mut lines, sums);
    lines
}

/// Divides what is billable as the costs are divided, and else leaves it to the last line.
fn bill_out(lines: &mut [CostLine], sums: &Sums) {
    if sums.billable == sums.cost {
        return;
    }
    let costs: Vec<i128> = lines.iter().map(|line| line.cost.0).collect();
    let parts = divided(sums.billable.0, &costs).unwrap_or_else(|| {
        let mut parts = vec![0; costs.len()];
        parts.iter_mut().rev().take(1).for_each(|part| *part = sums.billable.0);
        parts
    });
    for (line, part) in lines.iter_mut().zip(parts) {
        line.billable = PicoUsd(part);
    }
}

/// What part of the whole each cost is, in [`SHARES`]: they add up to the whole. `None` where the whole is nothing.
pub fn shares(costs: &[PicoUsd]) -> Option<Vec<i128>> {
    divided(SHARES, &costs.iter().map(|cost| cost.0).collect::<Vec<_>>())
}

/// `amount` divided in the ratio of `weights`: each part rounded down, and what is left over given, one each, to those that
/// lost most by it, the first of equals first. The parts add up to the amount. `None` where the weights add up to nothing, or
/// to what no integer holds.
fn divided(amount: i128, weights: &[i128]) -> Option<Vec<i128>> {
    let whole = weights.iter().try_fold(0i128, |sum, weight| sum.checked_add(*weight)).filter(|whole| *whole > 0)?;
    let mut parts = Vec::with_capacity(weights.len());
    let mut lost = Vec::with_capacity(weights.len());
    for (at, weight) in weights.iter().enumerate() {
        let product = amount.checked_mul(*weight)?;
        parts.push(product.div_euclid(whole));
        lost.push((std::cmp::Reverse(product.rem_euclid(whole)), at));
    }
    let given = parts.iter().try_fold(0i128, |sum, part| sum.checked_add(*part))?;
    lost.sort_unstable();
    let left = usize::try_from(amount.checked_sub(given)?).ok()?;
    for (_, at) in lost.into_iter().take(left) {
        *parts.get_mut(at)? += 1;
    }
    Some(parts)
}

/// A share as percent, with every digit that it has and no more: `12.5`.
pub fn percent(share: i128) -> String {
    // A ten-thousandth of a percent is a hundred-millionth of a dollar here: the same digits at another place.
    PicoUsd(share.saturating_mul(100_000_000)).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::tokens::Tokens;

    fn sums(prompt: u64, completion: u64, cost: i128, billable: i128) -> Sums {
        let tokens = Tokens { prompt, completion, ..Tokens::default() };
        Sums { tokens, cost: PicoUsd(cost), billable: PicoUsd(billable), ..Sums::default() }
    }

    fn rates() -> Rates {
        Rates { input: Some(150), output: Some(600), cached: Some(75), ..Rates::default() }
    }

    #[test]
    fn a_line_is_tokens_times_the_list_price_and_the_rest_is_one_line() {
        let told = |sums: &Sums, rates: Option<&Rates>| -> Vec<(&str, u64, i128, i128)> {
            let line = |line: &CostLine| (line.kind, line.quantity, line.cost.0, line.billable.0);
            lines(sums, rates).iter().map(line).collect()
        };
        let plain = sums(10, 2, 2_700, 2_700);
        assert_eq!(told(&plain, Some(&rates())), [("input", 10, 1_500, 1_500), ("output", 2, 1_200, 1_200)]);
        let dearer = sums(10, 2, 3_000, 3_000);
        let other = ("other", 0, 300, 300);
        assert_eq!(told(&dearer, Some(&rates())), [("input", 10, 1_500, 1_500), ("output", 2, 1_200, 1_200), other]);
        assert_eq!(told(&plain, None), [("other", 12, 2_700, 2_700)]);
        assert_eq!(told(&sums(0, 0, 0, 0), Some(&rates())), []);
        let marked_up = sums(10, 2, 2_700, 2_701);
        assert_eq!(
            told(&marked_up, Some(&rates())),
            [("input", 10, 1_500, 1_501), ("output", 2, 1_200, 1_200), ("other", 0, 0, 0)]
        );
        assert_eq!(told(&sums(0, 0, 0, 5), None), [("other", 0, 0, 5)]);
    }

    #[test]
    fn shares_have_every_digit_and_add_up_to_a_hundred() {
        let of = |costs: &[i128]| {
            let shares = shares(&costs.iter().map(|cost| PicoUsd(*cost)).collect::<Vec<_>>())?;
            Some(shares.into_iter().map(percent).collect::<Vec<_>>())
        };
        assert_eq!(of(&[1, 1, 1]), Some(vec!["33.3334".into(), "33.3333".into(), "33.3333".into()]));
        assert_eq!(of(&[1, 7]), Some(vec!["12.5".into(), "87.5".into()]));
        assert_eq!(of(&[3, -1]), Some(vec!["150".into(), "-50".into()]));
        assert_eq!((of(&[]), of(&[0]), of(&[1, -1]), of(&[-1])), (None, None, None, None));
    }

    proptest! {
        #[test]
        fn lines_add_up_to_what_the_ledger_has_and_shares_to_the_whole(
            prompt in 0u64..1_000_000_000, completion in 0u64..1_000_000_000, cached in 0u64..2_000_000_000,
            cost in -1_000_000_000_000_000_000i128..1_000_000_000_000_000_000,
            billable in -1_000_000_000_000_000_000i128..1_000_000_000_000_000_000, priced: bool,
        ) {
            let mut sums = sums(prompt, completion, cost, billable);
            sums.tokens.cached = cached;
            let lines = lines(&sums, priced.then(rates).as_ref());
            let total = |of: fn(&CostLine) -> PicoUsd| lines.iter().map(of).sum::<PicoUsd>();
            prop_assert_eq!(total(|line| line.cost), sums.cost);
            prop_assert_eq!(total(|line| line.billable), sums.billable);
            let costs: Vec<PicoUsd> = lines.iter().map(|line| line.cost).collect();
            if let Some(shares) = shares(&costs) {
                prop_assert_eq!(shares.iter().sum::<i128>(), SHARES);
            }
        }
    }
}
