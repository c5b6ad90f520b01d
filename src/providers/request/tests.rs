//! Requests are read and edited as a provider would read them.

use http::Method;

use super::super::{CredentialPlace, route};
use super::*;

fn call(body: &str) -> Result<Call, Refusal> {
    read(&Bytes::copy_from_slice(body.as_bytes()), ModelIn::Body, StreamBy::BodyWithOptions, Maximum::NOWHERE)
}

fn edited(body: &str) -> String {
    let call = call(body).unwrap_or_else(|refusal| panic!("{body}: {refusal}"));
    String::from_utf8(apply(&call.edits, &Bytes::copy_from_slice(body.as_bytes())).concat()).unwrap()
}

#[test]
fn usage_is_asked_for_where_the_client_did_not_and_nothing_else_changes() {
    let check = |body: &str, expected: &str| assert_eq!(edited(body), expected, "{body}");
    check(r#"{"model":"m","stream":true}"#, r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#);
    check(
        " {\n\"stream\" : true ,\"model\":\"m\"}",
        " {\"stream_options\":{\"include_usage\":true},\n\"stream\" : true ,\"model\":\"m\"}",
    );
    check(
        r#"{"model":"m","stream":true,"stream_options": null }"#,
        r#"{"model":"m","stream":true,"stream_options": {"include_usage":true} }"#,
    );
    check(
        r#"{"stream_options":{ },"model":"m","stream":true}"#,
        r#"{"stream_options":{"include_usage":true },"model":"m","stream":true}"#,
    );
    check(
        r#"{"stream_options":{"include_obfuscation":false},"model":"m","stream":true}"#,
        r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"model":"m","stream":true}"#,
    );
    check(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage" : false}}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage" : true}}"#,
    );
    check(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_usage":null}}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true,"include_usage":true}}"#,
    );
    check(
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"str\u0065am_options":{}}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"str\u0065am_options":{"include_usage":true}}"#,
    );
    check(
        r#"{"stream":false,"model":"m","messages":[{"stream_options":{}}],"stre\u0061m":true}"#,
        r#"{"stream_options":{"include_usage":true},"stream":false,"model":"m","messages":[{"stream_options":{}}],"stre\u0061m":true}"#,
    );
}

