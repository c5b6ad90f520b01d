//! Tests of [`super`].

use proptest::prelude::*;

use super::*;
use crate::domain::price::pattern::Pattern;
use crate::domain::price::{ModelPrices, Origin, PriceRow};
use crate::domain::tokens::Tokens;

fn percent(text: &str) -> Percent {
    Percent::parse(text).unwrap()
}

fn row(tier: ServiceTier, above: u64, rates: Rates) -> PriceRow {
    PriceRow { tier, from: None, above, rates }
}

fn model(rows: Vec<PriceRow>) -> ModelPrices {
    ModelPrices {
        provider: "openai".into(),
        name: "m".into(),
        names: vec![Pattern::parse("m*").unwrap()],
        except: Vec::new(),
        unverified: None,
        rows,
        origin: Origin::default(),
    }
}

fn book(version: &str, rows: Vec<PriceRow>) -> Arc<PriceBook> {
    Arc::new(PriceBook::new(version.into(), vec![model(rows)]).unwrap())
}

fn named<'a>(answered: &'a str, requested: &'a str) -> Named<'a> {
    Named { provider: "openai", answered, requested }
}

fn ceiling(tariff: &Tariff, tier: ServiceTier, input_tokens: u64, with_media: bool) -> Option<[i64; 2]> {
    let (provider, model, at) = ("openai", "m-1", Micros(0));
    let ceiling = tariff.ceiling(&Prospect {
        provider,
        model,
        tier,
        input_tokens,
        with_media,
        quantities: Quantities::default(),
        searches: 0,
        at,
    });
    ceiling.map(|Ceiling { input, output, .. }| [input, output])
}

#[test]
fn percentages_are_read_exactly_or_not_at_all() {
    for (text, hundredths) in
        [("100", 10_000), ("120", 12_000), ("97.5", 9_750), ("0.25", 25), ("0", 0), ("100000", 10_000_000)]
    {
        assert_eq!(Percent::parse(text), Some(Percent(hundredths)), "{text}");
        assert_eq!(percent(text).to_string(), text);
    }
    for text in ["", "-1", "1.234", "1.", ".5", "1e2", "100000.01", "+5", "5%", "99999999999"] {
        assert_eq!(Percent::parse(text), None, "{text}");
    }
    assert_eq!((percent("97.50"), percent("7.05").to_string()), (percent("97.5"), "7.05".to_owned()));
}

#[test]
fn what_is_billed_is_rounded_up_once() {
    for (text, cost, billed) in [
        ("100", 7, 7),
        ("120", 1, 2),
        ("120", 5, 6),
        ("97.5", 1_000, 975),
        ("0.01", 1, 1),
        ("0", 9, 0),
        ("33.33", 0, 0),
    ] {
        assert_eq!(percent(text).of(PicoUsd(cost)), Ok(PicoUsd(billed)), "{text} of {cost}");
    }
    assert_eq!(percent("200").of(PicoUsd(i128::MAX)), Err(MoneyError::Overflow));
}

#[test]
fn the_version_names_all_that_makes_a_price() {
    let (list, own) = (
        book("aaaaaaaaaaaa", vec![row(ServiceTier::Standard, 0, Rates { input: Some(1), ..Rates::default() })]),
        "bbbbbbbbbbbb",
    );
    let own_book = book(own, vec![row(ServiceTier::Standard, 0, Rates { input: Some(1), ..Rates::default() })]);
    for (percent, own, version) in [
        ("100", None, "aaaaaaaaaaaa"),
        ("97.5", None, "aaaaaaaaaaaax97.5"),
        ("100", Some(own), "aaaaaaaaaaaa+bbbbbbbbbbbb"),
        ("120", Some(own), "aaaaaaaaaaaa+bbbbbbbbbbbbx120"),
    ] {
        let percent = Percent::parse(percent).unwrap();
        let pricing = Pricing { percent, own: own.map(|_| own_book.clone()) };
        assert_eq!(*Tariff::new(list.clone(), pricing).version(), *version);
        assert_eq!(Version::parse(version), Some(Version { list: "aaaaaaaaaaaa", own, percent }));
    }
    assert_eq!(Version::parse("aaaaaaaaaaaaxx"), None);
}

