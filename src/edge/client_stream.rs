//! The bytes of one client connection, as pingora's HTTP session reads and writes them.
//!
//! pingora's own stream either writes head and body in two system calls or keeps 64 KB for reading. This one gathers
//! small writes until they are flushed and keeps 2 KB. It also lets the listener wait for the first byte of a request
//! without starting the clock for the head.
//!
//! It stands below pingora's parser, so this is where `hygiene` looks. A head is read here, under one limit of size and,
//! by the listener, of time, and is checked line by line; the parser gets it when it is whole and good. Then the session
//! gets this one request: its head and its body to their last byte, and nothing behind it. Chunks are followed in the buffer
//! that the session reads into, and a malformed one is an error of reading. What a client sends ahead stays here and is the
//! next head, or the first bytes of a session.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_timeout::fast_timeout::fast_timeout;
use secrecy::zeroize::Zeroize;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use crate::domain::refusal::Refusal;

use super::body::{Budget, Reserved};
use super::hygiene::chunks::Chunks;
use super::hygiene::{Framing, Head, Limits};
use super::socket::Socket;
use super::tally::Tally;

/// Writes are gathered up to this size; larger ones go out directly.
const GATHER_BYTES_MAX: usize = 16 * 1024;

/// The first read of a request. Most heads with their JSON fit; what is missing of a longer head is read on from here.
const FIRST_READ_BYTES: usize = 2 * 1024;

/// A head that needs more room than this counts among what is buffered (`listen.buffer_total`) until it is whole.
const ORDINARY_HEAD_BYTES: usize = 8 * 1024;

/// After a refusal the client may go on sending: so much is read and thrown away, since a client that meets a closed
/// connection while it sends never sees the answer.
const LINGER_BYTES: u64 = 128 * 1024 * 1024;
const LINGER_READ_BYTES: usize = 16 * 1024;
/// On the stack.
const GOODBYE_READ_BYTES: usize = 4 * 1024;

/// Who sends nothing for so long is not sending.
const LINGER_SILENCE: Duration = Duration::from_secs(2);

/// A client of HTTP/2 that was told to go has so long to say that it heard.
pub const GOODBYE: Duration = Duration::from_secs(1);

/// What a client that knows HTTP/2 sends first (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One client connection.
pub struct ClientStream {
    wire: Wire,
    /// Bytes that were read and not handed on, from `taken` on: a head, what came with it, what came ahead.
    first: Vec<u8>,
    taken: usize,
    /// What may be handed on.
    turn: Turn,
    /// The request asks for another protocol.
    upgrades: bool,
    /// Bytes that wait for a flush, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// How many went out.
    sent: Arc<AtomicU64>,
    /// Counts frames, where they are those of HTTP/2.
    watch: Option<Box<Watch>>,
}

/// Counts the frames of HTTP/2 on their way, and tells when there are too many.
struct Watch {
    tally: Tally,
    flooded: Arc<Notify>,
    is_flooded: bool,
    goodbye: Option<Goodbye>,
}

/// How much of a client's frames is thrown away behind the last that it is sent, and until when.
struct Goodbye {
    left: u64,
    until: Pin<Box<Sleep>>,
}

/// How much is handed on.
enum Turn {
    /// All that comes: the connection is no longer one of requests.
    All,
    /// So many bytes: the rest of a request whose length is known.
    Bytes(u64),
    /// The rest of a head, and then chunks.
    Chunks { head: usize, chunks: Chunks },
}

/// What carries the bytes.
pub type Wire = Socket<TlsStream<TcpStream>>;

impl ClientStream {
    /// Takes over a connection that may carry requests.
    pub fn new(wire: Wire) -> Self {
        let (first, out) = (Vec::new(), Vec::new());
        Self {
            wire,
            first,
            taken: 0,
            turn: Turn::All,
            upgrades: false,
            out,
            written: 0,
            sent: Arc::default(),
            watch: None,
        }
    }

    /// Counts frames of HTTP/2 from here on. Gives what is told once there are too many that ask for nothing.
    pub fn watch_frames(&mut self) -> Arc<Notify> {
        let flooded = Arc::new(Notify::new());
        let tally = Tally::new(HTTP2_PREFACE.len(), Instant::now());
        self.watch = Some(Box::new(Watch { tally, flooded: flooded.clone(), is_flooded: false, goodbye: None }));
        flooded
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
        if self.first.capacity() > FIRST_READ_BYTES {
            // A long head is no reason to keep its room.
            self.first.zeroize();
            self.first = Vec::new();
        }
        self.first.clear();
        self.taken = 0;
        self.first.reserve_exact(FIRST_READ_BYTES);
        Ok((&mut self.wire).take(FIRST_READ_BYTES as u64).read_buf(&mut self.first).await? > 0)
    }

