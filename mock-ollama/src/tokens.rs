//! Text as tokens: not any real model's, but counted alike. Words with the space before them (long ones in pieces),
//! digits, marks and newlines one each, special tokens whole, and characters beyond the basic plane in two halves.

/// A token: bytes, because a character may need two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) Vec<u8>);

/// Letters of a word that share a token.
const PIECE: usize = 8;

impl Token {
    /// A number below 49,152 that stands for it.
    pub(crate) fn id(&self) -> u64 {
        hash(&self.0) % 49_152
    }
}

/// FNV-1a, which is the same on every machine and in every release.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// All tokens of a text, in order.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = Token> + '_ {
    let mut rest = text;
    let mut half: Option<Token> = None;
    std::iter::from_fn(move || {
        if let Some(half) = half.take() {
            return Some(half);
        }
        let first = rest.chars().next()?;
        let len = length(rest, first);
        let (token, after) = rest.split_at(len);
        rest = after;
        let bytes = token.as_bytes();
        if first.len_utf8() == 4 {
            half = Some(Token(bytes[2..].to_vec()));
            return Some(Token(bytes[..2].to_vec()));
        }
        Some(Token(bytes.to_vec()))
    })
}

/// How many tokens a text has.
pub(crate) fn count(text: &str) -> usize {
    tokens(text).count()
}

/// Bytes of the first token of `rest`, which starts with `first`.
fn length(rest: &str, first: char) -> usize {
    if rest.starts_with("<|")
        && let Some(end) = rest.find("|>").filter(|end| *end < 24 && !rest[..*end].contains(char::is_whitespace))
    {
        return end + 2;
    }
    let space = usize::from(first == ' ');
    let word = &rest[space..];
    match word.chars().next() {
        Some(c) if is_letter(c) => space + letters(word),
        Some('\'') if space == 0 && word[1..].starts_with(is_letter) => 1 + letters(&word[1..]),
        // A space goes with a mark, but not with a digit, a newline, another space or a character of two halves.
        Some(c) if space == 1 && c.is_ascii_punctuation() => 2,
        _ => first.len_utf8(),
    }
}

fn is_letter(c: char) -> bool {
    c.is_alphabetic() && c.len_utf8() < 3
}

fn letters(word: &str) -> usize {
    word.chars().take(PIECE).take_while(|c| is_letter(*c)).map(char::len_utf8).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<String> {
        tokens(text).map(|token| String::from_utf8(token.0).unwrap()).collect()
    }

    #[test]
    fn words_digits_and_marks_are_tokens() {
        assert_eq!(split("Say hello to the world."), ["Say", " hello", " to", " the", " world", "."]);
        assert_eq!(split("I'm 42!\n"), ["I", "'m", " ", "4", "2", "!", "\n"]);
        assert_eq!(split("<|im_start|>assistant"), ["<|im_start|>", "assistan", "t"]);
    }

    #[test]
    fn a_character_beyond_the_basic_plane_has_two_halves() {
        assert_eq!(count("🌍"), 2);
        assert_eq!(tokens("🌍").flat_map(|token| token.0).collect::<Vec<u8>>(), "🌍".as_bytes());
    }

    proptest! {
        #[test]
        fn tokens_joined_are_the_text(text in "\\PC{0,40}|[ -~\\n]{0,40}") {
            prop_assert_eq!(tokens(&text).flat_map(|token| token.0).collect::<Vec<u8>>(), text.as_bytes());
        }
    }
}
