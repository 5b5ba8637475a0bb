//! Random numbers that are the same everywhere.

/// `SplitMix64`, from a seed.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `below`.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut roll = self.0;
        roll = (roll ^ (roll >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        roll = (roll ^ (roll >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((roll ^ (roll >> 31)) % below as u64).unwrap()
    }

    /// Whether the one case in `n` is it.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }
}
