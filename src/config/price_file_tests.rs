//! Tests of the price file that is built in, against figures written down here in the decimal dollars of the
//! providers' pages, and of what is no price file.

use proptest::prelude::*;

use super::*;
use crate::domain::price::rates::Used;
use crate::domain::price::{Charge, Priced};
use crate::domain::quantities::Quantities;
use crate::domain::time::Micros;
use crate::domain::tokens::Tokens;

use ServiceTier::{Batch, Flex, Priority, Standard, Ultrafast};

/// Published prices: provider, model, tier, tokens of input from which on they are looked up, day, then USD per million
/// tokens of input, cached input (`-`: none) and output.
type Published = (&'static str, &'static str, ServiceTier, u64, &'static str, [&'static str; 3]);

const DAY: &str = "2026-11-24";

const PUBLISHED: &[Published] = &[
    ("gemini", "gemini-pro", Standard, 1, DAY, ["0.125", "-", "0.375"]),
    ("gemini", "gemini-1.5-pro", Standard, 128_000, DAY, ["1.25", "-", "5"]),
    ("gemini", "gemini-1.5-pro", Standard, 128_001, DAY, ["2.5", "-", "10"]),
    ("gemini", "gemini-1.5-flash", Standard, 128_000, DAY, ["0.075", "0.01875", "0.3"]),
    ("gemini", "gemini-1.5-flash-002", Standard, 128_001, DAY, ["0.15", "0.0375", "0.6"]),
    ("openai", "gpt-4", Standard, 1, DAY, ["30", "-", "60"]),
    ("openai", "gpt-4-0613", Batch, 1, DAY, ["15", "-", "30"]),
    ("openai", "gpt-4-turbo", Standard, 1, DAY, ["10", "-", "30"]),
    ("openai", "gpt-4-turbo-2024-04-09", Standard, 1, DAY, ["10", "-", "30"]),
    ("openai", "gpt-3.5-turbo", Standard, 1, DAY, ["0.5", "-", "1.5"]),
    ("openai", "gpt-3.5-turbo-0125", Standard, 1, DAY, ["0.5", "-", "1.5"]),
    ("openai", "gpt-4o", Standard, 1, DAY, ["2.5", "1.25", "10"]),
    ("openai", "gpt-4o-2024-08-06", Priority, 1, DAY, ["4.25", "2.125", "17"]),
    ("openai", "gpt-4o-2024-05-13", Standard, 1, DAY, ["5", "-", "15"]),
    ("openai", "gpt-4o-mini-2024-07-18", Standard, 1, DAY, ["0.15", "0.075", "0.6"]),
    ("openai", "ft:gpt-4o-2024-08-06:acme::1", Standard, 1, DAY, ["3.75", "-", "15"]),
    ("openai", "gpt-4.1", Standard, 1, DAY, ["2", "0.5", "8"]),
    ("openai", "gpt-5-2025-08-07", Standard, 1, DAY, ["1.25", "0.125", "10"]),
    ("openai", "gpt-5", Flex, 1, DAY, ["0.625", "0.0625", "5"]),
    ("openai", "gpt-5-mini", Standard, 1, DAY, ["0.25", "0.025", "2"]),
    ("openai", "gpt-5.4", Standard, 272_000, DAY, ["2.5", "0.25", "15"]),
    ("openai", "gpt-5.4", Standard, 272_001, DAY, ["5", "0.5", "22.5"]),
    ("openai", "gpt-5.4", Flex, 1, DAY, ["1.25", "0.13", "7.5"]),
    ("openai", "gpt-5.5", Standard, 272_001, DAY, ["10", "1", "45"]),
    ("openai", "gpt-6-sol-2026-08-01", Standard, 1, DAY, ["2", "0.2", "10"]),
    ("openai", "gpt-6-sol", Batch, 272_001, DAY, ["2", "0.2", "7.5"]),
    ("openai", "gpt-6.1-sol", Ultrafast, 272_000, DAY, ["12", "0.6", "60"]),
    ("openai", "gpt-6.1-sol", Ultrafast, 272_001, DAY, ["24", "1.2", "90"]),
    ("openai", "o3", Standard, 1, DAY, ["2", "0.5", "8"]),
    ("openai", "o3", Standard, 1, "2025-06-09", ["10", "0.5", "40"]),
    ("openai", "o4-mini", Standard, 1, DAY, ["1.1", "0.275", "4.4"]),
    ("openai", "o4-mini", Flex, 1, DAY, ["0.55", "0.138", "2.2"]),
    ("openai", "text-embedding-3-small", Standard, 1, DAY, ["0.02", "-", "-"]),
    ("gemini", "gemini-2.0-flash-001", Standard, 1, DAY, ["0.1", "0.025", "0.4"]),
    ("gemini", "models/gemini-2.5-pro", Standard, 200_000, DAY, ["1.25", "0.125", "10"]),
    ("gemini", "gemini-2.5-pro-preview-06-05", Standard, 200_001, DAY, ["2.5", "0.25", "15"]),
    ("gemini", "gemini-2.5-pro", Batch, 200_001, DAY, ["1.25", "0.25", "7.5"]),
    ("gemini", "gemini-2.5-pro", Priority, 200_000, DAY, ["2.25", "0.225", "18"]),
    ("gemini", "gemini-2.5-flash", Standard, 1, DAY, ["0.3", "0.03", "2.5"]),
    ("gemini", "gemini-2.5-flash", Flex, 1, DAY, ["0.15", "0.03", "1.25"]),
    ("gemini", "gemini-2.5-flash-lite", Standard, 1, DAY, ["0.1", "0.01", "0.4"]),
    ("gemini", "gemini-2.5-flash-lite-preview-tts", Standard, 1, DAY, ["0.5", "-", "10"]),
    ("gemini", "gemini-3-flash-preview", Standard, 1, DAY, ["0.5", "0.05", "3"]),
    ("gemini", "gemini-3.1-pro-preview", Standard, 200_000, DAY, ["2", "0.2", "12"]),
    ("gemini", "gemini-3.1-pro-preview", Standard, 200_001, DAY, ["4", "0.4", "18"]),
    ("gemini", "gemini-3.5-flash-001", Standard, 1, DAY, ["1.5", "0.15", "9"]),
    ("gemini", "gemini-4-argon", Standard, 1, "2026-11-30", ["2", "0.1", "10"]),
    ("gemini", "gemini-4-argon", Standard, 1, "2026-12-01", ["4", "0.2", "20"]),
    ("gemini", "gemini-4-argon", Priority, 1, "2026-12-01", ["7.2", "0.36", "36"]),
    ("gemini", "gemini-3.6-flash", Standard, 1, "2026-12-31", ["0.75", "0.075", "3.75"]),
    ("gemini", "gemini-3.6-flash", Standard, 1, "2027-01-01", ["1.5", "0.15", "7.5"]),
    ("gemini", "gemini-3.7-flash", Standard, 1, "2026-12-31", ["0.75", "0.075", "3.75"]),
    ("gemini", "gemini-3.7-flash", Standard, 1, "2027-01-01", ["1.5", "0.15", "7.5"]),
    ("gemini", "gemini-3.8-flash", Standard, 1, "2026-12-31", ["0.75", "0.075", "3.75"]),
    ("gemini", "gemini-3.8-flash", Standard, 1, "2027-01-01", ["1.5", "0.15", "7.5"]),
    ("gemini", "gemini-3.8-flash", Flex, 1, "2027-01-01", ["0.75", "0.075", "3.75"]),
    ("gemini", "gemini-3.8-flash", Batch, 1, "2026-12-31", ["0.375", "0.0375", "1.875"]),
];

