//! Frames of a connection of HTTP/2 that ask for nothing, and whether they are too many.
//!
//! The codec bounds what it keeps of each of them, but not how many come: each costs the time to be read, and most are
//! answered. So frame heads (RFC 9113, 4.1) are counted on both ways. What costs is paid for out of a purse, which fills
//! with time and with what a client has to acknowledge: requests that it makes and pieces of answers that it gets. Pure:
//! bytes and instants in, a verdict out.

use tokio::time::Instant;

/// What is in a purse at most, and at the start. A client that behaves comes by with a small part of it.
const PURSE_MAX: u64 = 2_000;

/// What comes into it each second: a ping each is more than any client sends.
const PER_SECOND: u64 = 20;

/// A piece of an answer may be acknowledged for its stream and for its connection, and each time with a ping.
const PER_PIECE: u64 = 4;

/// A request may be ended, prioritised, and have an empty frame for its end.
const PER_REQUEST: u64 = 8;

/// A request that is taken back has cost more than it asked for. One whose every request is taken back is broke after some 250.
const RESET: u64 = 16;

const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

/// What is known of a connection.
pub struct Tally {
    incoming: Frames,
    outgoing: Frames,
    purse: u64,
    filled: Instant,
}

/// The frames of one direction.
struct Frames {
    /// Bytes that are no frames: the preface, then payloads.
    skip: usize,
    head: [u8; HEAD_BYTES],
    have: usize,
}

/// One frame, by its head.
struct Frame {
    kind: u8,
    length: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        Self { skip, head: [0; HEAD_BYTES], have: 0 }
    }

    /// Calls `see` with each frame whose head ends in these bytes.
    fn follow(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            let Some(room) = self.head.get_mut(self.have..) else { return };
            let taken = room.len().min(bytes.len());
            if let (Some(room), Some(more)) = (room.get_mut(..taken), bytes.get(..taken)) {
                room.copy_from_slice(more);
            }
            self.have += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have == HEAD_BYTES {
                let [a, b, c, kind, ..] = self.head;
                let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(0);
                see(Frame { kind, length });
                (self.skip, self.have) = (length, 0);
            }
        }
    }
}

impl Tally {
    /// A connection whose client begins with so many bytes that are no frames.
    pub fn new(preface: usize, now: Instant) -> Self {
        Self { incoming: Frames::after(preface), outgoing: Frames::after(0), purse: PURSE_MAX, filled: now }
    }

    /// Looks at what the client sent; `now` is asked where it costs. Whether the purse is empty: then it is no client that
    /// means well.
    pub fn received(&mut self, bytes: &[u8], now: impl FnOnce() -> Instant) -> bool {
        let (mut cost, mut earned) = (0, 0);
        self.incoming.follow(bytes, |frame| match frame.kind {
            HEADERS => earned += PER_REQUEST,
            DATA | CONTINUATION if frame.length > 0 => {}
            RST_STREAM => cost += RESET,
            _ => cost += 1,
        });
        if cost == 0 && earned == 0 {
            return false;
        }
        let now = now();
        let since = u64::try_from(now.saturating_duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        // Kept until it is worth something: else a purse that is looked at each millisecond would never fill.
        if since >= 1_000 / PER_SECOND {
            earned += since.saturating_mul(PER_SECOND) / 1_000;
            self.filled = now;
        }
        self.purse = (self.purse + earned).min(PURSE_MAX);
        match self.purse.checked_sub(cost) {
            Some(left) => {
                self.purse = left;
                false
            }
            None => {
                self.purse = 0;
                true
            }
        }
    }

    /// Looks at what was sent to the client.
    pub fn sent(&mut self, bytes: &[u8]) {
        let mut earned = 0;
        self.outgoing.follow(bytes, |frame| {
            if matches!(frame.kind, DATA | HEADERS) {
                earned += PER_PIECE;
            }
        });
        self.purse = (self.purse + earned).min(PURSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        bytes.resize(HEAD_BYTES + usize::from(length), kind);
        bytes
    }

    /// After how many rounds the purse is empty.
    fn broke_after(rounds: usize, incoming: &[u8], outgoing: &[u8], step: Duration) -> Option<usize> {
        let start = Instant::now();
        let mut tally = Tally::new(0, start);
        (0..rounds).find(|round| {
            tally.sent(outgoing);
            tally.received(incoming, || start + step * u32::try_from(*round).unwrap())
        })
    }

    #[test]
    fn floods_are_cut_and_clients_are_not() {
        let none = Duration::ZERO;
        for kind in [PING, 4, 2, WINDOW_UPDATE, 77] {
            assert_eq!(broke_after(10_000, &frame(kind, 8), b"", none), Some(2_000), "{kind}");
        }
        assert_eq!(broke_after(10_000, &frame(DATA, 0), b"", none), Some(2_000));
        assert_eq!(broke_after(10_000, &frame(CONTINUATION, 0), b"", none), Some(2_000));
        // A flood is none at the rate of a client.
        assert_eq!(broke_after(100_000, &frame(PING, 8), b"", Duration::from_millis(100)), None);
        let rapid = [frame(HEADERS, 30), frame(RST_STREAM, 4)].concat();
        assert_eq!(broke_after(10_000, &rapid, b"", none), Some(249));
        let asks = [frame(HEADERS, 30), frame(DATA, 200)].concat();
        assert_eq!(broke_after(100_000, &asks, b"", none), None);
        // One that acknowledges each of a million events of a stream.
        let takes = [frame(WINDOW_UPDATE, 4), frame(WINDOW_UPDATE, 4), frame(PING, 8)].concat();
        assert_eq!(broke_after(1_000_000, &takes, &frame(DATA, 99), none), None);
        // A pong is no piece of an answer.
        assert_eq!(broke_after(10_000, &frame(PING, 8), &frame(PING, 8), none), Some(2_000));
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_cut() {
        let bytes: Vec<u8> = [b"preface".to_vec(), frame(DATA, 20), frame(PING, 8), frame(HEADERS, 0)].concat();
        for cut in 0..bytes.len() {
            let (mut frames, mut seen) = (Frames::after(7), Vec::new());
            for part in [&bytes[..cut], &bytes[cut..]] {
                frames.follow(part, |frame| seen.push((frame.kind, frame.length)));
            }
            assert_eq!(seen, [(DATA, 20), (PING, 8), (HEADERS, 0)], "{cut}");
        }
    }
}