#[test]
fn the_ceiling_is_the_dearest_kind_and_step_that_the_call_can_meet() {
    let short =
        Rates { input: Some(10), output: Some(20), cache_write: Some(12), input_audio: Some(90), ..Rates::default() };
    // A longer input may be cheaper: then the shorter one counts, as the input may turn out to be.
    let long = Rates { input: Some(8), output: Some(30), ..Rates::default() };
    let flex = Rates { input: Some(5), output: Some(10), output_audio: Some(70), ..Rates::default() };
    let rows = || {
        vec![
            row(ServiceTier::Standard, 0, short),
            row(ServiceTier::Standard, 100, long),
            row(ServiceTier::Flex, 0, flex),
        ]
    };
    let list = Tariff::new(book("a", rows()), Pricing::default());
    assert_eq!(ceiling(&list, ServiceTier::Standard, 100, false), Some([12, 20]));
    assert_eq!(ceiling(&list, ServiceTier::Standard, 101, false), Some([12, 30]));
    assert_eq!(ceiling(&list, ServiceTier::Standard, 101, true), Some([90, 30]));
    assert_eq!(ceiling(&list, ServiceTier::Flex, 101, false), Some([5, 70]));
    // A tier without prices is charged at the standard ones.
    assert_eq!(ceiling(&list, ServiceTier::Batch, 0, false), Some([12, 20]));
    let (provider, model, tier) = ("openai", "other", ServiceTier::Standard);
    let other = Prospect {
        provider,
        model,
        tier,
        input_tokens: 1,
        with_media: true,
        quantities: Quantities::default(),
        searches: 0,
        at: Micros(0),
    };
    assert_eq!(list.ceiling(&other), None);

    let marked_up = Tariff::new(book("a", rows()), Pricing { percent: percent("125"), own: None });
    assert_eq!(ceiling(&marked_up, ServiceTier::Standard, 100, false), Some([15, 25]));
    let own =
        book("b", vec![row(ServiceTier::Standard, 0, Rates { input: Some(1), output: Some(2), ..Rates::default() })]);
    let own = Tariff::new(book("a", rows()), Pricing { percent: percent("125"), own: Some(own) });
    assert_eq!(ceiling(&own, ServiceTier::Standard, 101, false), Some([1, 2]));
    // Audio has no price of the plan's own, and 125 % of the list's is 112.5.
    assert_eq!(ceiling(&own, ServiceTier::Standard, 101, true), Some([113, 2]));
}

#[test]
fn what_is_charged_beside_tokens_counts_as_far_as_it_is_known_before() {
    let spoken = Rates { character: Some(15), ..Rates::default() };
    let heard = Rates { audio_hour: Some(360), ..Rates::default() };
    let free = Rates { audio_hour: Some(0), ..Rates::default() };
    let dear = Rates { input: Some(3), request: Some(5), ..Rates::default() };
    let quantities = Quantities { characters: 4, ..Quantities::default() };
    let (provider, model, tier, at) = ("openai", "m", ServiceTier::Standard, Micros(0));
    let call = Prospect { provider, model, tier, input_tokens: 9, with_media: false, quantities, searches: 0, at };
    for (rates, percent_of_it, input, request) in [
        (spoken, "100", 0, 60),
        (spoken, "150", 0, 90),
        (heard, "100", 0, 1),
        (heard, "1", 0, 1),
        (free, "100", 0, 0),
        (dear, "100", 3, 5),
    ] {
        let list = book("a", vec![row(ServiceTier::Standard, 0, rates)]);
        let tariff = Tariff::new(list, Pricing { percent: percent(percent_of_it), own: None });
        let expected = Ceiling { input, output: 0, request };
        assert_eq!(tariff.ceiling(&call), Some(expected), "{rates:?} at {percent_of_it} %");
    }
}

