//! What of a usage object is believed.

use super::*;

fn raw(text: &str) -> &RawValue {
    serde_json::from_str(text).unwrap()
}

#[test]
fn untrusted_numbers_are_never_booked() {
    let oddities = [
        "-1",
        "-0.5",
        "1.5",
        "11.0",
        "1e3",
        "1e30",
        "1e999",
        "10000001",
        "18446744073709551616",
        "99999999999999999999999",
        "null",
        "true",
        "false",
        "\"11\"",
        "\"\"",
        "\"NaN\"",
        "[]",
        "[11]",
        "{}",
        "{\"a\":1}",
    ];
    for odd in oddities {
        for (openai_usage, output) in [
            (format!(r#"{{"prompt_tokens":{odd},"completion_tokens":7}}"#), Output::Counted),
            (format!(r#"{{"prompt_tokens":11,"completion_tokens":{odd}}}"#), Output::Counted),
            (format!(r#"{{"input_tokens":11,"output_tokens":{odd}}}"#), Output::Counted),
            (format!(r#"{{"prompt_tokens":{odd}}}"#), Output::None),
            (format!(r#"{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":{odd}}}"#), Output::WithinTotal),
        ] {
            assert_eq!(openai(raw(&openai_usage), output), Err(Unbelievable), "{openai_usage}");
        }
        for member in ["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount"] {
            let usage = format!(r#"{{"promptTokenCount":5,"candidatesTokenCount":5,"{member}":{odd}}}"#);
            assert_eq!(gemini(raw(&usage)), Err(Unbelievable), "{usage}");
        }
    }
    for odd in ["[]", "7", "\"x\"", "true", "{}", "{\"prompt_tokens\":5}"] {
        assert_eq!(openai(raw(odd), Output::Counted), Err(Unbelievable), "{odd}");
    }
    for odd in [
        "[]",
        "7",
        "\"x\"",
        r#"{"totalTokenCount":9}"#,
        r#"{"promptTokensDetails":7}"#,
        r#"{"promptTokensDetails":["AUDIO"]}"#,
    ] {
        assert_eq!(gemini(raw(odd)), Err(Unbelievable), "{odd}");
    }
}

#[test]
fn a_part_larger_than_its_whole_is_not_believed() {
    for details in [
        r#""prompt_tokens_details":{"cached_tokens":12}"#,
        r#""prompt_tokens_details":{"cached_tokens":-1}"#,
        r#""prompt_tokens_details":[]"#,
        r#""completion_tokens_details":{"reasoning_tokens":8}"#,
        r#""completion_tokens_details":{"audio_tokens":"1"}"#,
    ] {
        let usage = format!(r#"{{"prompt_tokens":11,"completion_tokens":7,{details}}}"#);
        assert_eq!(openai(raw(&usage), Output::Counted), Err(Unbelievable), "{usage}");
    }
    assert_eq!(gemini(raw(r#"{"promptTokenCount":5,"cachedContentTokenCount":6}"#)), Err(Unbelievable));
}

#[test]
fn details_may_be_missing_or_null() {
    let tokens = Tokens { prompt: 11, completion: 7, ..Tokens::default() };
    let plain = Ok(Reported { tokens, adds_up: true, tier: None, audio_ms: None });
    for details in
        ["\"prompt_tokens_details\":null", "\"completion_tokens_details\":{\"reasoning_tokens\":null}", "\"x\":1"]
    {
        let usage = format!(r#"{{"prompt_tokens":11,"completion_tokens":7,{details}}}"#);
        assert_eq!(openai(raw(&usage), Output::Counted), plain, "{usage}");
    }
}

/// Prompt, completion and reasoning, and whether the total is their sum.
type Counts = (u64, u64, u64, bool);

fn counts(reported: Result<Reported, Unbelievable>) -> Option<Counts> {
    let Reported { tokens, adds_up, .. } = reported.ok()?;
    Some((tokens.prompt, tokens.completion, tokens.reasoning, adds_up))
}

#[test]
fn a_total_is_never_booked_and_flags_the_counts_that_it_contradicts() {
    use Output::{Counted, None as Embeddings, WithinTotal};
    let rows: [(Output, &str, &str, Option<Counts>); 22] = [
        (Counted, r#""completion_tokens":6,"#, "72", Some((66, 6, 0, true))),
        (Counted, r#""completion_tokens":6,"#, "null", Some((66, 6, 0, true))),
        (Counted, r#""completion_tokens":6,"#, "71", Some((66, 6, 0, false))),
        (Counted, r#""completion_tokens":6,"#, "100", Some((66, 6, 0, false))),
        (Counted, r#""completion_tokens":6,"#, "0", Some((66, 6, 0, false))),
        (Counted, r#""completion_tokens":6,"#, "-72", Some((66, 6, 0, false))),
        (Counted, r#""completion_tokens":6,"#, "72.0", Some((66, 6, 0, false))),
        (Counted, r#""completion_tokens":6,"#, "1e30", Some((66, 6, 0, false))),
        (Counted, r#""completion_tokens":6,"#, "\"72\"", Some((66, 6, 0, false))),
        (Counted, r#""completion_tokens":6,"#, "[72]", Some((66, 6, 0, false))),
        // Of a total twice the last counts.
        (Counted, r#""completion_tokens":6,"total_tokens":1,"#, "72", Some((66, 6, 0, true))),
        (Embeddings, "", "66", Some((66, 0, 0, true))),
        (Embeddings, "", "67", Some((66, 0, 0, false))),
        // Hidden thoughts are in the total alone.
        (WithinTotal, r#""completion_tokens":6,"#, "72", Some((66, 6, 0, true))),
        (WithinTotal, r#""completion_tokens":6,"#, "100", Some((66, 34, 28, true))),
        (WithinTotal, r#""completion_tokens":6,"#, "60", Some((66, 6, 0, false))),
        (WithinTotal, r#""completion_tokens":6,"#, "0", Some((66, 6, 0, false))),
        (WithinTotal, r#""completion_tokens":6,"#, "-100", None),
        (WithinTotal, r#""completion_tokens":6,"#, "100.0", None),
        (WithinTotal, r#""completion_tokens":6,"#, "null", None),
        (WithinTotal, r#""completion_tokens":6,"#, "10000001", None),
        (WithinTotal, "", "100", Some((66, 34, 34, true))),
    ];
    for (output, parts, total, expected) in rows {
        let usage = format!(r#"{{"prompt_tokens":66,{parts}"total_tokens":{total}}}"#);
        assert_eq!(counts(openai(raw(&usage), output)), expected, "{usage} {output:?}");
    }
    assert_eq!(openai(raw(r#"{"prompt_tokens":66}"#), WithinTotal), Err(Unbelievable));
    let rows: [(&str, &str, Option<Counts>); 12] = [
        (r#""candidatesTokenCount":2,"thoughtsTokenCount":3,"#, "10", Some((5, 5, 3, true))),
        (r#""candidatesTokenCount":2,"thoughtsTokenCount":3,"#, "null", Some((5, 5, 3, true))),
        (r#""candidatesTokenCount":2,"thoughtsTokenCount":3,"#, "7", Some((5, 5, 3, false))),
        (r#""candidatesTokenCount":2,"thoughtsTokenCount":3,"#, "99", Some((5, 5, 3, false))),
        (r#""candidatesTokenCount":2,"thoughtsTokenCount":3,"#, "-10", Some((5, 5, 3, false))),
        (r#""candidatesTokenCount":2,"toolUsePromptTokenCount":4,"#, "11", Some((9, 2, 0, true))),
        // The output of a turn without text is in the total alone.
        (r#""thoughtsTokenCount":3,"#, "10", Some((5, 5, 3, true))),
        (r#""thoughtsTokenCount":3,"#, "8", Some((5, 3, 3, true))),
        (r#""thoughtsTokenCount":3,"#, "7", Some((5, 3, 3, false))),
        (r#""thoughtsTokenCount":3,"#, "-10", None),
        (r#""thoughtsTokenCount":3,"#, "\"10\"", None),
        (r#""thoughtsTokenCount":3,"#, "10000001", None),
    ];
    for (parts, total, expected) in rows {
        let usage = format!(r#"{{"promptTokenCount":5,{parts}"totalTokenCount":{total}}}"#);
        assert_eq!(counts(gemini(raw(&usage))), expected, "{usage}");
    }
}

#[test]
fn no_answer_comes_without_a_question() {
    assert_eq!(openai(raw(r#"{"prompt_tokens":0,"completion_tokens":7}"#), Output::Counted), Err(Unbelievable));
    assert_eq!(gemini(raw(r#"{"promptTokenCount":0,"candidatesTokenCount":7}"#)), Err(Unbelievable));
    assert_eq!(gemini(raw(r#"{"candidatesTokenCount":7}"#)), Err(Unbelievable));
    assert_eq!(counts(gemini(raw(r#"{"toolUsePromptTokenCount":4,"candidatesTokenCount":7}"#))), Some((4, 7, 0, true)));
}

#[test]
fn what_is_counted_twice_over_is_too_much() {
    let usage = |completion: u64| format!(r#"{{"prompt_tokens":9000000,"completion_tokens":{completion}}}"#);
    assert_eq!(counts(openai(raw(&usage(1_000_000)), Output::Counted)), Some((9_000_000, 1_000_000, 0, true)));
    assert_eq!(openai(raw(&usage(1_000_001)), Output::Counted), Err(Unbelievable));
    let most = "18446744073709551615";
    let usage =
        format!(r#"{{"promptTokenCount":{most},"toolUsePromptTokenCount":{most},"thoughtsTokenCount":{most}}}"#);
    assert_eq!(gemini(raw(&usage)), Err(Unbelievable));
}

#[test]
fn details_of_a_megabyte_are_no_details() {
    let many = |count: usize| {
        let parts = vec![r#"{"modality":"AUDIO","tokenCount":0}"#; count].join(",");
        format!(r#"{{"promptTokenCount":5,"candidatesTokenCount":1,"promptTokensDetails":[{parts}]}}"#)
    };
    assert_eq!(counts(gemini(raw(&many(8)))), Some((5, 1, 0, true)));
    assert_eq!(gemini(raw(&many(30_000))), Err(Unbelievable));
}

#[test]
fn of_a_count_twice_the_last_counts() {
    let usage = r#"{"prompt_tokens":1,"completion_tokens":7,"prompt_tokens":11}"#;
    assert_eq!(counts(openai(raw(usage), Output::Counted)), Some((11, 7, 0, true)));
    let lie = r#"{"prompt_tokens":11,"completion_tokens":7,"prompt_tokens":-11}"#;
    assert_eq!(openai(raw(lie), Output::Counted), Err(Unbelievable));
    let usage = r#"{"promptTokenCount":1,"candidatesTokenCount":7,"promptTokenCount":11,"totalTokenCount":18}"#;
    assert_eq!(counts(gemini(raw(usage))), Some((11, 7, 0, true)));
}

#[test]
fn tiers_have_the_names_of_both_providers() {
    let tier = |name: &str| tier_named(name, ServiceTier::Batch);
    assert_eq!(tier("default"), ServiceTier::Standard);
    assert_eq!(tier("fast"), ServiceTier::Priority);
    assert_eq!(tier("ON_DEMAND_FLEX"), ServiceTier::Flex);
    assert_eq!(tier("unheard-of"), ServiceTier::Batch);
}

#[test]
fn predictions_count_together_or_not_at_all() {
    let embedding =
        |count: &str| format!(r#"{{"embeddings":{{"values":[0.1],"statistics":{{"token_count":{count}}}}}}}"#);
    let read = |elements: &[&str]| predictions(raw(&format!("[{}]", elements.join(",")))).map(counts);
    let (four, image) = (embedding("4"), r#"{"bytesBase64Encoded":"aa"}"#);
    assert_eq!(read(&[&four, &embedding("5")]), Some(Some((9, 0, 0, true))));
    assert_eq!(read(&[image, &four]), Some(Some((4, 0, 0, true))));
    assert_eq!(read(&[image]), None);
    assert_eq!(read(&[]), None);
    for odd in ["-1", "4.0", "1e3", "10000001", "\"4\"", "null", "[4]", "{}"] {
        assert_eq!(read(&[&four, &embedding(odd)]), Some(None), "{odd}");
    }
    for odd in ["7", "[]", r#"{"embeddings":7}"#, r#"{"embeddings":{"statistics":[]}}"#] {
        assert_eq!(read(&[&four, odd]), Some(None), "{odd}");
    }
    let most = embedding("10000000");
    assert_eq!(read(&[&most, &most]), Some(None));
    assert_eq!(predictions(raw("7")), Some(Err(Unbelievable)));
}

#[test]
fn seconds_are_no_tokens_and_have_to_be_a_number() {
    for (seconds, audio_ms) in [("0", 0), ("9", 9_000), ("9.5", 9_500), ("9.5001", 9_501), ("604800", AUDIO_MS_MAX)] {
        let usage = format!(r#"{{"type":"duration","seconds":{seconds}}}"#);
        let lasted = Reported { tokens: Tokens::default(), adds_up: true, tier: None, audio_ms: Some(audio_ms) };
        assert_eq!(openai(raw(&usage), Output::Counted), Ok(lasted), "{usage}");
    }
    for seconds in ["-1", "\"9\"", "604800.001", "1e300", "null", "[9]"] {
        let usage = format!(r#"{{"type":"duration","seconds":{seconds}}}"#);
        assert_eq!(openai(raw(&usage), Output::Counted), Err(Unbelievable), "{usage}");
    }
    assert_eq!(openai(raw(r#"{"type":"duration"}"#), Output::Counted), Err(Unbelievable));
    let tokens = r#"{"type":"tokens","seconds":9,"input_tokens":14,"output_tokens":45,"total_tokens":59}"#;
    assert_eq!(counts(openai(raw(tokens), Output::Counted)), Some((14, 45, 0, true)));
}

#[test]
fn a_cache_is_read_once_and_has_to_say_how_much() {
    assert_eq!(counts(gemini_cache(raw(r#"{"totalTokenCount":3512}"#))), Some((3512, 0, 0, true)));
    for odd in
        ["{}", "[]", r#"{"totalTokenCount":-1}"#, r#"{"totalTokenCount":null}"#, r#"{"totalTokenCount":10000001}"#]
    {
        assert_eq!(gemini_cache(raw(odd)), Err(Unbelievable), "{odd}");
    }
}