fn noon(day: &str) -> Micros {
    format!("{day}T12:00:00Z").parse().unwrap()
}

/// USD per million tokens as text to a fraction, without the code under test.
fn fraction(usd: &str) -> (i128, i128) {
    let (whole, part) = usd.split_once('.').unwrap_or((usd, ""));
    (format!("{whole}{part}").parse().unwrap(), 10_i128.pow(part.len().try_into().unwrap()))
}

#[test]
fn the_built_in_prices_are_the_published_ones() {
    let book = builtin().unwrap();
    for (provider, model, tier, input, day, usd) in PUBLISHED {
        let rates = book.rates(provider, model, *tier, *input, noon(day)).unwrap_or_else(|| panic!("{model}"));
        let of = |usd: &str| {
            let (numerator, denominator) = fraction(usd);
            assert_eq!(numerator * 1_000_000 % denominator, 0, "{usd}");
            i64::try_from(numerator * 1_000_000 / denominator).unwrap()
        };
        let priced = |usd: &str| (usd != "-").then(|| of(usd));
        let found = (rates.input, rates.cached, rates.output);
        assert_eq!(found, (priced(usd[0]), priced(usd[1]), priced(usd[2])), "{model} {tier:?} {input} {day}");
    }
    assert_eq!(book.version().len(), 12);
    assert!(book.models().count() > 150);
}

