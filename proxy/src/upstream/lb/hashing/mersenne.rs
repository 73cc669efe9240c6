//! The Mersenne Twister of 32 bits, for an order of hosts that is the same in every proxy.
//!
//! Source: Matsumoto and Nishimura, MT19937; C++ `std::mt19937`, whose 10,000th number with the default seed the standard gives.

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// The generator. 2.5 KB on the stack.
pub(super) struct Mersenne {
    words: [u32; WORDS],
    next: usize,
}

impl Mersenne {
    pub(super) fn new(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for index in 1..WORDS {
            let before = words[index - 1];
            words[index] = (before ^ (before >> 30))
                .wrapping_mul(1_812_433_253)
                .wrapping_add(index as u32);
        }
        Self { words, next: WORDS }
    }

    /// The next number.
    fn next(&mut self) -> u32 {
        if self.next == WORDS {
            self.twist();
        }
        let mut word = self.words[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn twist(&mut self) {
        for index in 0..WORDS {
            let joined = (self.words[index] & 0x8000_0000) | (self.words[(index + 1) % WORDS] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.words[index] = self.words[(index + SHIFT) % WORDS] ^ (joined >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// A number below `limit`, each as likely; 0 when `limit` is.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        if limit == 0 {
            return 0;
        }
        let part = (1_u64 << 32) / u64::from(limit);
        loop {
            let number = u64::from(self.next()) / part;
            if number < u64::from(limit) {
                return number as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: C++ standard, `rand.predef`.
    #[test]
    fn the_ten_thousandth_number_is_that_of_the_standard() {
        let mut random = Mersenne::new(5489);
        let last = (0..10_000).map(|_| random.next()).last();
        assert_eq!(last, Some(4_123_659_995));
    }
}
