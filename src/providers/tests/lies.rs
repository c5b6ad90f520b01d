//! What providers could say of their usage that is not true, in every kind of answer, cut anywhere, and random changes of
//! true answers: never a crash, never booked as it stands, never a byte of the client's changed.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::domain::tokens::TOKENS_PER_CALL_MAX;

use super::super::*;
use super::{Golden, fixture, goldens, reader_for, replay, used};

/// One kind of answer with a place for its usage, and how that is spelled when it is honest.
struct Kind {
    path: &'static str,
    file: &'static str,
    request: &'static str,
    /// `USAGE` stands for the object.
    answer: &'static str,
    usage: &'static str,
    /// Members that must be counts.
    counts: &'static [&'static str],
    tokens: Tokens,
}

const ASKED: &str = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}"#;
const CHAT_USAGE: &str = r#"{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}"#;
const RESPONSES_USAGE: &str = r#"{"input_tokens":11,"output_tokens":7,"total_tokens":18}"#;
const GEMINI_USAGE: &str =
    r#"{"promptTokenCount":11,"candidatesTokenCount":5,"thoughtsTokenCount":2,"totalTokenCount":18}"#;
const CHAT_COUNTS: &[&str] = &["prompt_tokens", "completion_tokens"];
const RESPONSES_COUNTS: &[&str] = &["input_tokens", "output_tokens"];
const GEMINI_COUNTS: &[&str] = &["promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"];

fn kinds() -> Vec<Kind> {
    let thought = Tokens { reasoning: 2, ..used(11, 7) };
    let chat = Kind {
        path: "/v1/chat/completions",
        file: "x.json",
        request: ASKED,
        answer: r#"{"model":"m","choices":[{"message":{"content":"One, two"}}],"usage":USAGE,"service_tier":"default"}"#,
        usage: CHAT_USAGE,
        counts: CHAT_COUNTS,
        tokens: used(11, 7),
    };
    let gemini = Kind {
        path: "/v1beta/models/m:generateContent",
        answer: r#"{"candidates":[{"content":{"parts":[{"text":"One, two"}]}}],"usageMetadata":USAGE,"modelVersion":"m"}"#,
        usage: GEMINI_USAGE,
        counts: GEMINI_COUNTS,
        tokens: thought,
        ..chat
    };
    vec![
        Kind {
            file: "x.sse",
            answer: "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"One, two\"}}],\"usage\":null}\n\ndata: {\"model\":\"m\",\"choices\":[],\"usage\":USAGE}\n\ndata: [DONE]\n\n",
            ..chat
        },
        Kind { path: "/v1/completions", answer: r#"{"choices":[{"text":"One, two"}],"usage":USAGE}"#, ..chat },
        Kind { path: "/v1beta/openai/chat/completions", ..chat },
        Kind {
            path: "/v1/embeddings",
            answer: r#"{"data":[{"embedding":[0.1,7]}],"usage":USAGE}"#,
            usage: r#"{"prompt_tokens":11,"total_tokens":11}"#,
            counts: &["prompt_tokens"],
            tokens: used(11, 0),
            ..chat
        },
        Kind {
            path: "/v1/responses",
            answer: r#"{"model":"m","output":[{"content":[{"text":"One, two"}]}],"usage":USAGE}"#,
            usage: RESPONSES_USAGE,
            counts: RESPONSES_COUNTS,
            ..chat
        },
        Kind {
            path: "/v1/responses",
            file: "x.sse",
            answer: "data: {\"type\":\"response.created\",\"response\":{\"model\":\"m\",\"usage\":null}}\n\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"One, two\"}\n\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":USAGE}}\n\n",
            usage: RESPONSES_USAGE,
            counts: RESPONSES_COUNTS,
            ..chat
        },
        Kind {
            path: "/v1beta/models/m:streamGenerateContent",
            file: "x.sse",
            answer: "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"One, two\"}]}}],\"usageMetadata\":{\"promptTokenCount\":11,\"candidatesTokenCount\":1}}\r\n\r\ndata: {\"usageMetadata\":USAGE}\r\n\r\n",
            ..gemini
        },
        Kind {
            path: "/v1beta/models/m:streamGenerateContent",
            answer: r#"[{"candidates":[{"content":{"parts":[{"text":"One, two"}]}}]},{"usageMetadata":USAGE}]"#,
            ..gemini
        },
        gemini,
        chat,
    ]
    .into_iter()
    .chain(media_kinds())
    .collect()
}

