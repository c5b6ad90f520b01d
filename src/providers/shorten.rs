//! The end of a stream that the gateway ends itself: in the words in which the dialect says that the output maximum was met, so
//! that clients treat it as they treat that.
//!
//! May use: `domain`, the siblings `json` and `sse`. It goes behind a whole event, never into one.

use serde_json::{Value, json};

use crate::domain::tokens::Tokens;

use super::sse::SseScanner;
use super::{Reads, json as members};

/// Follows a stream as the client gets it, and knows how it would end at its maximum.
pub struct Shortener {
    form: Form,
    answers: u64,
    /// Whether the client asked for usage, where it comes only then.
    tells_usage: bool,
    scanner: SseScanner,
    /// Whether the client has the begin of an event and not its end.
    is_inside: bool,
    /// Of the answer, as its last events have it.
    id: Option<Value>,
    model: Option<Value>,
    created: Option<Value>,
    sequence: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Chat,
    Completions,
    Responses,
    Generate,
}

/// No provider gives more at once.
const ANSWERS_MAX: u64 = 128;

/// Longer names and ids are not repeated.
const REPEATED_BYTES_MAX: usize = 512;

impl Shortener {
    /// For a stream of so many answers that is read so, to a client that wants usage or not where a dialect lets it choose.
    pub fn of(reads: Reads, answers: u64, tells_usage: bool) -> Option<Self> {
        let form = match reads {
            Reads::Chat | Reads::ChatWithinTotal => Form::Chat,
            Reads::Completions => Form::Completions,
            Reads::Responses => Form::Responses,
            Reads::Generate => Form::Generate,
            _ => return None,
        };
        let scanner = SseScanner::default();
        Some(Self {
            form,
            answers: answers.clamp(1, ANSWERS_MAX),
            tells_usage,
            scanner,
            is_inside: false,
            id: None,
            model: None,
            created: None,
            sequence: 0,
        })
    }

    /// The next bytes for the client. Gives how many of them are whole events, with what came before.
    pub fn follow(&mut self, bytes: &[u8]) -> usize {
        let Self { form, scanner, id, model, created, sequence, .. } = self;
        let mut whole = 0;
        scanner.feed(bytes, |event| {
            whole = event.end;
            let Some(data) = event.data else { return };
            let keep = |place: &mut Option<Value>, raw: &str| {
                if raw.len() <= REPEATED_BYTES_MAX {
                    *place = serde_json::from_str(raw).ok();
                }
            };
            let names = ["id", "model", "created", "sequence_number", "response", "modelVersion", "responseId"];
            // What is no object says nothing of these.
            let _is_object = members::members(data, &names, |index, raw| match index {
                0 => keep(id, raw.get()),
                1 => keep(model, raw.get()),
                2 => keep(created, raw.get()),
                3 => *sequence = raw.get().parse().unwrap_or(*sequence),
                4 if *form == Form::Responses => {
                    let inner = ["id", "model", "created_at"];
                    let _is_object = members::members(raw.get().as_bytes(), &inner, |index, raw| match index {
                        0 => keep(id, raw.get()),
                        1 => keep(model, raw.get()),
                        _ => keep(created, raw.get()),
                    });
                }
                5 => keep(model, raw.get()),
                6 => keep(id, raw.get()),
                _ => {}
            });
        });
        if !bytes.is_empty() {
            self.is_inside = whole < bytes.len();
        }
        whole
    }

    /// Whether the client has whole events alone.
    pub fn is_between_events(&self) -> bool {
        !self.is_inside
    }

