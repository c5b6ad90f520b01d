//! Who pays for what ending: the billing matrix.
//!
//! One table says it all: a row for each way in which a call can end, a column for each point that it can have reached.
//! May use: the sibling `event`.

use super::event::Outcome;

/// How far a call had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// It was admitted; nothing of it went out.
    #[default]
    Admitted,
    /// It, or some of it, went out: the provider may charge from here on.
    Sent,
    /// The head of an answer that is billed came, and nothing behind it.
    Head,
    /// Some of its body came.
    Streaming,
    /// Its terminal event came, or the end of its document: nothing that follows can change what was charged.
    Complete,
    /// The head of an answer that no provider bills came: 204 or 3xx. The phase stays, whatever follows.
    Unbilled,
    /// The head of an error came, 400 or more, which no provider bills. The phase stays, whatever follows.
    Failed,
}

/// What ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The answer ended, as its terminal event or its framing says, and the client was there.
    Whole,
    /// The same, but the client had left before: the provider was read on to the end. Nobody looks at the client before
    /// there is a head, so one that leaves earlier has left at the head.
    ClientLeft,
    /// The client left, and the provider was not at its end when the cap of time or bytes was reached.
    DrainCapped,
    /// No connection to the provider, or it was cut. A FIN and an RST are one.
    BrokeOff,
    /// No connection or no head in time, or no further piece.
    TimedOut,
    /// The call was dropped by the gateway: shutdown, a panic, a cancelled task.
    Dropped,
    /// The process ended without a word; the next start finds the admission and nothing else.
    Killed,
}

/// What the tokens of a call are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Nothing was charged.
    Nothing,
    /// The last usage that the provider reported; where it reported none, an estimate of the prompt and of what was
    /// delivered, flagged.
    ReportedOrEstimate,
    /// An estimate of the prompt alone, flagged: what was delivered is not known. Never what was held.
    PromptEstimate,
}

/// What an ending means for the bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether the chat, if the call is one, is kept; else it is given back.
    pub chat_kept: bool,
    /// What the tokens are taken from.
    pub basis: Basis,
    /// The outcome to book.
    pub outcome: Outcome,
}

impl Phase {
    /// All of them, in the order of the matrix.
    pub const ALL: [Self; 7] =
        [Self::Admitted, Self::Sent, Self::Head, Self::Streaming, Self::Complete, Self::Unbilled, Self::Failed];

    /// Where a call is when the head of its answer came.
    pub fn at_head(status: u16) -> Self {
        match status {
            400.. => Self::Failed,
            204 | 300..=399 => Self::Unbilled,
            _ => Self::Head,
        }
    }

    /// Where it is when more of the body came; `complete`: the answer says that this was all.
    #[must_use]
    pub fn after_piece(self, complete: bool) -> Self {
        match self {
            Self::Head | Self::Streaming if complete => Self::Complete,
            Self::Head => Self::Streaming,
            stays => stays,
        }
    }
}

impl Ending {
    /// All of them, in the order of the matrix.
    pub const ALL: [Self; 7] =
        [Self::Whole, Self::ClientLeft, Self::DrainCapped, Self::BrokeOff, Self::TimedOut, Self::Dropped, Self::Killed];
}

/// The verdict on a call that had come to `phase` when `ending` ended it. Total: what cannot happen has one, too.
pub fn verdict(phase: Phase, ending: Ending) -> Verdict {
    cell(phase, ending).unwrap_or(IMPOSSIBLE)
}

/// Booked for a pair that cannot happen, should a mistake make it happen: nothing is free, and the event says that
/// something went wrong.
pub const IMPOSSIBLE: Verdict =
    Verdict { chat_kept: true, basis: Basis::ReportedOrEstimate, outcome: Outcome::Interrupted };

/// One place of the matrix; `None` where the pair cannot happen.
type Cell = Option<Verdict>;

const fn kept(outcome: Outcome) -> Cell {
    Some(Verdict { chat_kept: true, basis: Basis::ReportedOrEstimate, outcome })
}

const fn back(outcome: Outcome) -> Cell {
    Some(Verdict { chat_kept: false, basis: Basis::Nothing, outcome })
}

/// The chat is kept; tokens as reported, else estimated.
const DONE: Cell = kept(Outcome::Completed);
const LEFT: Cell = kept(Outcome::ClientLeft);
const CUT: Cell = kept(Outcome::UpstreamFailed);
const DROP: Cell = kept(Outcome::Interrupted);

