//! The test bench itself: what it sends and gets without a gateway in between.

use super::bodies::*;
use super::gateway::{pico_usd, pico_usd_of};
use super::*;

#[test]
fn the_client_gets_what_the_provider_sends() {
    let provider = Provider::start(honest);
    let mut wire = Wire::open(provider.address);
    assert_eq!(wire.ask(&chat("acme")).text(), CHAT_ANSWER);
    let stream = wire.ask(&chat_with("acme", CHAT_USAGE_REQUEST));
    assert_eq!((stream.body, stream.whole), (whole(&chat_events(3)), true));
    assert_eq!(provider.last().body, CHAT_USAGE_REQUEST.as_bytes());
    assert_eq!((provider.count(), provider.connections()), (2, 1));
}

#[test]
fn a_broken_answer_is_seen_as_broken() {
    let open = Script::open(&[]).then(Step::Send(wire::chunk(b"half")));
    let short = Script::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    for ending in [Step::Close, Step::Reset] {
        for script in [open.clone(), short.clone()] {
            let provider = Provider::always(script.then(ending.clone()));
            let answer = chat("acme").send(provider.address);
            assert_eq!((answer.whole, provider.closed().wait(1)), (false, true));
        }
    }
    let provider = Provider::always(Script::default().then(Step::Reset));
    let mut wire = Wire::open(provider.address);
    wire.send(&chat("acme").bytes());
    assert!(wire.answer().is_none());
}

#[test]
fn amounts_are_read_to_the_last_digit() {
    for (text, pico) in [("0", 0), ("1", 1_000_000_000_000), ("0.00000585", 5_850_000), ("0.000000000001", 1)] {
        assert_eq!(pico_usd(text), pico, "{text}");
        assert_eq!(pico_usd_of(&serde_json::from_str(text).unwrap()), pico, "{text}");
    }
}
