//! The bytes of one client connection, as pingora's HTTP session reads and writes them.
//!
//! pingora's own stream either writes head and body in two system calls or keeps 64 KB for reading. This one gathers
//! small writes until they are flushed and keeps 2 KB. It also lets the listener wait for the first byte of a request
//! without starting the clock for the head.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::socket::Socket;

/// Writes are gathered up to this size; larger ones go out directly.
const GATHER_BYTES_MAX: usize = 16 * 1024;

/// The first read of a request. Most heads with their JSON fit; a longer one is read on by pingora.
const FIRST_READ_BYTES: usize = 2 * 1024;

/// What a client that knows HTTP/2 sends first (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One client connection.
pub struct ClientStream {
    wire: Wire,
    /// Bytes that were read while waiting for a request, from `taken` on.
    first: Vec<u8>,
    taken: usize,
    /// Bytes that wait for a flush, from `written` on.
    out: Vec<u8>,
    written: usize,
}

/// What carries the bytes.
pub type Wire = Socket<TlsStream<TcpStream>>;

impl ClientStream {
    /// Takes over a connection that may carry requests.
    pub fn new(wire: Wire) -> Self {
        Self { wire, first: Vec::new(), taken: 0, out: Vec::new(), written: 0 }
    }

    /// Whether it is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.wire, Wire::Tls(_))
    }

    /// Whether the handshake ended in HTTP/2.
    pub fn agreed_on_http2(&self) -> bool {
        matches!(&self.wire, Wire::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// Whether the bytes that come first, of which there are some, are the preface of HTTP/2. Reads as many as that needs
    /// and keeps them.
    pub async fn begins_with_preface(&mut self) -> io::Result<bool> {
        while self.first.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&self.first) {
            let missing = HTTP2_PREFACE.len() - self.first.len();
            if (&mut self.wire).take(missing as u64).read_buf(&mut self.first).await? == 0 {
                return Ok(false);
            }
        }
        Ok(self.first.starts_with(HTTP2_PREFACE))
    }

    /// Waits for the first bytes of a request. `false` when the client has closed instead.
    pub async fn wait_for_request(&mut self) -> io::Result<bool> {
        if self.taken < self.first.len() {
            return Ok(true);
        }
        self.first.clear();
        self.taken = 0;
        self.first.reserve_exact(FIRST_READ_BYTES);
        Ok((&mut self.wire).take(FIRST_READ_BYTES as u64).read_buf(&mut self.first).await? > 0)
    }

    /// Whether the client is known to have closed its side. Looks at what the kernel has told already and waits for
    /// nothing.
    pub async fn has_left(&self) -> bool {
        match &self.wire {
            Wire::Plain(tcp) => {
                let mut byte = [0];
                poll_fn(|cx| {
                    let peeked = tcp.poll_peek(cx, &mut ReadBuf::new(&mut byte));
                    Poll::Ready(matches!(peeked, Poll::Ready(Ok(0) | Err(_))))
                })
                .await
            }
            // Before the end of the connection lies the record that says so: it cannot be told by a peek.
            Wire::Tls(tls) => {
                let mut ready = std::pin::pin!(tls.get_ref().0.ready(Interest::READABLE));
                poll_fn(|cx| {
                    let told = ready.as_mut().poll(cx);
                    Poll::Ready(matches!(told, Poll::Ready(Ok(ready)) if ready.is_read_closed()))
                })
                .await
            }
        }
    }

    /// Says over TLS that nothing more comes, if that can be said at once; a plain connection says it by its end.
    pub async fn say_end(&mut self) {
        if let Wire::Tls(tls) = &mut self.wire {
            poll_fn(|cx| Poll::Ready(Pin::new(&mut **tls).poll_shutdown(cx).is_ready())).await;
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.written += sent,
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match this.first.get(this.taken..).filter(|rest| !rest.is_empty()) {
            Some(rest) => {
                let part = rest.get(..buf.remaining()).unwrap_or(rest);
                buf.put_slice(part);
                this.taken += part.len();
                Poll::Ready(Ok(()))
            }
            None => Pin::new(&mut this.wire).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() + buf.len() > GATHER_BYTES_MAX {
            ready!(self.poll_drain(cx))?;
        }
        if buf.len() >= GATHER_BYTES_MAX {
            return Pin::new(&mut self.wire).poll_write(cx, buf);
        }
        self.out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientStream")
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // The connection is over either way; a client that is gone already is no news.
        AsyncWriteExt::shutdown(self).await.unwrap_or_default();
    }
}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        use std::os::fd::AsRawFd;
        self.wire.tcp().as_raw_fd()
    }
}

impl Ssl for ClientStream {}

#[async_trait]
impl Peek for ClientStream {}

impl GetTimingDigest for ClientStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
