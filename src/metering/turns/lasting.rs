//! The time of a turn that is charged by how long it lasts: room for it is taken ahead, piece by piece, and all of it is held
//! until the turn is booked. So any number of sessions at once stay within a limit, and a silent one does.

use crate::metering::meter::Room;

/// Room is taken for so much time, at first.
const STEP_MS: u64 = 15_000;

/// The same for one that has lasted for as long as this.
const LONG_STEP_MS: u64 = 60_000;

/// The time of one turn.
pub(super) struct Lasting {
    begun_us: u64,
    /// What its provider said last.
    told_ms: u64,
    /// For how much there is room.
    held_ms: u64,
    rooms: Vec<Room>,
    /// No more was left: it is about to end, and nobody asks again.
    is_over: bool,
}

impl Lasting {
    /// Of a turn that begins now.
    pub(super) fn new(now_us: u64) -> Self {
        Self { begun_us: now_us, told_ms: 0, held_ms: 0, rooms: Vec::new(), is_over: false }
    }

    /// Its provider says how long it has lasted.
    pub(super) fn told(&mut self, lasted_ms: u64) {
        self.told_ms = self.told_ms.max(lasted_ms);
    }

    /// When it needs more room, unless it is told before.
    pub(super) fn due_us(&self) -> u64 {
        if self.is_over {
            return u64::MAX;
        }
        self.begun_us.saturating_add(self.held_ms.saturating_mul(1_000))
    }

    /// For how much more time room has to be taken by now.
    pub(super) fn needs_ms(&self, now_us: u64) -> Option<u64> {
        let lasted_ms = self.told_ms.max(now_us.saturating_sub(self.begun_us) / 1_000);
        let short_ms = lasted_ms.checked_sub(self.held_ms).filter(|_| !self.is_over)?;
        Some(short_ms.max(if self.held_ms < LONG_STEP_MS { STEP_MS } else { LONG_STEP_MS }))
    }

    /// There is room for so much more.
    pub(super) fn takes(&mut self, room: Room, more_ms: u64) {
        self.held_ms = self.held_ms.saturating_add(more_ms);
        self.rooms.push(room);
    }

    /// There is none: the session ends.
    pub(super) fn takes_no_more(&mut self) {
        self.is_over = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_ahead_by_the_clock_and_by_what_is_told() {
        let mut lasting = Lasting::new(1_000_000);
        assert_eq!(lasting.needs_ms(1_000_000), Some(STEP_MS));
        lasting.held_ms = STEP_MS;
        assert_eq!((lasting.needs_ms(1_000_000), lasting.due_us()), (None, 16_000_000));
        assert_eq!((lasting.needs_ms(15_999_999), lasting.needs_ms(16_000_000)), (None, Some(STEP_MS)));
        lasting.told(100_000);
        assert_eq!(lasting.needs_ms(1_000_000), Some(85_000), "its provider's clock may be ahead");
        lasting.held_ms = 100_000;
        lasting.told(5);
        assert_eq!(lasting.needs_ms(1_000_000), Some(LONG_STEP_MS));
        lasting.takes_no_more();
        assert_eq!(
            (lasting.needs_ms(u64::MAX), lasting.due_us()),
            (None, u64::MAX),
            "what is refused is asked for once"
        );
    }
}
