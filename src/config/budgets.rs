//! The limits of a plan and how calls are held to them, out of its table: every key there is, what it takes, and what is
//! wrong between keys that are right each for itself.
//!
//! May use: `domain`. Money is read from the text as it was written and never through a float.

use std::sync::LazyLock;

use crate::domain::budget::{Budget, OnOverrun, Sizing, Unpriced, WhenDeferred, WhenShort};
use crate::domain::hold::nano_up;
use crate::domain::money::PicoUsd;
use crate::domain::plan::{Limit, Metric, Plan, Scope};
use crate::domain::price::ServiceTier;
use crate::domain::rate::{Rate, RateMetric};
use crate::domain::threshold::Thresholds;
use crate::domain::time::Window;

use super::settings::Source;

/// Which percents of limits are told of: a list of numbers, or one text with commas between them.
pub(super) const THRESHOLDS: &str = "thresholds";

/// What a key of a plan's table is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Limit(Scope, Metric, Window),
    Rate(Scope, RateMetric),
    TopUp(Metric),
    Hold,
    WhenShort,
    Unpriced,
    Deferred,
    OnOverrun,
    HoldMax(Metric),
    Grace,
    Thresholds,
}

/// One key of a plan's table.
#[derive(Debug)]
pub(super) struct PlanKey {
    pub name: String,
    pub about: About,
}

/// Every key of budgets, in the order of the documentation.
pub(super) static PLAN_KEYS: LazyLock<Vec<PlanKey>> = LazyLock::new(|| {
    let limits = Scope::ALL.into_iter().flat_map(|scope| {
        let each = move |metric| [Window::Month, Window::Day].map(|window| About::Limit(scope, metric, window));
        Metric::ALL.into_iter().flat_map(each)
    });
    let others = [
        About::TopUp(Metric::Chats),
        About::TopUp(Metric::Tokens),
        About::TopUp(Metric::Cost),
        About::Grace,
        About::Hold,
        About::HoldMax(Metric::Tokens),
        About::HoldMax(Metric::Cost),
        About::WhenShort,
        About::Unpriced,
        About::Deferred,
        About::OnOverrun,
        About::Thresholds,
    ];
    let rates = Scope::ALL.into_iter().flat_map(|scope| RateMetric::ALL.map(|metric| About::Rate(scope, metric)));
    limits.chain(rates).chain(others).map(|about| PlanKey { name: name(about), about }).collect()
});

fn name(about: About) -> String {
    match about {
        About::Limit(scope, metric, window) => {
            format!("{}{}_per_{}", each(scope), metric.as_str(), window.as_str())
        }
        About::Rate(scope, metric) => format!("{}{}", each(scope), metric.as_str()),
        About::TopUp(metric) => format!("top_up_{}", metric.as_str()),
        About::HoldMax(Metric::Cost) => "hold_max_usd".to_owned(),
        About::HoldMax(metric) => format!("hold_max_{}", metric.as_str()),
        About::Hold => "hold".to_owned(),
        About::WhenShort => "when_short".to_owned(),
        About::Unpriced => "unpriced".to_owned(),
        About::Deferred => "deferred".to_owned(),
        About::OnOverrun => "on_overrun".to_owned(),
        About::Grace => "grace_percent".to_owned(),
        About::Thresholds => THRESHOLDS.to_owned(),
    }
}

/// What a key begins with that is about each of a scope.
fn each(scope: Scope) -> String {
    if scope == Scope::Tenant { String::new() } else { format!("{}_", scope.as_str()) }
}

