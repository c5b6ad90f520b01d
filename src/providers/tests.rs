//! Golden fixtures of every kind of answer, replayed whole, cut at every byte and byte by byte, and properties of cuts.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

mod lies;
mod long;
mod metered;
mod units;

const CHAT: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// One recorded shape and what it says.
struct Golden {
    file: &'static str,
    path: &'static str,
    tokens: Option<Tokens>,
    model: &'static str,
    tier: ServiceTier,
    complete: bool,
    output: &'static str,
}

fn golden(file: &'static str, path: &'static str, tokens: Option<Tokens>, model: &'static str) -> Golden {
    Golden { file, path, tokens, model, tier: ServiceTier::Standard, complete: true, output: "" }
}

fn used(prompt: u64, completion: u64) -> Tokens {
    Tokens { prompt, completion, ..Tokens::default() }
}

#[rustfmt::skip]
fn goldens() -> Vec<Golden> {
    const OPENAI_CHAT: &str = "/v1/chat/completions";
    const RESPONSES: &str = "/v1/responses";
    const STREAM: &str = "/v1beta/models/gemini-2.5-flash:streamGenerateContent";
    const GENERATE: &str = "/v1beta1/projects/p/locations/global/publishers/google/models/gemini-2.5-flash:generateContent";
    const FAKE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}}\n\ndata: [DONE]\n\nf{\"usage\":{\"prompt_tokens\":1}}x";
    const BRIDGE: &str = "A{\"usageMetadata\":{\"promptTokenCount\":1}} ]}bridge";
    let gpt4o = "gpt-4o-2024-08-06";
    let gpt5 = "gpt-5-2025-08-07";
    let flash = "gemini-2.5-flash";
    let chat = Tokens { cached: 4, reasoning: 2, ..used(11, 7) };
    let responses = Tokens { cached: 200, cache_write: 10, reasoning: 9, ..used(255, 16) };
    let thoughts = Tokens { reasoning: 78, ..used(87, 78) };
    let vertex = Tokens {
        cached: 220, prompt_audio: 60, prompt_image: 5, cached_audio: 40, reasoning: 18, completion_image: 7, ..used(510, 28)
    };
    let o3 = Tokens { cache_write: 4012, prompt_audio: 3, prompt_image: 1, reasoning: 448, completion_audio: 2, ..used(4020, 467) };
    vec![
        Golden { output: "Tolls are due, ümlaut \"quoted\"", ..golden("openai_chat_stream.sse", OPENAI_CHAT, Some(chat), gpt4o) },
        Golden { output: FAKE, ..golden("openai_chat_stream_lookalikes.sse", OPENAI_CHAT, Some(chat), gpt4o) },
        Golden { output: "Pay here", ..golden("openai_completions_stream.sse", "/v1/completions", Some(used(3, 2)), "gpt-3.5-turbo-instruct") },
        Golden { tier: ServiceTier::Flex, ..golden("openai_chat.json", OPENAI_CHAT, Some(o3), "o3-2025-04-16") },
        Golden { output: "No bill today.", ..golden("openai_chat_no_usage.json", OPENAI_CHAT, None, "gpt-4o") },
        golden("openai_embeddings.json", "/v1/embeddings", Some(used(4, 0)), "text-embedding-3-small"),
        Golden { output: "The toll is 3.", tier: ServiceTier::Priority, ..golden("openai_responses_stream.sse", RESPONSES, Some(responses), gpt5) },
        Golden { output: "The toll", tier: ServiceTier::Priority, ..golden("openai_responses_incomplete.sse", RESPONSES, Some(used(30, 5)), gpt5) },
        Golden { tier: ServiceTier::Priority, ..golden("openai_responses.json", RESPONSES, Some(responses), gpt5) },
        golden("openai_responses_compact.json", "/v1/responses/compact", Some(used(117, 193)), ""),
        golden("openai_responses_background.json", RESPONSES, None, gpt5),
        Golden { output: BRIDGE, complete: false, ..golden("gemini_stream.sse", STREAM, Some(thoughts), flash) },
        Golden { output: BRIDGE, ..golden("gemini_stream_array.json", STREAM, Some(thoughts), flash) },
        Golden { tier: ServiceTier::Flex, ..golden("gemini_generate.json", GENERATE, Some(vertex), flash) },
        golden("gemini_blocked.json", GENERATE, Some(Tokens::default()), flash),
        golden("gemini_tool_call.json", "/v1/models/gemini-2.5-pro:generateContent", Some(used(40, 12)), "gemini-2.5-pro"),
        golden("gemini_batch_embed.json", "/v1beta/models/gemini-embedding-2:batchEmbedContents", Some(used(4, 0)), ""),
        golden("gemini_batch_embed_no_usage.json", "/v1beta/models/gemini-embedding-001:batchEmbedContents", None, ""),
        golden("compat_chat.json", "/v1beta/openai/chat/completions", Some(Tokens { reasoning: 28, ..used(66, 34) }), "gemini-2.5-pro"),
    ]
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/providers/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn reader_for(path: &str, file: &str, request: &str) -> Box<dyn AnswerReader> {
    let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::None).unwrap();
    let call = provider.call(&endpoint, None, &Bytes::copy_from_slice(request.as_bytes())).unwrap();
    let content_type = if file.ends_with(".sse") { "text/event-stream; charset=utf-8" } else { "application/json" };
    provider.reader(&endpoint, &call, Some(content_type))
}