#[test]
fn an_own_price_that_lacks_a_kind_does_not_lower_the_ceiling_below_what_is_billed_instead() {
    let standard = |rates| vec![row(ServiceTier::Standard, 0, rates)];
    let (some, none) = (Some::<i64>, None);
    let rates = |input, output| Rates { input, output, ..Rates::NONE };
    let spoken = |character| Rates { character: some(character), ..rates(some(1), some(1)) };
    for (list, own, characters, expected) in [
        // What the own entry has no price of is billed at twice the list's.
        (rates(some(10), some(40)), Rates { character: some(5), ..Rates::NONE }, 0, (20, 80, 0)),
        (rates(some(10), some(40)), rates(some(2), none), 0, (2, 80, 0)),
        (rates(some(10), some(40)), rates(some(2), some(3)), 0, (2, 3, 0)),
        // Embeddings put nothing out.
        (rates(some(10), none), rates(some(2), none), 0, (2, 0, 0)),
        // Speech by the character has no tokens, so that an own price of those bills nothing of it.
        (spoken(7), rates(some(1), some(1)), 3, (1, 1, 42)),
        (spoken(7), spoken(5), 3, (1, 1, 15)),
    ] {
        let pricing = Pricing { percent: percent("200"), own: Some(book("b", standard(own))) };
        let tariff = Tariff::new(book("a", standard(list)), pricing);
        let (provider, model, tier, at) = ("openai", "m", ServiceTier::Standard, Micros(0));
        let quantities = Quantities { characters, ..Quantities::default() };
        let (input_tokens, with_media, searches) = (9, false, 0);
        let call = Prospect { provider, model, tier, input_tokens, with_media, quantities, searches, at };
        let Ceiling { input, output, request } = tariff.ceiling(&call).unwrap();
        assert_eq!((input, output, request), expected, "{list:?} {own:?}");
        let tokens = Tokens { prompt: if characters > 0 { 0 } else { 9 }, ..Tokens::default() };
        let billed = tariff.charge(named("m", "m"), tier, Used { tokens, quantities }, at).billable.unwrap();
        assert!(billed.0 <= i128::from(input * 9 + request), "{billed:?} {list:?} {own:?}");
    }
}

#[test]
fn fees_of_searches_are_in_the_ceiling() {
    let rates = Rates { input: Some(0), output: Some(0), ..Rates::NONE };
    let by_search = Rates { web_search: Some(10), file_search: Some(3), ..rates };
    let by_request = Rates { grounded: Some(35), file_search: Some(3), ..rates };
    for (rates, searches, percent_of_it, request) in [
        (by_search, 0, "100", 0),
        (by_search, 1, "100", 10),
        (by_search, 16, "150", 240),
        (by_request, 0, "100", 0),
        (by_request, 16, "100", 35 + 48),
        (rates, 16, "100", 0),
        (by_search, u64::MAX, "100", i64::MAX),
    ] {
        let list = book("a", vec![row(ServiceTier::Standard, 0, rates)]);
        let tariff = Tariff::new(list, Pricing { percent: percent(percent_of_it), own: None });
        let (provider, model, tier, at) = ("openai", "m", ServiceTier::Standard, Micros(0));
        let (input_tokens, with_media, quantities) = (9, false, Quantities::default());
        let call = Prospect { provider, model, tier, input_tokens, with_media, quantities, searches, at };
        assert_eq!(tariff.ceiling(&call).unwrap().request, request, "{rates:?} {searches}");
    }
}

#[test]
fn a_plan_bills_its_own_price_or_its_percent_of_the_cost() {
    let of =
        |input, output| vec![row(ServiceTier::Standard, 0, Rates { input: Some(input), output, ..Rates::default() })];
    let list = || book("a", of(3, Some(7)));
    let tokens = Tokens { prompt: 11, completion: 1, ..Tokens::default() };
    let charged = |tariff: &Tariff, model: &str| {
        let Charged { charge, billable, is_own } =
            tariff.charge(named(model, model), ServiceTier::Standard, &tokens, Micros(0));
        (charge.cost.map(|cost| cost.0), charge.priced, billable.map(|billable| billable.0), is_own)
    };
    let plain = Tariff::new(list(), Pricing::default());
    assert_eq!(charged(&plain, "m"), (Some(40), Priced::Priced, Some(40), false));
    assert_eq!(charged(&plain, "other"), (None, Priced::Unpriced, None, false));
    let dear = Tariff::new(list(), Pricing { percent: percent("101"), own: None });
    assert_eq!(charged(&dear, "m"), (Some(40), Priced::Priced, Some(41), false));
    // A price of its own is not marked up, and bills a model that the list does not know.
    let own = Arc::new(
        PriceBook::new(
            "b".into(),
            vec![ModelPrices { names: vec![Pattern::parse("*").unwrap()], ..model(of(1, Some(0))) }],
        )
        .unwrap(),
    );
    let own = Tariff::new(list(), Pricing { percent: percent("200"), own: Some(own) });
    assert_eq!(charged(&own, "m"), (Some(40), Priced::Priced, Some(11), true));
    assert_eq!(charged(&own, "other"), (None, Priced::Unpriced, Some(11), true));
    // What no row holds is not known.
    assert_eq!(dear.billable(Some(i64::MAX.into())), None);
}

