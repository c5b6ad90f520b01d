//! A provider that speaks HTTP/2 over TLS, stream by stream as a test tells it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use super::front::{CERTIFICATE, KEY};

/// What becomes of a stream.
#[derive(Debug, Clone)]
pub enum Does {
    /// A whole answer, after the request was read.
    Answers(Vec<u8>),
    /// Events; each behind the first waits for one more [`Http2Provider::go_on`].
    Streams(Vec<Vec<u8>>),
    /// The same event at each [`Http2Provider::go_on`], until it is reset.
    NeverEnds(Vec<u8>),
    /// A reset in place of an answer.
    Resets(Reason),
    /// The first event, then the connection is closed under all its streams.
    Breaks(Vec<u8>),
    /// An answer, on a connection that takes no further stream.
    SaysGoAway(Vec<u8>),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Taken {
    pub head: http::HeaderMap,
    pub uri: http::Uri,
    pub body: Vec<u8>,
}

pub struct Http2Provider {
    pub port: u16,
    state: Arc<State>,
    _runtime: Runtime,
}

struct State {
    does: Mutex<Vec<Does>>,
    taken: Mutex<Vec<Taken>>,
    connections: AtomicUsize,
    resets: AtomicUsize,
    goes_on: watch::Sender<usize>,
    breaks: watch::Sender<usize>,
}

impl Http2Provider {
    /// Does one after the other, and the last for ever.
    pub fn start(does: &[Does]) -> Self {
        let state = Arc::new(State {
            does: Mutex::new(does.iter().rev().cloned().collect()),
            taken: Mutex::default(),
            connections: AtomicUsize::new(0),
            resets: AtomicUsize::new(0),
            goes_on: watch::Sender::new(0),
            breaks: watch::Sender::new(0),
        });
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (acceptor, shared) = (acceptor(), state.clone());
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), tcp, shared.clone()));
            }
        });
        Self { port, state, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    pub fn go_on(&self) {
        self.state.goes_on.send_modify(|times| *times += 1);
    }

    /// A stream that is to break does, and its connection with it.
    pub fn break_off(&self) {
        self.state.breaks.send_modify(|times| *times += 1);
    }

    pub fn taken(&self) -> Vec<Taken> {
        self.state.taken.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Streams that the gateway reset.
    pub fn resets(&self) -> usize {
        self.state.resets.load(Ordering::SeqCst)
    }
}

fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(acceptor: TlsAcceptor, tcp: TcpStream, state: Arc<State>) {
    let Ok(tls) = acceptor.accept(tcp).await else { return };
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let Ok(mut wire) = h2::server::handshake(tls).await else { return };
    state.connections.fetch_add(1, Ordering::SeqCst);
    let breaks = Arc::new(Notify::new());
    loop {
        let (request, answer) = tokio::select! {
            accepted = wire.accept() => match accepted {
                Some(Ok(stream)) => stream,
                _ => return,
            },
            () = breaks.notified() => return,
        };
        let does = {
            let mut all = state.does.lock().unwrap();
            if all.len() > 1 { all.pop().unwrap() } else { all[0].clone() }
        };
        if matches!(does, Does::SaysGoAway(_)) {
            wire.graceful_shutdown();
        }
        tokio::spawn(stream(request, answer, does, state.clone(), breaks.clone()));
    }
}

async fn stream(
    request: http::Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
    does: Does,
    state: Arc<State>,
    breaks: Arc<Notify>,
) {
    let (parts, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    if let Does::Resets(reason) = does {
        answer.send_reset(reason);
        return;
    }
    while let Some(Ok(piece)) = incoming.data().await {
        incoming.flow_control().release_capacity(piece.len()).unwrap();
        body.extend_from_slice(&piece);
    }
    state.taken.lock().unwrap().push(Taken { head: parts.headers, uri: parts.uri, body });
    let head = |content_type: &str| http::Response::builder().header("content-type", content_type).body(()).unwrap();
    match does {
        Does::Answers(body) | Does::SaysGoAway(body) => {
            let mut out = answer.send_response(head("application/json"), false).unwrap();
            out.send_data(body.into(), true).ok();
        }
        Does::Streams(events) => {
            let mut out = answer.send_response(head("text/event-stream"), false).unwrap();
            let mut times = state.goes_on.subscribe();
            for (at, event) in events.into_iter().enumerate() {
                tokio::select! {
                    _ = times.wait_for(|times| *times >= at) => out.send_data(event.into(), false).ok(),
                    _ = std::future::poll_fn(|cx| out.poll_reset(cx)) => {
                        state.resets.fetch_add(1, Ordering::SeqCst);
                        return;
                    }
                };
            }
            out.send_data(Bytes::new(), true).ok();
        }
        Does::NeverEnds(event) => {
            let mut out = answer.send_response(head("text/event-stream"), false).unwrap();
            let mut times = state.goes_on.subscribe();
            loop {
                tokio::select! {
                    _ = times.changed() => out.send_data(event.clone().into(), false).ok(),
                    _ = std::future::poll_fn(|cx| out.poll_reset(cx)) => break,
                };
            }
            state.resets.fetch_add(1, Ordering::SeqCst);
        }
        Does::Breaks(event) => {
            let mut out = answer.send_response(head("text/event-stream"), false).unwrap();
            out.send_data(event.into(), false).unwrap();
            let mut times = state.breaks.subscribe();
            drop(times.wait_for(|times| *times > 0).await);
            breaks.notify_one();
        }
        Does::Resets(_) => {}
    }
}
