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
    let plain = Ok(Tokens { prompt: 11, completion: 7, ..Tokens::default() });
    for details in
        ["\"prompt_tokens_details\":null", "\"completion_tokens_details\":{\"reasoning_tokens\":null}", "\"x\":1"]
    {
        let usage = format!(r#"{{"prompt_tokens":11,"completion_tokens":7,{details}}}"#);
        assert_eq!(openai(raw(&usage), Output::Counted), plain, "{usage}");
    }
}

#[test]
fn a_total_that_contradicts_does_not_count_but_for_hidden_thoughts() {
    let usage = |total: u64| format!(r#"{{"prompt_tokens":66,"completion_tokens":6,"total_tokens":{total}}}"#);
    let completion =
        |total, output| openai(raw(&usage(total)), output).map(|tokens| (tokens.completion, tokens.reasoning));
    assert_eq!(completion(100, Output::Counted), Ok((6, 0)));
    assert_eq!(completion(100, Output::WithinTotal), Ok((34, 28)));
    assert_eq!(completion(60, Output::WithinTotal), Ok((6, 0)));
    let tokens =
        gemini(raw(r#"{"promptTokenCount":5,"candidatesTokenCount":2,"thoughtsTokenCount":3,"totalTokenCount":99}"#));
    assert_eq!(tokens.map(|(tokens, _)| (tokens.prompt, tokens.completion)), Ok((5, 5)));
}

#[test]
fn of_a_count_twice_the_last_counts() {
    let usage = r#"{"prompt_tokens":1,"completion_tokens":7,"prompt_tokens":11}"#;
    assert_eq!(openai(raw(usage), Output::Counted).map(|tokens| tokens.prompt), Ok(11));
}

#[test]
fn tiers_have_the_names_of_both_providers() {
    let tier = |name: &str| tier_named(name, ServiceTier::Batch);
    assert_eq!(tier("default"), ServiceTier::Standard);
    assert_eq!(tier("fast"), ServiceTier::Priority);
    assert_eq!(tier("ON_DEMAND_FLEX"), ServiceTier::Flex);
    assert_eq!(tier("unheard-of"), ServiceTier::Batch);
}
