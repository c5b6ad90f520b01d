//! Answers that hold more than is kept of them: images and audio of many megabytes, and what they charged beside those.

use http::Method;

use super::super::*;
use super::{reader_for, replay, used};

const MIB: usize = 1024 * 1024;

/// What an answer said, which the client got as it came.
fn read(path: &str, file: &str, request: &str, answer: &str) -> Reading {
    let pieces: Vec<&[u8]> = answer.as_bytes().chunks(60_001).collect();
    let (out, complete, reading) = replay(reader_for(path, file, request), &pieces);
    assert!(out == answer.as_bytes() && complete, "{path}");
    let (_, _, whole) = replay(reader_for(path, file, request), &[answer.as_bytes()]);
    assert_eq!(whole, reading, "{path}");
    reading
}

fn long(bytes: usize) -> String {
    "iVBO/+RK".repeat(bytes / 8)
}

/// So many of them, in an array.
fn list(count: usize, element: &str) -> String {
    format!("[{}]", vec![element; count].join(","))
}

#[test]
fn images_that_are_larger_than_what_is_kept_are_charged_as_the_answer_says() {
    let image = long(4 * MIB);
    let drawn = list(10, &format!("{{\"b64_json\":\"{image}\"}}"));
    let usage = r#"{"input_tokens":50,"output_tokens":62100,"total_tokens":62150}"#;
    let answer = format!("{{\"created\":1,\"data\":{drawn},\"usage\":{usage}}}");
    let reading = read("/v1/images/generations", "a.json", r#"{"model":"gpt-image-1","n":10,"prompt":"x"}"#, &answer);
    assert_eq!((reading.tokens, reading.unread, reading.distrusted), (Some(used(50, 62_100)), false, false));

    let answer = format!("{{\"created\":1,\"data\":{drawn}}}");
    let reading = read("/v1/images/generations", "a.json", r#"{"model":"dall-e-2","n":10,"prompt":"x"}"#, &answer);
    assert_eq!((reading.quantities.images, reading.unread), (10, false));

    let made = list(4, &format!("{{\"mimeType\":\"image/png\",\"bytesBase64Encoded\":\"{}\"}}", long(12 * MIB)));
    let path = "/v1beta/models/imagen-4.0-ultra-generate-001:predict";
    let reading = read(path, "a.json", "{}", &format!("{{\"predictions\":{made}}}"));
    assert_eq!((reading.quantities.images, reading.unread), (4, false));
}

#[test]
fn media_in_answers_of_chats_hide_no_usage() {
    let audio = long(40 * MIB);
    let answer = format!(
        r#"{{"id":"c","model":"gpt-4o-audio-preview","choices":[{{"message":{{"content":null,"audio":{{"data":"{audio}"}}}}}}],"usage":{{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}}}"#
    );
    let request = r#"{"model":"gpt-4o-audio-preview","messages":[]}"#;
    let reading = read("/v1/chat/completions", "a.json", request, &answer);
    assert_eq!((reading.tokens, reading.distrusted), (Some(used(11, 7)), false));

    let usage = r#""usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":7,"totalTokenCount":18}"#;
    let gemini = |bytes| {
        let image = long(bytes);
        format!(r#"{{"candidates":[{{"content":{{"parts":[{{"inlineData":{{"data":"{image}"}}}}]}}}}],{usage}}}"#)
    };
    let path = "/v1beta/models/gemini-3-pro-image-preview:generateContent";
    assert_eq!(read(path, "a.json", "{}", &gemini(40 * MIB)).tokens, Some(used(11, 7)));
    let path = "/v1beta/models/gemini-3-pro-image-preview:streamGenerateContent";
    assert_eq!(read(path, "a.json", "{}", &format!("[{}]", gemini(20 * MIB))).tokens, Some(used(11, 7)));
    let stream = format!("data: {}\r\n\r\n", gemini(20 * MIB));
    let pieces: Vec<&[u8]> = stream.as_bytes().chunks(60_001).collect();
    let (out, _, reading) = replay(reader_for(path, "a.sse", "{}"), &pieces);
    assert!(out == stream.as_bytes());
    assert_eq!((reading.tokens, reading.unread), (Some(used(11, 7)), false));
}

#[test]
fn responses_with_several_images_are_charged_as_they_say() {
    let usage = r#""usage":{"input_tokens":11,"output_tokens":7,"total_tokens":18}"#;
    let response = |images, bytes| {
        let output =
            list(images, &format!(r#"{{"id":"ig_1","type":"image_generation_call","result":"{}"}}"#, long(bytes)));
        format!(
            r#"{{"id":"resp_1","object":"response","status":"completed","model":"gpt-5","output":{output},{usage}}}"#
        )
    };
    let request = r#"{"model":"gpt-5","input":"x"}"#;
    let answer = response(9, 4 * MIB);
    assert_eq!(read("/v1/responses", "a.json", request, &answer).tokens, Some(used(11, 7)));
    // More of them than long ones are kept whole.
    let answer = response(60, MIB - 8);
    assert_eq!(read("/v1/responses", "a.json", request, &answer).tokens, Some(used(11, 7)));
    let stream = format!("data: {{\"type\":\"response.completed\",\"response\":{}}}\n\n", response(5, 4 * MIB));
    assert_eq!(read("/v1/responses", "a.sse", request, &stream).tokens, Some(used(11, 7)));
}

#[test]
fn an_event_that_is_cut_is_passed_on_and_the_one_of_usage_is_taken_out_all_the_same() {
    let large =
        format!("data: {{\"model\":\"m\",\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", long(20 * MIB));
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n";
    let stream = format!("{large}{usage}data: [DONE]\n\n");
    let request = r#"{"model":"m","stream":true,"messages":[]}"#;
    let pieces: Vec<&[u8]> = stream.as_bytes().chunks(60_001).collect();
    let (out, complete, reading) = replay(reader_for("/v1/chat/completions", "a.sse", request), &pieces);
    assert!(out == format!("{large}data: [DONE]\n\n").as_bytes());
    assert_eq!((complete, reading.tokens), (true, Some(used(11, 7))));
}

#[test]
fn text_that_is_cut_counts_as_long_as_it_was() {
    let text = long(3 * MIB);
    let answer = format!(r#"{{"model":"m","choices":[{{"message":{{"content":"{text}","refusal":"no"}}}}]}}"#);
    let reading = read("/v1/chat/completions", "a.json", r#"{"model":"m","messages":[]}"#, &answer);
    assert_eq!((reading.tokens, reading.output_bytes), (None, text.len() as u64 + 2));
    let speech = format!("data: {{\"type\":\"speech.audio.delta\",\"audio\":\"{}\"}}\n\n", long(8 * MIB));
    let (_, _, reading) = replay(
        reader_for("/v1/audio/speech", "a.sse", r#"{"model":"gpt-4o-mini-tts","input":"x"}"#),
        &[speech.as_bytes()],
    );
    assert!(reading.output_bytes >= 4 * (6 * MIB as u64 / 800), "{}", reading.output_bytes);
}

#[test]
fn what_is_too_long_even_without_its_long_strings_says_so() {
    let numbers = "1,".repeat(17 * MIB);
    let usage = r#""usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}"#;
    let answer = format!(r#"{{"choices":[{{"message":{{"x":[{numbers}1]}}}}],{usage}}}"#);
    let chat = "/v1/chat/completions";
    let request = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
    let reading = read(chat, "a.json", request, &answer);
    assert_eq!((reading.tokens, reading.unread, reading.distrusted, reading.uncounted), (None, true, true, true));
    let event = format!("data: [{numbers}1]\n\n");
    let told = format!("data: {{\"choices\":[],{usage}}}\n\n");
    let end = "data: [DONE]\n\n";
    // What comes after it tells all.
    let reading = read(chat, "a.sse", request, &format!("{event}{told}{end}"));
    assert_eq!((reading.tokens, reading.unread, reading.distrusted), (Some(used(11, 7)), false, false));
    // What came before it tells too little.
    let reading = read(chat, "a.sse", request, &format!("{told}{event}{end}"));
    assert_eq!((reading.tokens, reading.unread, reading.distrusted), (Some(used(11, 7)), true, true));
}

#[test]
fn objects_are_found_behind_long_strings() {
    let (provider, _) = route(&Method::POST, "/v1/responses", CredentialPlace::Bearer).unwrap();
    let output = list(9, &format!(r#"{{"id":"ig_1","type":"image_generation_call","result":"{}"}}"#, long(4 * MIB)));
    let response = format!(r#"{{"output":{output},"object":"response","id":"resp_1"}}"#);
    let found = |content_type, answer: &str| {
        let mut finder = provider.finder(Makes::All, Some(content_type)).unwrap();
        answer.as_bytes().chunks(60_001).for_each(|piece| finder.look(piece));
        finder.take().iter().map(|made| made.name.to_string()).collect::<Vec<_>>()
    };
    let names = found("application/json", &response);
    assert!(names.iter().any(|name| name.ends_with("resp_1")), "{names:?}");
    let event = format!("data: {{\"type\":\"response.completed\",\"response\":{response}}}\n\n");
    assert_eq!(found("text/event-stream", &event), names);
}