#[test]
fn an_answer_of_an_unknown_model_has_the_prices_of_the_one_that_was_asked_for() {
    use Priced::{Free, Incomplete, Priced as Exact, Unpriced};
    let book = |version: &str, models: &[(&str, i64)], from: Option<Micros>| {
        let entry = |(name, input): &(&str, i64)| {
            let rates = Rates { input: Some(*input), output: Some(*input), ..Rates::default() };
            let rows = vec![PriceRow { from, ..row(ServiceTier::Standard, 0, rates) }];
            ModelPrices { name: (*name).into(), names: vec![Pattern::parse(name).unwrap()], ..model(rows) }
        };
        Arc::new(PriceBook::new(version.into(), models.iter().map(entry).collect()).unwrap())
    };
    let list = book("a", &[("alias", 3), ("listed", 7), ("free", 0)], None);
    let tariff = |own: Option<Arc<PriceBook>>| Tariff::new(list.clone(), Pricing { own, ..Pricing::default() });
    let (plain, own) = (tariff(None), tariff(Some(book("b", &[("alias", 2), ("mine", 5), ("only", 4)], None))));
    let later = Tariff::new(book("c", &[("alias", 3)], Some(Micros(1))), Pricing::default());
    let tokens = Tokens { prompt: 10, ..Tokens::default() };
    for (tariff, answered, requested, cost, billed, priced) in [
        (&plain, "listed", "alias", Some(70), Some(70), Exact),
        (&plain, "alias-2", "alias", Some(30), Some(30), Incomplete),
        (&plain, "alias-2", "unheard-of", None, None, Unpriced),
        (&plain, "alias-2", "", None, None, Unpriced),
        (&plain, "free", "alias", Some(0), Some(0), Free),
        // Nobody wrote down that this one is free.
        (&plain, "free-2", "free", Some(0), Some(0), Incomplete),
        (&own, "alias-2", "alias", Some(30), Some(20), Incomplete),
        (&own, "listed", "alias", Some(70), Some(70), Exact),
        (&own, "mine", "alias", None, Some(50), Unpriced),
        (&own, "alias-2", "only", None, Some(40), Unpriced),
        (&later, "alias-2", "alias", None, None, Unpriced),
    ] {
        let charged = tariff.charge(named(answered, requested), ServiceTier::Standard, &tokens, Micros(0));
        let Charged { charge, billable, .. } = charged;
        let pico = |amount: Option<PicoUsd>| amount.map(|amount| amount.0);
        let found = (pico(charge.cost), pico(billable), charge.priced);
        assert_eq!(found, (cost, billed, priced), "{answered} for {requested}");
    }
}

proptest! {
    #[test]
    fn a_call_is_never_billed_above_its_ceiling(
        prices in (0_i64..1_000_000, 0_i64..1_000_000),
        tokens in (0_u64..1_000_000, 0_u64..1_000_000),
        hundredths in 0..=HUNDREDTHS_MAX,
    ) {
        let percent = Percent(hundredths);
        let cost = PicoUsd::of(tokens.0, prices.0).unwrap().plus(PicoUsd::of(tokens.1, prices.1).unwrap()).unwrap();
        let held = PicoUsd::of(tokens.0, percent.of_price(prices.0)).unwrap();
        let held = held.plus(PicoUsd::of(tokens.1, percent.of_price(prices.1)).unwrap()).unwrap();
        prop_assert!(percent.of(cost).unwrap() <= held);
    }
}

/// What is billed of a call by a list and a plan's own prices over it, at 200 percent of the list, and how far it is known.
fn billed(list: Rates, own: Vec<PriceRow>, tier: ServiceTier, used: Used) -> (Option<i128>, Priced, bool) {
    let flex = Rates { input: Some(3), output: Some(5), ..Rates::default() };
    let list = book("a", vec![row(ServiceTier::Standard, 0, list), row(ServiceTier::Flex, 0, flex)]);
    let tariff = Tariff::new(list, Pricing { percent: percent("200"), own: Some(book("b", own)) });
    let Charged { charge, billable, is_own } = tariff.charge(named("m", "m"), tier, used, Micros(0));
    let call = Prospect {
        provider: "openai",
        model: "m",
        tier,
        input_tokens: used.tokens.prompt,
        with_media: true,
        quantities: used.quantities,
        searches: used.quantities.web_searches,
        at: Micros(0),
    };
    // Whatever is billed was held before.
    let Ceiling { input, output, request } = tariff.ceiling(&call).unwrap();
    let held = i128::from(input) * i128::from(used.tokens.prompt)
        + i128::from(output) * i128::from(used.tokens.completion)
        + i128::from(request);
    assert!(billable.is_none_or(|billable| billable.0 <= held), "{billable:?} of {held}");
    (billable.map(|billable| billable.0), charge.priced, is_own)
}

