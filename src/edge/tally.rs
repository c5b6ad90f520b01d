//! Frames of a connection of HTTP/2 that ask for nothing, and whether they are too many.
//!
//! The codec bounds what it keeps of each of them, but not how many come: each costs the time to be read, and most are
//! answered. So frame heads (RFC 9113, 4.1) are counted on both ways. What costs is paid for out of a purse, which fills
//! with time and with what a client has to acknowledge: requests that it makes and pieces of answers that it gets. Bytes of
//! answers are acknowledged by windows, which are counted apart: a client may be sent as many as its windows hold before it
//! acknowledges the first. Pure: bytes and instants in, a verdict out.

use tokio::time::Instant;

/// What is in a purse at most, and at the start. A client that behaves comes by with a small part of it.
const PURSE_MAX: u64 = 2_000;

/// What comes into it each second. It costs next to nothing to serve, and has room for a client whose users take back a dozen
/// calls a second before they are answered, as those of completions do while they type.
const PER_SECOND: u64 = 200;

/// A piece of an answer may be acknowledged for its stream and for its connection, and each time with a ping.
const PER_PIECE: u64 = 4;

/// So many bytes may be acknowledged by themselves, for their stream and for their connection: Go's client does it.
const ACKNOWLEDGED_BYTES: usize = 4 * 1024;
const PER_ACKNOWLEDGED: u64 = 2;

/// What is not acknowledged of a connection fits into its window (RFC 9113, 6.9.1: 2 GiB).
const ACKNOWLEDGMENTS_MAX: u64 = PER_ACKNOWLEDGED << (31 - 12);

/// A request may be ended, prioritised, and have an empty frame for its end.
const PER_REQUEST: u64 = 8;

/// A request that is taken back has cost more than it asked for. One whose every request is taken back is broke after some 250.
const RESET: u64 = 16;

const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// What may be spent: so much at once, and on and on what comes in each second.
pub struct Purse {
    left: u64,
    max: u64,
    per_second: u64,
    filled: Instant,
}

/// What is known of a connection.
pub struct Tally {
    incoming: Frames,
    outgoing: Frames,
    purse: Purse,
    /// How many updates of windows may be for bytes that were sent.
    acknowledgments: u64,
    /// It was told to open no more streams.
    is_leaving: bool,
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

impl Purse {
    /// A full one.
    pub fn new(max: u64, per_second: u64, now: Instant) -> Self {
        Self { left: max, max, per_second, filled: now }
    }

    /// Full again.
    pub fn fill(&mut self) {
        self.left = self.max;
    }

    fn earn(&mut self, more: u64) {
        self.left = self.left.saturating_add(more).min(self.max);
    }

    /// Whether so much was in it. What was in it is gone either way.
    pub fn pay(&mut self, cost: u64, now: Instant) -> bool {
        let since = u64::try_from(now.saturating_duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        let more = since.saturating_mul(self.per_second) / 1_000;
        // Kept until it is worth something: else a purse that is looked at each millisecond would never fill.
        if more > 0 {
            self.earn(more);
            self.filled = now;
        }
        let left = self.left.checked_sub(cost);
        self.left = left.unwrap_or(0);
        left.is_some()
    }
}

impl Tally {
    /// A connection whose client begins with so many bytes that are no frames.
    pub fn new(preface: usize, now: Instant) -> Self {
        Self {
            incoming: Frames::after(preface),
            outgoing: Frames::after(0),
            purse: Purse::new(PURSE_MAX, PER_SECOND, now),
            acknowledgments: 0,
            is_leaving: false,
        }
    }

    /// Looks at what the client sent; `now` is asked where it costs. Whether the purse is empty: then it is no client that
    /// means well.
    pub fn received(&mut self, bytes: &[u8], now: impl FnOnce() -> Instant) -> bool {
        let (mut cost, mut earned) = (0, 0);
        let Self { incoming, acknowledgments, is_leaving, .. } = self;
        incoming.follow(bytes, |frame| match frame.kind {
            // Who was told to go opens what is not even looked at.
            HEADERS if *is_leaving => cost += 1,
            HEADERS => earned += PER_REQUEST,
            DATA | CONTINUATION if frame.length > 0 => {}
            WINDOW_UPDATE if *acknowledgments > 0 => *acknowledgments -= 1,
            RST_STREAM => cost += RESET,
            _ => cost += 1,
        });
        self.purse.earn(earned);
        cost > 0 && !self.purse.pay(cost, now())
    }

    /// Looks at what was sent to the client.
    pub fn sent(&mut self, bytes: &[u8]) {
        let (mut earned, mut acknowledged) = (0, 0);
        let is_leaving = &mut self.is_leaving;
        self.outgoing.follow(bytes, |frame| match frame.kind {
            HEADERS => earned += PER_PIECE,
            DATA => {
                earned += PER_PIECE;
                let parts = u64::try_from(frame.length.div_ceil(ACKNOWLEDGED_BYTES)).unwrap_or(u64::MAX);
                acknowledged += PER_ACKNOWLEDGED.saturating_mul(parts);
            }
            GOAWAY => *is_leaving = true,
            _ => {}
        });
        self.purse.earn(earned);
        self.acknowledgments = self.acknowledgments.saturating_add(acknowledged).min(ACKNOWLEDGMENTS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        let mut bytes = vec![0, high, low, kind, 0, 0, 0, 0, 1];
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
    fn a_client_that_acknowledges_each_4_kib_is_no_flood() {
        let now = Instant::now();
        let mut tally = Tally::new(0, now);
        let (data, update) = (frame(DATA, 16 << 10), frame(WINDOW_UPDATE, 4));
        // Four streams of 16 MiB, each of which is read once all of its window was sent.
        for _ in 0..4 {
            (0..1 << 10).for_each(|_| tally.sent(&data));
            assert!((0..2 * (4 << 10)).all(|_| !tally.received(&update, || now)));
        }
        // What was acknowledged is.
        assert_eq!((0..10_000).find(|_| tally.received(&update, || now)), Some(2_000));
    }

    #[test]
    fn what_is_opened_behind_a_goodbye_costs() {
        let none = Duration::ZERO;
        assert_eq!(broke_after(10_000, &frame(HEADERS, 30), b"", none), None);
        assert_eq!(broke_after(10_000, &frame(HEADERS, 30), &frame(GOAWAY, 8), none), Some(2_000));
    }

    #[test]
    fn what_was_spent_comes_back_with_time() {
        let start = Instant::now();
        let mut purse = Purse::new(3, 2, start);
        let mut pay = |after: u64| purse.pay(1, start + Duration::from_millis(after));
        assert_eq!([pay(0), pay(1), pay(2), pay(3)], [true, true, true, false]);
        assert_eq!([pay(499), pay(500), pay(501)], [false, true, false]);
        assert!((2..10_000).all(|half| pay(500 * half)));
        let later = 10_000_000;
        assert_eq!([0; 5].map(|after| pay(later + after)), [true, true, true, false, false]);
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
