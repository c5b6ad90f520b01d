//! Frames of a websocket (RFC 6455), found in bytes as they pass: nothing is built anew, what goes on is what came.
//!
//! Pure: bytes in, places out. No extension is ever agreed on (the handshake leaves them out), so a frame with a reserved
//! bit is broken, and payloads are what they seem. Whatever two readers might take differently is broken, too: a peer must
//! not be read as one message here and as another there.

/// Who sends the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A client masks its frames.
    Client,
    /// A server does not.
    Server,
}

/// What is whole at the begin of the held bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A message in one or more frames, pings and pongs between them included: so many bytes.
    Message(usize),
    /// A ping or pong between messages: so many bytes.
    Control(usize),
    /// A close frame, from the first of these to the second. What stands before it is a message that will not end.
    Close(usize, usize),
}

/// Why the bytes cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// They are no frames as the protocol has them.
    Protocol,
    /// A message is longer than the limit.
    TooLong,
}

/// Close codes (RFC 6455, 7.4.1).
pub mod code {
    /// The sender is going away.
    pub const GOING_AWAY: u16 = 1001;
    /// The peer sent what is no frame.
    pub const PROTOCOL_ERROR: u16 = 1002;
    /// The peer did what it may not.
    pub const POLICY: u16 = 1008;
    /// A message was too long.
    pub const TOO_LONG: u16 = 1009;
    /// Later it may work.
    pub const TRY_AGAIN: u16 = 1013;
}

/// The reason of a close frame: a control frame has 125 bytes, two of them the code.
const REASON_BYTES_MAX: usize = 123;

const CLOSE: u8 = 8;

/// Finds the frames of one direction.
#[derive(Debug)]
pub struct Frames {
    from: From,
    message_max: usize,
    /// So much of the held bytes is whole frames of a message that has not ended.
    scanned: usize,
    in_message: bool,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    /// Of the header itself.
    length: usize,
    payload: usize,
    opcode: u8,
    fin: bool,
    mask: Option<[u8; 4]>,
}

impl Frames {
    /// Frames that `from` sends, in messages of at most `message_max` bytes, their headers included.
    pub fn new(from: From, message_max: usize) -> Self {
        Self { from, message_max, scanned: 0, in_message: false }
    }

    /// What is whole at the begin of `held`, which the caller then takes away. `held` only grows until then.
    pub fn next(&mut self, held: &[u8]) -> Result<Option<Found>, Broken> {
        while let Some(header) = header(held.get(self.scanned..).unwrap_or_default())? {
            let Header { length, payload, opcode, fin, mask } = header;
            if mask.is_some() != (self.from == From::Client) {
                return Err(Broken::Protocol);
            }
            let is_control = opcode >= CLOSE;
            // A continuation only within a message, a new message only outside of one.
            if !is_control && (opcode == 0) != self.in_message {
                return Err(Broken::Protocol);
            }
            let end = payload.checked_add(self.scanned + length).ok_or(Broken::TooLong)?;
            if end > self.message_max && (self.in_message || !is_control) {
                return Err(Broken::TooLong);
            }
            if end > held.len() {
                return Ok(None);
            }
            let found = match opcode {
                CLOSE => Some(Found::Close(self.scanned, end)),
                _ if is_control => (!self.in_message).then_some(Found::Control(end)),
                _ => fin.then_some(Found::Message(end)),
            };
            if found.is_some() {
                (self.scanned, self.in_message) = (0, false);
                return Ok(found);
            }
            self.scanned = end;
            self.in_message |= !is_control;
        }
        Ok(None)
    }

    /// Whether a message has begun and not ended.
    pub fn is_within_message(&self) -> bool {
        self.in_message
    }
}

/// The header at the begin of `bytes`, if it is whole.
fn header(bytes: &[u8]) -> Result<Option<Header>, Broken> {
    let (Some(first), Some(second)) = (bytes.first(), bytes.get(1)) else { return Ok(None) };
    let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
    let is_control = opcode >= CLOSE;
    let short = second & 0x7f;
    if reserved != 0 || !matches!(opcode, 0..=2 | 8..=10) || (is_control && (!fin || short > 125)) {
        return Err(Broken::Protocol);
    }
    let (extended, least) = match short {
        126 => (2, 126),
        127 => (8, 0x1_0000),
        _ => (0, 0),
    };
    let Some(digits) = bytes.get(2..2 + extended) else { return Ok(None) };
    let long = digits.iter().fold(0u64, |length, digit| (length << 8) | u64::from(*digit));
    let payload = if extended == 0 { u64::from(short) } else { long };
    // A length has one spelling, and no top bit.
    if payload < least || payload >> 63 != 0 {
        return Err(Broken::Protocol);
    }
    let payload = usize::try_from(payload).map_err(|_| Broken::TooLong)?;
    let masked = second & 0x80 != 0;
    let length = 2 + extended + if masked { 4 } else { 0 };
    let mask = match bytes.get(2 + extended..length) {
        Some(&[a, b, c, d]) => Some([a, b, c, d]),
        Some(_) => None,
        None => return Ok(None),
    };
    Ok(Some(Header { length, payload, opcode, fin, mask }))
}

