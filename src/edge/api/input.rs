//! Reads queries and bodies, strictly: what is unknown or there twice is refused by name, because a parameter that is
//! silently ignored is a wrong bill.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::domain::time::Micros;

use super::problem::Problem;

/// A request body. The largest honest one is under a kilobyte.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The whole body has to be there within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Characters of a client's own text in a sentence about it.
const ECHO_CHARS_MAX: usize = 64;

/// The parameters of a query, each at most once and each one that the route has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    values: BTreeMap<&'static str, String>,
}

impl Query {
    /// Reads `raw`. `key` may always be there: it is a credential, which was read before.
    pub fn parse(raw: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut values = BTreeMap::new();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| bad_query("The query is not percent-encoded UTF-8.".to_owned()))?;
            if name == "key" {
                continue;
            }
            let Some(known) = known.iter().find(|known| **known == name) else {
                return Err(bad_query(format!("Unknown query parameter {}. {}", echo(&name), has(known))));
            };
            let value = decode(value)
                .ok_or_else(|| Problem::parameter(known, format!("{known} is not percent-encoded UTF-8.")))?;
            if values.insert(*known, value).is_some() {
                return Err(Problem::parameter(known, format!("{known} is there twice. Send it once.")));
            }
        }
        Ok(Self { values })
    }

    /// Which page of a list in order: after which row (`cursor`), and how many rows (`limit`).
    pub(super) fn page(&self, rows: u32, rows_max: u32) -> Result<(i64, u32), Problem> {
        let after = self.get("cursor").map_or(Some(0), |cursor| cursor.parse::<i64>().ok());
        let after = after.filter(|row| *row >= 0);
        let limit = self.get("limit").map_or(Some(rows), |limit| limit.parse().ok());
        let limit = limit.filter(|limit| (1..=rows_max).contains(limit));
        Ok((
            after.ok_or_else(|| Problem::parameter("cursor", "cursor is the next_cursor of a page."))?,
            limit.ok_or_else(|| Problem::parameter("limit", format!("limit is a number from 1 to {rows_max}.")))?,
        ))
    }

    /// An instant that a parameter names.
    pub(super) fn instant(&self, name: &'static str) -> Result<Option<Micros>, Problem> {
        let parsed = self.get(name).map(str::parse::<Micros>).transpose();
        parsed.map_err(|error| Problem::parameter(name, format!("Bad {name}: {error}.")))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

fn bad_query(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail)
}

fn has(known: &[&str]) -> String {
    if known.is_empty() { "This route has none.".to_owned() } else { format!("This route has {}.", known.join(", ")) }
}

/// A client's text, made fit for a sentence.
fn echo(text: &str) -> String {
    format!("{:?}", text.chars().take(ECHO_CHARS_MAX).collect::<String>())
}

/// Percent-decoding (RFC 3986, 2.1). `+` stays: no parameter has a space, and times have a `+`.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
            bytes.push(high * 16 + low);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Reads a whole body as the JSON object `T`, which denies unknown fields. Its `Content-Type` is not looked at: every
/// route needs a credential, which a page that a browser's plain form is on does not know (`Live::knows_page`).
pub async fn read_json<T: DeserializeOwned>(body: Body, fields: &[&'static str]) -> Result<T, Problem> {
    parse_json(&read_body(body, BODY_BYTES_MAX).await?, fields)
}

/// Reads a whole body.
pub async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("The body is over the limit of {bytes_max} bytes.");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail))
        }
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "body_incomplete", "The body broke off.")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_incomplete", "The body came too slowly.")),
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &Bytes, fields: &[&'static str]) -> Result<T, Problem> {
    let error = match serde_json::from_slice(bytes) {
        // serde reads a struct from an array too; nobody documents that.
        Ok(_) if bytes.trim_ascii_start().first() != Some(&b'{') => return Err(not_an_object()),
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if error.classify() != Category::Data {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_json", "The body is not JSON."));
    }
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(not_an_object());
    }
    Err(about_field::<T>(bytes, fields, &error))
}

fn not_an_object() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", "The body is not a JSON object.")
}

/// Names the field that an error is about. serde names it itself only where it is missing, unknown or doubled; where a
/// value has the wrong type, each field is tried alone.
fn about_field<T: DeserializeOwned>(bytes: &[u8], fields: &[&'static str], error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let named = fields.iter().find(|field| text.contains(&format!(" field `{field}`")));
    if let Some(field) = named.filter(|_| text.starts_with("missing field")) {
        return Problem::body_field(field, format!("{field} is missing."));
    }
    if let Some(field) = named.filter(|_| text.starts_with("duplicate field")) {
        return Problem::body_field(field, format!("{field} is there twice. Send it once."));
    }
    let unprocessable = |detail| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", detail);
    let Ok(object) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(bytes) else {
        return unprocessable("A field has a value that cannot be used.".to_owned());
    };
    if let Some(unknown) = object.keys().find(|name| !fields.contains(&name.as_str())) {
        let detail = format!("Unknown field {}. The body takes {}.", echo(unknown), fields.join(", "));
        return unprocessable(detail);
    }
    let is_wrong = |field: &&&'static str| {
        let alone = object.get(**field).map(|value| format!("{{\"{field}\":{value}}}"));
        let error = alone.and_then(|alone| serde_json::from_str::<T>(&alone).err());
        error.is_some_and(|error| !error.to_string().starts_with("missing field"))
    };
    match fields.iter().find(is_wrong) {
        Some(field) => Problem::body_field(field, format!("{field} has a value of the wrong type.")),
        None => unprocessable("A field has a value of the wrong type.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Change {
        plan: String,
        #[serde(default)]
        suspended: Option<bool>,
    }

    const FIELDS: &[&str] = &["plan", "suspended"];

    #[test]
    fn a_query_has_each_known_parameter_once() {
        let check = |raw: &str| Query::parse(Some(raw), &["range", "date"]);
        let good = check("range=month&date=2026%2d11&key=tg_live_x&&").unwrap();
        assert_eq!((good.get("range"), good.get("date")), (Some("month"), Some("2026-11")));
        assert_eq!(check("date=a+b").unwrap().get("date"), Some("a+b"));
        for bad in
            ["range=day&range=day", "range=day&r%61nge=month", "rang=day", "range=%zz", "range=%ff", "%=1", "Range=day"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_body_is_an_object_of_known_fields_once() {
        let check = |text: &'static str| parse_json::<Change>(&Bytes::from_static(text.as_bytes()), FIELDS);
        assert_eq!(check(r#" {"plan":"pro"}"#), Ok(Change { plan: "pro".into(), suspended: None }));
        let told = |text| format!("{:?}", check(text).unwrap_err());
        for (text, status, words) in [
            (r#"{"plan":"a","plan":"b"}"#, "422", "plan is there twice"),
            (r#"{"plan":"a","admin":true}"#, "422", "Unknown field \\\"admin\\\". The body takes plan, suspended."),
            (r#"{"suspended":true}"#, "422", "plan is missing"),
            (r#"{"plan":5}"#, "422", "plan has a value of the wrong type"),
            (r#"{"plan":"a","suspended":"yes"}"#, "422", "suspended has a value of the wrong type"),
            (r#"["a",true]"#, "422", "not a JSON object"),
            ("null", "422", "not a JSON object"),
            ("{", "400", "not JSON"),
            ("", "400", "not JSON"),
            (r#"{"plan":"a"} x"#, "400", "not JSON"),
        ] {
            let told = told(text);
            assert!(told.contains(status) && told.contains(words), "{text}: {told}");
        }
    }
}
