//! Tests of the price book, with prices made up for them.

use proptest::prelude::*;

use super::rates::Bill;
use super::*;
use crate::domain::quantities::Quantities;
use crate::domain::tokens::Tokens;

fn names(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
}

fn row(tier: ServiceTier, from: Option<&str>, above: u64, rates: Rates) -> PriceRow {
    PriceRow { tier, from: from.map(at), above, rates }
}

fn at(text: &str) -> Micros {
    text.parse().unwrap()
}

fn model(provider: &str, name: &str, patterns: &[&str], rows: Vec<PriceRow>) -> ModelPrices {
    let (provider, name) = (provider.into(), name.into());
    ModelPrices {
        provider,
        name,
        names: names(patterns),
        except: Vec::new(),
        unverified: None,
        rows,
        origin: Origin::default(),
    }
}

fn text(input: i64, output: i64) -> Rates {
    Rates { input: Some(input), output: Some(output), ..Rates::default() }
}

const FULL: Rates = Rates {
    input: Some(100),
    output: Some(1_000),
    cached: Some(10),
    cache_write: Some(125),
    cache_write_long: Some(200),
    input_audio: Some(700),
    cached_audio: Some(70),
    input_image: Some(150),
    output_audio: Some(9_000),
    output_image: Some(5_000),
    audio_hour: Some(1_020_000_000_000),
    character: Some(15_000_000),
    image: Some(40_000_000_000),
    web_search: Some(14_000_000_000),
    grounded: None,
    file_search: Some(2_500_000_000),
    request: Some(5),
};

fn book() -> PriceBook {
    use ServiceTier::{Batch, Flex, Standard};
    let stepped = vec![
        row(Standard, None, 200, text(4, 40)),
        row(Standard, None, 0, Rates { cached: Some(1), ..text(2, 20) }),
        row(Flex, Some("2026-10-12T00:00:00Z"), 0, text(1, 10)),
    ];
    let dated = vec![
        row(Standard, None, 0, text(2, 20)),
        row(Standard, Some("2026-12-01T00:00:00Z"), 0, text(4, 40)),
        row(Batch, Some("2026-11-01T00:00:00Z"), 0, text(1, 10)),
        row(Standard, Some("2026-12-01T00:00:00Z"), 100, text(8, 80)),
    ];
    let mut family = model("a", "family", &["family*", "relation-####"], vec![row(Standard, None, 0, text(3, 30))]);
    family.except = names(&["*-tts"]);
    let mut doubtful = model("a", "doubtful", &["doubtful"], vec![row(Standard, None, 0, text(3, 30))]);
    doubtful.unverified = Some("nobody knows".into());
    let models = vec![
        model("a", "stepped", &["stepped"], stepped),
        model("a", "dated", &["dated"], dated),
        family,
        doubtful,
        model("a", "family-special", &["family-special"], vec![row(Standard, None, 0, text(5, 50))]),
        model("a", "speech", &["*-tts"], vec![row(Standard, None, 0, text(6, 60))]),
        model("a", "full", &["full"], vec![row(Standard, None, 0, FULL)]),
        model("a", "gift", &["gift"], vec![row(Standard, None, 0, text(0, 0))]),
        model("a", "vectors", &["vectors"], vec![row(Standard, None, 0, Rates { input: Some(7), ..Rates::default() })]),
        model("b", "stepped", &["stepped"], vec![row(Standard, None, 0, text(9, 90))]),
        model("b", "later", &["later"], vec![row(Standard, Some("2027-01-01T00:00:00Z"), 0, text(9, 90))]),
    ];
    PriceBook::new("v1".into(), models).unwrap()
}

const NOVEMBER: &str = "2026-11-24T10:00:00Z";

fn charge(name: &str, tier: ServiceTier, tokens: Tokens, when: &str) -> (Option<i128>, Priced) {
    let charge = book().charge("a", name, tier, &tokens, at(when));
    (charge.cost.map(|cost| cost.0), charge.priced)
}