#[test]
fn audio_and_images_are_not_sold_as_text() {
    let book = builtin().unwrap();
    let tokens =
        Tokens { prompt: 500, prompt_audio: 400, completion: 1_000, completion_audio: 900, ..Tokens::default() };
    let drawn = Tokens { prompt: 10, completion: 1_300, completion_image: 1_290, ..Tokens::default() };
    let heard = Tokens { prompt: 100, prompt_audio: 90, completion: 10, ..Tokens::default() };
    for (provider, model, tokens, pico, priced) in [
        ("openai", "gpt-4o-audio-preview", tokens, 250 + 16_000 + 1_000 + 72_000, Priced::Priced),
        ("openai", "gpt-4o-audio-preview-2024-12-17", tokens, 250 + 16_000 + 1_000 + 72_000, Priced::Priced),
        ("openai", "gpt-4o-audio-preview-2024-10-01", tokens, 250 + 40_000 + 1_000 + 180_000, Priced::Priced),
        ("openai", "gpt-4o-mini-audio-preview", tokens, 15 + 4_000 + 60 + 18_000, Priced::Priced),
        ("openai", "gpt-audio", tokens, 250 + 12_800 + 1_000 + 57_600, Priced::Priced),
        ("openai", "gpt-4o", tokens, 1_250 + 10_000, Priced::Incomplete),
        ("gemini", "gemini-2.5-flash-image", drawn, 3 + 25 + 38_700, Priced::Priced),
        ("gemini", "gemini-2.5-flash", drawn, 3 + 3_250, Priced::Incomplete),
        ("gemini", "gemini-2.5-flash", heard, 3 + 90 + 25, Priced::Priced),
        ("gemini", "gemini-4-argon", heard, 200 + 100, Priced::Priced),
        ("gemini", "gemini-2.5-pro-preview-tts", Tokens { completion_audio: 10, ..heard }, 300, Priced::Incomplete),
    ] {
        let charge = book.charge(provider, model, Standard, &tokens, noon(DAY));
        assert_eq!((charge.cost.map(|c| c.0), charge.priced), (Some(pico * 1_000_000), priced), "{model}");
    }
}

