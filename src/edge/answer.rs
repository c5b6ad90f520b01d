//! What the gateway says itself: refusals in the caller's dialect, and its own routes.

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use pingora_core::ErrorType;
use pingora_core::protocols::http::ServerSession;
use pingora_http::ResponseHeader;
use pingora_timeout::fast_timeout::fast_timeout;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, timeout};
use tower::ServiceExt;

use crate::domain::bound::Bound;
use crate::domain::refusal::Refusal;
use crate::metering::rates::RateRoom;
use crate::providers::{self, CredentialPlace};

use super::body;
use super::client_stream::ClientStream;
use super::exchange::{Asked, Fate, Gate, headers_of};
use super::headers;

/// A request body up to this is read before a refusal, so that the connection stays usable.
const READ_BEFORE_REFUSAL_BYTES: u64 = 256 * 1024;

/// After a refusal that closes the connection, what the client goes on sending is read and thrown away for so long.
const LINGER: Duration = Duration::from_secs(10);

/// And so much of it, where a request of HTTP/2 is refused and the connection stays.
const LINGER_BYTES_OF_HTTP2: u64 = 128 * 1024 * 1024;

/// A head goes out in so long, for which pingora has no limit. It is small: who does not take it takes none of what was
/// before it.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Bodies of the gateway's own routes are small.
const LOCAL_BODY_BYTES_MAX: u64 = 64 * 1024;

/// Whether the gateway answers this path itself.
pub fn is_local(path: &str) -> bool {
    path.starts_with("/billing/") || matches!(path, "/billing" | "/healthz" | "/readyz" | "/openapi.json")
}

/// Answers a request instead of the provider.
pub async fn refuse(gate: &Gate, session: &mut ServerSession, asked: &mut Asked<'_>, refusal: &Refusal) -> Fate {
    gate.meter.refused(refusal);
    gate.know_limits(asked).await;
    // The end of a chunked body that was refused is as doubtful as the body.
    let has_clear_end = asked.length.is_some() && !refusal.closes_connection() && !asked.expects_continue;
    let usable = has_clear_end && rest_is_read(session, asked).await;
    if !usable {
        session.set_keepalive(None);
    }
    let body = Bytes::from(asked.dialect.refusal_body(refusal));
    let written = match refusal_head(gate, asked, refusal, body.len()) {
        Some(head) => write_soon(gate, session, head, body).await,
        None => false,
    };
    if usable && written {
        return Fate::Reuse;
    }
    // Who came too slowly had its time.
    if !written || asked.expects_continue || matches!(refusal, Refusal::TooSlow(_)) {
        return Fate::Close;
    }
    if session.is_http2() {
        discard(session, asked, LINGER_BYTES_OF_HTTP2).await;
        return Fate::Close;
    }
    Fate::Linger
}

fn refusal_head(gate: &Gate, asked: &Asked<'_>, refusal: &Refusal, length: usize) -> Option<ResponseHeader> {
    let mut head = ResponseHeader::build(refusal.status(), Some(10)).ok()?;
    head.insert_header(header::CONTENT_TYPE, "application/json").ok()?;
    head.insert_header(header::CONTENT_LENGTH, length.to_string()).ok()?;
    if refusal.status() < 500 && refusal.retry_after_s().is_none() {
        // The official OpenAI clients retry by this header; the same request can only be refused again.
        head.insert_header("x-should-retry", "false").ok()?;
    }
    if let Some(seconds) = refusal.retry_after_s() {
        head.insert_header(header::RETRY_AFTER, seconds.to_string()).ok()?;
    }
    match refusal {
        Refusal::MethodNotAllowed { allow } => head.insert_header(header::ALLOW, allow.as_str()).ok()?,
        Refusal::NoUpgrade => {
            head.insert_header(header::UPGRADE, "websocket").ok()?;
            head.insert_header(header::SEC_WEBSOCKET_VERSION, "13").ok()?;
        }
        Refusal::NoKey | Refusal::BadKey | Refusal::BadUpload => {
            head.insert_header(header::WWW_AUTHENTICATE, "Bearer").ok()?
        }
        _ => {}
    }
    let id = asked.id.clone().unwrap_or_else(|| gate.meter.request_id());
    let full = RateRoom::of_refusal(refusal);
    headers::add_ours(&mut head, &id, (&asked.limits, full.as_slice()), gate.meter.now())?;
    Some(head)
}

/// Answers one of the gateway's own routes through the same router that the admin listener serves.
pub async fn local(gate: &Gate, session: &mut ServerSession, asked: &mut Asked<'_>) -> Result<Fate, Refusal> {
    gate.expect_body(session, asked, LOCAL_BODY_BYTES_MAX).await?;
    let whole = body::read_whole(session, asked, (&gate.local_budget, LOCAL_BODY_BYTES_MAX)).await?;
    let uri = session.req_header().uri.clone();
    let mut request = Request::new(axum::body::Body::from(whole.bytes));
    *request.method_mut() = asked.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers_of(session).clone();
    let guest = asked.live.guest(asked.peer, request.headers());
    request.extensions_mut().insert(guest);
    let Ok(response) = gate.local.clone().oneshot(request).await;
    let (parts, body) = response.into_parts();
    let status = parts.status;
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(Refusal::CountersDown),
    };
    let head = headers::to_client(&parts, false).and_then(|mut head| {
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string()).ok()?;
        headers::add_ours(&mut head, &gate.meter.request_id(), (&[], &[]), gate.meter.now())?;
        Some(head)
    });
    let bodyless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    let written = match head {
        Some(head) => write(gate, session, head, if bodyless { Bytes::new() } else { body }).await,
        None => false,
    };
    Ok(if written { Fate::Reuse } else { Fate::Close })
}

