//! Counts the tokens of the tools that a request offers, from what is known of how providers show them to their models.
//!
//! May use: the sibling `estimate` for names. OpenAI shows a tool as a line of its name and description and one of each
//! parameter; the constants are those of its cookbook (github.com/openai/openai-cookbook, How_to_count_tokens_with_tiktoken)
//! for gpt-4o and later. Gemini documents nothing: what is counted was measured on recorded calls.

use serde_json::Value;

use super::estimate::{family, is_of_google};

/// What frames one function of OpenAI's, its parameters together, each of them, and all functions together.
const PER_FUNCTION: u64 = 7;
const PER_PARAMETERS: u64 = 3;
const PER_PARAMETER: u64 = 3;
const PER_ENUM_ITEM: u64 = 3;
const PER_REQUEST: u64 = 12;

/// What gpt-4o is told once of tools that are strict, as measured on recorded responses.
const STRICT_OF_GPT_4O: u64 = 210;

/// What frames one declaration of Gemini's, as measured on recorded calls.
const PER_DECLARATION: u64 = 5;

/// Deeper schemas are not followed: bodies are refused before they are that deep.
const DEPTH_MAX: u32 = 128;

/// The tokens of `tools`, a member of a request. Tools that the provider runs itself have none here: what they show to the
/// model is known when it answers.
pub(super) fn tokens(tools: &[u8], model: &str, count: &impl Fn(&str) -> u64) -> u64 {
    let Ok(Value::Array(tools)) = serde_json::from_slice(tools) else { return 0 };
    let model = family(model);
    if is_of_google(model) {
        return tools.iter().map(|tool| of_gemini(tool, count)).fold(0, u64::saturating_add);
    }
    let functions: Vec<&Value> = tools.iter().filter_map(function).collect();
    if functions.is_empty() {
        return 0;
    }
    // Of responses alone, whose tools have their members beside their type.
    let is_strict = tools.iter().any(|tool| tool.get("strict") == Some(&Value::Bool(true)));
    let strict = if is_strict && model.starts_with("gpt-4o") { STRICT_OF_GPT_4O } else { 0 };
    let each = functions.iter().map(|function| of_openai(function, count)).fold(0, u64::saturating_add);
    each.saturating_add(PER_REQUEST + strict)
}

/// What the client runs: in an object of its own, with its members beside its type, or in the older form without a type.
fn function(tool: &Value) -> Option<&Value> {
    match tool.get("type").map(Value::as_str) {
        Some(Some("function" | "custom")) => Some(tool.get("function").or(tool.get("custom")).unwrap_or(tool)),
        None => Some(tool.get("function").unwrap_or(tool)),
        Some(_) => None,
    }
}

fn of_openai(function: &Value, count: &impl Fn(&str) -> u64) -> u64 {
    let line = format!("{}:{}", text(function, "name"), text(function, "description"));
    let parameters = function.get("parameters").map_or(0, |parameters| of_parameters(parameters, DEPTH_MAX, count));
    PER_FUNCTION.saturating_add(count(&line)).saturating_add(parameters)
}

fn of_parameters(schema: &Value, depth: u32, count: &impl Fn(&str) -> u64) -> u64 {
    let properties = schema.get("properties").and_then(Value::as_object).filter(|properties| !properties.is_empty());
    let Some(depth) = depth.checked_sub(1) else { return 0 };
    let own = properties.map_or(0, |properties| {
        let of_property = |(name, property): (&String, &Value)| {
            let line = format!("{name}:{}:{}", text(property, "type"), text(property, "description"));
            PER_PARAMETER.saturating_add(count(&line)).saturating_add(of_parameters(property, depth, count))
        };
        properties.iter().map(of_property).fold(PER_PARAMETERS, u64::saturating_add)
    });
    let items = schema.get("items").map_or(0, |items| of_parameters(items, depth, count));
    let is_one_of = schema.get("enum").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let enumerated = is_one_of.iter().filter_map(Value::as_str).map(|item| PER_ENUM_ITEM.saturating_add(count(item)));
    enumerated.fold(own.saturating_add(items), u64::saturating_add)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default().trim_end_matches('.')
}

fn of_gemini(tool: &Value, count: &impl Fn(&str) -> u64) -> u64 {
    // Behind the endpoint that speaks OpenAI's dialect a tool is a function.
    if tool.get("function").is_some() {
        return function(tool).map_or(0, |function| PER_DECLARATION.saturating_add(words(function, DEPTH_MAX, count)));
    }
    let declarations = tool.get("functionDeclarations").or(tool.get("function_declarations")).and_then(Value::as_array);
    let of_declaration = |declaration: &Value| PER_DECLARATION.saturating_add(words(declaration, DEPTH_MAX, count));
    declarations.map_or(0, |each| each.iter().map(of_declaration).fold(0, u64::saturating_add))
}

/// All names and values, without what holds them together.
fn words(value: &Value, depth: u32, count: &impl Fn(&str) -> u64) -> u64 {
    let Some(depth) = depth.checked_sub(1) else { return 0 };
    match value {
        Value::Null => 0,
        Value::String(text) => count(text),
        Value::Bool(_) | Value::Number(_) => count(&value.to_string()),
        Value::Array(values) => values.iter().map(|value| words(value, depth, count)).fold(0, u64::saturating_add),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| count(name).saturating_add(words(value, depth, count)))
            .fold(0, u64::saturating_add),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_words(text: &str) -> u64 {
        u64::try_from(text.split([' ', ':', '_']).filter(|word| !word.is_empty()).count()).unwrap()
    }

    #[test]
    fn tools_are_counted_as_the_cookbook_counts_them() {
        let check = |tools: &str, model: &str, expected: u64| {
            assert_eq!(tokens(tools.as_bytes(), model, &by_words), expected, "{tools} {model}");
        };
        check("[]", "gpt-4o", 0);
        check("null", "gpt-4o", 0);
        check(r#"[{"type":"web_search"}]"#, "gpt-4o", 0);
        let function = r#"{"name":"get_weather","description":"Says it.","parameters":{"type":"object","properties":{
            "city":{"type":"string","description":"Which one"},"unit":{"type":"string","enum":["c","f"]}}}}"#;
        let own = 7 + 4 + 3 + (3 + 4) + (3 + 2) + 2 * (3 + 1);
        check(&format!(r#"[{{"type":"function","function":{function}}}]"#), "gpt-4o", 12 + own);
        check(&format!("[{}]", function.replacen('{', r#"{"type":"function","#, 1)), "gpt-5", 12 + own);
        check(&format!("[{function},{function}]"), "gpt-3.5-turbo", 12 + 2 * own);
        let strict = function.replacen('{', r#"{"type":"function","strict":true,"#, 1);
        check(&format!("[{strict}]"), "gpt-4o-2024-08-06", 12 + own + 210);
        check(&format!("[{strict}]"), "gpt-5", 12 + own);
        check(
            r#"[{"functionDeclarations":[{"name":"a","parameters":{"type":"object","x":null}}]},{"googleSearch":{}}]"#,
            "gemini-2.5-pro",
            5 + 6,
        );
        check(r#"[{"type":"function","function":{"name":"a"}}]"#, "gemini-2.5-pro", 5 + 2);
        let deep = format!("[{}{}]", r#"{"parameters":"#.repeat(90), "1".to_owned() + &"}".repeat(90));
        assert!(tokens(deep.as_bytes(), "gpt-4o", &by_words) > 0);
    }
}