/// Whether `payload` of these frames is read where it stands.
pub fn is_read_in_place(frames: &[u8]) -> bool {
    matches!(header(frames), Ok(Some(Header { fin: true, mask: None, .. })))
}

/// The payload of a message, or of a control frame alone: where it stands, or unmasked and joined in `scratch`.
pub fn payload<'a>(frames: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    scratch.clear();
    let mut rest = frames;
    let mut is_first = true;
    while let Ok(Some(Header { length, payload, opcode, fin, mask })) = header(rest) {
        let body = rest.get(length..length + payload).unwrap_or_default();
        if is_first && fin && mask.is_none() {
            return body;
        }
        if opcode < CLOSE || is_first {
            let at = scratch.len();
            scratch.extend_from_slice(body);
            if let Some(mask) = mask {
                unmask(scratch.get_mut(at..).unwrap_or_default(), mask);
            }
        }
        is_first = false;
        rest = rest.get(length + payload..).unwrap_or_default();
    }
    scratch
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// A close frame of the gateway's own. The mask towards a server is all zero: it hides what a client chose from what
/// stands between, and nobody chose this.
pub fn close(from: From, code: u16, reason: &str) -> Vec<u8> {
    let reason = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or_default();
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    control(from, CLOSE, &payload)
}

/// The answer to a close frame with that payload: the same code, and no reason.
pub fn close_answer(from: From, payload: &[u8]) -> Vec<u8> {
    control(from, CLOSE, payload.get(..2).unwrap_or_default())
}