/// The chat is given back; no tokens.
const B_DONE: Cell = back(Outcome::Completed);
const B_LEFT: Cell = back(Outcome::ClientLeft);
const B_CUT: Cell = back(Outcome::UpstreamFailed);
const B_DROP: Cell = back(Outcome::Interrupted);
const B_NONE: Cell = back(Outcome::NoAnswer);
const B_ERR: Cell = back(Outcome::UpstreamError);

/// The chat is kept; the prompt is estimated.
const KILL: Cell = Some(Verdict { chat_kept: true, basis: Basis::PromptEstimate, outcome: Outcome::Interrupted });

/// Cannot happen: without a head there is no answer to end, and nobody has looked whether the client is there.
const NEVER: Cell = None;

/// The matrix. A provider bills neither errors nor redirects nor empty answers, nor what it never answered; all else that
/// went out may have been charged and is kept.
#[rustfmt::skip]
const fn row(ending: Ending) -> [Cell; 7] {
    match ending {
        //                     Admitted  Sent    Head    Streaming  Complete  Unbilled  Failed
        Ending::Whole       => [NEVER,   NEVER,  DONE,   DONE,      DONE,     B_DONE,   B_ERR],
        Ending::ClientLeft  => [NEVER,   NEVER,  LEFT,   LEFT,      LEFT,     B_LEFT,   B_ERR],
        Ending::DrainCapped => [NEVER,   NEVER,  LEFT,   LEFT,      LEFT,     B_LEFT,   B_ERR],
        // A break behind the terminal event takes nothing away: the answer was complete.
        Ending::BrokeOff    => [B_NONE,  B_NONE, CUT,    CUT,       DONE,     B_CUT,    B_ERR],
        Ending::TimedOut    => [B_NONE,  B_NONE, CUT,    CUT,       DONE,     B_CUT,    B_ERR],
        // Behind the terminal event, too: it is booked before its last bytes go out, so the client has not got them.
        Ending::Dropped     => [B_DROP,  DROP,   DROP,   DROP,      DROP,     B_DROP,   B_ERR],
        // How far the call had come died with the process.
        Ending::Killed      => [KILL,    KILL,   KILL,   KILL,      KILL,     KILL,     KILL],
    }
}

