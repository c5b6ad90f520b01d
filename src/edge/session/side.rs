//! One side of a session: what was read of it and has not gone on, and what is to be written to it.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Duration, Instant, timeout};

use super::super::body::{Budget, Reserved};
use super::super::exchange::Settings;
use super::super::frames::{self, Frames};
use super::super::pace::Pace;
use super::{CLOSE_TIME, UNCOUNTED_BYTES};
use crate::domain::refusal::Refusal;

/// What is read at once. Audio comes in messages of a few kilobytes.
const READ_BYTES: usize = 16 * 1024;

/// The last frame of a session that is cut has so long to go out.
const CUT_TIME: Duration = Duration::from_millis(100);

/// One side's connection.
pub(super) struct Side<S> {
    pub(super) read: ReadHalf<S>,
    pub(super) write: WriteHalf<S>,
    pub(super) frames: Frames,
    /// Read and not gone on.
    pub(super) held: BytesMut,
    /// How much of it there was when some was read last.
    pub(super) came: usize,
    /// For what is held of a long message, and for as long as the other side has not taken all of it.
    pub(super) reserved: Reserved,
    /// To be written.
    pub(super) out: BytesMut,
    /// How much of it there was when some was written last.
    pub(super) queued: usize,
    /// Written, and not flushed.
    pub(super) unflushed: bool,
    /// How it takes what is to be written.
    pub(super) pace: Pace,
    /// Since when it takes what is to be written.
    pub(super) written: Instant,
    pub(super) heard: Instant,
}

impl<S: AsyncRead + AsyncWrite> Side<S> {
    pub(super) fn new(stream: S, from: frames::From, settings: &Settings) -> Self {
        let message_max = usize::try_from(settings.session_message_limit).unwrap_or(usize::MAX);
        let (read, write) = split(stream);
        let now = Instant::now();
        Self {
            read,
            write,
            frames: Frames::new(from, message_max),
            held: BytesMut::new(),
            came: 0,
            reserved: Reserved::default(),
            out: BytesMut::new(),
            queued: 0,
            unflushed: false,
            pace: Pace::new(settings.write_timeout, settings.rate_min),
            written: now,
            heard: now,
        }
    }

    pub(super) fn is_writing(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// Puts bytes to be written behind those that are.
    pub(super) fn put(&mut self, bytes: BytesMut) {
        if !self.is_writing() {
            self.written = Instant::now();
        }
        self.queued += bytes.len();
        if self.out.is_empty() {
            self.out = bytes;
        } else {
            self.out.unsplit(bytes);
        }
    }

    /// It took some of what is to be written.
    pub(super) fn wrote(&mut self, now: Instant) {
        let taken = self.queued.saturating_sub(self.out.len());
        self.pace.waited(now.saturating_duration_since(self.written), taken);
        (self.queued, self.written) = (self.out.len(), now);
        if self.out.is_empty() {
            // An empty rest keeps the room of all that it is the rest of.
            self.out = BytesMut::new();
        }
    }

    /// When it has not taken what is to be written in time.
    pub(super) fn is_stuck_at(&self) -> Option<Instant> {
        self.is_writing().then(|| self.written + self.pace.wait_max(0))
    }

    /// It takes nothing more.
    pub(super) fn give_up(&mut self) {
        self.out = BytesMut::new();
        (self.queued, self.unflushed) = (0, false);
    }

    /// Keeps no more room than what is held needs, once a long message was taken from it.
    pub(super) fn let_go(&mut self) {
        let taken = self.held.len() < self.came;
        if taken && self.came > UNCOUNTED_BYTES {
            self.held = BytesMut::from(&*self.held);
        }
        self.came = self.held.len();
    }

    /// Counts in the budget of buffers what is held of a long message, what `other` has not taken of those before, and
    /// `copied` bytes of the message that is read. Nobody waits for room: who waits would keep what it has.
    pub(super) fn reserve<O>(&mut self, other: &Side<O>, copied: usize, budget: &Budget) -> Result<(), Refusal> {
        let bytes = self.held.len() + other.out.len() + copied;
        let counted = if bytes > UNCOUNTED_BYTES { u64::try_from(bytes).unwrap_or(u64::MAX) } else { 0 };
        if other.out.is_empty() {
            // Until then all of its room is there, however little of it is left to be written.
            self.reserved.shrink(counted);
        }
        budget.grow(&mut self.reserved, counted)
    }

    /// Writes what is left, and says that this was all. Who does not take it in time does not get it.
    pub(super) async fn finish(&mut self) {
        let all = async {
            self.write.write_all_buf(&mut self.out).await?;
            self.write.shutdown().await
        };
        timeout(CUT_TIME, all).await.unwrap_or(Ok(())).unwrap_or_default();
        self.give_up();
        self.held = BytesMut::new();
    }

    /// Reads on for nothing: a peer that meets a closed connection while it sends never sees what it was told last.
    pub(super) async fn linger(&mut self) {
        let all = async {
            while read(&mut self.read, &mut self.held).await.is_ok_and(|count| count > 0) {
                self.held.clear();
            }
        };
        timeout(CLOSE_TIME, all).await.unwrap_or_default();
    }
}

pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), held: &mut BytesMut) -> io::Result<usize> {
    held.reserve(READ_BYTES);
    from.read_buf(held).await
}

/// Writes some of `out`. What was written and not flushed when this was given up is flushed the next time.
pub(super) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
    unflushed: &mut bool,
) -> io::Result<()> {
    if !out.is_empty() {
        to.write_buf(out).await?;
        *unflushed = true;
    }
    to.flush().await?;
    *unflushed = false;
    Ok(())
}
