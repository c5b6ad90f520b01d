//! Requests whose body streams: what is not billed, and forms that are.

use bytes::{Bytes, BytesMut};
use http::Method;
use http::header::{self, HeaderMap};
use pingora_core::protocols::http::ServerSession;
use tokio::sync::mpsc;

use crate::domain::refusal::Refusal;
use crate::domain::settlement::Ending;
use crate::metering::in_flight::Caller;
use crate::providers::{BodyRule, Endpoint, FormReader, Provider, Reads};

use super::auth::Presented;
use super::body;
use super::exchange::{Asked, Fate, Gate, Live, Origin, headers_of, refusal_of, unanswered};
use super::headers::{self, Coding};
use super::relay::Meters;
use super::upstream::{Answer, Outgoing, SendError};
use super::watch::Watch;

/// Pieces of a streamed request body that wait for the provider: one on its way while the next is read.
const STREAMED_PIECES_MAX: usize = 1;

/// A form is admitted when its model is known, or when so much of it was read: the model may stand behind a file.
const FORM_BEGIN_BYTES_MAX: usize = 64 * 1024;

/// Why a streamed request has no answer.
enum Stopped {
    /// Its body ended too early or is wrong.
    ByClient(Refusal),
    /// The provider gave none.
    ByProvider(SendError),
}

/// The reader for a request's form, if its endpoint takes one and it is one.
pub(super) fn form_of(session: &ServerSession, endpoint: &Endpoint) -> Option<FormReader> {
    let content_type = headers_of(session).get(header::CONTENT_TYPE)?.to_str().ok()?;
    (endpoint.body == BodyRule::Form).then(|| FormReader::new(content_type)).flatten()
}

impl Gate {
    /// Unbilled routes: the same way as the line without a meter, and without holding the body. `presented` is the
    /// client's credential; `change` may change the headers of the answer.
    pub(super) async fn pass_through(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        presented: &str,
        (origin, endpoint): (&Origin, &Endpoint),
        change: impl FnOnce(&mut HeaderMap),
    ) -> Result<Fate, Refusal> {
        self.know_limits(asked).await;
        asked.id = Some(self.meter.request_id());
        let Live { settings, budget, .. } = asked.live;
        self.expect_body(session, asked, settings.upload_limit).await?;
        let target = (origin, asked.dialect, endpoint);
        if asked.method == Method::DELETE && endpoint.reads != Reads::Nothing {
            self.bill_before_it_goes(asked.dialect, &endpoint.path).await;
        }
        // What tells of units has to be read on its way.
        let coding = if endpoint.reads == Reads::Nothing { Coding::AsAsked } else { Coding::GzipIfAccepted };
        let out = headers::to_provider(headers_of(session), presented, coding);
        let reserved = body::Reserved::default();
        match asked.length {
            Some(left) if left > 0 => {
                let (sender, pieces) = mpsc::channel(STREAMED_PIECES_MAX);
                let request = self.request(asked, out, target, Outgoing::Streamed { pieces, left })?;
                let send = origin.upstream.send(request, || ());
                let answer = send_while_reading(session, &sender, |_| Ok(()), send).await;
                let mut answer = answer.map_err(|stopped| match stopped {
                    Stopped::ByClient(refusal) => refusal,
                    Stopped::ByProvider(error) => refusal_of(error).0,
                })?;
                change(&mut answer.head.headers);
                // The sender lives until the answer is through: an answer may come before the end of the request.
                let meters = self.meters(asked.dialect, endpoint, &answer);
                let fate = self.relay(session, asked, meters, answer, reserved).await;
                drop(sender);
                Ok(fate)
            }
            _ => {
                let whole = body::read_whole(session, asked.length, settings.body_limit, budget).await?;
                let outgoing = Outgoing::Whole(Some(whole.bytes).filter(|bytes| !bytes.is_empty()));
                let request = self.request(asked, out, target, outgoing)?;
                let mut answer = origin.upstream.send(request, || ()).await.map_err(|error| refusal_of(error).0)?;
                change(&mut answer.head.headers);
                let meters = self.meters(asked.dialect, endpoint, &answer);
                Ok(self.relay(session, asked, meters, answer, whole.reserved).await)
            }
        }
    }

    /// What is deleted may not be billed yet. Its name is its path behind the version.
    async fn bill_before_it_goes(&self, provider: &'static dyn Provider, path: &str) {
        let name = path.trim_start_matches('/').split_once('/').and_then(|(_, name)| name.parse().ok());
        if let Some(name) = name {
            self.deferred.before_it_goes(provider.id(), name).await;
        }
    }

