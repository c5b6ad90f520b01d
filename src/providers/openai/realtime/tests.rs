//! Tests of the reader of realtime sessions: what begins a turn, whose a message is, what was charged.

use crate::domain::tokens::Tokens;
use crate::providers::session::Beside;

use super::*;

fn session() -> Realtime {
    Realtime::new("gpt-realtime".into())
}

/// How many turns a message needs.
fn needs(session: &mut Realtime, message: &str) -> usize {
    session.client(message.as_bytes()).turns
}

fn created(id: &str) -> String {
    format!(r#"{{"type":"response.created","response":{{"id":"{id}"}}}}"#)
}

fn turn(session: &mut Realtime, message: &str) -> Option<(TurnName, Turn)> {
    session.server(message.as_bytes()).turn
}

fn read(messages: &[&str]) -> (bool, Reading) {
    let mut reader = session().turn();
    for message in messages {
        reader.look(message.as_bytes());
    }
    (reader.is_complete(), reader.reading())
}

#[test]
fn what_can_begin_a_response_needs_a_turn_and_nothing_else_does() {
    let create = r#"{"type":"response.create"}"#;
    let append = r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#;
    for (message, turns) in [
        (create, 1),
        (r#"{"response":{},"type":"response.create"}"#, 1),
        (r#"{"type":"response.cancel","type":"response.create"}"#, 1),
        (r#"{"typ\u0065":"response.creat\u0065"}"#, 1),
        (append, 1),
        (r#"{"type":"input_audio_buffer.commit"}"#, 1),
        (r#"{"type":"something.new"}"#, 1),
        (r#"{"type":7}"#, 1),
        ("{}", 1),
        ("not JSON", 1),
        ("", 1),
        (r#"{"type":"response.cancel"} and more"#, 1),
        (r#"{"type":"response.cancel"}"#, 0),
        (r#"{"type":"session.update","session":{}}"#, 0),
        (r#"{"type":"conversation.item.create","item":{}}"#, 0),
        (r#"{"type":"conversation.item.truncate"}"#, 0),
        (r#"{"type":"input_audio_buffer.clear"}"#, 0),
    ] {
        assert_eq!(needs(&mut session(), message), turns, "{message}");
    }
    let mut session = session();
    assert_eq!([needs(&mut session, create), needs(&mut session, create), needs(&mut session, append)], [1, 2, 3]);
    assert_eq!(session.asked(), 2);
    turn(&mut session, &created("a"));
    assert_eq!((session.asked(), needs(&mut session, append)), (1, 2));
    turn(&mut session, &created("b"));
    turn(&mut session, &created("b"));
    assert_eq!((session.asked(), needs(&mut session, append)), (0, 1));
}

#[test]
fn audio_begins_nothing_where_the_provider_says_that_it_waits_to_be_asked() {
    let append = r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#;
    let updated = |session: &str| format!(r#"{{"type":"session.updated","session":{session}}}"#);
    for (said, turns) in [
        (r#"{"audio":{"input":{"turn_detection":null}}}"#, 0),
        (r#"{"turn_detection":null}"#, 0),
        (r#"{"audio":{"input":{"turn_detection":{"type":"server_vad","create_response":false}}}}"#, 0),
        (r#"{"type":"transcription","audio":{"input":{"turn_detection":{"type":"server_vad"}}}}"#, 0),
        (r#"{"audio":{"input":{"turn_detection":{"type":"semantic_vad","create_response":true}}}}"#, 1),
        (r#"{"turn_detection":{"type":"server_vad"}}"#, 1),
        ("{}", 1),
    ] {
        let mut session = session();
        session.server(updated(said).as_bytes());
        assert_eq!(needs(&mut session, append), turns, "{said}");
        // A client may allow it again, which counts before it is confirmed; it cannot forbid it alone.
        session.client(br#"{"type":"session.update","session":{"turn_detection":{"type":"server_vad"}}}"#);
        assert_eq!(needs(&mut session, append), 1, "{said}");
        session.client(br#"{"type":"session.update","session":{"turn_detection":null}}"#);
        assert_eq!(needs(&mut session, append), 1, "{said}");
    }
}

#[test]
fn an_error_takes_back_what_it_answers() {
    let ask = |id: &str| format!(r#"{{"type":"response.create","event_id":"{id}"}}"#);
    for (error, left) in [
        (r#"{"event_id":"two","code":"x"}"#, 2),
        (r#"{"event_id":"other","code":"conversation_already_has_active_response"}"#, 3),
        (r#"{"event_id":null,"code":"conversation_already_has_active_response"}"#, 2),
        (r#"{"code":"something_else"}"#, 3),
    ] {
        let mut session = session();
        for id in ["one", "two", "three"] {
            session.client(ask(id).as_bytes());
        }
        session.server(format!(r#"{{"type":"error","error":{error}}}"#).as_bytes());
        assert_eq!(session.asked(), left, "{error}");
    }
}

#[test]
fn a_message_belongs_to_the_response_that_it_names() {
    let mut session = session();
    let name = |told: Option<(TurnName, Turn)>| told.map(|(name, _)| name);
    let a = turn(&mut session, &created("a"));
    let b = turn(&mut session, &created("b"));
    assert!(a.is_some() && name(a) != name(b));
    let delta = r#"{"type":"response.output_audio.delta","response_id":"a","delta":"AAAA"}"#;
    assert_eq!(turn(&mut session, delta), a);
    let done = |id: &str, rest: &str| format!(r#"{{"type":"response.done","response":{{"id":"{id}",{rest}}}}}"#);
    let over = |turn: Turn, told: Option<(TurnName, Turn)>| name(told).map(|name| (name, turn));
    assert_eq!(turn(&mut session, &done("b", r#""status":"failed","usage":null"#)), over(Turn::Failed, b));
    assert_eq!(turn(&mut session, &done("a", r#""status":"cancelled""#)), over(Turn::Over, a));
    let usage = r#""status":"failed","usage":{"input_tokens":11,"output_tokens":7}"#;
    assert_eq!(turn(&mut session, &done("c", usage)).map(|told| told.1), Some(Turn::Over));
    assert_eq!(session.context_bytes(), 72, "the next turn reads all of it again");
    for other in [r#"{"type":"rate_limits.updated"}"#, r#"{"type":"session.created","session":{}}"#, "broken", "{}"] {
        assert_eq!(session.server(other.as_bytes()), Tells::default(), "{other}");
    }
}

#[test]
fn a_transcript_is_charged_beside_the_turns_by_the_model_that_wrote_it() {
    let mut session = session();
    let update =
        br#"{"type":"session.update","session":{"audio":{"input":{"transcription":{"model":"gpt-4o-transcribe"}}}}}"#;
    assert_eq!(session.client(update).models, ["gpt-4o-transcribe"]);
    let beta = br#"{"type":"session.update","session":{"input_audio_transcription":{"model":"whisper-1"}}}"#;
    assert_eq!(session.client(beta).models, ["whisper-1"]);
    session.server(
        br#"{"type":"session.updated","session":{"model":"m","input_audio_transcription":{"model":"whisper-1"}}}"#,
    );
    let completed = r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"Hi","usage":{"type":"duration","seconds":1.5}}"#;
    let beside = Beside { endpoint: "realtime.transcription", model: "whisper-1".into(), ..Beside::default() };
    assert_eq!(session.server(completed.as_bytes()), Tells { beside: Some(beside), ..Tells::default() });
    let (complete, reading) = read(&[completed]);
    assert!(complete && !reading.uncounted && reading.tokens == Some(Tokens::default()) && !reading.distrusted);
    assert_eq!(reading.quantities.audio_ms, 1_500);
}

#[test]
fn a_transcript_goes_from_its_commit_to_its_end_with_the_audio_in_between() {
    let updated = |input: &str| format!(r#"{{"type":"session.updated","session":{{"audio":{{"input":{input}}}}}}}"#);
    let wide = updated(r#"{"turn_detection":null,"transcription":{"model":"whisper-1"}}"#);
    let narrow = updated(r#"{"format":{"type":"audio/pcmu"},"transcription":{"model":"whisper-1"}}"#);
    let off = updated(r#"{"turn_detection":null,"transcription":null}"#);
    let append = format!(r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#, "A".repeat(6_400));
    let commit = br#"{"type":"input_audio_buffer.commit","event_id":"c"}"#;
    let of_item = |kind: &str| format!(r#"{{"type":"{kind}","item_id":"i"}}"#);
    let committed = of_item("input_audio_buffer.committed");
    let told = |tells: Tells| tells.beside.map(|told| (told.goes.map(|goes| goes.1), told.prompt_bytes, told.audio_ms));
    for (settings, is_committed, begun) in [
        (&wide, true, Some((Some(Turn::Goes), 4, 100))),
        (&wide, false, Some((Some(Turn::Goes), 4, 100))),
        (&narrow, true, Some((Some(Turn::Goes), 24, 600))),
        (&off, true, None),
    ] {
        let mut session = session();
        session.server(settings.as_bytes());
        session.client(append.as_bytes());
        if is_committed {
            session.client(commit);
            assert_eq!(session.asks_beside(), begun.is_some(), "{settings}");
        }
        assert_eq!(told(session.server(committed.as_bytes())), begun, "{settings}");
        assert!(!session.asks_beside(), "{settings}");
    }
    let mut session = session();
    session.server(wide.as_bytes());
    for error in [r#"{"event_id":"c"}"#, r#"{"code":"input_audio_buffer_commit_empty"}"#] {
        session.client(commit);
        session.server(format!(r#"{{"type":"error","error":{error}}}"#).as_bytes());
        assert!(!session.asks_beside(), "{error}");
    }
    for (kind, state) in [("delta", Turn::Goes), ("completed", Turn::Over), ("failed", Turn::Failed)] {
        let said = of_item(&format!("conversation.item.input_audio_transcription.{kind}"));
        assert_eq!(told(session.server(said.as_bytes())), Some((Some(state), 0, 0)), "{kind}");
    }
}

#[test]
fn a_response_is_read_as_it_says_or_by_what_it_said() {
    let text = r#"{"type":"response.output_audio_transcript.delta","response_id":"a","delta":"Hello"}"#;
    let audio = format!(r#"{{"type":"response.output_audio.delta","response_id":"a","delta":"{}"}}"#, "A".repeat(6400));
    let usage = |usage: &str| format!(r#"{{"type":"response.done","response":{{"id":"a","usage":{usage}}}}}"#);
    let whole = usage(
        r#"{"input_tokens":100,"output_tokens":18,"total_tokens":118,"input_token_details":{"audio_tokens":60,
            "cached_tokens":30,"cached_tokens_details":{"text_tokens":10,"audio_tokens":20}},
            "output_token_details":{"text_tokens":8,"audio_tokens":10}}"#,
    );
    let (complete, reading) = read(&[text, &audio, &whole]);
    let tokens = Tokens {
        prompt: 100,
        cached: 30,
        prompt_audio: 60,
        cached_audio: 20,
        completion: 18,
        completion_audio: 10,
        ..Tokens::default()
    };
    assert_eq!((complete, reading.tokens, reading.distrusted), (true, Some(tokens), false));
    // 4,800 bytes of audio are two tokens, each worth four bytes of text.
    let (complete, reading) = read(&[text, &audio]);
    assert_eq!(
        (complete, reading.tokens, reading.output.as_str(), reading.output_bytes),
        (false, None, "Hello", 5 + 8)
    );
    let (_, reading) = read(&[&usage(r#"{"input_tokens":0,"output_tokens":0,"total_tokens":0}"#)]);
    assert_eq!((reading.tokens, reading.distrusted), (Some(Tokens::default()), false));
    for lie in [
        r#"{"input_tokens":-1,"output_tokens":1}"#,
        r#"{"input_tokens":1,"output_tokens":1,"input_token_details":{"cached_tokens":1,"audio_tokens":1,"cached_tokens_details":{"audio_tokens":2}}}"#,
        r#"{"input_tokens":1,"output_tokens":1,"input_token_details":{"cached_tokens_details":7}}"#,
        r#"{"input_tokens":0,"output_tokens":9}"#,
    ] {
        let (complete, reading) = read(&[&usage(lie)]);
        assert_eq!((complete, reading.tokens, reading.distrusted), (true, None, true), "{lie}");
    }
}

#[test]
fn what_a_client_sends_is_worth_its_text_and_its_audio() {
    let worth = |message: &str| session().client(message.as_bytes()).prompt_bytes;
    assert_eq!(worth(r#"{"type":"response.create","response":{"instructions":"Say \"hi\""}}"#), 8);
    let item = r#"{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"Hello"}]}}"#;
    assert_eq!(worth(item), 5);
    // A tenth of a second is one token.
    let audio = "A".repeat(6_400);
    assert_eq!(worth(&format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}"#)), 4);
    let item = format!(
        r#"{{"type":"conversation.item.create","item":{{"content":[{{"type":"input_audio","audio":"{audio}"}}]}}}}"#
    );
    assert_eq!(worth(&item), 4);
}