fn io(prompt: u64, completion: u64) -> Tokens {
    Tokens { prompt, completion, ..Tokens::default() }
}

#[test]
fn a_model_is_found_by_its_most_particular_name() {
    let book = book();
    for (provider, asked, found) in [
        ("a", "stepped", Some(("a", "stepped"))),
        ("b", "stepped", Some(("b", "stepped"))),
        ("c", "stepped", None),
        ("a", "models/stepped", Some(("a", "stepped"))),
        ("a", "publishers/google/models/stepped", Some(("a", "stepped"))),
        ("a", "Stepped", Some(("a", "stepped"))),
        ("a", "projects/p/locations/l/publishers/google/models/stepped", Some(("a", "stepped"))),
        ("a", "stepped-2", None),
        ("a", "family-x", Some(("a", "family"))),
        ("a", "family-special", Some(("a", "family-special"))),
        ("a", "family-tts", Some(("a", "speech"))),
        ("a", "relation-2026", Some(("a", "family"))),
        ("a", "relation-20", None),
        ("a", "", None),
    ] {
        let model = book.model(provider, asked).map(|model| (&*model.provider, &*model.name));
        assert_eq!(model, found, "{provider} {asked}");
    }
    assert_eq!(book.models().count(), 11);
    assert_eq!(&*book.version(), "v1");
}

#[test]
fn the_step_holds_one_token_past_the_threshold_and_for_the_whole_request() {
    use ServiceTier::Standard;
    let cached = |prompt, cached| Tokens { prompt, cached, completion: 10, ..Tokens::default() };
    for (tokens, cost) in [
        (io(0, 0), 0),
        (io(1, 0), 2),
        (io(200, 10), 200 * 2 + 10 * 20),
        (io(201, 10), 201 * 4 + 10 * 40),
        (cached(200, 150), 50 * 2 + 150 + 10 * 20),
        // Cached tokens count towards the step, and cost the input price of it: it has no cached price.
        (cached(201, 150), 201 * 4 + 10 * 40),
    ] {
        assert_eq!(charge("stepped", Standard, tokens, NOVEMBER), (Some(cost), Priced::Priced), "{tokens:?}");
    }
}

#[test]
fn a_price_holds_from_the_first_instant_of_its_day() {
    use ServiceTier::{Batch, Standard};
    for (tier, when, tokens, cost) in [
        (Standard, "1999-01-01T00:00:00Z", io(1, 1), 22),
        (Standard, "2026-11-30T23:59:59.999999Z", io(1, 1), 22),
        (Standard, "2026-12-01T00:00:00Z", io(1, 1), 44),
        (Standard, "2026-11-30T23:59:59.999999Z", io(101, 0), 202),
        (Standard, "2026-12-01T00:00:00Z", io(100, 0), 400),
        (Standard, "2026-12-01T00:00:00Z", io(101, 0), 808),
        (Batch, "2026-11-01T00:00:00Z", io(1, 1), 11),
        (Batch, "2027-12-01T00:00:00Z", io(101, 0), 101),
    ] {
        assert_eq!(charge("dated", tier, tokens, when), (Some(cost), Priced::Priced), "{tier:?} {when}");
    }
}