    /// Who looks at an answer that nobody pays for.
    fn meters(&self, provider: &'static dyn Provider, endpoint: &Endpoint, answer: &Answer) -> Meters {
        Watch::of(&self.deferred, provider, endpoint, &answer.head).map_or(Meters::Nobody, Meters::Later)
    }

    /// The line for a form: what admission needs is read from its begin, the rest streams and is looked at on its way.
    pub(super) async fn line_of_form(
        &self,
        session: &mut ServerSession,
        asked: &mut Asked<'_>,
        (caller, presented): (Caller, &Presented),
        (origin, provider, endpoint): (&Origin, &'static dyn Provider, Endpoint),
        mut form: FormReader,
    ) -> Result<Fate, Refusal> {
        let Live { settings, budget, .. } = asked.live;
        // One that does not say how long it is has to be held.
        let limit = if asked.length.is_some() { settings.upload_limit } else { settings.body_limit };
        self.expect_body(session, asked, limit).await?;
        let (begin, reserved) = match asked.length {
            Some(_) => (read_begin(session, &mut form).await?, body::Reserved::default()),
            None => {
                let whole = body::read_whole(session, None, limit, budget).await?;
                form.feed(&whole.bytes)?;
                (whole.bytes, whole.reserved)
            }
        };
        let begun = u64::try_from(begin.len()).unwrap_or(u64::MAX);
        let length = asked.length.unwrap_or(begun);
        if begun == length && form.model().is_none() && endpoint.reads == Reads::Transcript {
            return Err(Refusal::BadJson { reason: "model is missing" });
        }
        let call = form.call(length);
        let out = headers::to_provider(headers_of(session), &presented.secret, Coding::GzipIfAccepted);
        let (sender, pieces) = mpsc::channel(STREAMED_PIECES_MAX);
        let outgoing = Outgoing::Streamed { pieces, left: length };
        let request = self.request(asked, out, (origin, provider, &endpoint), outgoing)?;
        let mut in_flight = self.meter.admit(caller, provider, endpoint, call).await?;
        asked.id = in_flight.id().map(|id| id.to_string());
        asked.limits = in_flight.limits().to_vec();
        self.know_limits(asked).await;
        // There is room for one.
        if !begin.is_empty() && sender.send(begin).await.is_err() {
            return Err(Refusal::BodyIncomplete);
        }
        let send = origin.upstream.send(request, || in_flight.sending());
        let answer = send_while_reading(session, &sender, |piece| form.feed(piece), send).await;
        in_flight.asks_for(form.model());
        match answer {
            Ok(answer) => {
                let fate = self.relay(session, asked, Meters::Call(in_flight), answer, reserved).await;
                drop(sender);
                Ok(fate)
            }
            Err(Stopped::ByProvider(error)) => Err(unanswered(in_flight, error).await),
            Err(Stopped::ByClient(refusal)) => {
                // No provider answers, and so none bills, a request that broke off.
                in_flight.settle_unanswered(Ending::BrokeOff, refusal.status()).await;
                Err(refusal)
            }
        }
    }
}

/// Reads a form until it is known or long.
async fn read_begin(session: &mut ServerSession, form: &mut FormReader) -> Result<Bytes, Refusal> {
    let mut begin = BytesMut::new();
    while !form.is_known() && begin.len() < FORM_BEGIN_BYTES_MAX {
        let Some(piece) = body::read_piece(session).await? else { break };
        form.feed(&piece)?;
        begin.extend_from_slice(&piece);
    }
    Ok(begin.freeze())
}

/// Sends a request while its body still comes in; `see` is shown each piece before it goes on.
async fn send_while_reading(
    session: &mut ServerSession,
    sender: &mpsc::Sender<Bytes>,
    mut see: impl FnMut(&[u8]) -> Result<(), Refusal>,
    send: impl Future<Output = Result<Answer, SendError>>,
) -> Result<Answer, Stopped> {
    let pump = async {
        while let Some(piece) = body::read_piece(session).await? {
            see(&piece)?;
            if sender.send(piece).await.is_err() {
                break;
            }
        }
        Ok::<(), Refusal>(())
    };
    let (mut send, mut pump) = (std::pin::pin!(send), std::pin::pin!(pump));
    let mut reading = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut send => return answer.map_err(Stopped::ByProvider),
            read = &mut pump, if reading => {
                read.map_err(Stopped::ByClient)?;
                reading = false;
            }
        }
    }
}