fn media_kinds() -> [Kind; 4] {
    let document = Kind {
        path: "/v1/images/generations",
        file: "x.json",
        request: ASKED,
        answer: r#"{"data":[{"b64_json":"One, two"}],"usage":USAGE}"#,
        usage: RESPONSES_USAGE,
        counts: RESPONSES_COUNTS,
        tokens: used(11, 7),
    };
    [
        Kind {
            path: "/v1/images/edits",
            file: "x.sse",
            answer: "data: {\"type\":\"image_edit.completed\",\"b64_json\":\"One, two\",\"usage\":USAGE}\n\n",
            ..document
        },
        Kind { path: "/v1/audio/transcriptions", answer: r#"{"text":"One, two","usage":USAGE}"#, ..document },
        Kind {
            path: "/v1/audio/transcriptions",
            file: "x.sse",
            answer: "data: {\"type\":\"transcript.text.delta\",\"delta\":\"One, two\"}\n\ndata: {\"type\":\"transcript.text.done\",\"usage\":USAGE}\n\n",
            ..document
        },
        document,
    ]
}

impl Kind {
    fn with(&self, usage: &str) -> String {
        self.answer.replace("USAGE", usage)
    }

    /// Reads an answer whole, byte by byte and cut at each place in and around its usage; it says the same each time.
    fn read(&self, answer: &str) -> Reading {
        let body = answer.as_bytes();
        let read = |pieces: &[&[u8]]| {
            let (client, _, reading) = replay(reader_for(self.path, self.file, self.request), pieces);
            assert_eq!(client, body, "{answer}");
            reading
        };
        let whole = read(&[body]);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(read(&bytes), whole, "{answer} byte by byte");
        let from = self.answer.find("USAGE").unwrap();
        for cut in from.saturating_sub(12)..body.len().min(from + 80) {
            let (head, tail) = body.split_at(cut);
            assert_eq!(read(&[head, tail]), whole, "{answer} cut at {cut}");
        }
        whole
    }

    /// The tokens, and whether they are to be flagged.
    fn tokens(&self, usage: &str) -> (Option<Tokens>, bool) {
        let reading = self.read(&self.with(usage));
        (reading.tokens, reading.distrusted)
    }

    /// The honest object with `value` in place of the count of `member`.
    fn lying(&self, member: &str, value: &str) -> String {
        let (before, rest) = self.usage.split_once(&format!("\"{member}\":")).unwrap();
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        format!("{before}\"{member}\":{value}{after}")
    }
}

const NO_COUNTS: [&str; 30] = [
    "-1",
    "-0",
    "-7",
    "-9223372036854775808",
    "0.5",
    "11.0",
    "11.5",
    "1e1",
    "1e3",
    "1E+2",
    "1e30",
    "1e400",
    "10000001",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "999999999999999999999999999999",
    "null",
    "true",
    "false",
    "\"11\"",
    "\"\"",
    "\"NaN\"",
    "\"-1\"",
    "\"Infinity\"",
    "[]",
    "[11]",
    "{}",
    "{\"tokens\":11}",
    "[[[[[[[[11]]]]]]]]",
];

#[test]
fn a_count_that_is_none_is_estimated_and_flagged() {
    for kind in kinds() {
        assert_eq!(kind.tokens(kind.usage), (Some(kind.tokens), false), "{}", kind.path);
        for member in kind.counts {
            for odd in NO_COUNTS {
                let usage = kind.lying(member, odd);
                assert_eq!(kind.tokens(&usage), (None, true), "{} {usage}", kind.path);
            }
        }
    }
}

#[test]
fn what_is_no_usage_object_is_estimated() {
    for kind in kinds() {
        // Nothing was said: nothing to distrust. Gemini's running totals before it stand.
        let running = kind.answer.contains("\"candidatesTokenCount\":1").then(|| used(11, 1));
        assert_eq!(kind.tokens("null"), (running, false), "{}", kind.path);
        for odd in ["7", "-7", "\"18\"", "true", "[]", "[{\"prompt_tokens\":11}]"] {
            assert_eq!(kind.tokens(odd), (None, true), "{} {odd}", kind.path);
        }
        // A message that is no JSON says nothing.
        for broken in ["", "NaN", "{\"prompt_tokens\":11", "{\"prompt_tokens\":Infinity,\"completion_tokens\":7}", "01"]
        {
            let reading = kind.read(&kind.with(broken));
            assert_eq!((reading.tokens, reading.distrusted), (running, false), "{} {broken}", kind.path);
        }
    }
    // Without a usage object, and where the text is, it is what an estimate goes by.
    let bare = r#"{"model":"m","choices":[{"message":{"content":"One, two"}}]}"#;
    let (_, _, reading) = replay(reader_for("/v1/chat/completions", "x.json", ASKED), &[bare.as_bytes()]);
    assert_eq!((reading.tokens, reading.output.as_str()), (None, "One, two"));
}

#[test]
fn each_count_must_be_there_unless_zeros_are_left_out() {
    for kind in kinds() {
        let is_gemini = kind.usage == GEMINI_USAGE;
        for member in kind.counts {
            let usage = kind.usage.replace(&format!("\"{member}\""), "\"x\"");
            let tokens = kind.tokens(&usage);
            match (*member, is_gemini) {
                // What the total has beyond the other counts is the output.
                ("candidatesTokenCount", true) => assert_eq!(tokens, (Some(kind.tokens), false), "{usage}"),
                // The counts no longer add up.
                ("thoughtsTokenCount", true) => assert_eq!(tokens, (Some(used(11, 5)), true), "{usage}"),
                ("completion_tokens", false) if kind.path.contains("/openai/") => {
                    assert_eq!(tokens, (Some(Tokens { reasoning: 7, ..used(11, 7) }), false), "{usage}");
                }
                _ => assert_eq!(tokens, (None, true), "{} {usage}", kind.path),
            }
        }
    }
}

#[test]
fn a_total_that_does_not_add_up_flags_the_counts() {
    for kind in kinds() {
        let member = if kind.usage == GEMINI_USAGE { "totalTokenCount" } else { "total_tokens" };
        let is_compatible = kind.path.contains("/openai/");
        for total in ["0", "1", "17", "19", "99", "9999999"] {
            let (tokens, flagged) = kind.tokens(&kind.lying(member, total));
            let hidden = if is_compatible { total.parse::<u64>().unwrap().saturating_sub(18) } else { 0 };
            if hidden > 0 {
                // What Gemini's compatible endpoint has in the total alone is thoughts.
                let thoughts = Tokens { reasoning: hidden, ..used(11, 7 + hidden) };
                assert_eq!((tokens, flagged), (Some(thoughts), false), "{total}");
            } else {
                assert_eq!((tokens, flagged), (Some(kind.tokens), true), "{} {total}", kind.path);
            }
        }
        for odd in NO_COUNTS.iter().filter(|odd| **odd != "null" && !is_compatible) {
            let usage = kind.lying(member, odd);
            assert_eq!(kind.tokens(&usage), (Some(kind.tokens), true), "{} {usage}", kind.path);
        }
    }
}

#[test]
fn of_a_key_twice_the_last_counts_and_a_lie_never_wins() {
    for kind in kinds() {
        for member in kind.counts {
            for odd in ["-1", "1", "\"x\"", "null"] {
                let first = kind.usage.replacen('{', &format!("{{\"{member}\":{odd},"), 1);
                assert_eq!(kind.tokens(&first), (Some(kind.tokens), false), "{first}");
            }
            for odd in ["-1", "\"x\"", "null"] {
                let last = kind.usage.replacen('}', &format!(",\"{member}\":{odd}}}"), 1);
                assert_eq!(kind.tokens(&last), (None, true), "{last}");
            }
        }
        let name = if kind.usage == GEMINI_USAGE { "usageMetadata" } else { "usage" };
        for (first, second, expected) in [
            ("{}", kind.usage, (Some(kind.tokens), false)),
            ("[]", kind.usage, (Some(kind.tokens), false)),
            (kind.usage, "null", (Some(kind.tokens), false)),
            (kind.usage, "-1", (None, true)),
            (kind.usage, kind.usage, (Some(kind.tokens), false)),
        ] {
            let twice = format!("{first},\"{name}\":{second}");
            assert_eq!(kind.tokens(&twice), expected, "{} {twice}", kind.path);
        }
        // A zero that follows does not make a call free, and does not go unnoticed; alone it is estimated.
        let zero = kind.usage.replace(|c: char| c.is_ascii_digit(), "").replace(':', ":0");
        let running = kind.answer.contains("\"candidatesTokenCount\":1").then(|| used(11, 1));
        assert_eq!(kind.tokens(&format!("{},\"{name}\":{zero}", kind.usage)), (Some(kind.tokens), true), "{zero}");
        assert_eq!(kind.tokens(&zero), (running, true), "{} {zero}", kind.path);
    }
}

#[test]
fn a_thousand_usage_members_are_read_by_the_last() {
    for kind in kinds() {
        let name = if kind.usage == GEMINI_USAGE { "usageMetadata" } else { "usage" };
        let many = format!("{}{}", format!("[],\"{name}\":").repeat(1_000), kind.usage);
        let answer = kind.with(&many);
        let (client, _, reading) = replay(reader_for(kind.path, kind.file, kind.request), &[answer.as_bytes()]);
        assert_eq!((client.len(), reading.tokens, reading.distrusted), (answer.len(), Some(kind.tokens), false));
    }
}

#[test]
fn a_deep_value_is_neither_a_crash_nor_a_count() {
    for kind in kinds() {
        for depth in [200, 200_000] {
            let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            for usage in [deep.clone(), kind.lying(kind.counts[0], &deep)] {
                let answer = kind.with(&usage);
                let (_, _, reading) = replay(reader_for(kind.path, kind.file, kind.request), &[answer.as_bytes()]);
                assert_eq!((reading.tokens, reading.distrusted), (None, true), "{} {depth}", kind.path);
            }
        }
    }
}

#[test]
fn text_without_output_tokens_is_not_believed() {
    for kind in kinds() {
        let is_echo_or_none = matches!(kind.path, "/v1/completions" | "/v1/embeddings");
        let usage = match kind.usage {
            GEMINI_USAGE => r#"{"promptTokenCount":11,"totalTokenCount":11}"#,
            RESPONSES_USAGE => r#"{"input_tokens":11,"output_tokens":0,"total_tokens":11}"#,
            CHAT_USAGE => r#"{"prompt_tokens":11,"completion_tokens":0,"total_tokens":11}"#,
            embeddings => embeddings,
        };
        let expected = if is_echo_or_none { (Some(used(11, 0)), false) } else { (None, true) };
        assert_eq!(kind.tokens(usage), expected, "{}", kind.path);
    }
    let silent =
        r#"{"candidates":[{"finishReason":"SAFETY"}],"usageMetadata":{"promptTokenCount":14,"totalTokenCount":14}}"#;
    let (_, _, reading) = replay(reader_for("/v1beta/models/m:generateContent", "x.json", "{}"), &[silent.as_bytes()]);
    assert_eq!((reading.tokens, reading.distrusted), (Some(used(14, 0)), false));
}

#[test]
fn nothing_behind_the_terminal_event_counts() {
    let late = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}\n\n";
    let body = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}]}}\n\ndata: [DONE]\n\n{late}");
    for cut in 0..=body.len() {
        let (head, tail) = body.as_bytes().split_at(cut);
        let (client, complete, reading) = replay(reader_for("/v1/chat/completions", "x.sse", ASKED), &[head, tail]);
        assert_eq!(String::from_utf8(client).unwrap(), body);
        assert_eq!((complete, reading.tokens, reading.output.as_str()), (true, None, "x"), "cut at {cut}");
    }
    let twice = [CHAT_USAGE, r#"{"prompt_tokens":1,"completion_tokens":1}"#]
        .map(|usage| format!(r#"{{"choices":[],"usage":{usage}}}"#))
        .concat();
    let (_, _, reading) = replay(reader_for("/v1/chat/completions", "x.json", ASKED), &[twice.as_bytes()]);
    assert_eq!(reading.tokens, Some(used(11, 7)));
}

#[test]
fn what_begins_behind_the_mark_of_the_end_takes_nothing_back() {
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\ndata: {\"";
    let (client, complete, reading) = replay(reader_for("/v1/chat/completions", "x.sse", ASKED), &[body.as_bytes()]);
    assert_eq!((client, complete), (body.as_bytes().to_vec(), true));
    assert_eq!((reading.tokens, reading.output.as_str()), (None, "x"));
}

/// Something that could stand in place of something else in JSON.
fn scrap() -> impl Strategy<Value = String> {
    prop_oneof![
        select(NO_COUNTS.to_vec()).prop_map(str::to_owned),
        any::<u64>().prop_map(|number| number.to_string()),
        (any::<i64>(), any::<u32>(), any::<i16>()).prop_map(|(whole, part, power)| format!("{whole}.{part}e{power}")),
        select(vec!["", "0", "9999999", ",", ":", "{", "}", "[", "]", "\"", "\\", "\n", "\n\n", "data: ", "\u{feff}"])
            .prop_map(str::to_owned),
        select(vec![
            CHAT_USAGE,
            RESPONSES_USAGE,
            GEMINI_USAGE,
            "\"usage\":",
            ",\"usageMetadata\":{}",
            "\"prompt_tokens\":5,",
            "\"modality\":\"AUDIO\",\"tokenCount\":99,",
            "data: [DONE]\n\n"
        ])
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Random edits of a true answer: runs of digits and single bytes become something else, or go, or come twice.
    #[test]
    fn no_change_of_a_true_answer_books_what_cannot_be(
        which in any::<Index>(), edits in proptest::collection::vec((any::<Index>(), 0usize..4, scrap()), 1..6)
    ) {
        let goldens = goldens();
        let Golden { file, path, .. } = *which.get(&goldens);
        let mut body = fixture(file);
        for (at, how, with) in edits {
            let digits: Vec<usize> = (1..body.len())
                .filter(|at| body[*at].is_ascii_digit() && !body[at - 1].is_ascii_digit())
                .collect();
            if how < 2 && !digits.is_empty() {
                let from = *at.get(&digits);
                let length = body[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                body.splice(from..from + length, with.bytes());
            } else if !body.is_empty() {
                let from = at.index(body.len());
                let removed = usize::from(how == 3);
                body.splice(from..from + removed, with.bytes());
            }
        }
        let (client, _, reading) = replay(reader_for(path, file, ASKED), &[&body]);
        prop_assert_eq!(&client, &body);
        if let Some(tokens) = reading.tokens {
            prop_assert_eq!(tokens.checked(), Ok(tokens));
            prop_assert!(tokens.total() <= TOKENS_PER_CALL_MAX);
        }
        let bytes: Vec<&[u8]> = body.chunks(7).collect();
        let (client, _, again) = replay(reader_for(path, file, ASKED), &bytes);
        prop_assert_eq!(client, body);
        prop_assert_eq!(again, reading);
    }
}
