//! Frames of websockets.

use crate::control::Control;

#[path = "../../src/edge/frames.rs"]
mod frames;

use frames::{Broken, Found, Frames, From};

/// Everything that is found in `bytes` when they come in these pieces, and why it ended.
fn found(from: From, most: usize, pieces: &[&[u8]]) -> (Vec<(char, Vec<u8>)>, Option<Broken>) {
    let (mut frames, mut held, mut all) = (Frames::new(from, most), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match frames.next(&held) {
                Err(broken) => return (all, Some(broken)),
                Ok(None) => break,
                Ok(Some(found)) => {
                    let (kind, end) = match found {
                        Found::Message(end) => ('m', end),
                        Found::Control(end) => ('c', end),
                        Found::Close(_, end) => ('x', end),
                    };
                    assert!(end > 0 && end <= held.len());
                    assert!(kind != 'm' || end <= most);
                    all.push((kind, held.drain(..end).collect()));
                }
            }
        }
    }
    (all, None)
}

/// Frames are the same however they come, and what goes on is what came.
pub fn cut(data: &[u8]) {
    let mut control = Control(data);
    let from = control.choose(&[From::Client, From::Server]);
    let most = 1 + usize::from(control.byte()) * 16;
    let (bytes, pieces) = control.cut();
    let whole = found(from, most, &[bytes]);
    // A message that is too long may be told so before or after what its header says of it: only that it ends is sure.
    let cut = found(from, most, &pieces);
    assert_eq!(cut, whole);
    assert_eq!(found(from, most, &bytes.chunks(1).collect::<Vec<_>>()), whole);
    let passed: Vec<u8> = whole.0.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert!(bytes.starts_with(&passed));
}
