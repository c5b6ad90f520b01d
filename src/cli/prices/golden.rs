//! One call for each rule of pricing, with a cost that was worked out by hand: what `prices explain` says of each stands in
//! `docs/prices.md`.

use std::fmt::Write as _;

use super::*;
use crate::config::documents::check;
use crate::domain::price::ServiceTier::{self, Batch, Flex, Priority, Standard};
use crate::domain::price::rates::Used;
use crate::domain::price::tariff::{Charged, Percent, Pricing};
use crate::domain::quantities::Quantities;
use crate::domain::tokens::Tokens;
use crate::metering::fakes;

/// One call.
struct Vector {
    title: &'static str,
    provider: &'static str,
    model: &'static str,
    /// What was asked for, where that is another model.
    requested: Option<&'static str>,
    tier: ServiceTier,
    at: &'static str,
    tokens: Tokens,
    quantities: Quantities,
    /// What a plan makes of it: a percentage, and a price file.
    plan: (&'static str, Option<&'static str>),
    /// In dollars; `None` where it is not known.
    cost: Option<&'static str>,
    billable: Option<&'static str>,
    priced: Priced,
}

const DAY: &str = "2026-11-24T10:00:00Z";

/// A contract for one model that is on no list.
const CONTRACT: &str = r#"{"format": 1, "source": "contract 4711, 2026-11-01", "models": [
    {"provider": "openai", "model": "in-house", "match": ["in-house-*"], "rates": [
    {"tier": "standard", "input": 500000, "output": 2000000}]}]}"#;

/// One that says nothing of what is put out.
const IN_PART: &str = r#"{"format": 1, "source": "contract 4712, 2026-11-01", "models": [
    {"provider": "openai", "model": "gpt-4o-mini", "match": ["gpt-4o-mini"], "rates": [
    {"tier": "standard", "input": 500000}]}]}"#;

fn vector(title: &'static str, provider: &'static str, model: &'static str, cost: &'static str) -> Vector {
    Vector {
        title,
        provider,
        model,
        requested: None,
        tier: Standard,
        at: DAY,
        tokens: Tokens::default(),
        quantities: Quantities::default(),
        plan: ("100", None),
        cost: Some(cost),
        billable: Some(cost),
        priced: Priced::Priced,
    }
}

fn text(prompt: u64, completion: u64) -> Tokens {
    Tokens { prompt, completion, ..Tokens::default() }
}

/// Every figure by hand: count times dollars for a million, summed up.
fn vectors() -> impl Iterator<Item = Vector> {
    of_tokens().into_iter().chain(of_other_kinds()).chain(of_dates_and_plans())
}

