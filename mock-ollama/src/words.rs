//! The mock's voice: a text that quotes what it was told, the same for the same request and another for another seed. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Dice that fall the same way for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        Self(hasher.finish() | 1)
    }

    /// The next number (splitmix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// One of `choices`.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or(0)]
    }

    /// From 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a fraction need not be exact")]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// `n` characters as in the ids of tool calls.
    pub(crate) fn id(&mut self, n: usize) -> String {
        const CHARS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        (0..n).map(|_| char::from(CHARS[usize::try_from(self.below(36)).unwrap_or(0)])).collect()
    }
}

/// Longest quotation, in words.
const QUOTED: usize = 40;

/// An answer of at least eleven words that quotes `told`.
pub(crate) fn answer(told: &str, dice: &mut Dice) -> String {
    let opening = dice.pick(&["You said", "You wrote", "I read", "I was told", "You asked"]);
    let mood = dice.pick(&["plainly", "gladly", "briefly", "calmly", "carefully", "quickly", "kindly"]);
    let thing = dice.pick(&["river", "garden", "lantern", "meadow", "harbour", "mountain", "letter", "window"]);
    let close = dice.pick(&["and that is all", "and there is more", "as ever", "for now", "without doubt"]);
    format!("{opening}: \"{}\". I answer {mood}, thinking of a {thing} by the quiet sea, {close}.", quote(told))
}

/// What a model thinks before it answers.
pub(crate) fn thought(told: &str, dice: &mut Dice) -> String {
    let way = dice.pick(&["step by step", "from the end", "in small parts", "with care"]);
    format!("The user says \"{}\". I go through it {way}.\n", quote(told))
}

fn quote(told: &str) -> String {
    let mut words = told.split_whitespace();
    let mut quoted = words.by_ref().take(QUOTED).collect::<Vec<_>>().join(" ");
    if words.next().is_some() {
        quoted.push('…');
    }
    quoted
}

/// Cuts a text into tokens: a word with the space before it, long words in pieces.
pub(crate) fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for c in text.chars() {
        let new = match out.last() {
            None => true,
            Some(last) => {
                let begun = last.chars().any(|c| !c.is_whitespace());
                (c.is_whitespace() && begun) || last.chars().count() >= 8 || (begun && c.is_ascii_punctuation())
            }
        };
        if new { out.push(c.to_string()) } else if let Some(last) = out.last_mut() { last.push(c) }
    }
    out
}

/// How many tokens a prompt's text is.
pub(crate) fn count(text: &str) -> u64 {
    text.split_whitespace().map(|word| 1 + word.chars().count() as u64 / 4).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_seed_says_the_same_and_another_says_another() {
        let say = |seed: u64| answer("hello there", &mut Dice::new(&seed));
        assert_eq!(say(1), say(1));
        assert!((2..9).any(|seed| say(seed) != say(1)));
        assert!(say(1).contains("hello there") && say(1).split_whitespace().count() >= 11);
    }

    #[test]
    fn a_longer_text_counts_more() {
        assert!(count("one two three") > count("one two"));
    }

    proptest! {
        #[test]
        fn tokens_join_to_the_text(text in "\\PC{0,40}") {
            prop_assert_eq!(tokens(&text).concat(), text);
        }
    }
}
