//! What OpenAI's paths, bodies and answers name.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::domain::refusal::Refusal;
use crate::providers::objects::{Finder, named_in_message, references};
use crate::providers::{CredentialPlace, route};

fn touched(method: Method, path: &str) -> Touches {
    let (provider, endpoint) = route(&method, path, CredentialPlace::Bearer).unwrap_or_else(|_| panic!("{path}"));
    provider.touches(&method, &endpoint)
}

fn named_by(touches: &Touches) -> Option<&str> {
    touches.named.as_ref().map(|named| match named {
        Named::Object(name) => name.as_str(),
        Named::Nothing(_) => "nothing",
    })
}

#[test]
fn a_path_names_its_object_or_asks_for_a_list_or_makes_one() {
    let (none, all) = (Makes::Nothing, Makes::All);
    for (method, path, named, lists, makes) in [
        (Method::POST, "/v1/responses", None, false, Makes::UnlessNotStored),
        (Method::GET, "/v1/responses/resp_1", Some("resp_1"), false, none),
        (Method::GET, "/v1/responses/resp%5F1", Some("resp_1"), false, none),
        (Method::GET, "/v1/responses/resp_1/input_items", Some("resp_1"), false, none),
        (Method::POST, "/v1/responses/resp_1/cancel", Some("resp_1"), false, none),
        (Method::DELETE, "/v1/responses/resp_1", Some("resp_1"), false, none),
        (Method::GET, "/openai/v1/responses/resp_1", Some("resp_1"), false, none),
        (Method::GET, "/v1/responses/r%20x", Some("nothing"), false, none),
        (Method::POST, "/v1/responses/input_tokens", None, false, none),
        (Method::POST, "/v1/chat/completions", None, false, Makes::IfStored),
        (Method::GET, "/v1/chat/completions", None, true, none),
        (Method::GET, "/v1/chat/completions/chatcmpl-1/messages", Some("chatcmpl-1"), false, none),
        (Method::POST, "/v1/files", None, false, all),
        (Method::GET, "/v1/files", None, true, none),
        (Method::GET, "/v1/files/file-1/content", Some("file-1"), false, none),
        (Method::DELETE, "/v1/files/file-1", Some("file-1"), false, none),
        (Method::POST, "/v1/uploads", None, false, all),
        (Method::POST, "/v1/uploads/upload_1/complete", Some("upload_1"), false, all),
        (Method::POST, "/v1/batches", None, false, all),
        (Method::GET, "/v1/batches", None, true, none),
        (Method::GET, "/v1/batches/batch_1", Some("batch_1"), false, Makes::Results),
        (Method::POST, "/v1/batches/batch_1/cancel", Some("batch_1"), false, Makes::Results),
        (Method::POST, "/v1/conversations", None, false, all),
        (Method::GET, "/v1/conversations/conv_1/items", Some("conv_1"), false, none),
        (Method::POST, "/v1/conversations/conv_1/items", Some("conv_1"), false, all),
        (Method::GET, "/v1/vector_stores", None, true, none),
        (Method::POST, "/v1/vector_stores/vs_1/search", Some("vs_1"), false, none),
        (Method::GET, "/v1/vector_stores/vs_1/files/file-1/content", Some("vs_1"), false, none),
        (Method::GET, "/v1/assistants", None, true, none),
        (Method::POST, "/v1/threads", None, false, all),
        (Method::POST, "/v1/threads/runs", None, false, all),
        (Method::POST, "/v1/threads/thread_1/runs", Some("thread_1"), false, none),
        (Method::GET, "/v1/threads/thread_1/messages", Some("thread_1"), false, none),
        (Method::GET, "/v1/models/gpt-4o", None, false, none),
        (Method::POST, "/v1/embeddings", None, false, none),
        (Method::POST, "/v1/moderations", None, false, none),
    ] {
        let touches = touched(method.clone(), path);
        assert_eq!((named_by(&touches), touches.lists, touches.makes), (named, lists, makes), "{method} {path}");
    }
    for (path, refers) in [
        ("/v1/conversations", true),
        ("/v1/vector_stores/vs_1/files", true),
        ("/v1/threads", true),
        ("/v1/responses/input_tokens", true),
        ("/v1/uploads", true),
        ("/v1/uploads/upload_1/complete", true),
        ("/v1/files", false),
        ("/v1/uploads/upload_1/parts", false),
        // Those are read whole anyway.
        ("/v1/responses", false),
        ("/v1/threads/thread_1/runs", false),
    ] {
        assert_eq!(touched(Method::POST, path).refers, refers, "{path}");
    }
}

