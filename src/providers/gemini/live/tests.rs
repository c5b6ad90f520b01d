//! Tests of the reader of Gemini's live sessions: what begins a turn, where one ends, what it charged.

use crate::domain::tokens::Tokens;

use super::*;

const ASK: &str = r#"{"clientContent":{"turns":[{"role":"user","parts":[{"text":"Hi"}]}],"turnComplete":true}}"#;
const AUDIO: &str = r#"{"realtime_input":{"audio":{"data":"AAAA","mimeType":"audio/pcm;rate=16000"}}}"#;
const ANSWER: &str = r#"{"toolResponse":{"functionResponses":[{"id":"1","name":"f","response":{"output":"5"}}]}}"#;
const SAYS: &str = r#"{"serverContent":{"modelTurn":{"parts":[{"text":"Hello"}]}}}"#;
const CALLS: &str = r#"{"toolCall":{"functionCalls":[{"id":"1","name":"f","args":{"a":"Oslo"}}]}}"#;
const USAGE: &str =
    r#""usageMetadata":{"promptTokenCount":11,"responseTokenCount":5,"thoughtsTokenCount":2,"totalTokenCount":18}"#;

fn done() -> String {
    format!(r#"{{"serverContent":{{"turnComplete":true}},{USAGE}}}"#)
}

fn needs(session: &mut Live, message: &str) -> usize {
    session.client(message.as_bytes()).turns
}

/// What each message says of turns: `+` goes, `.` over, `!` ended before, `$` beside, with the turn's number.
fn told(session: &mut Live, messages: &[&str]) -> String {
    let mut said = String::new();
    for message in messages {
        let tells = session.server(message.as_bytes());
        if let Some(name) = tells.ended {
            said.push_str(&format!("{name}! "));
        }
        match tells.turn {
            Some((name, Turn::Goes)) => said.push_str(&format!("{name}+ ")),
            Some((name, _)) => said.push_str(&format!("{name}. ")),
            None if tells.beside.is_some() => said.push_str("$ "),
            None => said.push_str("- "),
        }
    }
    said.trim_end().to_owned()
}

#[test]
fn all_behind_the_setup_may_begin_a_turn_but_an_answer_within_one() {
    let mut session = Live::default();
    let setup =
        r#"{"setup":{"model":"models/gemini-live-2.5-flash","generationConfig":{"responseModalities":["TEXT"]}}}"#;
    let asked = session.client(setup.as_bytes());
    assert_eq!((asked.turns, asked.models), (0, vec!["gemini-live-2.5-flash".to_owned()]));
    assert_eq!(session.model(), Some("gemini-live-2.5-flash"));
    for message in [ASK, AUDIO, ANSWER, r#"{"unheardOf":{}}"#, "{}", "broken", ""] {
        assert_eq!(needs(&mut Live::default(), message), 1, "{message}");
    }
    let hidden = r#"{"setup":{"model":"models/other"},"clientContent":{"turnComplete":true}}"#;
    let asked = session.client(hidden.as_bytes());
    assert_eq!((asked.turns, asked.models), (1, vec!["other".to_owned()]), "a question behind a setup is one");
    let mut session = Live::default();
    assert_eq!([needs(&mut session, ASK), needs(&mut session, ASK), needs(&mut session, AUDIO)], [1, 2, 3]);
    assert_eq!(session.asked(), 2);
    assert_eq!(told(&mut session, &[SAYS]), "1+");
    assert_eq!((session.asked(), needs(&mut session, ANSWER), needs(&mut session, AUDIO)), (1, 0, 2));
    let both = r#"{"toolResponse":{},"realtimeInput":{"text":"And?"}}"#;
    assert_eq!(needs(&mut session, both), 2);
    assert_eq!(told(&mut session, &[&done()]), "1.");
    assert_eq!((session.asked(), needs(&mut session, ANSWER)), (0, 1));
}

#[test]
fn a_turn_goes_from_its_first_word_to_its_end() {
    let heard = r#"{"serverContent":{"inputTranscription":{"text":"Hi"}}}"#;
    let said = r#"{"serverContent":{"outputTranscription":{"text":"Hello"}}}"#;
    let generated = r#"{"serverContent":{"generationComplete":true}}"#;
    let interrupted = r#"{"serverContent":{"interrupted":true}}"#;
    let complete = r#"{"serverContent":{"turnComplete":true}}"#;
    let resumption = r#"{"sessionResumptionUpdate":{"newHandle":"h","resumable":true}}"#;
    let usage = format!("{{{USAGE}}}");
    let more = r#"{"usageMetadata":{"promptTokenCount":1,"totalTokenCount":1}}"#;
    let none = r#"{"usageMetadata":{}}"#;
    let done = done();
    for (messages, want) in [
        (&[r#"{"setupComplete":{}}"#, heard, resumption, r#"{"goAway":{"timeLeft":"9s"}}"#][..], "- - - -"),
        (&[SAYS, SAYS, generated, &done, heard, SAYS], "1+ 1+ 1+ 1. - 2+"),
        (&[SAYS, interrupted, &done], "1+ 1+ 1."),
        (&[CALLS, said, &done], "1+ 1+ 1."),
        (&[SAYS, &usage, complete], "1+ 1+ 1."),
        // Usage behind the turn is waited for, until the next begins.
        (&[SAYS, complete, resumption, &usage, SAYS], "1+ 1+ - 1. 2+"),
        (&[SAYS, complete, SAYS, &done], "1+ 1+ 1! 2+ 2."),
        (&[SAYS, complete, &done], "1+ 1+ 1."),
        // A turn without a word that charges, and one that does not.
        (&[&done], "1."),
        (&[complete, interrupted], "- -"),
        // The same again charges nothing; another does.
        (&[SAYS, &done, &usage, more, none], "1+ 1. - $ -"),
        (&["broken", "{}", r#"{"serverContent":null,"usageMetadata":null}"#], "- - -"),
    ] {
        assert_eq!(told(&mut Live::default(), messages), want, "{messages:?}");
    }
}

#[test]
fn a_turn_is_read_by_its_last_usage_or_by_what_was_said() {
    let read = |messages: &[&str]| {
        let mut reader = Live::default().turn();
        messages.iter().for_each(|message| reader.look(message.as_bytes()));
        (reader.is_complete(), reader.reading())
    };
    let tokens = Tokens { prompt: 11, completion: 7, reasoning: 2, ..Tokens::default() };
    let first = r#"{"toolCall":{"functionCalls":[]},"usageMetadata":{"promptTokenCount":5,"responseTokenCount":1,"totalTokenCount":6}}"#;
    let (complete, reading) = read(&[first, SAYS, &done()]);
    assert_eq!((complete, reading.tokens, reading.distrusted, reading.uncounted), (true, Some(tokens), false, false));
    // The total may leave the thoughts out.
    let (_, reading) = read(&[&done().replace("18", "16")]);
    assert_eq!((reading.tokens, reading.distrusted), (Some(tokens), false));
    let (_, reading) = read(&[&done().replace("18", "17")]);
    assert!(reading.distrusted);
    let details = r#"{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":100,"responseTokenCount":50,
        "totalTokenCount":150,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":60},{"modality":"TEXT","tokenCount":15}],
        "responseTokensDetails":[{"modality":"AUDIO","tokenCount":50}]}}"#;
    let audio = Tokens { prompt: 100, prompt_audio: 60, completion: 50, completion_audio: 50, ..Tokens::default() };
    assert_eq!(read(&[details]).1.tokens, Some(audio));
    let searched = r#"{"serverContent":{"groundingMetadata":{"webSearchQueries":["toll","gate"]}}}"#;
    // What is said again is the same.
    assert_eq!(read(&[searched, searched, &done()]).1.quantities.web_searches, 2);
    let asks = r#"{"toolCall":{"functionCalls":[{"args":{"webSearchQueries":["toll"]}}]}}"#;
    assert_eq!(read(&[asks, &done()]).1.quantities.web_searches, 0);
    let mapped = r#"{"serverContent":{"groundingMetadata":{"groundingChunks":[{"maps":{"placeId":"places/1"}}]}}}"#;
    assert!(read(&[mapped, &done()]).1.uncounted, "Google Maps is charged beside searches");
    assert!(!read(&[searched, &done()]).1.uncounted);
    let sound = format!(
        r#"{{"serverContent":{{"modelTurn":{{"parts":[{{"inlineData":{{"mimeType":"audio/pcm","data":"{}"}}}}]}},"inputTranscription":{{"text":"Hi"}}}}}}"#,
        "A".repeat(5_120)
    );
    let (complete, reading) = read(&[SAYS, CALLS, &sound]);
    // 3,840 bytes of audio are two tokens, each worth four bytes of text. What was heard is not what was said.
    assert_eq!((complete, reading.tokens, reading.output.as_str()), (false, None, "HelloOslo"));
    assert_eq!(reading.output_bytes, 5 + 4 + 8);
}

#[test]
fn what_a_client_sends_is_worth_its_text_and_its_media() {
    let worth = |message: &str| Live::default().client(message.as_bytes()).prompt_bytes;
    assert_eq!(worth(ASK), 2);
    let audio = format!(r#"{{"realtimeInput":{{"audio":{{"data":"{}","mimeType":"audio/pcm"}}}}}}"#, "A".repeat(5_120));
    assert_eq!(worth(&audio), 3 * 4);
    assert_eq!(worth(r#"{"realtimeInput":{"video":{"data":"AAAA","mimeType":"image/jpeg"}}}"#), 258 * 4);
}