    /// What ends the stream, which is billed with these tokens.
    pub fn ending(&self, billed: &Tokens) -> Vec<u8> {
        let Self { id, model, created, .. } = self;
        match self.form {
            Form::Chat => {
                let choice = |at| json!({"index": at, "delta": {}, "logprobs": null, "finish_reason": "length"});
                self.chunks("chat.completion.chunk", choice, billed)
            }
            Form::Completions => {
                let choice = |at| json!({"index": at, "text": "", "logprobs": null, "finish_reason": "length"});
                self.chunks("text_completion", choice, billed)
            }
            Form::Responses => {
                let data = json!({
                    "type": "response.incomplete",
                    "sequence_number": self.sequence.saturating_add(1),
                    "response": {"id": id, "object": "response", "created_at": created, "status": "incomplete",
                        "error": null, "incomplete_details": {"reason": "max_output_tokens"}, "model": model,
                        "output": [], "usage": {
                            "input_tokens": billed.prompt,
                            "input_tokens_details": {"cached_tokens": billed.cached},
                            "output_tokens": billed.completion,
                            "output_tokens_details": {"reasoning_tokens": billed.reasoning},
                            "total_tokens": billed.total(),
                        }},
                });
                format!("event: response.incomplete\ndata: {data}\n\n").into_bytes()
            }
            Form::Generate => {
                let candidate =
                    json!({"content": {"parts": [], "role": "model"}, "finishReason": "MAX_TOKENS", "index": 0});
                let usage = json!({"promptTokenCount": billed.prompt, "candidatesTokenCount": billed.completion,
                    "totalTokenCount": billed.total()});
                let data = json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": model,
                    "responseId": id});
                format!("data: {data}\r\n\r\n").into_bytes()
            }
        }
    }

    /// The end of each answer, then usage where it is told, and what says that no more comes.
    fn chunks(&self, object: &str, choice: impl Fn(u64) -> Value, billed: &Tokens) -> Vec<u8> {
        let Self { id, model, created, .. } = self;
        let chunk = |choices: Vec<Value>, usage: Value| {
            let data = match self.tells_usage {
                true => {
                    json!({"id": id, "object": object, "created": created, "model": model, "choices": choices,
                        "usage": usage})
                }
                false => json!({"id": id, "object": object, "created": created, "model": model, "choices": choices}),
            };
            format!("data: {data}\n\n")
        };
        let mut end = chunk((0..self.answers).map(choice).collect(), Value::Null);
        if self.tells_usage {
            let usage = json!({"prompt_tokens": billed.prompt, "completion_tokens": billed.completion,
                "total_tokens": billed.total()});
            end.push_str(&chunk(Vec::new(), usage));
        }
        end.push_str("data: [DONE]\n\n");
        end.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(reads: Reads, stream: &str, tells_usage: bool) -> String {
        let mut shortener = Shortener::of(reads, 2, tells_usage).unwrap();
        assert_eq!(shortener.follow(stream.as_bytes()), stream.len());
        assert!(shortener.is_between_events());
        let billed = Tokens { prompt: 9, completion: 70, ..Tokens::default() };
        String::from_utf8(shortener.ending(&billed)).unwrap()
    }

    fn data(ending: &str) -> Value {
        let line = ending.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        serde_json::from_str(line).unwrap()
    }

    #[test]
    fn each_dialect_says_that_the_maximum_was_met() {
        let chat = ended(Reads::Chat, "data: {\"id\":\"c1\",\"created\":7,\"model\":\"m\",\"choices\":[]}\n\n", false);
        assert_eq!((&data(&chat)["choices"][0]["finish_reason"], &data(&chat)["id"]), (&json!("length"), &json!("c1")));
        assert_eq!(data(&chat)["choices"][1]["index"], 1, "each of two answers ends");
        assert!(chat.ends_with("data: [DONE]\n\n"), "{chat}");
        let responses = ended(
            Reads::Responses,
            "event: a\ndata: {\"type\":\"a\",\"sequence_number\":4,\"response\":{\"id\":\"r1\",\"model\":\"m\"}}\n\n",
            true,
        );
        let body = data(&responses);
        assert_eq!((&body["sequence_number"], &body["response"]["id"]), (&json!(5), &json!("r1")));
        assert_eq!(body["response"]["incomplete_details"]["reason"], "max_output_tokens");
        let gemini = ended(Reads::Generate, "data: {\"candidates\":[],\"modelVersion\":\"g\"}\r\n\r\n", true);
        assert_eq!(data(&gemini)["candidates"][0]["finishReason"], "MAX_TOKENS");
        assert_eq!(data(&gemini)["modelVersion"], "g");
        assert!(Shortener::of(Reads::Speech, 1, true).is_none());
    }

    #[test]
    fn a_stream_that_is_cut_tells_the_usage_that_was_asked_for() {
        for (reads, object) in [(Reads::Chat, "chat.completion.chunk"), (Reads::Completions, "text_completion")] {
            let ending = ended(reads, "data: {\"id\":\"c1\",\"choices\":[]}\n\n", true);
            let events: Vec<&str> = ending.split_terminator("\n\n").collect();
            let [last, usage, "data: [DONE]"] = *events else { panic!("{ending}") };
            assert_eq!(
                (&data(last)["choices"][0]["finish_reason"], &data(last)["usage"]),
                (&json!("length"), &Value::Null)
            );
            let usage = data(usage);
            assert_eq!((&usage["object"], &usage["id"], &usage["choices"]), (&json!(object), &json!("c1"), &json!([])));
            let counts = json!({"prompt_tokens": 9, "completion_tokens": 70, "total_tokens": 79});
            assert_eq!(usage["usage"], counts);
            let unasked = ended(reads, "data: {\"id\":\"c1\",\"choices\":[]}\n\n", false);
            assert!(!unasked.contains("usage") && unasked.ends_with("data: [DONE]\n\n"), "{unasked}");
        }
        // These always tell it.
        let responses = data(&ended(Reads::Responses, "data: {\"response\":{\"id\":\"r1\"}}\n\n", true));
        assert_eq!(responses["response"]["usage"]["output_tokens"], 70, "{responses}");
        let gemini = data(&ended(Reads::Generate, "data: {\"candidates\":[]}\r\n\r\n", true));
        assert_eq!(gemini["usageMetadata"]["totalTokenCount"], 79, "{gemini}");
    }

    #[test]
    fn it_knows_where_the_last_whole_event_ends() {
        let mut shortener = Shortener::of(Reads::Chat, 1, true).unwrap();
        assert_eq!(shortener.follow(b"data: {}\n\ndata: {"), 10);
        assert!(!shortener.is_between_events());
        assert_eq!(shortener.follow(b"\"a\""), 0);
        assert!(!shortener.is_between_events());
        assert_eq!(shortener.follow(b":1}\n\nda"), 5);
        assert!(!shortener.is_between_events());
        assert_eq!(shortener.follow(b"ta: 1\n\n"), 7);
        assert!(shortener.is_between_events());
    }
}
