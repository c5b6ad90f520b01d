//! Changes that are asked for with an `Idempotency-Key`: reading the header, and giving an answer again as it was.
//!
//! The header is that of draft-ietf-httpapi-idempotency-key-header: a structured-field string (`"8e03978e-…"`, RFC 8941,
//! 3.3.3). The same characters without quotes, as most clients send them, are the same key. It counts on POST; PATCH and
//! DELETE say how a thing shall be, so that doing them twice is doing them once. What of it is kept, and how, is decided
//! in [`crate::metering::once`].
//!
//! A first answer and a later one are the same bytes; a later one has `Idempotent-Replayed: true` beside them. A request
//! that is tried again while the first is at work waits for it, no longer than the ledger may take for any answer.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};

use crate::domain::audit::Author;
use crate::metering::admin::AdminError;
use crate::metering::once::{Kept, Once};

use super::identity::Caller;
use super::problem::{IDEMPOTENCY_KEY, Problem};
use super::{ApiState, within};

/// Characters of an idempotency key: what others who document a limit allow.
pub const KEY_CHARS_MAX: usize = 255;

/// Characters of a caller's own request id that go to the audit log; longer ones and those with others are left out.
const REQUEST_ID_CHARS_MAX: usize = 128;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The header's place in the OpenAPI document.
pub struct IdempotencyKey;

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = "Makes the request safe to try again: with the same key and body it is done once and answered the \
                    same for 24 hours; with another body it is refused with 422. Refusals are not remembered. A string \
                    of 1 to 255 visible ASCII characters, quoted or not; it belongs to the caller's key and the path.";
        let text_schema = ObjectBuilder::new().schema_type(Type::String);
        let parameter = ParameterBuilder::new()
            .name(IDEMPOTENCY_KEY)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(text_schema))
            .example(Some(serde_json::json!("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"")));
        vec![parameter.build()]
    }
}

/// A change that somebody asks for: by whom, and whether to be done once.
pub struct Ask {
    /// Who asks.
    pub author: Author,
    caller: Caller,
    route: String,
    key: Option<String>,
}

/// A whole answer to a change, as it is sent and as it is kept.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    body: String,
}

/// Who makes a change.
pub fn author(caller: Caller, headers: &HeaderMap) -> Author {
    let fits = |id: &&str| (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let id = headers.get("x-request-id").and_then(|value| value.to_str().ok()).filter(fits);
    Author { request_id: id.map(str::to_owned), ..caller.author }
}

impl Ask {
    /// Reads what the headers of a request to `route` say. The route is a method and a path with its ids, written in one
    /// way however the request wrote it.
    pub fn read(caller: Caller, headers: &HeaderMap, route: impl Into<String>) -> Result<Self, Problem> {
        let key = key(headers)?;
        Ok(Self { author: author(caller.clone(), headers), caller, route: route.into(), key })
    }

    /// What the request is remembered by, if it is to be done once. `body` was read from it: spaces and the order of
    /// fields make no difference.
    pub fn once(&self, body: &impl Serialize) -> Result<Option<Once>, Problem> {
        let Some(key) = &self.key else { return Ok(None) };
        let body = serde_json::to_string(body).map_err(|error| unwritable(&error))?;
        let secret = self.caller.secret.expose_secret();
        Ok(Some(Once::new(secret, &self.route, key, body.as_bytes())?))
    }
}

impl Answer {
    /// 200.
    pub fn ok(body: &impl Serialize) -> Self {
        Self { status: StatusCode::OK.as_u16(), location: None, body: json(body) }
    }

    /// 201, and where it is.
    pub fn created(location: String, body: &impl Serialize) -> Self {
        Self { status: StatusCode::CREATED.as_u16(), location: Some(location), body: json(body) }
    }

    /// The answer as it is kept.
    pub fn pack(&self) -> Kept {
        Kept(json(self).into_bytes())
    }

    fn unpack(kept: &Kept) -> Option<Self> {
        serde_json::from_slice(&kept.0).ok()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Self { status, location, body } = self;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
            headers.insert(LOCATION, location);
        }
        response
    }
}

/// Waits for a change and answers: with `answer` if it was made now, or as it was answered before.
pub async fn told<T>(
    state: &ApiState,
    change: impl Future<Output = Result<T, AdminError>>,
    answer: impl Fn(&T) -> Answer,
) -> Result<Response, Problem> {
    let work = async {
        match change.await {
            Ok(done) => Ok(answer(&done).into_response()),
            Err(AdminError::DoneBefore(kept)) => match Answer::unpack(&kept) {
                Some(answer) => Ok(([(REPLAYED, "true")], answer).into_response()),
                None => Err(AdminError::DoneBefore(kept)),
            },
            Err(error) => Err(error),
        }
    };
    within(state, work).await
}

/// A value of ours as JSON. None of them can fail to be written.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| {
        tracing::error!(%error, "An answer could not be written as JSON.");
        String::new()
    })
}

fn unwritable(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "A body could not be written as JSON again.");
    Problem::internal()
}

/// The idempotency key of a request.
fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::header(IDEMPOTENCY_KEY, format!("{IDEMPOTENCY_KEY} is there twice. Send it once.")));
    }
    let text = value.to_str().ok().map(str::trim).and_then(|text| match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"'),
        None => Some(text),
    });
    // Neither a quote nor a backslash inside, so that the quoted and the plain form are never two keys; neither a comma
    // nor a semicolon, which would begin another value or its parameters.
    let is_part = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';');
    let fits = |text: &&str| (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(is_part);
    let key = text.filter(fits).map(str::to_owned);
    let wrong = || {
        let detail = format!(
            "{IDEMPOTENCY_KEY} is a string of 1 to {KEY_CHARS_MAX} visible ASCII characters other than quote, backslash, \
             comma and semicolon, such as \"8e03978e-40d5-43dd-bc93-6894a57f9324\"."
        );
        Problem::header(IDEMPOTENCY_KEY, detail)
    };
    key.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Option<String>, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
        }
        key(&headers)
    }

    #[test]
    fn a_key_is_one_bounded_string_quoted_or_not() {
        let longest = "k".repeat(KEY_CHARS_MAX);
        for (value, key) in [
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            ("8e03978e-40d5", "8e03978e-40d5"),
            ("a/b:c=d", "a/b:c=d"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(read(&[value]), Ok(Some(key.to_owned())), "{value}");
        }
        assert_eq!(read(&[]), Ok(None));
        let too_long = "k".repeat(KEY_CHARS_MAX + 1);
        for bad in ["", "\"\"", "\"", "\"a", "a\"", "a b", "\"a b\"", "a,b", "\"a\";p=1", "a\\b", "ä", &too_long] {
            let problem = format!("{:?}", read(&[bad]).unwrap_err());
            assert!(problem.contains("400") && problem.contains("Idempotency-Key"), "{bad}: {problem}");
        }
        assert!(read(&["a", "a"]).is_err());
    }

    #[test]
    fn an_answer_survives_being_kept() {
        let answers = [
            Answer::ok(&serde_json::json!({"text": "ä\n\"", "cost": 1})),
            Answer::created("/admin/tenants/acme".to_owned(), &serde_json::json!({})),
        ];
        for answer in answers {
            assert_eq!(Answer::unpack(&answer.pack()), Some(answer));
        }
    }
}
