//! What OpenAI's tools charge beside the tokens of a response: searches by the call, and what no count of ours says.
//!
//! May use: the shared readers. Searches of the web are in the account of tools (`tool_usage`), where there is one; else they
//! are the calls in the output that searched: one that opened a page that was found is charged with the search that found it.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::providers::json;
use crate::providers::session::text_at;
use crate::providers::told::Told;

/// An account of what tools charged has a handful of counts: a longer one is none, and counts as a charge.
const ACCOUNT_BYTES_MAX: usize = 16 * 1024;

/// Calls of tools that the client runs, or that cost the tokens that they come to.
const FREE: [&str; 7] = [
    "function_call",
    "custom_tool_call",
    "computer_call",
    "local_shell_call",
    "apply_patch_call",
    "mcp_call",
    "tool_search_call",
];

/// What the calls in an output are.
#[derive(Debug, Default)]
struct Calls {
    web_searches: u64,
    file_searches: u64,
    images: u64,
    /// Of tools that are charged by the time that they run, and of those that are not known here.
    others: u64,
}

/// Takes what the tools of a response charged. Its last word counts, as that of its usage.
pub(super) fn used(account: Option<&RawValue>, output: Option<&RawValue>, told: &mut Told) {
    let Calls { web_searches, file_searches, images, others } = output.map(calls).unwrap_or_default();
    let account = account.map(|account| (searches(account), charges_beside(account)));
    if output.is_some() {
        told.quantities.file_searches = file_searches;
        told.quantities.web_searches = web_searches;
        told.uncounted |= others > 0 || (images > 0 && account.is_none());
    }
    if let Some((searches, beside)) = account {
        told.quantities.web_searches = searches.unwrap_or(0);
        told.uncounted |= beside;
    }
}

/// Counts the calls in an output. A quick look first: text has its quotes escaped, so only a type has such a name.
fn calls(output: &RawValue) -> Calls {
    static CALL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("_call\""));
    let mut calls = Calls::default();
    let bytes = output.get().as_bytes();
    if CALL.find(bytes).is_none() {
        return calls;
    }
    let mut count = |item: &RawValue| {
        let is_search = || text_at(item, &["action", "type"]).is_none_or(|action| action == "search");
        let is_local = || text_at(item, &["environment", "type"]).is_some_and(|kind| kind == "local");
        match text_at(item, &["type"]).as_deref() {
            Some("web_search_call") => calls.web_searches += u64::from(is_search()),
            Some("file_search_call") => calls.file_searches += 1,
            Some("image_generation_call") => calls.images += 1,
            Some("shell_call") if is_local() => {}
            Some(kind) if kind.ends_with("_call") && !FREE.contains(&kind) => calls.others += 1,
            _ => {}
        }
        true
    };
    json::elements(bytes, &mut count).unwrap_or_default();
    calls
}

/// The searches of the web in an account.
fn searches(account: &RawValue) -> Option<u64> {
    value(account)?.get("web_search")?.get("num_requests")?.as_u64()
}

/// Whether an account has anything else in it.
fn charges_beside(account: &RawValue) -> bool {
    let Some(Value::Object(mut tools)) = value(account) else { return charges(account) };
    let mut is_lie = false;
    if let Some(Value::Object(search)) = tools.get_mut("web_search") {
        is_lie = search.remove("num_requests").is_some_and(|requests| !requests.is_u64() && has_count(&requests));
    }
    is_lie || tools.values().any(has_count)
}

fn value(account: &RawValue) -> Option<Value> {
    if account.get().len() > ACCOUNT_BYTES_MAX { None } else { serde_json::from_str(account.get()).ok() }
}

/// Whether a tool says that it charged: any number that is not 0.
pub(super) fn charges(tools: &RawValue) -> bool {
    let text = tools.get();
    if text.len() > ACCOUNT_BYTES_MAX {
        return true;
    }
    text.bytes().any(|byte| matches!(byte, b'1'..=b'9')) && value(tools).is_some_and(|tools| has_count(&tools))
}

