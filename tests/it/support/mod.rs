//! What the end-to-end tests stand on: a scripted provider, the real binary, HTTP by hand.

pub mod audit;
pub mod bodies;
pub mod fault_proxy;
pub mod front;
pub mod gateway;
pub mod http2;
pub mod http2_provider;
pub mod load;
pub mod machine;
pub mod postgres;
pub mod provider;
pub mod redis;
pub mod websocket;
pub mod wire;

pub use gateway::{Gateway, Setup, binary, is_release};
pub use provider::{Gate, Provider, Script, Step};
pub use wire::{Answer, Piece, Request, Wire};

use bodies::{CHAT, CHAT_REQUEST, GEMINI, GEMINI_REQUEST};

/// A chat completion of `key`'s tenant.
pub fn chat(key: &str) -> Request {
    Request::post(CHAT, CHAT_REQUEST).bearer(key)
}

/// A chat completion with a body of its own.
pub fn chat_with(key: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::post(CHAT, body).bearer(key)
}

/// A Gemini generation of `key`'s tenant.
pub fn gemini(key: &str) -> Request {
    Request::post(GEMINI, GEMINI_REQUEST).google(key)
}

/// All bytes of `pieces`.
pub fn whole(pieces: &[Vec<u8>]) -> Vec<u8> {
    pieces.concat()
}

/// Makes `count` chats over a few connections and demands that each is served.
pub fn use_up(gateway: &Gateway, key: &str, count: usize) {
    let mut wire = Wire::open(gateway.proxy);
    for call in 0..count {
        let answer = wire.ask(&chat(key));
        assert_eq!(answer.status, 200, "call {call}: {}", answer.text());
    }
}

#[cfg(test)]
mod tests;