    /// Reads a head, and hands on the request that it begins from here on. `None` when the client closed before its end.
    pub async fn read_head(&mut self, limits: Limits, budget: &Budget) -> Option<Result<(), Refusal>> {
        self.first.drain(..std::mem::take(&mut self.taken));
        let mut head = Head::new(limits);
        // Held until the head is whole: one that its client does not end is what it is for.
        let mut reserved = Reserved::default();
        loop {
            match head.look(&self.first) {
                Ok(None) => {}
                Ok(Some(whole)) => {
                    self.taken = whole.begins;
                    self.upgrades = whole.upgrades;
                    let mut head = whole.ends - whole.begins;
                    if let Some((from, to)) = whole.origin {
                        // The parser compares hosts by their letters, and takes none without a path.
                        let path: &[u8] = if self.first.get(to) == Some(&b'/') { b"" } else { b"/" };
                        self.first.splice(from..to, path.iter().copied());
                        head -= to - from - path.len();
                    }
                    self.turn = match whole.body {
                        Framing::Chunked => Turn::Chunks { head, chunks: Chunks::default() },
                        Framing::Length(length) => {
                            Turn::Bytes(length.saturating_add(u64::try_from(head).unwrap_or(u64::MAX)))
                        }
                    };
                    return Some(Ok(()));
                }
                Err(refusal) => {
                    self.turn = Turn::All;
                    return Some(Err(refusal));
                }
            }
            if self.first.capacity() == self.first.len() {
                let room = self.first.len() + self.first.len().max(FIRST_READ_BYTES);
                if room > ORDINARY_HEAD_BYTES
                    && let Err(refusal) = budget.grow(&mut reserved, u64::try_from(room).unwrap_or(u64::MAX))
                {
                    self.turn = Turn::All;
                    return Some(Err(refusal));
                }
                let mut more = Vec::with_capacity(room);
                more.extend_from_slice(&self.first);
                // Keys stand in heads.
                self.first.zeroize();
                self.first = more;
            }
            // One byte over the limit is enough to see that it is over.
            let room = (limits.head_bytes + 1).min(self.first.capacity()).saturating_sub(self.first.len());
            match (&mut self.wire).take(room as u64).read_buf(&mut self.first).await {
                Ok(count) if count > 0 => {}
                _ => return None,
            }
        }
    }

    /// The path of a head that was refused, as far as one can be made out: for the words of the refusal alone.
    pub fn path_of_head(&self) -> &str {
        let line = self.first.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        std::str::from_utf8(path).unwrap_or_default()
    }

    /// Whether the request asks for another protocol. Where it does not get it, nobody can say in which protocol that is
    /// what comes behind it, whenever it comes.
    pub fn asks_for_upgrade(&self) -> bool {
        self.upgrades
    }

    /// Counts the bytes that the connection takes, whoever waits for that.
    pub fn taken_bytes(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }

    /// Whether the connection is reset when it is dropped, which is how an answer that only its end ends is seen to have broken off.
    pub fn break_off_by_reset(&self, resets: bool) {
        // Where it cannot be said, the connection has ended already.
        SockRef::from(self.wire.tcp()).set_linger(resets.then_some(Duration::ZERO)).unwrap_or_default();
    }

    /// From here on the connection is no longer one of requests; gives what came ahead.
    pub fn become_session(&mut self) -> Vec<u8> {
        self.turn = Turn::All;
        let ahead = self.first.get(self.taken..).unwrap_or_default().to_vec();
        self.first.zeroize();
        self.taken = 0;
        ahead
    }