/// What a call names, as far as it is looked for.
fn called(path: &str, body: &str) -> Result<Vec<String>, Refusal> {
    let (provider, endpoint) = route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let call = provider.call(&endpoint, None, &bytes)?;
    texts(provider.references(&endpoint, Some(&call), body.as_bytes())?)
}

fn texts(named: Vec<Named>) -> Result<Vec<String>, Refusal> {
    named.into_iter().map(|named| named.name().map(|name| name.to_string())).collect()
}

const RESPONSES: &str = "/v1/responses";
const CHAT: &str = "/v1/chat/completions";

/// Calls, and what they name.
const CALLS: &[(&str, &str, &[&str])] = &[
    (CHAT, r#"{"model":"m","messages":[{"role":"user","content":"file-1"}]}"#, &[]),
    (
        CHAT,
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]}"#,
        &["file-1"],
    ),
    (
        CHAT,
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file\u005fid":"file-1"}}]}]}"#,
        &["file-1"],
    ),
    (
        CHAT,
        r#"{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"\u0066ile_id":"fil\u0065-1"}}]}]}"#,
        &["file-1"],
    ),
    (CHAT, r#"{"model":"m","messages":[],"metadata":{"file_id":"file-1"}}"#, &[]),
    (
        CHAT,
        r#"{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"file_id":{"type":"string","default":"x"}}}}}]}"#,
        &[],
    ),
    (RESPONSES, r#"{"model":"m","input":"hi","previous_response_id":"resp_1"}"#, &["resp_1"]),
    (RESPONSES, r#"{"model":"m","input":"hi","previous_response_id":null}"#, &[]),
    (
        RESPONSES,
        r#"{"input":"hi","previous_response_id":"resp_1","previous_response_id":"resp_2"}"#,
        &["resp_1", "resp_2"],
    ),
    (RESPONSES, r#"{"input":"hi","conversation":"conv_1"}"#, &["conv_1"]),
    (RESPONSES, r#"{"input":"hi","conversation":{"id":"conv_1","type":"message"}}"#, &["conv_1"]),
    (RESPONSES, r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#, &["msg_1"]),
    (RESPONSES, r#"{"input":[{"id":"msg_1"}]}"#, &["msg_1"]),
    (RESPONSES, r#"{"input":[{"id":"msg_1","type":null}]}"#, &["msg_1"]),
    (RESPONSES, r#"{"input":[{"id":"msg_1","type":"message","type":"item_reference"}]}"#, &["msg_1"]),
    (RESPONSES, r#"{"input":[{"id":"msg_1","type":"message","type":"item_reference","content":"x"}]}"#, &["msg_1"]),
    (RESPONSES, r#"{"input":[{"type":"item_reference","id":"msg_1","encrypted_content":"x"}]}"#, &["msg_1"]),
    (RESPONSES, r#"{"input":[{"type":"file_search_call","id":"fs_1","encrypted_content":"x"}]}"#, &["fs_1"]),
    (RESPONSES, r#"{"input":[{"type":"compaction","id":"cmp_1","encrypted_content":"gAAA"}]}"#, &[]),
    (RESPONSES, r#"{"input":[{"type":"reasoning","id":"rs_1","summary":[]}]}"#, &["rs_1"]),
    (RESPONSES, r#"{"input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAA"}]}"#, &[]),
    (RESPONSES, r#"{"input":[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":null}]}"#, &["rs_1"]),
    (RESPONSES, r#"{"input":[{"type":"message","id":"msg_1","role":"assistant","content":[]}]}"#, &[]),
    (RESPONSES, r#"{"input":[{"type":"message","id":"msg_1","role":"assistant","content":null}]}"#, &["msg_1"]),
    (
        RESPONSES,
        r#"{"input":[{"type":"image_generation_call","id":"ig_1"},{"type":"function_call","id":"fc_1","call_id":"c"}]}"#,
        &["ig_1"],
    ),
    (CHAT, r#"{"model":"m","messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}"#, &["audio_1"]),
    (
        CHAT,
        r#"{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"call_1","type":"function","function":{}}]}],"audio":{"voice":"alloy"}}"#,
        &[],
    ),
    (
        RESPONSES,
        r#"{"input":[{"role":"user","content":[{"type":"input_file","file_id":"file-1"},{"type":"input_image","file_id":"file-2"}]}]}"#,
        &["file-1", "file-2"],
    ),
    (
        RESPONSES,
        r#"{"input":"x","tools":[{"type":"file_search","vector_store_ids":["vs_1","vs_2"]}]}"#,
        &["vs_1", "vs_2"],
    ),
    (
        RESPONSES,
        r#"{"input":"x","tools":[{"type":"code_interpreter","container":{"type":"auto","file_ids":["file-1"]}}]}"#,
        &["file-1"],
    ),
    (RESPONSES, r#"{"input":"x","tools":[{"type":"code_interpreter","container":"cntr_1"}]}"#, &["cntr_1"]),
    (
        RESPONSES,
        r#"{"prompt":{"id":"pmpt_1","variables":{"doc":{"type":"input_file","file_id":"file-1"}}}}"#,
        &["file-1"],
    ),
    (
        RESPONSES,
        r#"{"prompt":{"id":"pmpt_1","variables":{"metadata":{"type":"input_file","file_id":"file-1"}}}}"#,
        &["file-1"],
    ),
    (
        RESPONSES,
        r#"{"prompt":{"id":"pmpt_1","variables":{"a":{"schema":[{"type":"input_file","file_id":"file-1"}]}}}}"#,
        &["file-1"],
    ),
    ("/v1/batches", r#"{"input_file_id":"file-1","endpoint":"/v1/responses"}"#, &["file-1"]),
    ("/v1/threads/thread_1/runs", r#"{"assistant_id":"asst_1"}"#, &["asst_1"]),
    ("/v1/images/edits", r#"{"model":"m","images":[{"file_id":"file-1"}],"prompt":"x"}"#, &["file-1"]),
];

#[test]
fn a_call_names_what_it_refers_to_and_nothing_else() {
    for (path, body, names) in CALLS {
        assert_eq!(called(path, body).unwrap(), *names, "{body}");
    }
    let nothing = called(RESPONSES, r#"{"input":"hi","previous_response_id":" resp_1"}"#);
    assert_eq!(nothing, Err(Refusal::UnknownObject { name: " resp_1".into() }));
    let many: Vec<String> = (0..600).map(|number| format!("\"vs_{number}\"")).collect();
    let body = format!(r#"{{"input":"x","tools":[{{"type":"file_search","vector_store_ids":[{}]}}]}}"#, many.join(","));
    assert!(matches!(called(RESPONSES, &body), Err(Refusal::BadJson { .. })));
}

#[test]
fn a_body_that_is_read_for_its_names_alone_has_to_be_json() {
    let read = |body: &str| references::<InOpenAi>(body.as_bytes()).and_then(texts);
    let thread = r#"{"messages":[{"role":"user","content":"x","attachments":[{"file_id":"file-1","tools":[]}]}],
        "tool_resources":{"file_search":{"vector_store_ids":["vs_1"]},"code_interpreter":{"file_ids":["file-2"]}},"n":1.5e3}"#;
    assert_eq!(read(thread).unwrap(), ["file-1", "vs_1", "file-2"]);
    assert_eq!(read(r#"{"part_ids":["part_1"]}"#).unwrap(), ["part_1"]);
    for wrong in ["", "{", r#"{"file_id":"file-1"} x"#, r#"{'file_id':"file-1"}"#, "\u{feff}{}"] {
        assert!(matches!(read(wrong), Err(Refusal::BadJson { .. })), "{wrong}");
    }
}

#[test]
fn what_is_read_for_its_names_alone_is_read_to_a_depth_and_to_so_many_ids() {
    let deep = |depth: usize| format!(r#"{{"file_id":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let too_deep = Err(Refusal::BadJson { reason: "it is nested too deeply" });
    assert_eq!(references::<InOpenAi>(deep(127).as_bytes()), Ok(Vec::new()));
    assert_eq!(references::<InOpenAi>(deep(128).as_bytes()), too_deep);
    assert_eq!(references::<InOpenAi>("[".repeat(1_000_000).as_bytes()), too_deep);
    assert_eq!(named_in_message::<InSessions>(deep(127).as_bytes()), Ok(Vec::new()));
    assert_eq!(
        named_in_message::<InSessions>(format!(r#"{{"file_id":{}"#, "[".repeat(1_000_000)).as_bytes()),
        too_deep
    );
    // One after the other they are in any chat.
    let item = r#"{"type":"function_call","id":"fc_1"}"#;
    assert_eq!(called(RESPONSES, &format!(r#"{{"input":[{}]}}"#, [item; 600].join(","))), Ok(Vec::new()));
    let ids = |count| format!(r#"{{"items":[{{{}"type":"function_call"}}]}}"#, r#""id":"fc_1","#.repeat(count));
    assert_eq!(references::<InOpenAi>(ids(512).as_bytes()), Ok(Vec::new()));
    assert!(matches!(references::<InOpenAi>(ids(513).as_bytes()), Err(Refusal::BadJson { .. })));
}

#[test]
fn a_name_that_stands_again_and_again_is_not_held_against_all_others() {
    let read = |names: usize| {
        let different: Vec<String> = (0..names).map(|number| format!("\"file-{number:03}\"")).rev().collect();
        let body = format!(r#"{{"file_ids":[{}{}]}}"#, different.join(","), r#","file-000""#.repeat(50_000));
        let mut fastest = Duration::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(references::<InOpenAi>(body.as_bytes()).unwrap().len(), names);
            fastest = fastest.min(began.elapsed());
        }
        fastest
    };
    let (alone, among_many) = (read(1), read(512));
    assert!(among_many < alone * 4, "{alone:?} {among_many:?}");
}

/// What an answer makes, in pieces of so many bytes.
fn answered(content_type: &str, answer: &str, tells: fn(&[u8], &mut Vec<Made>)) -> Vec<String> {
    let mut found = Vec::new();
    for size in [1, 7, answer.len().max(1)] {
        let mut finder = Finder::new(Some(content_type), tells);
        let mut names = Vec::new();
        for piece in answer.as_bytes().chunks(size) {
            finder.look(piece);
            names.extend(finder.take().into_iter().map(|made| made.name.to_string()));
        }
        assert!(found.is_empty() || found == names, "pieces of {size}: {names:?}");
        found = names;
    }
    found
}

#[test]
fn an_answer_makes_what_it_tells_of() {
    for (answer, names) in [
        (r#"{"id":"file-1","object":"file","purpose":"batch"}"#, &["file-1"][..]),
        (r#"{"object":"upload","id":"upload_1","file":{"id":"file-1","object":"file"}}"#, &["upload_1", "file-1"]),
        (r#"{"id":"run_1","object":"thread.run","thread_id":"thread_1"}"#, &["run_1", "thread_1"]),
        (
            r#"{"id":"resp_1","object":"response","output":[{"id":"rs_1","type":"reasoning"},{"type":"code_interpreter_call","id":"ci_1","container_id":"cntr_1"}],"conversation":{"id":"conv_9"}}"#,
            &["resp_1", "rs_1", "ci_1", "cntr_1"],
        ),
        (r#"{"object":"list","data":[{"id":"msg_1"},{"id":"msg_2"}],"first_id":"msg_1"}"#, &["msg_1", "msg_2"]),
        (
            r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"audio":{"id":"audio_1","data":"AA"}}}]}"#,
            &["chatcmpl-1", "audio_1"],
        ),
        (r#"{"error":{"message":"no"}}"#, &[]),
        ("not json", &[]),
    ] {
        assert_eq!(answered("application/json", answer, made), names, "{answer}");
    }
    let stream = concat!(
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"output\":[]}}\n\n",
        "data: {\"type\":\"response.output_item.added\",\"item\":{\"id\":\"msg_1\",\"type\":\"message\"}}\n\n",
        "data: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"delta\":\"\\\"id\\\":\\\"x\\\"\"}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"output\":[{\"id\":\"msg_1\"}]}}\n\n",
    );
    assert_eq!(answered("text/event-stream; charset=utf-8", stream, made), ["resp_1", "msg_1"]);
    let batch = r#"{"id":"batch_1","input_file_id":"file-1","output_file_id":"file-2","error_file_id":null}"#;
    assert_eq!(answered("application/json", batch, results), ["file-2"]);
    let mut found = Vec::new();
    made(br#"{"id":"resp_1","file":{"id":"file-1"}}"#, &mut found);
    assert_eq!(found.iter().map(|made| made.passes).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn no_name_is_hidden_from_the_quick_look_at_a_call() {
    for member in InOpenAi::MEMBERS {
        let (first, rest) = member.split_at(1);
        let escaped = format!("\\u{:04x}{rest}", first.as_bytes()[0]);
        for name in [(*member).to_owned(), escaped] {
            for colon in [":", " : ", "\n\t:\r "] {
                let value = format!(r#"{{"deep":[{{"x":1,"{name}"{colon}"obj_1"}}]}}"#);
                for path in [CHAT, RESPONSES, "/v1/embeddings", "/v1/images/generations", "/v1/completions"] {
                    // Where no call has such a member today, too.
                    for place in ["input", "messages", "tools", "text", "some_new_setting"] {
                        let body = format!(r#"{{"model":"m","{place}":{value}}}"#);
                        assert_eq!(called(path, &body).unwrap(), ["obj_1"], "{path} {body}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_chat_that_names_nothing_is_not_read_a_second_time() {
    for (path, body, is_read) in [
        (CHAT, r#"{"messages":[{"role":"user","content":"file_id: file-1, \"file_id\": 1"}]}"#, false),
        (CHAT, r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"call_1","type":"function"}]}]}"#, false),
        (CHAT, r#"{"messages":[{"role":"tool","tool_call_id":"call_1","content":"stra\u00dfe"}]}"#, false),
        (CHAT, r#"{"tools":[{"function":{"parameters":{"items":{"type":"array"},"id":{"type":"string"}}}}]}"#, false),
        (CHAT, r#"{"messages":[{"audio":{"id":"audio_1"}}]}"#, true),
        (RESPONSES, r#"{"input":[{"role":"user","content":"hi"}]}"#, false),
        (RESPONSES, r#"{"input":[{"type":"function_call","id":"fc_1"}]}"#, true),
    ] {
        let (_, endpoint) = route(&Method::POST, path, CredentialPlace::Bearer).unwrap();
        assert_eq!(may_refer(&endpoint, body.as_bytes()), is_read, "{body}");
    }
}