#[test]
fn what_has_no_price_is_never_free() {
    use ServiceTier::{Flex, Priority, Standard};
    for (name, tier, when, expected) in [
        ("nobody", Standard, NOVEMBER, (None, Priced::Unpriced)),
        ("stepped", Priority, NOVEMBER, (Some(22), Priced::Incomplete)),
        ("stepped", Flex, "2026-10-11T23:59:59Z", (Some(22), Priced::Incomplete)),
        ("stepped", Flex, NOVEMBER, (Some(11), Priced::Priced)),
        ("doubtful", Standard, NOVEMBER, (Some(33), Priced::Incomplete)),
        ("vectors", Standard, NOVEMBER, (Some(7), Priced::Incomplete)),
        ("gift", Standard, NOVEMBER, (Some(0), Priced::Free)),
        ("gift", Priority, NOVEMBER, (Some(0), Priced::Free)),
    ] {
        assert_eq!(charge(name, tier, io(1, 1), when), expected, "{name} {tier:?}");
    }
    let later = |when| book().charge("b", "later", Standard, &io(1, 0), at(when));
    assert_eq!(later("2026-12-31T23:59:59Z"), Charge { cost: None, priced: Priced::Unpriced });
    assert_eq!(later("2027-01-01T00:00:00Z"), Charge { cost: Some(PicoUsd(9)), priced: Priced::Priced });
    assert_eq!(charge("vectors", Standard, io(3, 0), NOVEMBER), (Some(21), Priced::Priced));
    assert_eq!(charge("stepped", Standard, io(0, 0), NOVEMBER), (Some(0), Priced::Priced));
}

#[test]
fn every_kind_takes_its_tokens_from_the_general_one() {
    let tokens = Tokens {
        prompt: 1_000,
        cached: 300,
        cache_write: 100,
        cache_write_long: 60,
        prompt_audio: 250,
        prompt_image: 0,
        cached_audio: 50,
        completion: 100,
        reasoning: 60,
        completion_audio: 20,
        completion_image: 10,
    };
    let quantities = Quantities { audio_ms: 1_001, characters: 9, images: 2, web_searches: 3, file_searches: 4 };
    let bill = FULL.bill(Used { tokens, quantities });
    let counts: Vec<(Kind, u64, Option<i64>)> =
        bill.lines.iter().map(|line| (line.kind, line.quantity, line.pico)).collect();
    let expected = [
        (Kind::Input, 400, Some(100)),
        (Kind::Cached, 250, Some(10)),
        (Kind::CacheWrite, 40, Some(125)),
        (Kind::CacheWriteLong, 60, Some(200)),
        (Kind::InputAudio, 200, Some(700)),
        (Kind::CachedAudio, 50, Some(70)),
        (Kind::InputImage, 0, Some(150)),
        (Kind::Output, 70, Some(1_000)),
        (Kind::OutputAudio, 20, Some(9_000)),
        (Kind::OutputImage, 10, Some(5_000)),
        (Kind::AudioHour, 1_001, Some(1_020_000_000_000)),
        (Kind::Character, 9, Some(15_000_000)),
        (Kind::Image, 2, Some(40_000_000_000)),
        (Kind::WebSearch, 3, Some(14_000_000_000)),
        (Kind::Grounded, 0, None),
        (Kind::FileSearch, 4, Some(2_500_000_000)),
        (Kind::Request, 1, Some(5)),
    ];
    assert_eq!(counts, expected);
    assert!(bill.complete);
    let of_tokens = 40_000 + 2_500 + 5_000 + 12_000 + 140_000 + 3_500 + 70_000 + 180_000 + 50_000;
    // 1,001 ms of a 3,600,000 ms hour at 1.02 dollars: 283,616,666 and two thirds.
    let beside = 283_616_667 + 9 * 15_000_000 + 80_000_000_000 + 42_000_000_000 + 10_000_000_000 + 5;
    assert_eq!(bill.total().unwrap().0, of_tokens + beside);
}

