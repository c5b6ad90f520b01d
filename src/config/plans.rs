//! Plans out of configuration: the built-in three, changed and extended by `[plans.NAME]` tables of the file.
//!
//! May use: `domain`. `-1` means unlimited in the file and nowhere else: inside, no limit is no limit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::domain::ids::PlanName;
use crate::domain::models::Models;
use crate::domain::plan::{OnCountersDown, Plan};
use crate::domain::price::tariff::Percent;

use super::budgets::{self, Extras, PLAN_KEYS};
use super::keys;
use super::settings::{Raw, Source};

/// What becomes of a plan's calls while shared counters cannot be asked: `refuse` or `lease`.
pub(super) const ON_COUNTERS_DOWN: &str = "on_counters_down";

/// Which models a plan may use: a list of patterns, or one text with commas between them.
pub(super) const ALLOWED_MODELS: &str = "allowed_models";

/// What a plan's tenants are billed of what providers charge, in percent.
pub(super) const PRICE_PERCENT: &str = "price_percent";

/// A price file of a plan's own.
pub(super) const PRICES: &str = "prices";

/// The plans there are without a file: `(plan, key, value)`.
pub(super) const BUILT_IN: [(&str, &str, &str); 3] =
    [("starter", "chats_per_month", "500"), ("growth", "chats_per_month", "5000"), ("pro", "chats_per_month", "-1")];

/// More plans than this is a generated file gone wrong.
const PLANS_MAX: usize = 1_000;

/// Every plan, what explains it, and the price files that plans name.
pub(super) struct Found {
    pub plans: Vec<Plan>,
    pub rows: Vec<Row>,
    pub prices: Vec<(PlanName, PathBuf)>,
}

/// One limit of one plan as `tollgate check` shows it.
pub(super) struct Row {
    pub key: String,
    pub value: String,
    pub source: Source,
}

/// Every plan in the order of their names.
pub(super) fn read(file: &BTreeMap<(String, String), Raw>, errors: &mut Vec<String>) -> Found {
    let mut values: BTreeMap<(String, String), Raw> = BUILT_IN
        .into_iter()
        .map(|(plan, key, text)| ((plan.into(), key.into()), Raw { text: text.into(), source: Source::Default }))
        .collect();
    values.extend(file.iter().map(|(key, raw)| (key.clone(), raw.clone())));

    let mut plans: BTreeMap<PlanName, Plan> = BTreeMap::new();
    let mut extras: BTreeMap<PlanName, Extras> = BTreeMap::new();
    let (mut rows, mut prices) = (Vec::new(), Vec::new());
    for ((plan, key), raw) in values {
        let Raw { text, source } = raw;
        let name = match plan.parse::<PlanName>() {
            Ok(name) => name,
            Err(error) => {
                errors.push(format!("{source}: plans.{plan}: {error}: rename it"));
                continue;
            }
        };
        if key.is_empty() {
            // An empty table of a built-in plan changes nothing.
            if !BUILT_IN.iter().any(|(known, ..)| *known == plan)
                && !file.keys().any(|(p, k)| *p == plan && !k.is_empty())
            {
                errors.push(format!(
                    "{source}: plans.{plan} has no limit: write chats_per_month = N, or -1 for unlimited"
                ));
            }
            continue;
        }
        let plan = plans.entry(name.clone()).or_insert_with(|| Plan::unlimited(name.clone()));
        let taken = match budgets::take(plan, extras.entry(name).or_default(), (&key, &text, &source)) {
            Some(taken) => taken,
            None => setting(&key, &text).map(|setting| match setting {
                Setting::OnCountersDown(choice) => plan.on_counters_down = choice,
                Setting::Models(models) => plan.models = Some(models),
                Setting::PricePercent(percent) => plan.pricing.percent = percent,
                Setting::Prices(path) => prices.push((plan.name.clone(), path)),
            }),
        };
        match taken {
            Ok(()) => rows.push(Row { key: format!("plans.{}.{key}", plan.name), value: text, source }),
            Err(reason) => errors.push(format!("{source}: plans.{}.{key} {reason}", plan.name)),
        }
    }
    for plan in plans.values_mut() {
        errors.extend(budgets::finish(plan, extras.remove(&plan.name).unwrap_or_default()));
    }
    if plans.len() > PLANS_MAX {
        errors.push(format!("{} plans are more than {PLANS_MAX}: remove some", plans.len()));
    }
    Found { plans: plans.into_values().collect(), rows, prices }
}

/// What one key of a plan says.
enum Setting {
    OnCountersDown(OnCountersDown),
    Models(Models),
    PricePercent(Percent),
    Prices(PathBuf),
}

fn setting(key: &str, text: &str) -> Result<Setting, String> {
    if key == ON_COUNTERS_DOWN {
        let choice = OnCountersDown::parse(text).map(Setting::OnCountersDown);
        return choice.ok_or_else(|| "is neither \"refuse\" nor \"lease\": write one of them".to_owned());
    }
    if key == ALLOWED_MODELS {
        return Models::parse(text).map(Setting::Models).map_err(|error| error.to_string());
    }
    if key == PRICE_PERCENT {
        let percent = Percent::parse(text).map(Setting::PricePercent);
        return percent.ok_or_else(|| "is no percentage: write one from 0 to 100000, such as 120 or 97.5".to_owned());
    }
    if key == PRICES {
        let is_there = !text.is_empty();
        let path = is_there.then(|| Setting::Prices(PathBuf::from(text)));
        return path.ok_or_else(|| "names no file: write the path of a price file".to_owned());
    }
    let known = PLAN_KEYS.iter().map(|key| key.name.as_str());
    let known = known.chain([ON_COUNTERS_DOWN, ALLOWED_MODELS, PRICE_PERCENT, PRICES]);
    Err(match keys::nearest(key, known) {
        Some(name) => format!("is no key of a plan: did you mean {name}?"),
        None => "is no key of a plan: write a limit such as chats_per_month or cost_usd_per_month".to_owned(),
    })
}