/// Says what is wrong with a head that no session may see, and ends the connection.
pub async fn refuse_head(gate: &Gate, client: &mut ClientStream, refusal: &Refusal, write_timeout: Duration) {
    gate.meter.refused(refusal);
    let dialect = providers::dialect_of(client.path_of_head(), CredentialPlace::None);
    let (body, id) = (dialect.refusal_body(refusal), gate.meter.request_id());
    let reason = StatusCode::from_u16(refusal.status()).ok().and_then(|status| status.canonical_reason());
    let retry = match refusal.retry_after_s() {
        Some(seconds) => format!("retry-after: {seconds}"),
        None => "x-should-retry: false".to_owned(),
    };
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{retry}\r\n{}: {id}\r\n{}: {id}\r\n",
        refusal.status(),
        reason.unwrap_or_default(),
        body.len(),
        headers::OUR_REQUEST_ID,
        headers::REQUEST_ID,
    );
    if let Refusal::MethodNotAllowed { allow } = refusal {
        bytes.push_str("allow: ");
        bytes.push_str(allow);
        bytes.push_str("\r\n");
    }
    bytes.push_str("connection: close\r\n\r\n");
    bytes.push_str(&body);
    let sent = async {
        client.write_all(bytes.as_bytes()).await?;
        client.flush().await
    };
    // Who came too slowly had its time.
    if matches!(timeout(write_timeout, sent).await, Ok(Ok(()))) && !matches!(refusal, Refusal::TooSlow(_)) {
        timeout(LINGER, client.linger()).await.unwrap_or_default();
    }
}

/// Ends a connection whose client was refused and may still send.
pub async fn linger(mut client: Box<ClientStream>) {
    timeout(LINGER, client.linger()).await.unwrap_or_default();
}

/// Says what is wrong with a head of HTTP/2, and ends its stream.
pub async fn reject_head(gate: &Gate, session: &mut ServerSession, refusal: &Refusal) {
    gate.meter.refused(refusal);
    let body = Bytes::from(format!("{refusal}\n"));
    let head = ResponseHeader::build(refusal.status(), Some(4)).ok().and_then(|mut head| {
        head.insert_header(header::CONTENT_TYPE, "text/plain; charset=utf-8").ok()?;
        head.insert_header(header::CONTENT_LENGTH, body.len().to_string()).ok()?;
        Some(head)
    });
    session.set_keepalive(None);
    if let Some(head) = head {
        write_soon(gate, session, head, body).await;
    }
}

/// Whether the client took it in the time of a head. A refusal is as small; and meanwhile nobody reads what came of the
/// request, which over HTTP/2 lies in the window of its stream.
async fn write_soon(gate: &Gate, session: &mut ServerSession, head: ResponseHeader, body: Bytes) -> bool {
    match fast_timeout(HEAD_TIME, write(gate, session, head, body)).await {
        Ok(written) => written,
        Err(_) => {
            gate.meter.cut(Bound::AnswerPace);
            false
        }
    }
}

/// Whether the client took it; one that did not in time has met a bound.
async fn write(gate: &Gate, session: &mut ServerSession, head: ResponseHeader, body: Bytes) -> bool {
    // RFC 9110, 9.3.2: an answer to HEAD has none. In HTTP/2 nobody below sees to that.
    let body = if session.req_header().method == Method::HEAD { Bytes::new() } else { body };
    let is_late = match fast_timeout(HEAD_TIME, session.write_response_header(Box::new(head))).await {
        Ok(Ok(())) => match session.write_response_body(body, true).await {
            Ok(()) => return true,
            Err(error) => *error.etype() == ErrorType::WriteTimedout,
        },
        Ok(Err(_)) => false,
        Err(_) => true,
    };
    if is_late {
        gate.meter.cut(Bound::AnswerPace);
    }
    false
}

async fn rest_is_read(session: &mut ServerSession, asked: &mut Asked<'_>) -> bool {
    if session.is_body_done() {
        return true;
    }
    let small = asked.length.is_some_and(|length| length <= READ_BEFORE_REFUSAL_BYTES);
    small && discard(session, asked, READ_BEFORE_REFUSAL_BYTES).await
}

/// Reads and throws away the rest of a request body; whether it came to its end.
async fn discard(session: &mut ServerSession, asked: &mut Asked<'_>, bytes_max: u64) -> bool {
    let read = async {
        let mut left = bytes_max;
        while let Some(piece) = body::read_piece(session, &mut asked.intake).await? {
            left = left.checked_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX)).ok_or(Refusal::BodyIncomplete)?;
        }
        Ok::<(), Refusal>(())
    };
    matches!(timeout(LINGER, read).await, Ok(Ok(())))
}