#[test]
fn what_is_beside_tokens_has_a_price_of_its_own_or_is_not_known() {
    let plain = text(100, 1_000);
    let by_hour = Rates { audio_hour: Some(360_000_000_000), ..Rates::default() };
    let per_prompt = Rates { grounded: Some(35_000_000_000), ..plain };
    let per_query = Rates { web_search: Some(14_000_000_000), ..plain };
    let free = text(0, 0);
    let (none, some) = (Tokens::default(), io(10, 10));
    let searched = |web_searches| Quantities { web_searches, ..Quantities::default() };
    let heard = Quantities { audio_ms: 2_500, ..Quantities::default() };
    let nothing = Quantities::default();
    for (what, rates, tokens, quantities, cost, priced) in [
        ("audio by length", by_hour, none, heard, Some(250_000_000), Priced::Priced),
        ("a model without a price of tokens", by_hour, some, nothing, None, Priced::Unpriced),
        ("audio with tokens beside it", by_hour, some, heard, Some(250_000_000), Priced::Incomplete),
        ("audio without its price", plain, none, heard, None, Priced::Unpriced),
        ("tokens beside audio without its price", plain, some, heard, Some(11_000), Priced::Incomplete),
        ("no search", per_prompt, some, nothing, Some(11_000), Priced::Priced),
        ("three queries of one prompt", per_prompt, some, searched(3), Some(35_000_011_000), Priced::Priced),
        ("three queries", per_query, some, searched(3), Some(42_000_011_000), Priced::Priced),
        ("a search without a price", plain, some, searched(1), Some(11_000), Priced::Incomplete),
        ("free tokens", free, some, nothing, Some(0), Priced::Free),
        ("a search beside free tokens", free, some, searched(1), Some(0), Priced::Incomplete),
        ("nothing at all", by_hour, none, nothing, Some(0), Priced::Priced),
    ] {
        let one = model("a", "one", &["one"], vec![row(ServiceTier::Standard, None, 0, rates)]);
        let book = PriceBook::new("v".into(), vec![one]).unwrap();
        let charge = book.charge("a", "one", ServiceTier::Standard, Used { tokens, quantities }, at(NOVEMBER));
        assert_eq!((charge.cost.map(|cost| cost.0), charge.priced), (cost, priced), "{what}");
    }
}

#[test]
fn a_kind_without_a_price_is_charged_and_says_whether_that_is_certain() {
    let plain = text(100, 1_000);
    let speaks = Rates { input_audio: Some(700), ..plain };
    let cached = Rates { cached: Some(10), ..plain };
    let writes = Rates { cache_write: Some(125), ..plain };
    let t = Tokens { prompt: 10, completion: 10, ..Tokens::default() };
    for (what, rates, tokens, cost, complete) in [
        ("cached as input", plain, Tokens { cached: 4, ..t }, 11_000, true),
        ("cache write as input", plain, Tokens { cache_write: 4, ..t }, 11_000, true),
        ("long cache write as input", plain, Tokens { cache_write: 4, cache_write_long: 4, ..t }, 11_000, true),
        ("long cache write as a short one", writes, Tokens { cache_write: 4, cache_write_long: 3, ..t }, 11_100, false),
        ("image as input", plain, Tokens { prompt_image: 4, ..t }, 11_000, true),
        ("cached images as cached", cached, Tokens { prompt_image: 9, cached: 8, ..t }, 10_280, true),
        ("reasoning is output", plain, Tokens { reasoning: 9, ..t }, 11_000, true),
        ("audio as text", plain, Tokens { prompt_audio: 4, ..t }, 11_000, false),
        ("cached audio as audio", speaks, Tokens { prompt_audio: 4, cached: 2, cached_audio: 2, ..t }, 13_400, true),
        ("cached audio as cached", cached, Tokens { prompt_audio: 2, cached: 2, cached_audio: 2, ..t }, 10_820, false),
        ("audio output as text", plain, Tokens { completion_audio: 4, ..t }, 11_000, false),
        ("image output as text", plain, Tokens { completion_image: 4, ..t }, 11_000, false),
        (
            "images with cached parts",
            FULL,
            Tokens { prompt_image: 4, cached: 2, ..t },
            400 + 20 + 600 + 10_000 + 5,
            false,
        ),
        ("images alone", FULL, Tokens { prompt_image: 4, ..t }, 600 + 600 + 10_000 + 5, true),
        ("more kinds than input", FULL, Tokens { cached: 6, cache_write: 6, ..t }, 60 + 500 + 10_000 + 5, false),
        ("more kinds than output", FULL, Tokens { completion_audio: 6, completion_image: 6, ..t }, 75_005, false),
    ] {
        let bill = rates.bill(&tokens);
        assert_eq!((bill.total().unwrap().0, bill.complete), (cost, complete), "{what}");
    }
}