const fn cell(phase: Phase, ending: Ending) -> Cell {
    let [admitted, sent, head, streaming, complete, unbilled, failed] = row(ending);
    match phase {
        Phase::Admitted => admitted,
        Phase::Sent => sent,
        Phase::Head => head,
        Phase::Streaming => streaming,
        Phase::Complete => complete,
        Phase::Unbilled => unbilled,
        Phase::Failed => failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bill says: chat, tokens, outcome.
    fn said(phase: Phase, ending: Ending) -> String {
        let Some(Verdict { chat_kept, basis, outcome }) = cell(phase, ending) else { return "cannot happen".into() };
        let chat = if chat_kept { "kept" } else { "given back" };
        let tokens = match basis {
            Basis::Nothing => "none",
            Basis::ReportedOrEstimate => "reported or estimate",
            Basis::PromptEstimate => "prompt estimate",
        };
        format!("{chat}, {tokens}, {}", outcome.as_str())
    }

    #[test]
    fn every_pair_of_phase_and_ending_has_its_payer() {
        use Ending::{BrokeOff, ClientLeft, DrainCapped, Dropped, Killed, TimedOut, Whole};
        use Phase::{Admitted, Complete, Failed, Head, Sent, Streaming, Unbilled};
        let rows = [
            (Admitted, Whole, "cannot happen"),
            (Admitted, ClientLeft, "cannot happen"),
            (Admitted, DrainCapped, "cannot happen"),
            (Admitted, BrokeOff, "given back, none, no_answer"),
            (Admitted, TimedOut, "given back, none, no_answer"),
            (Admitted, Dropped, "given back, none, interrupted"),
            (Admitted, Killed, "kept, prompt estimate, interrupted"),
            (Sent, Whole, "cannot happen"),
            (Sent, ClientLeft, "cannot happen"),
            (Sent, DrainCapped, "cannot happen"),
            (Sent, BrokeOff, "given back, none, no_answer"),
            (Sent, TimedOut, "given back, none, no_answer"),
            (Sent, Dropped, "kept, reported or estimate, interrupted"),
            (Sent, Killed, "kept, prompt estimate, interrupted"),
            (Head, Whole, "kept, reported or estimate, completed"),
            (Head, ClientLeft, "kept, reported or estimate, client_left"),
            (Head, DrainCapped, "kept, reported or estimate, client_left"),
            (Head, BrokeOff, "kept, reported or estimate, upstream_failed"),
            (Head, TimedOut, "kept, reported or estimate, upstream_failed"),
            (Head, Dropped, "kept, reported or estimate, interrupted"),
            (Head, Killed, "kept, prompt estimate, interrupted"),
            (Streaming, Whole, "kept, reported or estimate, completed"),
            (Streaming, ClientLeft, "kept, reported or estimate, client_left"),
            (Streaming, DrainCapped, "kept, reported or estimate, client_left"),
            (Streaming, BrokeOff, "kept, reported or estimate, upstream_failed"),
            (Streaming, TimedOut, "kept, reported or estimate, upstream_failed"),
            (Streaming, Dropped, "kept, reported or estimate, interrupted"),
            (Streaming, Killed, "kept, prompt estimate, interrupted"),
            (Complete, Whole, "kept, reported or estimate, completed"),
            (Complete, ClientLeft, "kept, reported or estimate, client_left"),
            (Complete, DrainCapped, "kept, reported or estimate, client_left"),
            (Complete, BrokeOff, "kept, reported or estimate, completed"),
            (Complete, TimedOut, "kept, reported or estimate, completed"),
            (Complete, Dropped, "kept, reported or estimate, interrupted"),
            (Complete, Killed, "kept, prompt estimate, interrupted"),
            (Unbilled, Whole, "given back, none, completed"),
            (Unbilled, ClientLeft, "given back, none, client_left"),
            (Unbilled, DrainCapped, "given back, none, client_left"),
            (Unbilled, BrokeOff, "given back, none, upstream_failed"),
            (Unbilled, TimedOut, "given back, none, upstream_failed"),
            (Unbilled, Dropped, "given back, none, interrupted"),
            (Unbilled, Killed, "kept, prompt estimate, interrupted"),
            (Failed, Whole, "given back, none, upstream_error"),
            (Failed, ClientLeft, "given back, none, upstream_error"),
            (Failed, DrainCapped, "given back, none, upstream_error"),
            (Failed, BrokeOff, "given back, none, upstream_error"),
            (Failed, TimedOut, "given back, none, upstream_error"),
            (Failed, Dropped, "given back, none, upstream_error"),
            (Failed, Killed, "kept, prompt estimate, interrupted"),
        ];
        let pairs = Phase::ALL.into_iter().flat_map(|phase| Ending::ALL.map(|ending| (phase, ending)));
        assert!(pairs.eq(rows.map(|(phase, ending, _)| (phase, ending))), "a row for every pair, in order");
        for (phase, ending, bill) in rows {
            assert_eq!(said(phase, ending), bill, "{phase:?} and {ending:?}");
            assert_eq!(verdict(phase, ending), cell(phase, ending).unwrap_or(IMPOSSIBLE));
        }
    }

    #[test]
    fn a_status_decides_once_whether_an_answer_is_billed() {
        let rows = [
            (200, Phase::Head),
            (201, Phase::Head),
            (203, Phase::Head),
            (204, Phase::Unbilled),
            (205, Phase::Head),
            (299, Phase::Head),
            (300, Phase::Unbilled),
            (302, Phase::Unbilled),
            (304, Phase::Unbilled),
            (399, Phase::Unbilled),
            (400, Phase::Failed),
            (402, Phase::Failed),
            (429, Phase::Failed),
            (500, Phase::Failed),
            (599, Phase::Failed),
            (999, Phase::Failed),
        ];
        for (status, phase) in rows {
            assert_eq!(Phase::at_head(status), phase, "{status}");
        }
        for phase in [Phase::Unbilled, Phase::Failed, Phase::Admitted, Phase::Sent, Phase::Complete] {
            assert_eq!([phase.after_piece(false), phase.after_piece(true)], [phase; 2], "{phase:?} stays");
        }
        for phase in [Phase::Head, Phase::Streaming] {
            assert_eq!([phase.after_piece(false), phase.after_piece(true)], [Phase::Streaming, Phase::Complete]);
        }
    }
}