/// The default of a key and what it means, for the documentation.
#[cfg(test)]
pub(super) fn help(about: About) -> (&'static str, &'static str) {
    match about {
        About::Limit(_, Metric::Chats, _) => ("-1", "Chats in a calendar month or day. -1 is unlimited."),
        About::Limit(_, Metric::Tokens, _) => ("-1", "Tokens, input and output together, of every billed route."),
        About::Limit(_, Metric::Cost, _) => (
            "-1",
            "Dollars that are billed for every billed route, as a number such as `2.50`, exact to nine decimals.",
        ),
        About::Rate(_, RateMetric::Requests) => (
            "-1",
            "Requests a minute to billed routes: so many may come at once after a quiet minute, then they flow evenly.",
        ),
        About::Rate(_, RateMetric::Tokens) => {
            ("-1", "Tokens a minute, likewise; a call takes what it would hold, and what it used when it is over.")
        }
        About::Rate(_, RateMetric::Concurrent) => ("-1", "Requests to billed routes that run at once."),
        About::TopUp(Metric::Chats) => ("none", "Bought on top: more chats in each month, beside `chats_per_month`."),
        About::TopUp(Metric::Tokens) => ("none", "The same of `tokens_per_month`."),
        About::TopUp(Metric::Cost) => ("none", "The same of `cost_usd_per_month`."),
        About::Grace => ("0", "How many percent of each limit may be used beyond it, 0 to 100, rounded down."),
        About::Hold => (
            "estimate",
            "What a call in flight holds of token and cost limits: `estimate` is what it will probably use, `worst_case` the most that it can use.",
        ),
        About::HoldMax(Metric::Cost) => {
            ("none", "One call holds at most so many dollars; only with `hold = \"estimate\"`.")
        }
        About::HoldMax(_) => ("none", "One call holds at most so many tokens; only with `hold = \"estimate\"`."),
        About::WhenShort => (
            "refuse",
            "A call that does not fit: `refuse` it, or `clamp` the output maximum that is sent to what fits.",
        ),
        About::OnOverrun => (
            "finish",
            "A stream that puts out more than its call holds while nothing is left of a limit: let it `finish`, or `cut` it as if it had met its output maximum.",
        ),
        About::Unpriced => (
            "refuse",
            "A call under a cost limit whose model has no price: `refuse` it with 403, or `allow` it, uncounted by cost limits.",
        ),
        About::Deferred => (
            "refuse",
            "With `hold = \"worst_case\"`, a call under a token or cost limit that is finished and charged after its answer (a batch, an answer in the background, an assistant's run): `refuse` it with 403, or `allow` it, though nothing is held for it after its answer.",
        ),
        About::Thresholds => (
            "[80, 100]",
            "Percents of each limit whose crossing is noted once in a window: ascending whole numbers from 1 to 1000, at most 10; `[]` for none.",
        ),
    }
}

/// What counters count exactly wherever they are, in whole units of a metric; of cost 9,007,199 dollars.
const COUNTED_MAX: u64 = 9_007_199_000_000_000;

/// More a minute is no limit.
const RATE_MAX: u64 = 1_000_000_000;

/// Whether the value of a key may be written as a decimal number without quotes.
pub(super) fn is_money(key: &str) -> bool {
    key.ends_with("_usd") || key.contains("cost_usd_per_")
}

/// What plans say until their last key was read, as some keys need others.
#[derive(Debug, Default)]
pub(super) struct Extras {
    top_ups: Vec<(Metric, u64, Source)>,
    hold_max: Option<Source>,
}

/// Takes the value of a key into a plan; `None` where the key is not one of budgets.
pub(super) fn take(
    plan: &mut Plan,
    extras: &mut Extras,
    (key, text, source): (&str, &str, &Source),
) -> Option<Result<(), String>> {
    let about = PLAN_KEYS.iter().find(|known| known.name == key)?.about;
    Some(put(plan, extras, (about, text, source)))
}

fn put(plan: &mut Plan, extras: &mut Extras, (about, text, source): (About, &str, &Source)) -> Result<(), String> {
    let budget = &mut plan.budget;
    match about {
        About::Limit(scope, metric, window) => {
            if text != "-1" {
                plan.limits.push(Limit { scope, metric, window, max: amount(metric, text, ", or -1 for unlimited")? });
            }
        }
        About::Rate(scope, metric) => {
            if text != "-1" {
                let max = text.parse().ok().filter(|max| (1..=RATE_MAX).contains(max));
                let max = max.ok_or("is no whole number from 1 to 1000000000: write one, or -1 for unlimited")?;
                plan.rates.push(Rate { scope, metric, max });
            }
        }
        About::TopUp(metric) => extras.top_ups.push((metric, amount(metric, text, "")?, source.clone())),
        About::HoldMax(metric) => {
            let max = amount(metric, text, "")?;
            if max == 0 {
                return Err("is 0, with which no call holds anything: write the most that one call holds".to_owned());
            }
            let cap = if metric == Metric::Cost { &mut budget.hold_cost_max } else { &mut budget.hold_tokens_max };
            *cap = Some(max);
            extras.hold_max = Some(source.clone());
        }
        About::Grace => {
            let percent = text.parse().ok().filter(|percent| *percent <= 100);
            budget.grace_percent = percent.ok_or("is no whole number from 0 to 100: write one")?;
        }
        About::Hold => budget.hold = choice(Sizing::parse(text), Sizing::ALL, Sizing::as_str)?,
        About::WhenShort => budget.when_short = choice(WhenShort::parse(text), WhenShort::ALL, WhenShort::as_str)?,
        About::OnOverrun => budget.on_overrun = choice(OnOverrun::parse(text), OnOverrun::ALL, OnOverrun::as_str)?,
        About::Unpriced => budget.unpriced = choice(Unpriced::parse(text), Unpriced::ALL, Unpriced::as_str)?,
        About::Deferred => {
            budget.deferred = choice(WhenDeferred::parse(text), WhenDeferred::ALL, WhenDeferred::as_str)?;
        }
        About::Thresholds => {
            plan.thresholds = Thresholds::parse(text).ok_or(
                "is no list of at most 10 ascending whole percents from 1 to 1000: write one such as [80, 100]",
            )?;
        }
    }
    Ok(())
}