/// What the client gets, whether the answer was complete, and what it said, when it comes in these pieces.
fn replay(mut reader: Box<dyn AnswerReader>, pieces: &[&[u8]]) -> (Vec<u8>, bool, Reading) {
    let mut out = Vec::new();
    for piece in pieces {
        reader.pass(Bytes::copy_from_slice(piece), &mut out);
    }
    reader.flush(&mut out);
    (out.concat(), reader.is_complete(), reader.reading())
}

fn looked(mut reader: Box<dyn AnswerReader>, pieces: &[&[u8]]) -> (bool, Reading) {
    pieces.iter().for_each(|piece| reader.look(piece));
    (reader.is_complete(), reader.reading())
}

#[test]
fn every_kind_of_answer_is_read_alike_at_every_cut() {
    for golden in goldens() {
        let Golden { file, path, tokens, model, tier, complete, output } = golden;
        let body = fixture(file);
        // Which one, the tests of units say.
        let (_, _, Reading { unit, .. }) = replay(reader_for(path, file, CHAT), &[&body]);
        let expected = Reading {
            unit,
            tokens,
            distrusted: false,
            quantities: Quantities::default(),
            unread: false,
            uncounted: false,
            model: Some(model.to_owned()).filter(|model| !model.is_empty()),
            continuation: None,
            tier,
            output: output.to_owned(),
            output_bytes: output.len() as u64,
        };
        let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"contents":[]}"#;
        for request in [asked, CHAT] {
            let replay = |pieces: &[&[u8]]| replay(reader_for(path, file, request), pieces);
            let (client, _, _) = replay(&[&body]);
            let takes_out = request == CHAT && path.ends_with("completions") && file.ends_with(".sse");
            assert_eq!(client.len() < body.len(), takes_out, "{file}");
            for cut in 0..=body.len() {
                let (head, tail) = body.split_at(cut);
                let got = replay(&[head, tail]);
                assert_eq!(got, (client.clone(), complete, expected.clone()), "{file} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(replay(&bytes), (client.clone(), complete, expected.clone()), "{file} byte by byte");
            assert_eq!(
                looked(reader_for(path, file, request), &bytes),
                (complete, expected.clone()),
                "{file} looked at"
            );
        }
    }
}

#[test]
fn exactly_the_usage_event_is_taken_out() {
    for file in ["openai_chat_stream.sse", "openai_chat_stream_lookalikes.sse", "openai_completions_stream.sse"] {
        let path = if file.contains("chat") { "/v1/chat/completions" } else { "/v1/completions" };
        let text = String::from_utf8(fixture(file)).unwrap();
        let is_usage = |event: &&str| {
            event.contains("\"total_tokens\":") && event.contains("\"choices\":[],\"usage\":{")
                || event.contains("\"usage\":{\"prompt_tokens\":3")
        };
        let usage: Vec<&str> = text.split_inclusive("\n\n").filter(is_usage).collect();
        assert_eq!(usage.len(), 1, "{file}");
        for ending in ["\n", "\r\n", "\r"] {
            let body = text.replace('\n', ending);
            let expected = text.replace(usage[0], "").replace('\n', ending);
            for cut in 0..=body.len() {
                let (head, tail) = body.as_bytes().split_at(cut);
                let (client, complete, reading) = replay(reader_for(path, file, CHAT), &[head, tail]);
                assert_eq!(String::from_utf8_lossy(&client), expected, "{file} {ending:?} cut at {cut}");
                assert!(complete && reading.tokens.is_some());
            }
        }
    }
}

#[test]
fn whole_events_go_on_at_once_and_chunks_without_edits_are_not_copied() {
    let text = fixture("openai_chat_stream.sse");
    let mut reader = reader_for("/v1/chat/completions", "x.sse", CHAT);
    for event in String::from_utf8(text).unwrap().split_inclusive("\n\n") {
        let mut out = Vec::new();
        reader.pass(Bytes::copy_from_slice(event.as_bytes()), &mut out);
        assert_eq!(out.concat().len(), if event.contains("\"usage\":{") { 0 } else { event.len() });
    }
    let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
    let mut reader = reader_for("/v1/chat/completions", "x.sse", asked);
    let (chunk, mut out) = (Bytes::from_static(b"data: {\"choi"), Vec::new());
    reader.pass(chunk.clone(), &mut out);
    assert_eq!(out[0].as_ptr(), chunk.as_ptr());
}

#[test]
fn a_long_event_is_not_held_back() {
    let long = format!("data: {{\"choices\":[],\"usage\":{{}},\"x\":\"{}", "x".repeat(answer::HELD_BYTES_MAX));
    let mut reader = reader_for("/v1/chat/completions", "x.sse", CHAT);
    let mut out = Vec::new();
    reader.pass(Bytes::from(long.clone()), &mut out);
    assert_eq!(out.concat().len(), long.len());
    reader.pass(Bytes::from_static(b"\"}\n\nda"), &mut out);
    assert_eq!(out.concat().len(), long.len() + 4);
}

#[test]
fn the_form_of_an_answer_without_a_content_type_is_its_first_byte() {
    for golden in goldens().into_iter().filter(|golden| golden.tokens.is_some()) {
        let (provider, endpoint) = route(&Method::POST, golden.path, CredentialPlace::None).unwrap();
        let call = provider.call(&endpoint, None, &Bytes::from_static(b"{\"model\":\"m\"}")).unwrap();
        for content_type in [None, Some("text/plain")] {
            let reader = provider.reader(&endpoint, &call, content_type);
            let body = fixture(golden.file);
            assert_eq!(replay(reader, &[b" ", &body]).2.tokens, golden.tokens, "{}", golden.file);
        }
    }
}

/// An answer in OpenAI's stream with these events, then `[DONE]` without its blank line.
#[test]
fn blanks_before_an_answer_without_a_content_type_count_at_every_cut() {
    // Found by the fuzz target of documents: cut behind the blank, the line was data.
    for (body, is_complete) in [
        (" data: [DONE]\n\n", false),
        ("\n\u{feff}data: [DONE]\n\n", false),
        ("\r\n\n data: x\n\ndata: [DONE]\n\n", true),
        (" \n\t{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}", true),
    ] {
        let (provider, endpoint) = route(&Method::POST, "/v1/completions", CredentialPlace::None).unwrap();
        let call = provider.call(&endpoint, None, &Bytes::from_static(br#"{"model":"m"}"#)).unwrap();
        let read = |pieces: &[&[u8]]| replay(provider.reader(&endpoint, &call, None), pieces);
        let whole = read(&[body.as_bytes()]);
        assert_eq!(whole.1, is_complete, "{body:?}");
        for cut in 0..=body.len() {
            let (head, tail) = body.as_bytes().split_at(cut);
            assert_eq!(read(&[head, tail]), whole, "{body:?} cut at {cut}");
        }
        assert_eq!(read(&body.as_bytes().chunks(1).collect::<Vec<_>>()), whole, "{body:?}");
    }
}

fn stream_of(events: &[&str]) -> String {
    let mut stream = String::from("\u{feff}");
    for event in events {
        write!(stream, ": comment\nid: 7\ndata:{event}\n\n").unwrap();
    }
    stream + "data: [DONE]\n"
}

#[test]
fn in_a_stream_the_last_believable_usage_counts() {
    let usage = |prompt: &str| {
        format!(r#"{{"model":"m","choices":[],"usage":{{"prompt_tokens":{prompt},"completion_tokens":7}}}}"#)
    };
    let (good, bad, zero) = (usage("11"), usage("-1"), usage("0").replace(":7", ":0"));
    let read = |events: &[&str]| {
        let body = stream_of(events);
        let whole = replay(reader_for("/v1/chat/completions", "x.sse", CHAT), &[body.as_bytes()]);
        assert!(whole.1, "complete at its last line");
        (whole.2.tokens, whole.2.distrusted)
    };
    assert_eq!(read(&[&usage("3"), &good]), (Some(used(11, 7)), false));
    // What was said before a lie was said before the end.
    assert_eq!(read(&[&good, &bad]), (None, true));
    assert_eq!(read(&[&bad, &good, &bad]), (None, true));
    assert_eq!(read(&[&bad, &good]), (Some(used(11, 7)), false));
    assert_eq!(read(&[&good, &zero]), (Some(used(11, 7)), true));
    assert_eq!(read(&[&zero, &good]), (Some(used(11, 7)), false));
    assert_eq!(read(&[&bad]), (None, true));
    assert_eq!(read(&[&zero]), (None, true));
    assert_eq!(read(&[r#"{"choices":[],"usage":[1]}"#]), (None, true));
    assert_eq!(read(&[r#"{"choices":[],"usage":null}"#, "not json with \"usage\":1"]), (None, false));
    assert_eq!(
        read(&[r#"{"choices":[],"us\u0061ge":{"prompt_tokens":11,"completion_tokens":7}}"#]),
        (Some(used(11, 7)), false)
    );
    let lines = "{\"choices\":[],\ndata:\"usage\":{\"prompt_tokens\":11,\ndata: \"completion_tokens\":7}}";
    assert_eq!(read(&[lines]), (Some(used(11, 7)), false));
}

#[test]
fn of_usage_twice_in_one_message_a_zero_does_not_win() {
    let twice =
        r#"{"usage":{"prompt_tokens":11,"completion_tokens":7},"usage":{"prompt_tokens":0,"completion_tokens":0}}"#;
    assert_eq!(
        replay(reader_for("/v1/chat/completions", "x.json", CHAT), &[twice.as_bytes()]).2.tokens,
        Some(used(11, 7))
    );
}

#[test]
fn a_last_event_without_a_blank_line_is_read_and_taken_out() {
    let event = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}";
    for end in [&b""[..], b"\n"] {
        let (client, _, reading) =
            replay(reader_for("/v1/chat/completions", "x.sse", CHAT), &[b"data: {}\n\n", event, end]);
        assert_eq!((client.as_slice(), reading.tokens), (&b"data: {}\n\n"[..], Some(used(11, 7))));
    }
    let cut = &event[..event.len() - 1];
    let (client, complete, reading) = replay(reader_for("/v1/chat/completions", "x.sse", CHAT), &[cut]);
    assert_eq!((client.as_slice(), complete, reading.tokens), (cut, false, None));
}

#[test]
fn a_document_that_broke_off_has_no_usage_but_its_text() {
    let body = fixture("openai_chat_no_usage.json");
    let (client, complete, reading) =
        replay(reader_for("/v1/chat/completions", "x.json", CHAT), &[&body[..body.len() - 30]]);
    assert_eq!((client.len(), complete, reading.tokens), (body.len() - 30, false, None));
    assert_eq!(reading.output, "No bill today.");
}

#[test]
fn an_error_ends_a_responses_stream_but_not_a_chat() {
    let error = b"data: {\"type\":\"error\",\"error\":{\"message\":\"no\"}}\n\n";
    assert!(replay(reader_for("/v1/responses", "x.sse", CHAT), &[error]).1);
    assert!(!replay(reader_for("/v1/chat/completions", "x.sse", CHAT), &[error]).1);
}

#[test]
fn gemini_that_says_nothing_was_used_is_believed_only_without_text() {
    let read = |body: &str| {
        let path = "/v1beta/models/m:generateContent";
        let reading = replay(reader_for(path, "x.json", "{}"), &[body.as_bytes()]).2;
        (reading.tokens, reading.distrusted)
    };
    assert_eq!(read(r#"{"usageMetadata":{}}"#), (Some(Tokens::default()), false));
    assert_eq!(read(r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":{}}"#), (None, true));
    assert_eq!(read(r#"{"candidates":[]}"#), (None, false));
    assert_eq!(read(r#"{"usageMetadata":{"promptTokenCount":5},"usageMetadata":{}}"#), (Some(used(5, 0)), true));
}

#[test]
fn grounding_in_what_is_no_search_of_the_web_is_flagged() {
    let path = "/v1beta/models/gemini-2.5-flash:generateContent";
    let usage = r#""usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":2,"totalTokenCount":7}"#;
    let store = r#"{"groundingChunks":[{"retrievedContext":{"fileSearchStore":"fileSearchStores/s","text":"maps"}}]}"#;
    for (metadata, searches, flagged) in [
        (r#"{"groundingChunks":[{"maps":{"placeId":"places/1"}}]}"#, 0, true),
        (
            r#"{"groundingChunks":[{"web":{}},{"retrievedContext":{"uri":"gs://b/f"}}],"webSearchQueries":["a"]}"#,
            1,
            true,
        ),
        (r#"{"retrievalQueries":["toll"]}"#, 0, true),
        (r#"{"imageSearchQueries":["toll"]}"#, 0, true),
        (r#"{"googleMapsWidgetContextToken":"widget"}"#, 0, true),
        (r#"{"groundingChunks":[{"web":{"title":"maps"}},{}],"webSearchQueries":["a","b"]}"#, 2, false),
        (r#"{"groundingChunks":null,"retrievalQueries":[],"googleMapsWidgetContextToken":""}"#, 0, false),
        // What a store of files gives is charged as the tokens that it comes to.
        (store, 0, false),
    ] {
        let bare = r#"{"content":{"parts":[{"text":"A toll"}]}}"#;
        let grounded = format!(r#"{{"content":{{}},"groundingMetadata":{metadata}}}"#);
        let whole = format!(r#"{{"candidates":[{bare},{grounded}],{usage}}}"#);
        // The last event need not say it again.
        let streamed = stream_of(&[&format!(r#"{{"candidates":[{grounded}]}}"#), &format!("{{{usage}}}")]);
        for (file, answer) in [("x.json", whole.as_str()), ("x.sse", &streamed)] {
            let reading = replay(reader_for(path, file, "{}"), &[answer.as_bytes()]).2;
            let said = (reading.quantities.web_searches, reading.uncounted, reading.tokens);
            assert_eq!(said, (searches, flagged, Some(used(5, 2))), "{file} {metadata}");
        }
        let [_, gemini] = ALL else { panic!("{}", ALL.len()) };
        let part = gemini.result(format!(r#"{{"response":{whole}}}"#).as_bytes()).unwrap();
        assert_eq!((part.quantities.web_searches, part.uncounted), (searches, flagged), "{metadata}");
    }
}

proptest! {
    #[test]
    fn any_cut_of_any_answer_reads_and_passes_the_same(
        which in 0usize..19, ending in 0usize..3, cuts in proptest::collection::vec(0usize..10_000, 0..12)
    ) {
        let goldens = goldens();
        let golden = &goldens[which];
        let mut body = fixture(golden.file);
        if golden.file.ends_with(".sse") {
            let text = String::from_utf8(body).unwrap().replace("\r\n", "\n");
            body = text.replace('\n', ["\n", "\r\n", "\r"][ending]).into_bytes();
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect();
        let whole = replay(reader_for(golden.path, golden.file, CHAT), &[&body]);
        prop_assert_eq!(whole.2.tokens, golden.tokens);
        prop_assert_eq!(replay(reader_for(golden.path, golden.file, CHAT), &pieces), whole);
    }

    #[test]
    fn what_a_model_prints_is_never_usage(text in "(usage|\"|:|\\{|\\}|\\[|\\]|\\\\|data: |\n|prompt_tokens|choices|9|,| ){0,40}") {
        let said = serde_json::Value::from(text).to_string();
        let delta = format!(r#"{{"model":"m","choices":[{{"delta":{{"content":{said},"usage":{{"prompt_tokens":1}}}}}}],"usage":null}}"#);
        let usage = r#"{"model":"m","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":7}}"#;
        let body = stream_of(&[&delta, usage, &delta]);
        let (client, _, reading) = replay(reader_for("/v1/chat/completions", "x.sse", CHAT), &[body.as_bytes()]);
        prop_assert_eq!(reading.tokens, Some(used(11, 7)));
        prop_assert_eq!(String::from_utf8(client).unwrap(), stream_of(&[&delta, &delta]));
    }

    #[test]
    fn no_bytes_make_a_reader_fail(body in proptest::collection::vec(any::<u8>(), 0..400), which in 0usize..19) {
        let goldens = goldens();
        let golden = &goldens[which];
        let (client, _, _) = replay(reader_for(golden.path, golden.file, CHAT), &[&body]);
        prop_assert_eq!(client, body);
    }
}

#[test]
fn a_token_to_go_on_with_is_that_of_a_first_candidate_that_was_cut_for_it() {
    let path = "/v1beta/models/gemini-2.5-flash:generateContent";
    let token = |answer: &str| {
        let whole = looked(reader_for(path, "a.json", "{}"), &[answer.as_bytes()]).1.continuation;
        let bytes: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
        assert_eq!(looked(reader_for(path, "a.json", "{}"), &bytes).1.continuation, whole, "{answer}");
        whole.map(String::from)
    };
    let cut = r#"{"finishReason":"CONTINUATION","continuationToken":"b25l"}"#;
    let ended = r#"{"finishReason":"STOP","continuationToken":"b25l"}"#;
    for (candidates, expected) in [
        (format!("[{cut}]"), Some("b25l")),
        (format!("[{cut},{ended}]"), Some("b25l")),
        (format!("[{ended},{cut}]"), None),
        (format!("[{{\"content\":{cut}}}]"), None),
        (r#"[{"finishReason":"CONTINUATION"},"continuationToken"]"#.to_owned(), None),
        (r#"[{"finishReason":"CONTINUATION","continuationToken":7}]"#.to_owned(), None),
        ("[]".to_owned(), None),
        (cut.to_owned(), None),
    ] {
        assert_eq!(token(&format!(r#"{{"candidates":{candidates}}}"#)).as_deref(), expected, "{candidates}");
        // Of a stream whose array is not over, too.
        assert_eq!(token(&format!(r#"[{{"candidates":{candidates}}},{{"usage"#)).as_deref(), expected, "{candidates}");
    }
    let continued = |path: &str, request: &'static str| {
        let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::Google).unwrap();
        let call = provider.call(&endpoint, None, &Bytes::from_static(request.as_bytes())).unwrap();
        call.continues.map(String::from)
    };
    let request = r#"{"contents":[{"continuationToken":"no"}],"continuationToken":"b25l"}"#;
    assert_eq!(continued(path, request).as_deref(), Some("b25l"));
    assert_eq!(continued(path, r#"{"contents":[{"continuationToken":"no"}]}"#), None);
    assert_eq!(continued(path, r#"{"continuationToken":["b25l"]}"#), None);
    assert_eq!(continued("/v1beta/models/m:embedContent", request), None);
}