fn control(from: From, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(0) & 0x7f;
    let mut frame = vec![0x80 | opcode];
    match from {
        From::Server => frame.push(length),
        From::Client => frame.extend_from_slice(&[0x80 | length, 0, 0, 0, 0]),
    }
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use proptest::sample::Index;

    use super::*;

    const MASK: [u8; 4] = [0x11, 0xa2, 0x00, 0xff];

    /// A frame as a peer sends it; `first` is its first byte.
    fn frame(from: From, first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        let masked = if from == From::Client { 0x80 } else { 0 };
        match payload.len() {
            short @ ..=125 => bytes.push(masked | u8::try_from(short).unwrap()),
            middle @ ..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend_from_slice(&u16::try_from(middle).unwrap().to_be_bytes());
            }
            long => {
                bytes.push(masked | 127);
                bytes.extend_from_slice(&u64::try_from(long).unwrap().to_be_bytes());
            }
        }
        let mut payload = payload.to_vec();
        if from == From::Client {
            bytes.extend_from_slice(&MASK);
            unmask(&mut payload, MASK);
        }
        bytes.extend_from_slice(&payload);
        bytes
    }

    type Seen = (Vec<(char, Vec<u8>)>, usize);

    /// Everything in `bytes`, fed in pieces that end at `cuts`: kind and payload of each, and what is left.
    fn all(from: From, bytes: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<Seen, Broken> {
        let mut frames = Frames::new(from, 1 << 20);
        let (mut held, mut fed, mut seen) = (Vec::new(), 0, Vec::new());
        for cut in cuts.into_iter().chain([bytes.len()]) {
            held.extend_from_slice(&bytes[fed..cut]);
            fed = cut;
            while let Some(found) = frames.next(&held)? {
                let (kind, start, end) = match found {
                    Found::Message(end) => ('m', 0, end),
                    Found::Control(end) => ('p', 0, end),
                    Found::Close(start, end) => ('c', start, end),
                };
                seen.push((kind, payload(&held[start..end], &mut Vec::new()).to_vec()));
                held.drain(..end);
            }
        }
        Ok((seen, held.len()))
    }

    #[test]
    fn messages_are_the_same_at_every_cut() {
        let long = vec![b'l'; 70_000];
        for from in [From::Client, From::Server] {
            let parts = [
                frame(from, 0x81, b"one"),
                frame(from, 0x89, b"ping"),
                frame(from, 0x01, b"in "),
                frame(from, 0x8a, b"pong"),
                frame(from, 0x00, b""),
                frame(from, 0x80, b"parts"),
                frame(from, 0x82, &[b'm'; 300]),
                frame(from, 0x81, b""),
                frame(from, 0x88, &[0x03, 0xe8]),
            ];
            let bytes = parts.concat();
            let want = vec![
                ('m', b"one".to_vec()),
                ('p', b"ping".to_vec()),
                ('m', b"in parts".to_vec()),
                ('m', vec![b'm'; 300]),
                ('m', Vec::new()),
                ('c', vec![0x03, 0xe8]),
            ];
            for cut in 0..=bytes.len() {
                assert_eq!(all(from, &bytes, [cut]), Ok((want.clone(), 0)), "{from:?} cut at {cut}");
            }
            assert_eq!(all(from, &bytes, 0..bytes.len()), Ok((want, 0)), "{from:?} byte by byte");
            let bytes = frame(from, 0x81, &long);
            assert_eq!(all(from, &bytes, [1, 5, 9, 13, 20_000]), Ok((vec![('m', long.clone())], 0)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_the_same_at_every_cut(
            bytes in vec(any::<u8>(), 0..300), cuts in vec(any::<Index>(), 0..5), is_client in any::<bool>()
        ) {
            let from = if is_client { From::Client } else { From::Server };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(all(from, &bytes, cuts), all(from, &bytes, []));
        }

        #[test]
        fn any_messages_are_read_as_they_were_made(
            messages in vec((vec(vec(any::<u8>(), 0..200), 1..4), any::<bool>()), 0..6), is_client in any::<bool>()
        ) {
            let from = if is_client { From::Client } else { From::Server };
            let (mut bytes, mut want) = (Vec::new(), Vec::new());
            for (parts, is_text) in messages {
                for (at, part) in parts.iter().enumerate() {
                    let opcode = match at { 0 if is_text => 1, 0 => 2, _ => 0 };
                    let fin = if at + 1 == parts.len() { 0x80 } else { 0 };
                    bytes.extend(frame(from, fin | opcode, part));
                }
                want.push(('m', parts.concat()));
            }
            prop_assert_eq!(all(from, &bytes, 0..bytes.len()), Ok((want, 0)));
        }
    }

    #[test]
    fn a_close_within_a_message_ends_it() {
        let bytes = [frame(From::Client, 0x01, b"beg"), frame(From::Client, 0x88, b"")].concat();
        assert_eq!(all(From::Client, &bytes, []), Ok((vec![('c', Vec::new())], 0)));
        let mut frames = Frames::new(From::Client, 100);
        assert_eq!(frames.next(&bytes[..9]), Ok(None));
        assert!(frames.is_within_message());
        assert_eq!(frames.next(&bytes), Ok(Some(Found::Close(9, 15))));
        assert!(!frames.is_within_message());
    }

    #[test]
    fn what_is_no_frame_is_broken() {
        let of = |first: u8| frame(From::Server, first, b"x");
        let rows: [(&str, Vec<u8>); 11] = [
            ("a reserved bit", of(0xc1)),
            ("an unknown opcode", of(0x83)),
            ("an unknown control opcode", of(0x8b)),
            ("a fragmented ping", of(0x09)),
            ("a continuation of nothing", of(0x80)),
            ("a message within a message", [of(0x01), of(0x81)].concat()),
            ("a masked frame of a server", frame(From::Client, 0x81, b"x")),
            ("a long ping", vec![0x89, 126, 0, 126]),
            ("a length in too many bytes", vec![0x81, 126, 0, 125]),
            ("a length in far too many bytes", vec![0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
            ("a negative length", vec![0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 1]),
        ];
        for (what, bytes) in rows {
            assert_eq!(all(From::Server, &bytes, []), Err(Broken::Protocol), "{what}");
        }
        assert_eq!(all(From::Client, &of(0x81), []), Err(Broken::Protocol), "an unmasked frame of a client");
    }

    #[test]
    fn a_message_over_the_limit_is_known_by_its_header() {
        let mut frames = Frames::new(From::Server, 100);
        assert_eq!(frames.next(&frame(From::Server, 0x81, &[0; 98])), Ok(Some(Found::Message(100))));
        assert_eq!(frames.next(&[0x81, 99]), Err(Broken::TooLong));
        let mut frames = Frames::new(From::Server, 100);
        let begun = frame(From::Server, 0x01, &[0; 60]);
        assert_eq!(frames.next(&begun), Ok(None));
        assert_eq!(frames.next(&[begun, vec![0x80, 40]].concat()), Err(Broken::TooLong), "by all of its frames");
        let mut frames = Frames::new(From::Server, 10);
        assert_eq!(frames.next(&frame(From::Server, 0x89, &[0; 20])), Ok(Some(Found::Control(22))), "no message");
    }

    #[test]
    fn own_close_frames_are_frames() {
        for from in [From::Client, From::Server] {
            let long = "é".repeat(100);
            let bytes = close(from, code::POLICY, &long);
            let (seen, left) = all(from, &bytes, []).unwrap();
            assert_eq!((seen.len(), left, &seen[0].1[..2]), (1, 0, &[0x03, 0xf0][..]));
            assert_eq!(String::from_utf8(seen[0].1[2..].to_vec()).unwrap(), "é".repeat(61));
            for (payload, want) in [(&b""[..], &b""[..]), (b"\x03\xe8bye", b"\x03\xe8")] {
                assert_eq!(all(from, &close_answer(from, payload), []), Ok((vec![('c', want.to_vec())], 0)));
            }
        }
    }
}