    /// Ends the sending, and reads on what the client is still about to send: the rest of its request where that has a
    /// length, or else whatever comes until it closes or falls silent.
    pub async fn linger(&mut self) {
        if AsyncWriteExt::shutdown(self).await.is_err() {
            return;
        }
        let mut left = match self.turn {
            Turn::Bytes(left) if !self.upgrades => left.min(LINGER_BYTES),
            _ => LINGER_BYTES,
        };
        let mut bytes = vec![0; LINGER_READ_BYTES];
        while left > 0 {
            match fast_timeout(LINGER_SILENCE, self.wire.read(&mut bytes)).await {
                Ok(Ok(count)) if count > 0 => left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX)),
                _ => return,
            }
        }
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

    /// Waits for a client of HTTP/2 to close that was told to go: were the connection closed while some of what it sent is
    /// unread, the kernel would reset it, and take back what the client has not got yet, the reason with it.
    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(watch) = &mut self.watch else { return Poll::Ready(()) };
        let begun = || Goodbye { left: LINGER_BYTES, until: Box::pin(sleep(GOODBYE)) };
        let Goodbye { left, until } = watch.goodbye.get_or_insert_with(begun);
        let mut bytes = [0; GOODBYE_READ_BYTES];
        while *left > 0 && until.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.wire).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {
                    *left = left.saturating_sub(u64::try_from(read.filled().len()).unwrap_or(u64::MAX));
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }

    fn count_sent(&self, bytes: usize) {
        // Only this writes it.
        let sent = self.sent.load(Ordering::Relaxed).wrapping_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.sent.store(sent, Ordering::Relaxed);
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.wire).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => {
                    self.written += sent;
                    self.count_sent(sent);
                }
            }
        }
        self.out.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl Turn {
    /// How many of these bytes are handed on, all of which came behind those before.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::All => Ok(bytes.len()),
            Self::Bytes(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
                Ok(count)
            }
            // By itself: a chunk that is none must not look like a head that is none.
            Self::Chunks { head, .. } if *head > 0 => {
                let count = bytes.len().min(*head);
                *head -= count;
                Ok(count)
            }
            Self::Chunks { chunks, .. } => chunks.follow(bytes).map_err(|_| io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Whoever was notified ends the connection. No more is answered, or the reason would have to wait behind that.
        if this.watch.as_ref().is_some_and(|watch| watch.is_flooded) {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let ahead = this.first.get(this.taken..).unwrap_or_default();
        let ahead = ahead.get(..buf.remaining()).unwrap_or(ahead);
        if !ahead.is_empty() {
            let count = this.turn.take(ahead)?;
            buf.put_slice(ahead.get(..count).unwrap_or_default());
            this.taken += count;
        } else {
            match &mut this.turn {
                Turn::All => ready!(Pin::new(&mut this.wire).poll_read(cx, buf))?,
                Turn::Bytes(left) => {
                    // Where nothing is left, this reads nothing, which to the session is the end.
                    ready!(Pin::new(&mut (&mut this.wire).take(*left)).poll_read(cx, buf))?;
                    *left = left.saturating_sub(u64::try_from(buf.filled().len() - before).unwrap_or(u64::MAX));
                }
                Turn::Chunks { chunks, .. } if chunks.is_over() => {}
                Turn::Chunks { .. } => {
                    ready!(Pin::new(&mut this.wire).poll_read(cx, buf))?;
                    let read = buf.filled().get(before..).unwrap_or_default();
                    let count = this.turn.take(read)?;
                    if count < read.len() {
                        this.first.clear();
                        this.first.extend_from_slice(read.get(count..).unwrap_or_default());
                        this.taken = 0;
                    }
                    buf.set_filled(before + count);
                }
            }
        }
        if let Some(watch) = &mut this.watch
            && watch.tally.received(buf.filled().get(before..).unwrap_or_default(), Instant::now)
        {
            watch.is_flooded = true;
            watch.flooded.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.out.len() + buf.len() > GATHER_BYTES_MAX {
            ready!(self.poll_drain(cx))?;
        }
        let taken = if buf.len() >= GATHER_BYTES_MAX {
            let sent = ready!(Pin::new(&mut self.wire).poll_write(cx, buf))?;
            self.count_sent(sent);
            sent
        } else {
            self.out.extend_from_slice(buf);
            buf.len()
        };
        if let Some(watch) = &mut self.watch {
            watch.tally.sent(buf.get(..taken).unwrap_or_default());
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.wire).poll_shutdown(cx))?;
        ready!(self.poll_goodbye(cx));
        Poll::Ready(Ok(()))
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

/// What was read ahead has keys and prompts in it, what was gathered has answers: neither stays where it was.
impl Drop for ClientStream {
    fn drop(&mut self) {
        self.first.zeroize();
        self.out.zeroize();
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