#[test]
fn what_is_charged_beside_tokens_has_the_published_prices() {
    let book = builtin().unwrap();
    let hour = Quantities { audio_ms: 3_600_000, ..Quantities::default() };
    let second = Quantities { audio_ms: 1_000, ..Quantities::default() };
    let characters = Quantities { characters: 1_000_000, ..Quantities::default() };
    let searches = Quantities { web_searches: 3, ..Quantities::default() };
    let files = Quantities { file_searches: 1_000, ..Quantities::default() };
    let images = Quantities { images: 2, ..Quantities::default() };
    for (provider, model, quantities, usd) in [
        ("openai", "whisper-1", hour, "0.36"),
        ("openai", "whisper-1", second, "0.0001"),
        ("openai", "gpt-transcribe", hour, "0.27"),
        ("openai", "gpt-live-1", hour, "3"),
        // A third of a pico-dollar is one.
        ("openai", "gpt-live-1", second, "0.000833333334"),
        ("openai", "gpt-realtime-whisper", second, "0.000283333334"),
        ("openai", "tts-1", characters, "15"),
        ("openai", "tts-1-hd", characters, "30"),
        ("openai", "gpt-4.1", searches, "0.03"),
        ("openai", "gpt-4.1", files, "2.5"),
        // By the prompt; since Gemini 3 by the query.
        ("gemini", "gemini-2.5-flash", searches, "0.035"),
        ("gemini", "gemini-3-flash-preview", searches, "0.042"),
        ("gemini", "imagen-4.0-generate-001", images, "0.08"),
        ("gemini", "imagen-4.0-fast-generate-001", images, "0.04"),
    ] {
        let used = Used { quantities, ..Used::default() };
        let charge = book.charge(provider, model, Standard, used, noon(DAY));
        assert_eq!((charge.cost, charge.priced), (usd.parse().ok(), Priced::Priced), "{model}");
    }
}

#[test]
fn free_unverified_and_unknown_models_say_so() {
    let book = builtin().unwrap();
    let tokens = Tokens { prompt: 8, completion: 2, ..Tokens::default() };
    for (provider, model, cost, priced) in [
        ("openai", "omni-moderation-latest", Some(0), Priced::Free),
        ("gemini", "gemma-3-27b-it", Some(0), Priced::Free),
        ("gemini", "gemini-pro", Some(1_750_000), Priced::Incomplete),
        ("openai", "gpt-7-imaginary", None, Priced::Unpriced),
        ("openai", "whisper-1", None, Priced::Unpriced),
        ("openai", "gemini-2.5-pro", None, Priced::Unpriced),
        ("gemini", "tunedModels/mine", None, Priced::Unpriced),
        ("gemini", "", None, Priced::Unpriced),
    ] {
        let charge = book.charge(provider, model, Standard, &tokens, noon(DAY));
        assert_eq!((charge.cost.map(|c| c.0), charge.priced), (cost, priced), "{model}");
    }
    let doubtful: Vec<&str> = book.models().filter(|m| m.unverified.is_some()).map(|m| &*m.name).collect();
    assert_eq!(doubtful, ["gemini-1.0-pro-vision-001", "gemini-pro"]);
}