#[test]
fn a_large_body_is_edited_without_a_copy() {
    let image = "A".repeat(JOINED_BODY_BYTES_MAX);
    let text = format!(r#"{{"model":"m","user":"{image}","stream_options":null,"stream":true}}"#);
    let expected = text.replace("null", r#"{"include_usage":true}"#);
    assert!(edited(&text) == expected);
    let body = Bytes::from(text);
    let parts = apply(&read(&body, ModelIn::Body, StreamBy::BodyWithOptions, Maximum::NOWHERE).unwrap().edits, &body);
    let of_the_body = |part: &Bytes| body.as_ptr_range().contains(&part.as_ptr());
    assert_eq!(parts.iter().map(of_the_body).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn nothing_is_edited_where_usage_comes_anyway_or_the_provider_will_refuse() {
    for body in [
        r#"{"model":"m"}"#,
        r#"{"model":"m","stream":false}"#,
        r#"{"model":"m","stream":true,"stream":false}"#,
        r#"{"model":"m","stream":null}"#,
        r#"{"model":"m","stream":"true"}"#,
        r#"{"model":"m","messages":[{"stream":true}]}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":"yes"}}"#,
        r#"{"model":"m","stream":true,"stream_options":[]}"#,
    ] {
        assert_eq!(edited(body), body);
    }
}

#[test]
fn the_last_model_counts_and_must_be_a_string() {
    let model = |body: &str| call(body).map(|call| call.model);
    assert_eq!(model(r#"{"model":"a","model":"b"}"#), Ok("b".into()));
    assert_eq!(model(r#"{"model":"caf\u00e9"}"#), Ok("café".into()));
    for bad in [r#"{"model":1}"#, r#"{"model":null}"#, "{}", r#"{"model":"\ud800"}"#, r#"{"model":"a","model":[]}"#] {
        assert!(matches!(model(bad), Err(Refusal::BadJson { .. })), "{bad}");
    }
    let any = |body: &'static str| {
        read(&Bytes::from_static(body.as_bytes()), ModelIn::BodyIfAny, StreamBy::Body, Maximum::NOWHERE)
    };
    assert_eq!(any("{}").map(|call| call.model), Ok(String::new()));
    assert!(any(r#"{"model":7}"#).is_err());
}

#[test]
fn what_is_no_object_or_too_deep_is_refused() {
    let deep = |depth: usize| format!("{{\"model\":\"m\",\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(call(&deep(127)).is_ok());
    assert_eq!(call(&deep(128)), Err(Refusal::BadJson { reason: "it is nested too deeply" }));
    for bad in
        ["", " ", "[]", "null", "\"x\"", "{", "{\"model\":\"m\"}}", "{\"model\":\"m\",}", "{'model':'m'}", "\u{feff}{}"]
    {
        assert!(matches!(call(bad), Err(Refusal::BadJson { .. })), "{bad}");
    }
    let bomb = "[".repeat(1_000_000);
    assert!(matches!(call(&bomb), Err(Refusal::BadJson { .. })));
    let deep_options = format!("{{\"model\":\"m\",\"stream\":true,\"stream_options\":{}", "{\"a\":".repeat(200));
    assert!(call(&deep_options).is_err());
}

#[test]
fn a_large_prompt_is_counted_and_not_kept() {
    let small = Bytes::from_static(br#"{"model":"m"}"#);
    let kept = read(&small, ModelIn::Body, StreamBy::Body, Maximum::NOWHERE).map(|call| call.prompt);
    assert_eq!(kept, Ok(Prompt::Body { body: small, text_bytes: 0 }));
    let text = "x".repeat(KEPT_PROMPT_BYTES_MAX);
    let large = Bytes::from(format!(r#"{{"model":"m","prompt":"{text}"}}"#));
    let counted = read(&large, ModelIn::Body, StreamBy::Body, Maximum::NOWHERE).map(|call| call.prompt);
    assert_eq!(counted, Ok(Prompt::TextBytes(KEPT_PROMPT_BYTES_MAX as u64)));
}

proptest::proptest! {
    #[test]
    fn the_edited_body_is_the_body_with_usage_asked_for(
        members in proptest::collection::vec(0usize..8, 0..8), space in "[ \n\t]{0,3}"
    ) {
        let known = [
            r#""stream":true"#, r#""stream":false"#, r#""stream_options":null"#, r#""stream_options":{}"#,
            r#""stream_options":{"include_usage":false,"x":[{}]}"#, r#""stream_options":{"include_usage":true}"#,
            r#""a":"\"stream\":true,{"}"#.trim_end_matches('}'), r#""b":{"stream":true,"stream_options":{}}"#,
        ];
        let mut body = format!("{space}{{{space}\"model\":\"m\"");
        for member in members {
            body += &format!("{space},{space}{}", known[member]);
        }
        body += &format!("{space}}}");
        let before: serde_json::Value = serde_json::from_str(&body).unwrap();
        let after: serde_json::Value = serde_json::from_str(&edited(&body)).unwrap();
        let mut expected = before.clone();
        if before["stream"] == true {
            if !expected["stream_options"].is_object() {
                expected["stream_options"] = serde_json::json!({});
            }
            expected["stream_options"]["include_usage"] = true.into();
        }
        proptest::prop_assert_eq!(after, expected);
    }
}

#[test]
fn an_answer_in_the_background_is_told_by_true_alone() {
    for (body, is) in [
        (r#"{"model":"m","background":true}"#, true),
        (r#"{"model":"m","background" : true,"stream":true}"#, true),
        (r#"{"model":"m","b\u0061ckground":true}"#, true),
        (r#"{"model":"m","background":true,"background":false}"#, false),
        (r#"{"model":"m","background":null}"#, false),
        (r#"{"model":"m","background":"transparent"}"#, false),
        (r#"{"model":"m","metadata":{"background":true},"input":"background"}"#, false),
    ] {
        assert_eq!(call(body).unwrap().in_background, is, "{body}");
    }
}

/// What a provider's own reading of a request refuses.
fn refused(path: &str, body: &str) -> bool {
    let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
    match provider.call(&endpoint, None, &Bytes::copy_from_slice(body.as_bytes())) {
        Ok(_) => false,
        Err(Refusal::BadJson { .. }) => true,
        Err(other) => panic!("{path} {body}: {other}"),
    }
}

#[test]
fn a_chat_that_google_reads_by_second_names_has_no_other_bound_or_usage() {
    const GOOGLE: &str = "/v1beta/openai/chat/completions";
    const OPENAI: &str = "/v1/chat/completions";
    for members in [
        r#""stream":"true""#,
        r#""stream":1"#,
        r#""stream":"true","stream":true"#,
        r#""stream":true,"stream_options":{"include_usage":"false"}"#,
        r#""stream":true,"stream_options":{"include_usage":0}"#,
        r#""stream":true,"stream_options":{"include_usage":true,"includeUsage":false}"#,
        r#""stream":true,"stream_options":{"includeUsage":false},"stream_options":{}"#,
        r#""stream":true,"streamOptions":{"includeUsage":false}"#,
        r#""stream":true,"stre\u0061mOptions":{"includeUsage":false}"#,
        r#""maxTokens":65536"#,
        r#""max_tokens":16,"maxTokens":65536"#,
        r#""maxCompletionTokens":65536"#,
        r#""extraBody":{"google":{"cachedContent":"cachedContents/1"}}"#,
    ] {
        let body = format!(r#"{{"model":"m","messages":[],{members}}}"#);
        assert!(refused(GOOGLE, &body), "{body}");
        assert!(!refused(OPENAI, &body), "{body}");
    }
    for members in [
        r#""stream":true,"stream_options":{"include_usage":false},"max_tokens":16"#,
        r#""stream":false,"stream_options":null,"extra_body":{"google":{"thinking_config":{}}}"#,
        r#""stream":null,"metadata":{"maxTokens":"1","streamOptions":{}}"#,
    ] {
        let body = format!(r#"{{"model":"m","messages":[],{members}}}"#);
        assert!(!refused(GOOGLE, &body), "{body}");
    }
    assert!(!refused("/v1beta/openai/embeddings", r#"{"model":"m","input":"x","stream":"true"}"#));
}

#[test]
fn speech_by_the_character_is_refused_where_its_characters_cannot_be_counted() {
    const SPEECH: &str = "/v1/audio/speech";
    for (model, input, is_refused) in [
        ("tts-1", r#","input":"Hi""#, false),
        ("tts-1", r#","input":"stra\u00dfe""#, false),
        ("tts-1", "", true),
        ("tts-1", r#","input":null"#, true),
        ("tts-1", r#","input":["Hi"]"#, true),
        ("tts-1-hd", r#","input":"\ud800 and more""#, true),
        ("tts-1-hd", r#","input":"Hi","input":"\ud800""#, true),
        ("gpt-4o-mini-tts", r#","input":"\ud800""#, false),
    ] {
        let body = format!(r#"{{"model":"{model}","voice":"alloy"{input}}}"#);
        assert_eq!(refused(SPEECH, &body), is_refused, "{body}");
    }
}