/// What is wrong with a plan as a whole; adds what was topped up.
pub(super) fn finish(plan: &mut Plan, extras: Extras) -> Vec<String> {
    let (name, mut errors) = (plan.name.clone(), Vec::new());
    for (metric, more, source) in extras.top_ups {
        let is_topped =
            |limit: &&mut Limit| (limit.scope, limit.metric, limit.window) == (Scope::Tenant, metric, Window::Month);
        let key = |about| self::name(about);
        match plan.limits.iter_mut().find(is_topped) {
            Some(limit) => limit.max = limit.max.saturating_add(more),
            None => errors.push(format!(
                "{source}: plans.{name}.{} tops up no limit: write {} too",
                key(About::TopUp(metric)),
                key(About::Limit(Scope::Tenant, metric, Window::Month))
            )),
        }
    }
    let Budget { hold, .. } = plan.budget;
    if let Some(source) = extras.hold_max.filter(|_| hold == Sizing::WorstCase) {
        errors.push(format!(
            "{source}: plans.{name} caps what a call holds, and hold = \"worst_case\" holds the most that it can use: leave out one of them"
        ));
    }
    let too_large = |limit: &&Limit| limit.metric != Metric::Chats && plan.budget.with_grace(limit.max) > COUNTED_MAX;
    for Limit { scope, metric, window, .. } in plan.limits.iter().filter(too_large) {
        let key = self::name(About::Limit(*scope, *metric, *window));
        errors.push(format!(
            "plans.{name}.{key} with its top-up and grace is more than can be counted: write at most {}",
            if *metric == Metric::Cost { "9007199" } else { "9007199000000000" }
        ));
    }
    errors
}

/// A whole number; of cost dollars with at most nine decimals.
fn amount(metric: Metric, text: &str, or: &str) -> Result<u64, String> {
    if metric == Metric::Cost {
        let dollars = text.parse::<PicoUsd>().ok().filter(|dollars| dollars.0 >= 0 && dollars.0 % 1_000 == 0);
        return dollars.map(nano_up).filter(|nano| *nano <= COUNTED_MAX).ok_or_else(|| {
            format!("is no amount of dollars from 0 to 9007199 with at most 9 decimals: write one such as 2.50{or}")
        });
    }
    // Counters and answers are signed 64-bit numbers outside this process.
    let max = if metric == Metric::Chats { i64::MAX.unsigned_abs() } else { COUNTED_MAX };
    let number: Option<u64> = text.parse().ok().filter(|number| *number <= max);
    number.ok_or_else(|| format!("is no whole number: write how many{or}"))
}

/// An amount of dollars, in nano-dollars.
pub(super) fn dollars(text: &str) -> Result<u64, String> {
    amount(Metric::Cost, text, "")
}

/// The name of a service tier that calls can be answered by.
pub(super) fn tier(text: &str) -> Result<ServiceTier, String> {
    let all: Vec<ServiceTier> = ServiceTier::ALL.into_iter().filter(|tier| *tier != ServiceTier::Batch).collect();
    choice(ServiceTier::parse(text).filter(|tier| all.contains(tier)), &all, ServiceTier::as_str)
}

