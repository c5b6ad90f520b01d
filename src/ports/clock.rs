//! Time and randomness, so that everything else takes them as values.

use crate::domain::ids::EventId;
use crate::domain::time::Micros;

/// The one place where "now" and random bits come from.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump; periods and event ids follow it, durations do not.
    fn now(&self) -> Micros;

    /// Microseconds on a clock that never goes back, from an arbitrary start. For durations.
    fn monotonic_us(&self) -> u64;

    /// 128 random bits, unpredictable enough for ids (not for keys).
    fn random(&self) -> u128;

    /// A new event id.
    fn event_id(&self) -> EventId {
        EventId::new(self.now().unix_ms(), self.random())
    }
}