#[test]
fn counts_that_no_row_could_hold_have_no_cost() {
    let tokens = Tokens { prompt: u64::MAX, completion: u64::MAX, ..Tokens::default() };
    assert_eq!(text(i64::MAX, i64::MAX).bill(&tokens).total(), Err(crate::domain::money::MoneyError::Overflow));
}

#[test]
fn entries_that_contradict_each_other_are_refused() {
    use ServiceTier::{Flex, Standard};
    let one = |patterns: &[&str], rows: Vec<PriceRow>| model("a", "one", patterns, rows);
    let first = || row(Standard, None, 0, text(1, 1));
    let two = || model("a", "two", &["two"], vec![first()]);
    let step = row(Flex, None, 200, text(1, 1));
    let dear = row(Standard, None, 0, text(PICO_PER_TOKEN_MAX + 1, 1));
    let none = row(Standard, None, 0, Rates::default());
    let hour = row(Standard, None, 0, Rates { audio_hour: Some(1_000_000_000_000_001), ..Rates::default() });
    let search = row(Standard, None, 0, Rates { web_search: Some(10_000_000_000_001), ..text(1, 1) });
    let both = row(Standard, None, 0, Rates { web_search: Some(1), grounded: Some(1), ..text(1, 1) });
    let negative = row(Standard, None, 0, Rates { cached: Some(-1), ..text(1, 1) });
    for (models, message) in [
        (vec![one(&[], vec![first()])], "a/one has no pattern of names"),
        (vec![one(&["one"], vec![])], "a/one has no standard prices"),
        (
            vec![two(), one(&["two"], vec![first()])],
            "a/one: the pattern two is taken by two: take it out of one of them",
        ),
        (vec![one(&["x*", "x*"], vec![first()])], "a/one: the pattern x* is taken by one: take it out of one of them"),
        (
            vec![model("a", "all", &["x*"], vec![first()]), one(&["x-*"], vec![first()])],
            "a/one: the pattern x-* is taken by all: take it out of one of them",
        ),
        (
            vec![one(&["one"], vec![first(), first()])],
            "a/one: two rows of prices for the same tier (standard), date and step",
        ),
        (vec![one(&["one"], vec![first(), step])], "a/one: tier flex has a date without prices for short inputs"),
        (
            vec![one(&["one"], vec![dear])],
            "a/one: 100000000001 pico-dollars is no price of input; such prices are 0 to 100000000000",
        ),
        (
            vec![one(&["one"], vec![negative])],
            "a/one: -1 pico-dollars is no price of cached; such prices are 0 to 100000000000",
        ),
        (vec![one(&["one"], vec![none])], "a/one: a row of tier standard has no price"),
        (
            vec![one(&["one"], vec![hour])],
            "a/one: 1000000000000001 pico-dollars is no price of audio_hour; such prices are 0 to 1000000000000000",
        ),
        (
            vec![one(&["one"], vec![search])],
            "a/one: 10000000000001 pico-dollars is no price of web_search; such prices are 0 to 10000000000000",
        ),
        (
            vec![one(&["one"], vec![both])],
            "a/one: web_search and grounded in one row; searches of the web are charged by one of them",
        ),
    ] {
        let errors = PriceBook::new("v".into(), models).unwrap_err();
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [message]);
    }
}

fn any_rates() -> impl Strategy<Value = Rates> {
    let price = || 0..PICO_PER_TOKEN_MAX;
    let maybe = move || proptest::option::of(price());
    let tokens = ((price(), maybe(), maybe(), maybe(), maybe()), (maybe(), maybe(), maybe(), maybe(), maybe()));
    (tokens, maybe(), maybe()).prop_map(
        |(
            (
                (input, output, cached, cache_write, cache_write_long),
                (input_audio, cached_audio, input_image, output_audio, output_image),
            ),
            audio_hour,
            web_search,
        )| {
            Rates {
                input: Some(input),
                output,
                cached,
                cache_write,
                cache_write_long,
                input_audio,
                cached_audio,
                input_image,
                output_audio,
                output_image,
                audio_hour,
                web_search,
                ..Rates::default()
            }
        },
    )
}