fn has_count(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64() != Some(0),
        Value::Array(values) => values.iter().any(has_count),
        Value::Object(members) => members.values().any(has_count),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches of the web and of files, and whether something else was charged.
    fn read(account: Option<&str>, output: Option<&str>) -> (u64, u64, bool) {
        let raw = |text: Option<&str>| text.map(|text| RawValue::from_string(text.to_owned()).unwrap());
        let (account, output) = (raw(account), raw(output));
        let mut told = Told::default();
        used(account.as_deref(), output.as_deref(), &mut told);
        (told.quantities.web_searches, told.quantities.file_searches, told.uncounted)
    }

    #[test]
    fn searches_are_counted_and_other_tools_are_told() {
        const SEARCH: &str = r#"{"type":"web_search_call","action":{"type":"search"}}"#;
        const OPEN: &str = r#"{"type":"web_search_call","action":{"type":"open_page"}}"#;
        const PLAIN: &str = r#"{"type":"web_search_call"}"#;
        const FILES: &str = r#"{"type":"file_search_call","queries":["a","b"]}"#;
        const IMAGE: &str = r#"{"type":"image_generation_call"}"#;
        const CODE: &str = r#"{"type":"code_interpreter_call"}"#;
        const SHELL: &str = r#"{"type":"shell_call","environment":{"type":"container_reference","container_id":"c"}}"#;
        const UNSAID: &str = r#"{"type":"shell_call","environment":null}"#;
        const ANSWERED: &str = r#"{"type":"shell_call_output","output":[]}"#;
        const LOCAL: &str = r#"{"type":"shell_call","environment":{"type":"local"}}"#;
        const NEW: &str = r#"{"type":"unheard_of_call"}"#;
        const CLIENTS: &str = r#"{"type":"function_call","name":"shell_call"},{"type":"custom_tool_call"},{"type":"computer_call"},
            {"type":"local_shell_call"},{"type":"mcp_call"},{"type":"apply_patch_call"},{"type":"tool_search_call"},{"type":7}"#;
        const TEXT: &str = r#"{"type":"message","content":[{"type":"output_text","text":"\"file_search_call\""}]}"#;
        for (account, output, expected) in [
            (None, &[][..], (0, 0, false)),
            (None, &[SEARCH, OPEN, PLAIN, TEXT], (2, 0, false)),
            (None, &[FILES, FILES], (0, 2, false)),
            (None, &[TEXT], (0, 0, false)),
            (None, &[IMAGE], (0, 0, true)),
            (None, &[CODE, SEARCH], (1, 0, true)),
            (None, &[SHELL, ANSWERED], (0, 0, true)),
            (None, &[UNSAID], (0, 0, true)),
            (None, &[LOCAL], (0, 0, false)),
            (None, &[NEW, FILES], (0, 1, true)),
            (None, &[CLIENTS, TEXT], (0, 0, false)),
            (Some(r#"{"web_search":{"num_requests":0}}"#), &[SHELL], (0, 0, true)),
            // The account has the last word of what it accounts for.
            (Some(r#"{"web_search":{"num_requests":3}}"#), &[SEARCH, FILES], (3, 1, false)),
            (Some(r#"{"web_search":{"num_requests":0},"image_gen":{"output_tokens":0}}"#), &[IMAGE], (0, 0, false)),
            (Some(r#"{"image_gen":{"output_tokens":1056}}"#), &[IMAGE], (0, 0, true)),
            (Some(r#"{"new_tool":{"calls":1}}"#), &[], (0, 0, true)),
            (Some(r#"{"web_search":{"num_requests":1,"pages":2}}"#), &[], (1, 0, true)),
            (Some(r#"{"web_search":{"num_requests":1.5}}"#), &[], (0, 0, true)),
            (Some(r#"{"web_search":{"num_requests":-1}}"#), &[], (0, 0, true)),
            (Some(r#"{"web_search":7}"#), &[], (0, 0, true)),
            (Some("null"), &[], (0, 0, false)),
            (Some("[]"), &[], (0, 0, false)),
        ] {
            let output = format!("[{}]", output.join(","));
            assert_eq!(read(account, Some(&output)), expected, "{account:?} {output}");
        }
        let long = format!(r#"{{"web_search":{{"num_requests":1}},"x":"{}"}}"#, "0".repeat(ACCOUNT_BYTES_MAX));
        assert_eq!(read(Some(&long), None), (0, 0, true));
        assert_eq!(read(None, Some("{}")), (0, 0, false));
    }
}
