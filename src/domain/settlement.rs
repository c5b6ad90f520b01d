//! Who pays for what ending: the billing matrix as one function.

use super::event::Outcome;

/// How an exchange with a provider ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// No head came: connecting failed, nothing came in time, or the connection broke.
    NoHead,
    /// The whole answer was had. `client_left`: it could not all be passed on.
    Whole {
        /// The provider's status.
        status: u16,
        /// The client had left before the end.
        client_left: bool,
    },
    /// The provider broke off after its head.
    BrokeOff {
        /// The provider's status.
        status: u16,
    },
    /// The client left, and the provider was not read to its end within the drain cap.
    DrainCapped,
    /// The exchange was dropped: shutdown or a panic. `sent`: the request, or some of it, had gone out.
    Dropped {
        /// Whether the provider may have seen the request.
        sent: bool,
    },
}

/// What the tokens of a call are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Nothing was charged.
    Nothing,
    /// The last usage that the provider reported; an estimate, flagged, where it reported none.
    ReportedOrEstimate,
}

/// What an ending means for the bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the chat, if the call is one, is kept; else it is given back.
    pub chat_kept: bool,
    /// What the tokens are taken from.
    pub basis: Basis,
    /// The outcome to book.
    pub outcome: Outcome,
}

/// The verdict on an ending. A provider bills neither errors nor redirects nor empty answers.
pub fn verdict(ending: Ending) -> Verdict {
    let given_back = |outcome| Verdict { chat_kept: false, basis: Basis::Nothing, outcome };
    let kept = |basis, outcome| Verdict { chat_kept: true, basis, outcome };
    match ending {
        Ending::NoHead => given_back(Outcome::NoAnswer),
        Ending::Whole { status: 400.., .. } | Ending::BrokeOff { status: 400.. } => given_back(Outcome::UpstreamError),
        Ending::Whole { status: 204 | 300..=399, client_left } => {
            given_back(if client_left { Outcome::ClientLeft } else { Outcome::Completed })
        }
        Ending::BrokeOff { status: 204 | 300..=399 } => given_back(Outcome::UpstreamFailed),
        Ending::Whole { client_left: false, .. } => kept(Basis::ReportedOrEstimate, Outcome::Completed),
        Ending::Whole { client_left: true, .. } | Ending::DrainCapped => {
            kept(Basis::ReportedOrEstimate, Outcome::ClientLeft)
        }
        Ending::BrokeOff { .. } => kept(Basis::ReportedOrEstimate, Outcome::UpstreamFailed),
        Ending::Dropped { sent: false } => given_back(Outcome::Interrupted),
        Ending::Dropped { sent: true } => kept(Basis::ReportedOrEstimate, Outcome::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_its_payer() {
        use Basis::{Nothing, ReportedOrEstimate};
        let rows = [
            (Ending::NoHead, false, Nothing, Outcome::NoAnswer),
            (Ending::Whole { status: 200, client_left: false }, true, ReportedOrEstimate, Outcome::Completed),
            (Ending::Whole { status: 200, client_left: true }, true, ReportedOrEstimate, Outcome::ClientLeft),
            (Ending::Whole { status: 204, client_left: false }, false, Nothing, Outcome::Completed),
            (Ending::Whole { status: 302, client_left: false }, false, Nothing, Outcome::Completed),
            (Ending::Whole { status: 400, client_left: false }, false, Nothing, Outcome::UpstreamError),
            (Ending::Whole { status: 402, client_left: true }, false, Nothing, Outcome::UpstreamError),
            (Ending::Whole { status: 429, client_left: false }, false, Nothing, Outcome::UpstreamError),
            (Ending::Whole { status: 599, client_left: false }, false, Nothing, Outcome::UpstreamError),
            (Ending::BrokeOff { status: 200 }, true, ReportedOrEstimate, Outcome::UpstreamFailed),
            (Ending::BrokeOff { status: 500 }, false, Nothing, Outcome::UpstreamError),
            (Ending::BrokeOff { status: 304 }, false, Nothing, Outcome::UpstreamFailed),
            (Ending::DrainCapped, true, ReportedOrEstimate, Outcome::ClientLeft),
            (Ending::Dropped { sent: false }, false, Nothing, Outcome::Interrupted),
            (Ending::Dropped { sent: true }, true, ReportedOrEstimate, Outcome::Interrupted),
        ];
        for (ending, chat_kept, basis, outcome) in rows {
            assert_eq!(verdict(ending), Verdict { chat_kept, basis, outcome }, "{ending:?}");
        }
    }
}