fn choice<T: Copy>(parsed: Option<T>, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    let names: Vec<String> = all.iter().map(|choice| format!("{:?}", name(*choice))).collect();
    parsed.ok_or_else(|| format!("is none of {}: write one of them", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &[(&str, &str)]) -> Result<Plan, String> {
        let (mut plan, mut extras) = (Plan::unlimited("p".parse().unwrap()), Extras::default());
        for (key, text) in keys {
            take(&mut plan, &mut extras, (key, text, &Source::Default)).unwrap_or_else(|| panic!("{key} is no key"))?;
        }
        let errors = finish(&mut plan, extras);
        if errors.is_empty() { Ok(plan) } else { Err(errors.join("\n")) }
    }

    fn limit(scope: Scope, metric: Metric, window: Window, max: u64) -> Limit {
        Limit { scope, metric, window, max }
    }

    #[test]
    fn every_scope_metric_and_window_has_a_key() {
        assert_eq!(PLAN_KEYS.iter().filter(|key| matches!(key.about, About::Limit(..))).count(), 4 * 3 * 2);
        for (key, text, expected) in [
            ("chats_per_month", "500", limit(Scope::Tenant, Metric::Chats, Window::Month, 500)),
            ("tokens_per_day", "0", limit(Scope::Tenant, Metric::Tokens, Window::Day, 0)),
            ("cost_usd_per_month", "25", limit(Scope::Tenant, Metric::Cost, Window::Month, 25_000_000_000)),
            ("user_cost_usd_per_day", "0.000000001", limit(Scope::User, Metric::Cost, Window::Day, 1)),
            ("key_tokens_per_month", "7", limit(Scope::Key, Metric::Tokens, Window::Month, 7)),
            ("kb_chats_per_day", "7", limit(Scope::Kb, Metric::Chats, Window::Day, 7)),
        ] {
            assert_eq!(read(&[(key, text)]).unwrap().limits, [expected], "{key}");
            assert_eq!(read(&[(key, "-1")]).unwrap().limits, [], "{key}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for (key, text) in [
            ("cost_usd_per_month", "0.0000000001"),
            ("cost_usd_per_month", "-2"),
            ("cost_usd_per_month", "1e3"),
            ("cost_usd_per_month", "inf"),
            ("cost_usd_per_month", "9007200"),
            ("cost_usd_per_month", "$5"),
            ("tokens_per_month", "1.5"),
            ("tokens_per_month", "9007199000000001"),
            ("hold_max_usd", "0"),
            ("hold_max_tokens", "-1"),
            ("top_up_chats", "-1"),
            ("grace_percent", "101"),
            ("grace_percent", "-1"),
            ("hold", "most"),
            ("when_short", ""),
            ("unpriced", "free"),
            ("deferred", "later"),
            ("on_overrun", "stop"),
            ("requests_per_minute", "0"),
            ("user_concurrent_requests", "1000000001"),
            ("thresholds", "100,80"),
            ("thresholds", "80%"),
        ] {
            assert!(read(&[(key, text)]).is_err(), "{key} = {text}");
        }
    }

    #[test]
    fn thresholds_are_those_that_are_written_and_two_by_default() {
        let percents = |keys: &[(&str, &str)]| read(keys).unwrap().thresholds.percents().collect::<Vec<u16>>();
        assert_eq!(percents(&[]), [80, 100]);
        assert_eq!(percents(&[("thresholds", "50,90,100,120")]), [50, 90, 100, 120]);
        assert_eq!(percents(&[("thresholds", "")]), [0_u16; 0]);
    }

    #[test]
    fn rates_are_for_each_scope_too() {
        for (key, scope, metric) in [
            ("requests_per_minute", Scope::Tenant, RateMetric::Requests),
            ("key_tokens_per_minute", Scope::Key, RateMetric::Tokens),
            ("user_concurrent_requests", Scope::User, RateMetric::Concurrent),
        ] {
            assert_eq!(read(&[(key, "7")]).unwrap().rates, [Rate { scope, metric, max: 7 }], "{key}");
            assert_eq!(read(&[(key, "-1")]).unwrap().rates, [], "{key}");
        }
    }

    #[test]
    fn keys_that_need_or_exclude_each_other_say_so() {
        let topped =
            read(&[("cost_usd_per_month", "20"), ("top_up_cost_usd", "5.5"), ("grace_percent", "10")]).unwrap();
        assert_eq!(topped.limits[0].max, 25_500_000_000);
        assert_eq!(topped.budget.with_grace(topped.limits[0].max), 28_050_000_000);
        for (keys, error) in [
            (&[("top_up_tokens", "5"), ("tokens_per_day", "7")][..], "write tokens_per_month too"),
            (&[("hold", "worst_case"), ("hold_max_usd", "1")], "leave out one of them"),
            (&[("cost_usd_per_month", "9007199"), ("grace_percent", "1")], "more than can be counted"),
            (&[("tokens_per_month", "9007199000000000"), ("top_up_tokens", "1")], "more than can be counted"),
        ] {
            let told = read(keys).unwrap_err();
            assert!(told.contains(error), "{told}");
        }
        let worst =
            read(&[("hold", "worst_case"), ("when_short", "clamp"), ("unpriced", "allow"), ("deferred", "allow")])
                .unwrap()
                .budget;
        assert_eq!(
            (worst.hold, worst.when_short, worst.unpriced, worst.deferred),
            (Sizing::WorstCase, WhenShort::Clamp, Unpriced::Allow, WhenDeferred::Allow)
        );
    }
}