fn any_tokens() -> impl Strategy<Value = Tokens> {
    let count = || 0..=TOKENS_PER_CALL_MAX;
    ((count(), count(), count(), count(), count()), (count(), count(), count(), count(), count())).prop_map(
        |((prompt, cached, cache_write, audio, image), (cached_audio, completion, reasoning, audio_out, image_out))| {
            let part = |part: u64, whole: u64| if whole == 0 { 0 } else { part % (whole + 1) };
            let (cached, prompt_audio) = (part(cached, prompt), part(audio, prompt));
            let completion = part(completion, TOKENS_PER_CALL_MAX - prompt);
            Tokens {
                prompt,
                cached,
                cache_write: part(cache_write, prompt),
                cache_write_long: part(cached_audio, part(cache_write, prompt)),
                prompt_audio,
                prompt_image: part(image, prompt),
                cached_audio: part(cached_audio, cached.min(prompt_audio)),
                completion,
                reasoning: part(reasoning, completion),
                completion_audio: part(audio_out, completion),
                completion_image: part(image_out, completion),
            }
        },
    )
}

fn tokens_of(bill: &Bill, output: bool) -> u64 {
    let is_output = |kind| matches!(kind, Kind::Output | Kind::OutputAudio | Kind::OutputImage);
    let lines = bill.lines.iter().filter(|line| line.kind.unit() == Unit::Token && is_output(line.kind) == output);
    lines.map(|line| line.quantity).sum()
}

proptest! {
    #[test]
    fn every_token_is_in_exactly_one_line_and_the_lines_add_up(
        rates in any_rates(),
        tokens in any_tokens(),
        audio_ms in 0..=AUDIO_MS_MAX,
        web_searches in 0..=COUNT_MAX,
    ) {
        prop_assert_eq!(tokens.checked(), Ok(tokens));
        let quantities = Quantities { audio_ms, web_searches, ..Quantities::default() };
        let bill = rates.bill(Used { tokens, quantities });
        prop_assert_eq!(tokens_of(&bill, false), tokens.prompt);
        prop_assert_eq!(tokens_of(&bill, true), tokens.completion);
        let cost = |line: &rates::Line| i128::from(line.quantity) * i128::from(line.pico.unwrap_or(0));
        let (hours, others): (Vec<_>, Vec<_>) = bill.lines.iter().partition(|line| line.kind.unit() == Unit::Hour);
        let hour: i128 = hours.into_iter().map(cost).sum();
        let sum: i128 = others.into_iter().map(cost).sum();
        let total = bill.total().unwrap().0;
        // Never less than it is, and by less than one pico-dollar more.
        prop_assert!((total - sum) * 3_600_000 >= hour && (total - sum - 1) * 3_600_000 < hour);
        prop_assert!(bill.total().unwrap().to_row().is_ok());
    }

    #[test]
    fn one_token_more_never_costs_less(rates in any_rates(), tokens in any_tokens()) {
        let dearer = Tokens { prompt: tokens.prompt + 1, completion: tokens.completion + 1, ..tokens };
        prop_assert!(rates.bill(&dearer).total().unwrap() >= rates.bill(&tokens).total().unwrap());
    }
}

fn over(own: Vec<ModelPrices>) -> Result<PriceBook, Vec<PriceBookError>> {
    PriceBook::new("v2".into(), own).unwrap().over(Arc::new(book()))
}

