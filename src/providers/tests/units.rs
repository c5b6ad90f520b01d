//! What answers tell of units: which one, how it stands, what it used, at every cut.

use super::super::*;
use super::{looked, replay};

const SSE: &str = "text/event-stream";
const JSON: &str = "application/json";

/// The answer to a POST of `path`.
fn answered(place: CredentialPlace, path: &str, request: &str, content_type: &str, answer: &str) -> Reading {
    let (provider, endpoint) = route(&Method::POST, path, place).unwrap();
    let call = provider.call(&endpoint, None, &Bytes::copy_from_slice(request.as_bytes())).unwrap();
    everywhere(|| provider.reader(&endpoint, &call, Some(content_type)), answer)
}

/// What is said of a unit that is asked for by its name.
fn asked(provider: usize, unit: &str, content_type: &str, answer: &str) -> Reading {
    let provider = ALL[provider];
    let (target, reads) = provider.unit_question(&unit.parse().unwrap()).unwrap();
    assert!(target.ends_with(unit), "{target}");
    everywhere(|| provider.unit_reader(reads, Some(content_type)).unwrap(), answer)
}

/// The same for every way of cutting it.
fn everywhere(reader: impl Fn() -> Box<dyn AnswerReader>, answer: &str) -> Reading {
    let body = answer.as_bytes();
    let (_, complete, reading) = replay(reader(), &[body]);
    for cut in 0..=body.len() {
        let (head, tail) = body.split_at(cut);
        let (client, was_complete, cut_reading) = replay(reader(), &[head, tail]);
        assert_eq!((client, was_complete, &cut_reading), (body.to_vec(), complete, &reading), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(looked(reader(), &bytes), (complete, reading.clone()), "byte by byte");
    reading
}

fn unit(reading: &Reading) -> Option<(&str, UnitState)> {
    reading.unit.as_deref().map(|unit| (unit.name.as_str(), unit.state))
}

#[test]
fn a_response_in_the_background_is_deferred_and_one_in_the_foreground_is_not() {
    let response = |status: &str, rest: &str| {
        format!(r#"{{"id":"resp_1","object":"response","status":"{status}","model":"m","usage":null{rest}}}"#)
    };
    let post = |request: &str, answer: &str| {
        let content_type = if answer.starts_with('{') { JSON } else { SSE };
        answered(CredentialPlace::Bearer, "/v1/responses", request, content_type, answer)
    };
    let (plain, later) = (r#"{"model":"m"}"#, r#"{"model":"m","background":true}"#);
    let streamed = r#"{"model":"m","stream":true,"background":true}"#;
    let event = |kind: &str, response: &str| {
        format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":1,\"response\":{response}}}\n\n")
    };
    let created = event("response.created", &response("queued", r#","background":true"#));
    let silent = event("response.created", &response("queued", ""));
    let foreground = event("response.created", &response("in_progress", r#","background":false"#));
    let delta =
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n";
    let done = response("completed", r#","background":true"#)
        .replace("null", r#"{"input_tokens":3,"output_tokens":2,"total_tokens":5}"#);
    for (request, answer, deferred) in [
        (later, response("queued", r#","background":true"#), true),
        (later, response("in_progress", r#","background":true"#), true),
        (later, response("queued", ""), true),
        (plain, response("queued", r#","background":false"#), false),
        (later, response("made_up", r#","background":true"#), false),
        (later, response("queued", r#","background":true"#).replace("resp_1", "../files/1"), false),
        (later, response("queued", r#","background":true"#).replace("\"response\"", "\"list\""), false),
        (later, done.clone(), false),
        (streamed, format!("{created}{delta}"), true),
        (streamed, format!("{silent}{delta}"), true),
        (plain, format!("{created}{delta}"), true),
        (plain, format!("{silent}{delta}"), false),
        (plain, format!("{foreground}{delta}"), false),
        (streamed, format!("{created}{delta}{}", event("response.completed", &done)), false),
    ] {
        let reading = post(request, &answer);
        assert_eq!(reading.deferred().map(UnitName::as_str), deferred.then_some("responses/resp_1"), "{answer}");
    }
    let event = event("response.completed", &done);
    for (content_type, answer) in [(JSON, &done), (SSE, &event)] {
        let reading = asked(0, "responses/resp_1", content_type, answer);
        assert_eq!(unit(&reading), Some(("responses/resp_1", UnitState::Done)), "{answer}");
        assert_eq!(reading.tokens.unwrap().total(), 5, "{answer}");
    }
    let foreground = done.replace(r#""background":true"#, r#""background":false"#);
    assert_eq!(unit(&asked(0, "responses/resp_1", JSON, &foreground)), None);
    for (status, state) in
        [("failed", UnitState::Failed), ("cancelled", UnitState::Cancelled), ("incomplete", UnitState::Done)]
    {
        let reading = asked(0, "responses/resp_1", JSON, &response(status, r#","background":true"#));
        assert_eq!((unit(&reading), reading.tokens), (Some(("responses/resp_1", state)), None), "{status}");
    }
}

#[test]
fn a_batch_of_openai_tells_its_sum_and_its_file() {
    let batch = |status: &str, rest: &str| {
        format!(r#"{{"id":"batch_1","object":"batch","endpoint":"/v1/responses","status":"{status}"{rest}}}"#)
    };
    let usage = r#","model":"gpt-4o-2024-08-06","output_file_id":"file-abc","usage":{"input_tokens":40000000,"input_tokens_details":{"cached_tokens":30000000},"output_tokens":20000000,"output_tokens_details":{"reasoning_tokens":10000000},"total_tokens":60000000}"#;
    let request = r#"{"input_file_id":"file-1","endpoint":"/v1/responses","completion_window":"24h"}"#;
    for status in ["validating", "in_progress", "failed", "completed"] {
        let answer = batch(status, usage);
        let reading = answered(CredentialPlace::Bearer, "/v1/batches", request, JSON, &answer);
        assert_eq!(reading.deferred().map(UnitName::as_str), Some("batches/batch_1"), "{answer}");
    }
    // A sum that no single call could have.
    let reading = asked(0, "batches/batch_1", JSON, &batch("completed", usage));
    let tokens = reading.tokens.unwrap();
    assert_eq!(
        (tokens.prompt, tokens.cached, tokens.completion, tokens.reasoning),
        (40_000_000, 30_000_000, 20_000_000, 10_000_000)
    );
    assert_eq!(reading.model.as_deref(), Some("gpt-4o-2024-08-06"));
    assert_eq!(reading.unit.as_ref().unwrap().results, Results::File("/v1/files/file-abc/content".to_owned()));
    let odd = usage.replace("file-abc", "../responses").replace("40000000", "40000000000");
    let reading = asked(0, "batches/batch_1", JSON, &batch("completed", &odd));
    assert_eq!((reading.tokens, reading.distrusted), (None, true));
    assert_eq!(reading.unit.as_ref().unwrap().results, Results::None);
    for (status, state) in [
        ("in_progress", UnitState::Running),
        ("finalizing", UnitState::Running),
        ("cancelling", UnitState::Running),
        ("cancelled", UnitState::Cancelled),
        ("expired", UnitState::Cancelled),
        ("failed", UnitState::Failed),
    ] {
        let reading = asked(0, "batches/batch_1", JSON, &batch(status, ""));
        assert_eq!(unit(&reading), Some(("batches/batch_1", state)), "{status}");
    }
    assert_eq!(unit(&asked(0, "batches/batch_1", JSON, r#"{"object":"list","data":[]}"#)), None);
}

#[test]
fn a_run_is_deferred_whatever_its_answer_says() {
    let run = |status: &str| {
        format!(
            r#"{{"id":"run_1","object":"thread.run","thread_id":"thread_1","status":"{status}","model":"gpt-4o","usage":{{"prompt_tokens":20,"prompt_token_details":{{"cached_tokens":5}},"completion_tokens":3,"total_tokens":23}}}}"#
        )
    };
    let stream = format!(
        "event: thread.run.created\ndata: {}\n\nevent: thread.message.delta\ndata: {{\"id\":\"m\",\"object\":\"thread.message.delta\",\"delta\":{{}}}}\n\nevent: thread.run.completed\ndata: {}\n\nevent: done\ndata: [DONE]\n\n",
        run("queued"),
        run("completed")
    );
    let request = r#"{"assistant_id":"asst_1"}"#;
    for path in ["/v1/threads/runs", "/v1/threads/thread_1/runs", "/v1/threads/thread_1/runs/run_1/submit_tool_outputs"]
    {
        for (content_type, answer) in [(JSON, run("queued")), (JSON, run("completed")), (SSE, stream.clone())] {
            let reading = answered(CredentialPlace::Bearer, path, request, content_type, &answer);
            let name = reading.deferred().map(UnitName::as_str);
            assert_eq!(name, Some("threads/thread_1/runs/run_1"), "{path} {answer}");
        }
    }
    let reading = asked(0, "threads/thread_1/runs/run_1", JSON, &run("completed"));
    let tokens = reading.tokens.unwrap();
    assert_eq!((tokens.prompt, tokens.cached, tokens.completion), (20, 5, 3));
    assert_eq!(unit(&reading), Some(("threads/thread_1/runs/run_1", UnitState::Done)));
    for status in ["queued", "in_progress", "requires_action", "cancelling"] {
        let reading = asked(0, "threads/thread_1/runs/run_1", JSON, &run(status));
        assert_eq!((unit(&reading).unwrap().1, reading.tokens), (UnitState::Running, None), "{status}");
    }
}

#[test]
fn a_run_that_may_have_run_programs_is_flagged() {
    let run = |status: &str, tools: &str| {
        format!(
            r#"{{"id":"run_1","object":"thread.run","thread_id":"thread_1","status":"{status}","model":"gpt-4o","tools":{tools},"usage":{{"prompt_tokens":20,"completion_tokens":3,"total_tokens":23}}}}"#
        )
    };
    for (status, tools, flagged) in [
        ("completed", r#"[{"type":"function","function":{"name":"f"}},{"type":"code_interpreter"}]"#, true),
        ("cancelled", r#"[{"type":"code_interpreter"}]"#, true),
        ("completed", r#"[{"type":"new_tool"}]"#, true),
        ("completed", r#"[{"type":"function","function":{"name":"code_interpreter"}},{"type":"file_search"}]"#, false),
        ("completed", "[]", false),
        ("completed", "null", false),
        // It has charged nothing yet.
        ("in_progress", r#"[{"type":"code_interpreter"}]"#, false),
    ] {
        let reading = asked(0, "threads/thread_1/runs/run_1", JSON, &run(status, tools));
        assert_eq!(reading.uncounted, flagged, "{status} {tools}");
    }
}

#[test]
fn an_interaction_is_billed_by_its_usage_or_deferred() {
    let interaction = |status: &str, rest: &str| {
        format!(r#"{{"id":"int_1","object":"interaction","status":"{status}","model":"gemini-2.5-flash"{rest}}}"#)
    };
    let usage = r#","usage":{"total_input_tokens":30,"total_cached_tokens":4,"total_output_tokens":6,"total_thought_tokens":5,"total_tool_use_tokens":9,"total_tokens":50,"input_tokens_by_modality":[{"modality":"text","tokens":20},{"modality":"audio","tokens":10}]}"#;
    let post = |request: &str, content_type: &str, answer: &str| {
        answered(CredentialPlace::Google, "/v1beta/interactions", request, content_type, answer)
    };
    let plain = r#"{"model":"gemini-2.5-flash","input":"Toll?"}"#;
    let later = r#"{"agent":"deep-research","input":"Toll?","background":true,"stream":true}"#;
    let event = |kind: &str, interaction: &str| {
        format!("event: {kind}\ndata: {{\"event_type\":\"{kind}\",\"interaction\":{interaction}}}\n\n")
    };
    let created = event("interaction.created", &interaction("in_progress", ""));
    let delta =
        "data: {\"event_type\":\"step.delta\",\"index\":0,\"delta\":{\"type\":\"text\",\"text\":\"Pay here\"}}\n\n";
    let completed = event("interaction.completed", &interaction("completed", usage));
    let whole = format!("{created}{delta}{completed}");
    for (request, content_type, answer) in
        [(plain, JSON, interaction("completed", usage)), (plain, SSE, whole.clone()), (later, SSE, whole)]
    {
        let reading = post(request, content_type, &answer);
        let tokens = reading.tokens.unwrap_or_else(|| panic!("{answer}"));
        let kinds = (tokens.prompt, tokens.cached, tokens.prompt_audio, tokens.completion, tokens.reasoning);
        assert_eq!((kinds, reading.distrusted, reading.uncounted), ((39, 4, 10, 11, 5), false, false), "{answer}");
        assert_eq!(reading.deferred(), None, "{answer}");
    }
    let searched = usage.replace(
        "\"total_tokens\"",
        "\"grounding_tool_count\":[{\"type\":\"google_search\",\"count\":2}],\"total_tokens\"",
    );
    let reading = post(plain, JSON, &interaction("completed", &searched));
    assert_eq!((reading.quantities.web_searches, reading.uncounted), (2, false));
    let other = post(plain, JSON, &interaction("completed", &searched.replace("google_search", "google_maps")));
    assert_eq!((other.quantities.web_searches, other.uncounted), (0, true));
    for (request, content_type, answer, deferred) in [
        (plain, JSON, interaction("in_progress", ""), true),
        (later, SSE, format!("{created}{delta}"), true),
        (plain, SSE, format!("{created}{delta}"), false),
    ] {
        let reading = post(request, content_type, &answer);
        assert_eq!(reading.deferred().map(UnitName::as_str), deferred.then_some("interactions/int_1"), "{answer}");
        assert_eq!(reading.tokens, None, "{answer}");
    }
    let goes_on = r#","continuation_token":"tok_1""#;
    let update = "data: {\"event_type\":\"interaction.status_update\",\"interaction_id\":\"int_1\",\"status\":\"in_progress\",\"continuation_token\":\"tok_0\"}\n\n";
    let ended = event("interaction.completed", &interaction("requires_continuation", &format!("{usage}{goes_on}")));
    for (answer, token) in [
        (format!("{created}{update}{delta}"), Some("tok_0")),
        (format!("{created}{update}{ended}"), Some("tok_1")),
        (format!("{created}{update}{completed}"), None),
    ] {
        assert_eq!(post(plain, SSE, &answer).continuation.as_deref(), token, "{answer}");
    }
    let cut = post(plain, SSE, &format!("{created}{delta}"));
    assert_eq!((cut.output.as_str(), cut.output_bytes), ("Pay here", 8));
    let reading = asked(1, "interactions/int_1", JSON, &interaction("completed", usage));
    assert_eq!((unit(&reading), reading.tokens.unwrap().total()), (Some(("interactions/int_1", UnitState::Done)), 50));
    let reading = asked(1, "interactions/int_1", JSON, &interaction("cancelled", ""));
    assert_eq!((unit(&reading), reading.tokens), (Some(("interactions/int_1", UnitState::Cancelled)), None));
}

#[test]
fn a_batch_of_gemini_is_deferred_by_its_name() {
    let answer = r#"{"name":"batches/b1","metadata":{"@type":"t","model":"models/gemini-2.5-flash","state":"BATCH_STATE_SUCCEEDED","output":{"responsesFile":"files/f1"}},"done":true}"#;
    for (verb, request) in [
        ("batchGenerateContent", r#"{"batch":{"displayName":"d","inputConfig":{"fileName":"files/1"}}}"#),
        ("asyncBatchEmbedContent", r#"{"batch":{"inputConfig":{"fileName":"files/1"}}}"#),
    ] {
        let path = format!("/v1beta/models/gemini-2.5-flash:{verb}");
        let reading = answered(CredentialPlace::Google, &path, request, JSON, answer);
        assert_eq!(reading.deferred().map(UnitName::as_str), Some("batches/b1"), "{verb}");
        assert_eq!(reading.model.as_deref(), Some("gemini-2.5-flash"), "{verb}");
    }
    let reading = asked(1, "batches/b1", JSON, answer);
    let file = Results::File("/download/v1beta/files/f1:download?alt=media".to_owned());
    assert_eq!(
        (unit(&reading), &reading.unit.as_ref().unwrap().results),
        (Some(("batches/b1", UnitState::Done)), &file)
    );
    for odd in ["files/../x", "files", "other/f1"] {
        let reading = asked(1, "batches/b1", JSON, &answer.replace("files/f1", odd));
        assert_eq!(reading.unit.unwrap().results, Results::None, "{odd}");
    }
    assert_eq!(unit(&asked(1, "batches/b1", JSON, &answer.replace("batches/b1", "operations/b1"))), None);
}

#[test]
fn what_is_no_unit_of_an_api_is_not_asked_for() {
    for (provider, unit) in [(0, "files/f"), (0, "interactions/i"), (1, "responses/r"), (1, "files/f")] {
        assert_eq!(ALL[provider].unit_question(&unit.parse().unwrap()), None, "{unit}");
    }
    for reads in [Reads::Chat, Reads::Generate, Reads::Nothing] {
        assert!(ALL.iter().all(|provider| provider.unit_reader(reads, None).is_none()));
    }
}
