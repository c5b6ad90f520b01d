//! The Responses API of the OpenAI dialect: its object and the steps of its stream.
//!
//! May use: nothing of ours but the script. Shapes follow OpenAI's published API reference.

use serde_json::{Value, json};

use super::openai::{CREATED, Request, Saying, is_true, pieces};
use super::provider::{Answer, Counted};
use super::script::{put, words};

impl Request<'_> {
    /// `POST /v1/responses`.
    pub fn response(&self) -> Answer {
        let input = self.body.get("input").unwrap_or(&Value::Null);
        let instructions = self.body.get("instructions").unwrap_or(&Value::Null);
        let last_type = input.as_array().and_then(|all| all.last()?.get("type")?.as_str());
        let function = |tool: &Value| {
            let is_function = tool.get("type").and_then(Value::as_str) == Some("function");
            let name = tool.get("name").and_then(Value::as_str).filter(|_| is_function)?;
            Some((name.to_owned(), tool.get("parameters").cloned().unwrap_or_default()))
        };
        let saying = self.saying(function, last_type == Some("function_call_output"));
        let counted = Counted { prompt: words(input).saturating_add(words(instructions)), completion: saying.tokens() };
        let item = self.response_item(&saying, "completed");
        let (status, event) = match &saying {
            Saying::Text { cut: true, .. } => ("incomplete", "response.incomplete"),
            _ => ("completed", "response.completed"),
        };
        let done = self.response_object(status, json!([item]), Some(counted));
        if is_true(self.body, "stream") {
            Answer::events(counted, self.response_events(&saying, item, event, &done))
        } else {
            Answer::json(counted, done)
        }
    }

    fn response_item(&self, saying: &Saying, status: &str) -> Value {
        match saying {
            Saying::Text { words, .. } => {
                let part = json!({"type": "output_text", "text": words.join(" "), "annotations": [], "logprobs": []});
                let content = if status == "completed" { json!([part]) } else { json!([]) };
                json!({"type": "message", "id": self.id("msg_"), "status": status, "role": "assistant",
                    "content": content})
            }
            Saying::ToolCall { name, arguments } => {
                let text = if status == "completed" { arguments.to_string() } else { String::new() };
                json!({"type": "function_call", "id": self.id("fc_"), "call_id": self.id("call_"), "status": status,
                    "name": name, "arguments": text})
            }
        }
    }

    fn response_object(&self, status: &str, output: Value, counted: Option<Counted>) -> Value {
        let usage = counted.filter(|_| !self.script.no_usage).map(|counted| {
            json!({"input_tokens": counted.prompt, "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": counted.completion, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": counted.total()})
        });
        let incomplete = if status == "incomplete" { json!({"reason": "max_output_tokens"}) } else { Value::Null };
        let asked = |name: &str, default: Value| self.body.get(name).cloned().unwrap_or(default);
        json!({
            "id": self.id("resp_"), "object": "response", "created_at": CREATED, "status": status, "error": null,
            "incomplete_details": incomplete, "instructions": asked("instructions", Value::Null),
            "metadata": asked("metadata", json!({})), "model": self.model, "output": output,
            "parallel_tool_calls": true, "previous_response_id": null, "service_tier": "default",
            "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": asked("tool_choice", json!("auto")),
            "tools": asked("tools", json!([])), "top_p": 1.0, "truncation": "disabled", "usage": usage,
        })
    }

    fn response_events(&self, saying: &Saying, item: Value, last_event: &str, done: &Value) -> Vec<String> {
        let id = item.get("id").cloned().unwrap_or_default();
        let begun = self.response_object("in_progress", json!([]), None);
        let mut steps = vec![
            ("response.created", json!({"response": begun})),
            ("response.in_progress", json!({"response": begun})),
            (
                "response.output_item.added",
                json!({"output_index": 0, "item": self.response_item(saying, "in_progress")}),
            ),
        ];
        match saying {
            Saying::Text { words, .. } => {
                let place = json!({"item_id": id, "output_index": 0, "content_index": 0});
                let with = |name: &str, value: Value| {
                    let mut step = place.clone();
                    put(&mut step, name, value);
                    step
                };
                let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
                steps.push(("response.content_part.added", with("part", part(""))));
                for word in pieces(words) {
                    let mut step = with("delta", json!(word));
                    put(&mut step, "logprobs", json!([]));
                    steps.push(("response.output_text.delta", step));
                }
                let text = words.join(" ");
                let mut step = with("text", json!(text));
                put(&mut step, "logprobs", json!([]));
                steps.push(("response.output_text.done", step));
                steps.push(("response.content_part.done", with("part", part(&text))));
            }
            Saying::ToolCall { name, arguments } => {
                let text = arguments.to_string();
                steps.push((
                    "response.function_call_arguments.delta",
                    json!({"item_id": id, "output_index": 0, "delta": text}),
                ));
                steps.push((
                    "response.function_call_arguments.done",
                    json!({"item_id": id, "output_index": 0, "name": name, "arguments": text}),
                ));
            }
        }
        steps.push(("response.output_item.done", json!({"output_index": 0, "item": item})));
        steps.push((last_event, json!({"response": done})));
        let numbered = steps.into_iter().enumerate().map(|(at, (event, mut data))| {
            put(&mut data, "type", json!(event));
            put(&mut data, "sequence_number", json!(at));
            format!("event: {event}\ndata: {data}\n\n")
        });
        numbered.collect()
    }
}