#[test]
fn a_book_over_another_takes_the_names_that_it_is_for_and_no_others() {
    let own = || vec![row(ServiceTier::Standard, None, 0, text(11, 11))];
    let book = over(vec![model("a", "contract", &["family-s*", "stepped"], own()), model("a", "new", &["new"], own())]);
    let book = book.unwrap();
    let input = |provider: &str, name: &str, tier| {
        book.rates(provider, name, tier, 500, at(NOVEMBER)).and_then(|rates| rates.input)
    };
    let standard = |provider: &str, name: &str| input(provider, name, ServiceTier::Standard);
    // A pattern of ours beats a plain name of the base.
    assert_eq!(standard("a", "family-special"), Some(11));
    assert_eq!(standard("a", "family-other"), Some(3));
    assert_eq!((standard("a", "new"), standard("b", "new")), (Some(11), None));
    // The whole entry is replaced: its steps and tiers, too.
    assert_eq!((standard("a", "stepped"), input("a", "stepped", ServiceTier::Flex)), (Some(11), Some(11)));
    assert_eq!(standard("b", "stepped"), Some(9));
    assert_eq!(&*book.version(), "v2");
    let names: Vec<_> = book.models().map(|model| (&*model.provider, &*model.name)).collect();
    assert_eq!(names[..2], [("a", "contract"), ("a", "new")]);
    assert!(names.contains(&("a", "family")) && names.contains(&("b", "stepped")), "{names:?}");
    // What no name finds any more is not shown.
    assert!(!names.contains(&("a", "family-special")) && !names[2..].contains(&("a", "stepped")), "{names:?}");
}

#[test]
fn a_book_over_another_may_not_take_a_price_away() {
    let from = |day: &str| vec![row(ServiceTier::Standard, Some(day), 0, text(11, 11))];
    let gap = |name: &str, patterns: &[&str], day: &str| over(vec![model("a", name, patterns, from(day))]).err();
    let errors = gap("mine", &["stepped"], "2026-12-01T00:00:00Z").unwrap();
    assert_eq!(
        errors[0].to_string(),
        "a/mine has no price before 2026-12-01T00:00:00Z, and the price list below it has one: add rates without from"
    );
    assert!(gap("mine", &["family-ne*"], "2026-12-01T00:00:00Z").is_some());
    assert_eq!(gap("mine", &["nobody-has-it"], "2026-12-01T00:00:00Z"), None);
    // Names of the base that only a pattern takes, by their own place or by its shortest name.
    assert!(gap("mine", &["step*"], "2026-12-01T00:00:00Z").is_some());
    assert!(gap("mine", &["relation-*"], "2026-12-01T00:00:00Z").is_some());
    let always = || model("a", "stepped", &["stepped"], vec![row(ServiceTier::Standard, None, 0, text(1, 1))]);
    let with_own = over(vec![always(), model("a", "mine", &["step*"], from("2026-12-01T00:00:00Z"))]);
    assert!(with_own.is_ok(), "{with_own:?}");
    let later = over(vec![model("b", "mine", &["later"], from("2027-02-01T00:00:00Z"))]);
    assert!(later.is_err());
    let as_early = over(vec![model("b", "mine", &["later"], from("2027-01-01T00:00:00Z"))]);
    assert!(as_early.is_ok());
}

#[test]
fn what_has_no_price_beside_an_explicit_zero_is_not_free() {
    let zero = Rates { input: Some(0), ..Rates::default() };
    let book =
        PriceBook::new("v".into(), vec![model("a", "m", &["m"], vec![row(ServiceTier::Standard, None, 0, zero)])]);
    let charge = |tokens| book.as_ref().unwrap().charge("a", "m", ServiceTier::Standard, &tokens, at(NOVEMBER));
    let free = Charge { cost: Some(PicoUsd::ZERO), priced: Priced::Free };
    assert_eq!(charge(io(10, 0)), free);
    assert_eq!(charge(io(10, 1_000)), free.doubted());
    assert_eq!(charge(io(0, 1_000)), Charge { cost: None, priced: Priced::Unpriced });
}