#[test]
fn a_kind_that_a_plan_s_own_price_leaves_out_is_billed_by_the_list_and_never_as_nothing() {
    use Priced::Priced as Exact;
    let rates = |input, output| Rates { input: Some(input), output, ..Rates::default() };
    let list = Rates { web_search: Some(100), input_audio: Some(40), ..rates(10, Some(30)) };
    let tokens = Tokens { prompt: 2, completion: 12, ..Tokens::default() };
    let used = |tokens, web_searches| Used { tokens, quantities: Quantities { web_searches, ..Quantities::default() } };
    let standard = |rates| vec![row(ServiceTier::Standard, 0, rates)];
    for (own, used, expected) in [
        // 2 x 1, and 12 x 60 at twice the list's price.
        (rates(1, None), used(tokens, 0), 722),
        (rates(1, Some(2)), used(tokens, 0), 26),
        // And a search at twice the list's price, but not where the plan has one.
        (rates(1, Some(2)), used(tokens, 1), 226),
        (Rates { web_search: Some(0), ..rates(1, Some(2)) }, used(tokens, 1), 26),
        (Rates { grounded: Some(7), ..rates(1, Some(2)) }, used(tokens, 3), 33),
        // Audio is dearer than text: 80 for one of them, and 1 for the other.
        (rates(1, Some(2)), used(Tokens { prompt_audio: 1, ..tokens }, 0), 105),
        // Cached input costs what input costs with the plan.
        (rates(1, Some(2)), used(Tokens { cached: 1, ..tokens }, 0), 26),
    ] {
        let found = billed(list, standard(own), ServiceTier::Standard, used);
        assert_eq!(found, (Some(expected), Exact, true), "{own:?} {used:?}");
    }
    // A tier that the plan has no price of has twice the list's: 2 x 6 and 12 x 10.
    let flex = |own| billed(list, own, ServiceTier::Flex, used(tokens, 0));
    assert_eq!(flex(standard(rates(1, Some(2)))), (Some(132), Exact, false));
    let own_flex = row(ServiceTier::Flex, 0, rates(1, Some(1)));
    assert_eq!(flex(vec![row(ServiceTier::Standard, 0, rates(9, Some(9))), own_flex]), (Some(14), Exact, true));
    // The list has none of that tier either: the standard ones are billed, and the cost is in doubt.
    let batch = billed(list, standard(rates(1, Some(2))), ServiceTier::Batch, used(tokens, 0));
    assert_eq!(batch, (Some(26), Priced::Incomplete, true));
    // Nobody has a price of it.
    let unknown = billed(rates(10, None), standard(rates(1, None)), ServiceTier::Standard, used(tokens, 0));
    assert_eq!(unknown, (Some(2), Priced::Incomplete, true));
}

#[test]
fn a_plan_s_own_price_without_output_is_told() {
    let rates = |output| Rates { input: Some(1), output, ..Rates::default() };
    let left_out = |list: Option<Rates>, own| {
        let list = list.map_or_else(Arc::default, |rates| book("a", vec![row(ServiceTier::Standard, 0, rates)]));
        let own = book("b", vec![row(ServiceTier::Standard, 0, rates(own))]);
        super::left_out(&list, &own).into_iter().map(|left| (left.kind, left.is_listed)).collect::<Vec<_>>()
    };
    assert_eq!(left_out(Some(rates(Some(2))), None), [(Kind::Output, true)]);
    assert_eq!(left_out(None, None), [(Kind::Output, false)]);
    assert_eq!(left_out(Some(rates(Some(2))), Some(0)), []);
    // Embeddings put nothing out.
    assert_eq!(left_out(Some(rates(None)), None), []);
}

#[test]
fn the_price_of_a_request_that_searched_makes_a_sum_of_many_unclear() {
    let is_enough = |rates| {
        let tariff = Tariff::new(book("a", vec![row(ServiceTier::Standard, 0, rates)]), Pricing::default());
        tariff.prices_sums(named("m", "m"), ServiceTier::Standard, 10, Micros(0))
    };
    let rates = Rates { input: Some(1), output: Some(1), ..Rates::default() };
    assert!(is_enough(rates));
    assert!(is_enough(Rates { web_search: Some(1), ..rates }));
    assert!(!is_enough(Rates { grounded: Some(35), ..rates }));
    assert!(!is_enough(Rates { request: Some(35), ..rates }));
}