fn of_tokens() -> Vec<Vector> {
    let long =
        |title, prompt, cost| Vector { tokens: text(prompt, 100), ..vector(title, "gemini", "gemini-2.5-pro", cost) };
    vec![
        // 400 x 0.15 + 600 x 0.075 + 50 x 0.60
        Vector {
            tokens: Tokens { cached: 600, ..text(1_000, 50) },
            ..vector("Cached input", "openai", "gpt-4o-mini", "0.000135")
        },
        // 300 x 2 + 500 x 2.50 + 200 x 0.10 + 50 x 10
        Vector {
            tokens: Tokens { cached: 200, cache_write: 500, ..text(1_000, 50) },
            ..vector("Input that is written to the cache", "openai", "gpt-6.1-sol", "0.00237")
        },
        // 8 x 2 + 4,012 x 2.50 + 4 x 10: 4,000 of the writes last for 12 hours, and nobody publishes what those cost
        Vector {
            tokens: Tokens { cache_write: 4_012, cache_write_long: 4_000, ..text(4_020, 4) },
            priced: Priced::Incomplete,
            ..vector("Cache writes of both times to live, of which one has no price", "openai", "gpt-6-sol", "0.010086")
        },
        // 200,000 x 1.25 + 100 x 10
        long("Long context: at the threshold", 200_000, "0.251"),
        // 200,001 x 2.50 + 100 x 15
        long("Long context: one token above, and the whole call is dearer", 200_001, "0.5015025"),
        // 1,000 x 0.625 + 200 x 5
        Vector { tier: Flex, tokens: text(1_000, 200), ..vector("Flex", "openai", "gpt-5", "0.001625") },
        // 1,000 x 0.15 + 200 x 1.25
        Vector { tier: Batch, tokens: text(1_000, 200), ..vector("Batch", "gemini", "gemini-2.5-flash", "0.0004") },
        // 1,000 x 4.25 + 200 x 17
        Vector { tier: Priority, tokens: text(1_000, 200), ..vector("Priority", "openai", "gpt-4o", "0.00765") },
        // 100 x 2.50 + 400 x 40 + 100 x 10 + 900 x 80
        Vector {
            tokens: Tokens { prompt_audio: 400, completion_audio: 900, ..text(500, 1_000) },
            ..vector("Audio in and out", "openai", "gpt-4o-audio-preview", "0.08925")
        },
        // 10 x 0.30 + 10 x 2.50 + 1,290 x 30
        Vector {
            tokens: Tokens { completion_image: 1_290, ..text(10, 1_300) },
            ..vector("An image", "gemini", "gemini-2.5-flash-image", "0.038728")
        },
        // 1,000 x 1.10 + 500 x 4.40: 400 of the 500 were thought, not said
        Vector {
            tokens: Tokens { reasoning: 400, ..text(1_000, 500) },
            ..vector("Reasoning is output", "openai", "o4-mini", "0.0033")
        },
        // (1,000 + 200 of tool use) x 0.30 + (50 + 250 of thoughts) x 2.50
        Vector {
            tokens: Tokens { reasoning: 250, ..text(1_200, 300) },
            ..vector("Gemini's thoughts are output, tool use is input", "gemini", "gemini-2.5-flash", "0.00111")
        },
    ]
}

fn of_other_kinds() -> Vec<Vector> {
    vec![
        // 90.5 of 3,600 seconds at 0.36 an hour
        Vector {
            quantities: Quantities { audio_ms: 90_500, ..Quantities::default() },
            ..vector("Transcription by the length of the audio", "openai", "whisper-1", "0.00905")
        },
        // 1.001 of 3,600 seconds at 3 an hour is 0.000834166666 and two thirds: rounded up once
        Vector {
            quantities: Quantities { audio_ms: 1_001, ..Quantities::default() },
            ..vector("A live session by its length", "openai", "gpt-live-1", "0.000834166667")
        },
        // two at 0.04
        Vector {
            quantities: Quantities { images: 2, ..Quantities::default() },
            ..vector("Images by the piece", "gemini", "imagen-4.0-generate-001", "0.08")
        },
        // 1,000 x 15 for a million
        Vector {
            quantities: Quantities { characters: 1_000, ..Quantities::default() },
            ..vector("Speech by the character", "openai", "tts-1", "0.015")
        },
        // 1,000 x 2.50 + 200 x 10, and two searches at 0.01
        Vector {
            tokens: text(1_000, 200),
            quantities: Quantities { web_searches: 2, ..Quantities::default() },
            ..vector("Searches", "openai", "gpt-4o", "0.0245")
        },
        // 1,000 x 0.30 + 200 x 2.50, and 0.035 for a prompt that was grounded, by however many searches
        Vector {
            tokens: text(1_000, 200),
            quantities: Quantities { web_searches: 3, ..Quantities::default() },
            ..vector("Searches that are charged by the prompt", "gemini", "gemini-2.5-flash", "0.0358")
        },
    ]
}

