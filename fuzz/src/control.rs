//! Splits what the fuzzer made into choices and a body.

/// Bytes that are taken from the front.
pub struct Control<'a>(pub &'a [u8]);

impl<'a> Control<'a> {
    /// The next byte; 0 when there is none.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// One of them.
    pub fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// A number of two bytes.
    pub fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// What is left, and two places to cut it at.
    pub fn cut(mut self) -> (&'a [u8], [&'a [u8]; 3]) {
        let (a, b) = (self.number(), self.number());
        let rest = self.0;
        let (a, b) = (a % (rest.len() + 1), b % (rest.len() + 1));
        (rest, [&rest[..a.min(b)], &rest[a.min(b)..a.max(b)], &rest[a.max(b)..]])
    }
}
