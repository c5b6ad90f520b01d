//! A client of HTTP/2 whose streams a test can open, reset and leave unread one by one.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::front::Terms;
use super::wire::{Answer, READ_TIMEOUT, Request};

/// One connection. Its frames are moved by a thread of its own; dropping it closes it.
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// One stream, of which the head of the request is out.
pub struct Stream<'a> {
    runtime: &'a Runtime,
    response: Option<ResponseFuture>,
    pub body: SendStream<Bytes>,
    answer: Option<RecvStream>,
}

impl Http2 {
    /// By prior knowledge, in the clear.
    pub fn open(to: SocketAddr) -> Self {
        Self::try_open(to).expect("HTTP/2 is spoken")
    }

    pub fn try_open(to: SocketAddr) -> Result<Self, h2::Error> {
        let runtime = runtime();
        let tcp = runtime.block_on(TcpStream::connect(to)).unwrap();
        Self::over(runtime, tcp)
    }

    /// Over TLS, if the gateway agrees.
    pub fn open_tls(to: SocketAddr) -> Self {
        let runtime = runtime();
        let terms = Terms { speaks: &["h2", "http/1.1"], ..Terms::default() };
        let tls = runtime.block_on(async {
            let tcp = TcpStream::connect(to).await.unwrap();
            TlsConnector::from(terms.client()).connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
        });
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(runtime, tls).unwrap()
    }

    fn over(runtime: Runtime, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, h2::Error> {
        let mut builder = h2::client::Builder::new();
        // A test of resets is to meet the bounds of the gateway, not its own.
        builder.max_concurrent_reset_streams(10_000).initial_max_send_streams(100);
        // As clients have it: one stream that is not read leaves room for others.
        builder.initial_connection_window_size(1 << 20);
        let (sender, connection) = runtime.block_on(builder.handshake(io))?;
        let connection = runtime.spawn(connection);
        Ok(Self { runtime, sender, connection })
    }

    /// Opens a stream with a request's head; what is to follow it is the caller's business unless it is `over`.
    pub fn begin(&mut self, request: &Request, over: bool) -> Result<Stream<'_>, h2::Error> {
        let mut head = http::Request::builder()
            .method(request.method)
            .uri(format!("https://gateway.test{}", request.target))
            .version(http::Version::HTTP_2);
        for (name, value) in &request.headers {
            head = head.header(name.to_ascii_lowercase(), value);
        }
        self.begin_with(head.body(()).unwrap(), over)
    }

    pub fn begin_with(&mut self, head: http::Request<()>, over: bool) -> Result<Stream<'_>, h2::Error> {
        let sender = self.sender.clone();
        let mut sender = self.runtime.block_on(within(sender.ready()))?;
        let (response, body) = sender.send_request(head, over)?;
        Ok(Stream { runtime: &self.runtime, response: Some(response), body, answer: None })
    }

    /// Sends a request, with its length where there is a body.
    pub fn send(&mut self, request: &Request) -> Result<Stream<'_>, h2::Error> {
        let mut request = request.clone();
        let body = request.body.take();
        if let Some(body) = &body {
            request = request.header("content-length", body.len().to_string());
        }
        let mut stream = self.begin(&request, body.is_none())?;
        if let Some(body) = body {
            stream.write(body, true)?;
        }
        Ok(stream)
    }

    pub fn ask(&mut self, request: &Request) -> Answer {
        self.send(request).unwrap().answer().unwrap()
    }

    /// All at once, on one connection.
    pub fn ask_all(&mut self, requests: &[Request]) -> Vec<Answer> {
        let sender = self.sender.clone();
        let asked = requests.iter().map(|request| {
            let mut head =
                http::Request::builder().method(request.method).uri(format!("https://gateway.test{}", request.target));
            for (name, value) in &request.headers {
                head = head.header(name.to_ascii_lowercase(), value);
            }
            let (head, body) = (head.body(()).unwrap(), request.body.clone().unwrap_or_default());
            let sender = sender.clone();
            self.runtime.spawn(async move {
                let (response, mut stream) = sender.ready().await.unwrap().send_request(head, false).unwrap();
                stream.send_data(body.into(), true).unwrap();
                whole(response.await.unwrap()).await.unwrap()
            })
        });
        let asked: Vec<_> = asked.collect();
        asked.into_iter().map(|task| self.runtime.block_on(within(task)).unwrap()).collect()
    }

    /// How the connection ended, once it has.
    pub fn end(&mut self) -> Result<(), h2::Error> {
        self.runtime.block_on(within(&mut self.connection)).unwrap()
    }

    pub fn is_open(&self) -> bool {
        !self.connection.is_finished()
    }

    /// Closes the connection as it is.
    pub fn cut(self) {
        self.connection.abort();
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

impl Stream<'_> {
    /// Sends a piece of the body, as the peer takes it.
    pub fn write(&mut self, bytes: impl Into<Bytes>, over: bool) -> Result<(), h2::Error> {
        let (mut bytes, body) = (bytes.into(), &mut self.body);
        self.runtime.block_on(within(async {
            while !bytes.is_empty() {
                body.reserve_capacity(bytes.len());
                let capacity = poll_fn(|cx| body.poll_capacity(cx)).await.ok_or(Reason::STREAM_CLOSED)??;
                let piece = bytes.split_to(capacity.min(bytes.len()));
                body.send_data(piece, bytes.is_empty() && over)?;
            }
            Ok(())
        }))
    }

    pub fn reset(mut self) {
        self.body.send_reset(Reason::CANCEL);
    }

    /// The head of the answer, after which [`Stream::piece`] gives its body.
    pub fn head(&mut self) -> Result<http::response::Parts, h2::Error> {
        let response = self.response.take().expect("a head is taken once");
        let (head, body) = self.runtime.block_on(within(response))?.into_parts();
        self.answer = Some(body);
        Ok(head)
    }

    /// What comes next of the body; `None` at its end.
    pub fn piece(&mut self) -> Result<Option<Bytes>, h2::Error> {
        let answer = self.answer.as_mut().expect("the head comes first");
        self.runtime.block_on(within(async {
            while let Some(piece) = answer.data().await.transpose()? {
                answer.flow_control().release_capacity(piece.len())?;
                // An end may come in a frame of its own.
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
            }
            Ok(None)
        }))
    }

    pub fn trailers(&mut self) -> Result<Option<http::HeaderMap>, h2::Error> {
        let answer = self.answer.as_mut().expect("the head comes first");
        self.runtime.block_on(within(answer.trailers()))
    }

    pub fn answer(mut self) -> Result<Answer, h2::Error> {
        let response = self.response.take().expect("a head is taken once");
        self.runtime.block_on(within(async { whole(response.await?).await }))
    }
}

async fn whole(response: http::Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let (mut body, mut whole) = (Vec::new(), true);
    while let Some(piece) = stream.data().await {
        match piece {
            Ok(piece) => {
                stream.flow_control().release_capacity(piece.len())?;
                body.extend_from_slice(&piece);
            }
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    Ok(Answer { status: head.status.as_u16(), headers, body, whole })
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(READ_TIMEOUT, future).await.expect("something comes in time")
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}