#[test]
fn what_is_no_price_file_is_refused_with_all_reasons() {
    let file = |model: &str| format!(r#"{{"format": 1, "models": [{model}]}}"#);
    let row = r#"{"tier": "standard", "input": 1}"#;
    let model = |rates: &str| file(&format!(r#"{{"provider":"openai","model":"b","match":["b"],"rates":[{rates}]}}"#));
    for (text, message) in [
        ("{", "EOF while parsing"),
        (r#"{"format": 2, "models": []}"#, "price file format 2; this program reads format 1"),
        (r#"{"format": 1, "models": [], "more": 1}"#, "unknown field `more`"),
        (
            &model(r#"{"tier": "standard", "input": 1.5}"#),
            "floating point `1.5`, expected whole pico-dollars: 1 USD for a million tokens is 1000000",
        ),
        (&model(r#"{"tier": "standard", "input": 9999999999999999999}"#), "expected whole pico-dollars"),
        (
            &file(&format!(r#"{{"provider":"opnai","model":"b","match":["b"],"rates":[{row}]}}"#)),
            r#"b: "opnai" is no provider; there are openai and gemini"#,
        ),
        (&model(r#"{"tier": "standard", "input": "1"}"#), "invalid type: string"),
        (&model(r#"{"tier": "standard", "input": 1, "inptu": 1}"#), "unknown field `inptu`"),
        (&model(r#"{"tier": "standard", "input": 1, "input": 1}"#), "duplicate field `input`"),
        (&model(r#"{"tier": "standard"}"#), "openai/b: a row of tier standard has no price"),
        (
            &model(r#"{"tier": "standard", "output": 1}"#),
            "openai/b: a row of tier standard has prices of tokens and none of input",
        ),
        (&model(r#"{"tier": "gold", "input": 1}"#), r#"b: "gold" is no service tier"#),
        (&model(r#"{"tier": "standard", "from": "2026-13-01", "input": 1}"#), r#"b: "2026-13-01" is no day"#),
        (&model(&format!("{row}, {row}")), "two rows of prices for the same tier"),
        (&model(r#"{"tier": "standard", "above": 5, "input": 1}"#), "a date without prices for short inputs"),
        (&model(""), "openai/b has no standard prices"),
        (
            &file(&format!(r#"{{"provider":"openai","model":"b","match":["B"],"rates":[{row}]}}"#)),
            r#"b: "B" is no pattern; write lower case, '*' for anything and '#' for one digit; openai/b has no pattern of names"#,
        ),
    ] {
        let error = parse(text.as_bytes()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
    assert!(matches!(parse(&vec![b' '; PRICE_FILE_BYTES_MAX + 1]), Err(PriceFileError::TooLarge(_))));
    let book = parse(model(row).as_bytes()).unwrap();
    assert_ne!(book.version(), builtin().unwrap().version());
}

#[test]
fn a_file_lies_over_the_built_in_list_and_is_kept_with_all_that_it_means() {
    let entry =
        r#"{"provider":"openai","model":"contract","match":["gpt-4o-mini*"],"rates":[{"tier":"standard","input":7}]}"#;
    let file = |head: &str| format!(r#"{{"format": 1, {head} "models": [{entry}]}}"#);
    let input = |book: &PriceBook, model: &str| book.rates("openai", model, Standard, 1, noon(DAY))?.input;
    let built_in = builtin().unwrap();
    let book = parse(file(r#""source": "contract 4711, 2026-11-01","#).as_bytes()).unwrap();
    assert_eq!((input(&book, "gpt-4o-mini"), input(&book, "gpt-4o-mini-2024-07-18")), (Some(7), Some(7)));
    assert_eq!((input(&book, "gpt-4o"), input(&built_in, "gpt-4o-mini")), (Some(2_500_000), Some(150_000)));
    let origin = |model: &str| {
        let (list, source) = book.model("openai", model).unwrap().origin.of(Standard);
        (list.as_str(), source.map(ToString::to_string).unwrap_or_default())
    };
    let sol = &book.model("openai", "gpt-6.1-sol").unwrap().origin;
    assert_eq!(sol.told(Ultrafast), "correction (llm-prices 1.0.0, 2026-10-23)");
    assert_eq!(sol.told(Standard), "built-in (genai-prices 0.2.3, 2026-11)");
    assert_eq!(origin("gpt-4o-mini"), ("operator", "contract 4711, 2026-11-01".to_owned()));
    assert_eq!(origin("gpt-4o"), ("built-in", "genai-prices 0.2.3, 2026-11".to_owned()));
    assert_eq!(origin("gpt-4o-audio-preview"), ("correction", "audio: LiteLLM 1.80.0, 2026-11-24".to_owned()));

    // What is kept is read again as the same, and only over the list that it was over.
    let base = book.base().unwrap().clone();
    assert_eq!(base.version(), built_in.version());
    let again = read(book.document(), Some(base.clone())).unwrap();
    assert_eq!((again.version(), input(&again, "gpt-4o-mini")), (book.version(), Some(7)));
    assert_eq!(read(base.document(), None).unwrap().version(), base.version());
    assert!(matches!(read(book.document(), None), Err(PriceFileError::Base(..))));
    let pinned = parse(book.document().as_bytes()).unwrap();
    assert_eq!(pinned.version(), book.version());

    let alone = parse(file(r#""base": "none","#).as_bytes()).unwrap();
    assert_eq!((input(&alone, "gpt-4o-mini"), input(&alone, "gpt-4o")), (Some(7), None));
    let error = parse(file(r#""base": "0123456789ab","#).as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with(r#"its base is "0123456789ab"; write "built-in" (version "#), "{error}");
    // A plan's own says nothing of what is not in it.
    let of_plan = parse_of_plan(file("").as_bytes()).unwrap();
    assert_eq!((input(&of_plan, "gpt-4o-mini"), input(&of_plan, "gpt-4o")), (Some(7), None));
    assert_eq!(read(of_plan.document(), None).unwrap().version(), of_plan.version());
    assert!(matches!(parse_of_plan(file(r#""base": "built-in","#).as_bytes()), Err(PriceFileError::BaseOfPlan(_))));
    // One that says of itself that it was built in is an operator's all the same.
    let copied = parse(file(r#""built_in": true,"#).as_bytes()).unwrap();
    assert_eq!(copied.model("openai", "gpt-4o-mini").unwrap().origin.list, ListOf::Operator);
}

#[test]
fn a_copy_of_the_built_in_list_is_the_operator_s_also_once_it_was_kept() {
    let list = |book: &PriceBook| book.model("openai", "gpt-4o-mini").unwrap().origin.list;
    let builtin = builtin().unwrap();
    assert_eq!(list(&read(builtin.document(), None).unwrap()), ListOf::BuiltIn);
    let copied = |base: &str| {
        let text =
            String::from_utf8_lossy(BUILTIN).replace("\"built_in\": true,", &format!("\"built_in\": true,{base}"));
        text.into_bytes()
    };
    for (book, base) in [
        (parse(&copied("")), Some(Arc::new(builtin))),
        (parse(&copied("\"base\": \"none\",")), None),
        (parse_of_plan(&copied("")), None),
        (parse_of_plan(&copied("\"base\": \"none\",")), None),
    ] {
        let book = book.unwrap();
        let again = read(book.document(), base).unwrap();
        assert_eq!((list(&book), list(&again)), (ListOf::Operator, ListOf::Operator));
        assert_eq!(again.version(), book.version());
    }
}

#[test]
fn prices_are_for_all_providers_that_are_called() {
    let mut called: Vec<_> = crate::providers::ALL.iter().map(|provider| provider.id().to_string()).collect();
    let mut known = PROVIDERS.to_vec();
    called.sort();
    known.sort_unstable();
    assert_eq!(called, known);
}

proptest! {
    /// Dollars from the published decimals as a fraction, against the book's pico-dollars.
    #[test]
    fn a_cost_is_the_published_price_times_the_tokens(
        row in 0..PUBLISHED.len(),
        prompt in 1_u64..2_000_000,
        cached in 0_u64..2_000_000,
        completion in 0_u64..200_000,
    ) {
        let (provider, model, tier, input, day, usd) = PUBLISHED[row];
        // The same step as the row's: up to a multiple of 1,000 that a step begins after, or past it.
        let prompt = match input {
            1 => prompt.min(100_000),
            edge if edge % 1_000 == 0 => prompt.min(edge),
            past => prompt.max(past),
        };
        let cached = cached % (prompt + 1);
        let tokens = Tokens { prompt, cached, completion, ..Tokens::default() };
        let charge = builtin().unwrap().charge(provider, model, tier, &tokens, noon(day));
        let cached_price = if usd[1] == "-" { usd[0] } else { usd[1] };
        let output_price = if usd[2] == "-" { "0" } else { usd[2] };
        let (mut numerator, mut denominator) = (0_i128, 1_i128);
        for (count, price) in [(prompt - cached, usd[0]), (cached, cached_price), (completion, output_price)] {
            let (n, d) = fraction(price);
            numerator = numerator * d + i128::from(count) * n * denominator;
            denominator *= d;
        }
        // numerator / denominator / 10^6 dollars is cost / 10^12 dollars.
        let Charge { cost, .. } = charge;
        prop_assert_eq!(cost.unwrap().0 * denominator, numerator * 1_000_000);
    }
}
