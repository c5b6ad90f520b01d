//! Many streams, half of which are left: memory stays flat and every one is booked exactly.
//!
//! 2,000 streams in an ordinary run; 100,000 with `TOLLGATE_TEST_FULL=1` (`tests/run --full`).

use std::thread;

use super::support::bodies::*;
use super::support::*;

const THREADS: usize = 8;
/// What memory may grow by between the warm-up and the end. A leak of 1 KiB a stream would be 100 MiB in the full run.
const GROWTH_KIB_MAX: u64 = 24 * 1024;

#[test]
fn memory_is_flat_over_many_streams_half_of_which_are_left() {
    let full = std::env::var("TOLLGATE_TEST_FULL").is_ok_and(|value| value == "1");
    let streams: usize = if full { 100_000 } else { 2_000 };
    let provider = Provider::start(|_| Script::pieces("text/event-stream", &chat_events(20)));
    let config = "[plans.starter]\nchats_per_month = -1\n";
    let gateway = Setup::new(&provider).config(config).set("RUST_LOG", "warn").start();
    let run = |streams: usize| {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for at in 0..streams / THREADS {
                        let mut wire = Wire::open(gateway.proxy);
                        wire.send(&chat_with("acme", CHAT_STREAM_REQUEST).bytes());
                        if at % 2 == 0 {
                            assert_eq!(wire.answer().expect("an answer").status, 200);
                        } else {
                            assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200);
                            assert!(matches!(wire.piece(), Piece::Bytes(_)));
                        }
                    }
                });
            }
        });
    };
    let warm_up = streams / 10 / THREADS * THREADS;
    run(warm_up);
    gateway.booked("acme", warm_up as u64);
    let before = gateway.memory_kib();
    run(streams / THREADS * THREADS);
    let calls = (warm_up + streams / THREADS * THREADS) as u64;
    let usage = gateway.booked("acme", calls);
    let grown = gateway.memory_kib().saturating_sub(before);
    assert_eq!((usage.chats, usage.estimated.requests), (calls, 0));
    assert_eq!(usage.tokens(), (11 * calls, 7 * calls, 18 * calls));
    assert_eq!(usage.cost(), calls * CHAT_PICO_USD);
    println!("{streams} streams: {before} KiB before, {grown} KiB more after");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more after {streams} streams");
}