fn of_dates_and_plans() -> Vec<Vector> {
    let argon =
        |title, at, cost| Vector { at, tokens: text(1_000, 1_000), ..vector(title, "gemini", "gemini-4-argon", cost) };
    vec![
        // 1,000 x 2 + 1,000 x 10, then twice that
        argon("The last instant of a price", "2026-11-30T23:59:59.999999Z", "0.012"),
        argon("Midnight UTC, and the next one", "2026-12-01T00:00:00Z", "0.024"),
        // 500 x 2.50 + 10 x 10; the audio has no price there and is charged as text
        Vector {
            tokens: Tokens { prompt_audio: 400, ..text(500, 10) },
            priced: Priced::Incomplete,
            ..vector("A kind without a price", "openai", "gpt-4o", "0.00135")
        },
        // 1,000 x 0.15 + 10 x 0.60, the prices of what was asked for
        Vector {
            requested: Some("gpt-4o-mini"),
            tokens: text(1_000, 10),
            priced: Priced::Incomplete,
            ..vector("A model without a price, and it answered for one that has", "openai", "unheard-of", "0.000156")
        },
        Vector {
            tokens: text(1_000, 10),
            cost: None,
            billable: None,
            priced: Priced::Unpriced,
            ..vector("A model without a price", "openai", "unheard-of", "0")
        },
        // 11 x 0.15 + 7 x 0.60 = 5.85, and 120.5 % of 0.00000585 USD is 0.00000704925
        Vector {
            tokens: text(11, 7),
            plan: ("120.5", None),
            billable: Some("0.00000704925"),
            ..vector("A plan with a mark-up", "openai", "gpt-4o-mini", "0.00000585")
        },
        // 1,000 x 0.50 + 100 x 2, for a model that the list does not know
        Vector {
            tokens: text(1_000, 100),
            plan: ("100", Some(CONTRACT)),
            cost: None,
            billable: Some("0.0007"),
            priced: Priced::Unpriced,
            ..vector("A plan with prices of its own", "openai", "in-house-7", "0")
        },
        // Cost: 1,000 x 0.15 + 100 x 0.60. Billed: 1,000 x 0.50 + 100 x 120 % of 0.60
        Vector {
            tokens: text(1_000, 100),
            plan: ("120", Some(IN_PART)),
            billable: Some("0.000572"),
            ..vector("A plan with a price of its own for input alone", "openai", "gpt-4o-mini", "0.00021")
        },
    ]
}

/// What is said of a call by these prices, once it was found to be what was worked out by hand.
fn explained(number: u128, vector: &Vector, list: &Arc<PriceBook>) -> String {
    let Vector { title, provider, model, requested, tier, at, tokens, quantities, plan: (percent, own), .. } = vector;
    let own = own.map(|own| Arc::new(price_file::parse_of_plan(own.as_bytes()).unwrap()));
    let pricing = Pricing { percent: Percent::parse(percent).unwrap(), own: own.clone() };
    let tariff = Tariff::new(list.clone(), pricing);
    let used = Used { tokens: *tokens, quantities: *quantities };
    let event = UsageEvent {
        tokens: *tokens,
        quantities: *quantities,
        service_tier: *tier,
        price_version: tariff.version(),
        requested_model: requested.unwrap_or(model).into(),
        ..fakes::event("acme", number, provider, model, at)
    };
    let Charged { charge, billable, .. } = tariff.charge(event.named(), *tier, used, event.requested_at);
    let usd = |text: Option<&str>| text.map(|text| text.parse::<PicoUsd>().unwrap());
    assert_eq!(
        (charge.cost, billable, charge.priced),
        (usd(vector.cost), usd(vector.billable), vector.priced),
        "{title}"
    );
    let event = UsageEvent { cost: charge.cost, billable, priced: charge.priced, ..event };
    let own = own.map(|own| price_file::read(own.document(), None).unwrap());
    let plan = billing::pricing(Version::parse(&event.price_version), own).unwrap();
    let history = History { asked: event.id, event: event.clone(), corrections: Vec::new() };
    let document = explained_document(&event, &Tariff::new(list.clone(), plan), &history).unwrap();
    let pico = |usd: &Option<Usd>| usd.as_ref().map(|usd| usd.0);
    assert_eq!(pico(&document.computed_cost_usd), pico(&document.booked_cost_usd), "{title}");
    assert!(!document.billing.differs(), "{title}");
    explained_text(&document)
}

#[test]
fn the_documents_explain_one_call_of_each_kind() {
    let list = Arc::new(price_file::builtin().unwrap());
    let mut page = String::new();
    for (number, vector) in (1..).zip(vectors()) {
        let text = explained(number, &vector, &list);
        write!(page, "### {}\n\n```text\n{}\n```\n\n", vector.title, text.trim_end()).unwrap();
    }
    check("docs/prices.md", Some(("<!-- vectors -->\n", "<!-- /vectors -->")), &page);
}
