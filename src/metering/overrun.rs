//! An answer that puts out more than its call holds.
//!
//! May use: the counters' keys, the budget. The call holds what it was taken for; what is delivered beyond that may still be
//! left of its limits. So the counters are asked once the output passes what is known to be there, and what they say is left is
//! how far it goes until they are asked again.

use crate::domain::plan::Standing;
use crate::ports::counters::Claim;

use super::budget::Quote;

/// Counters are not asked again for fewer tokens.
const STEP_TOKENS: u64 = 64;

/// How far an answer may go.
pub(super) struct Overrun {
    quote: Quote,
    /// By what its call holds.
    held: u64,
    /// By what was left when the counters were asked last.
    known: u64,
}

impl Overrun {
    /// As far as the claims of its call go; `None` where they do not bound its output.
    pub fn of(quote: Quote, claims: &[Claim]) -> Option<Self> {
        quote.output_of(claims).map(|held| Self { quote, held, known: held })
    }

    /// Whether so much output is beyond what is known to be there.
    pub fn is_passed_by(&self, output: u64) -> bool {
        output > self.known
    }

    /// Takes in how the limits of the call stand now. Says whether an answer of so much `output` may go on.
    pub fn may_go_on(&mut self, output: u64, claims: &[Claim], standings: &[Standing]) -> bool {
        let most = self.held.saturating_add(self.quote.output_beyond(claims, standings));
        self.known = most.max(output.saturating_add(STEP_TOKENS));
        output < most
    }
}
