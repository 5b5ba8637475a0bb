//! Texts that a client carries for this proxy between two requests without reading them: OpenAI's `encrypted_content`, Anthropic's
//! `signature`. Pure.
//!
//! They are not secret: the client may read the same text elsewhere. "Encrypted" is OpenAI's name.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// What ours begins with; that of other servers cannot be read.
const MARK: &str = "farllama1.";

/// What a checksum of ours begins with.
const SUM: &str = "farllama-sum1.";

/// The checksum of a text that comes in pieces, for the client to carry beside the text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum(Sha256);

impl Sum {
    pub(crate) fn add(&mut self, piece: &str) {
        self.0.update(piece);
    }

    /// As the client carries it.
    pub(crate) fn written(self) -> String {
        format!("{SUM}{}", STANDARD.encode(&self.0.finalize()[..18]))
    }
}

/// Whether `sum` is that of `text`. None: it is not a checksum of ours.
pub(crate) fn check(sum: &str, text: &str) -> Option<bool> {
    sum.starts_with(SUM).then(|| {
        let mut own = Sum::default();
        own.add(text);
        own.written() == sum
    })
}

/// A text for the client to carry.
pub(crate) fn seal(text: &str) -> String {
    format!("{MARK}{}", STANDARD.encode(text))
}

/// The text that was carried, if it is ours.
pub(crate) fn open(sealed: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(sealed.strip_prefix(MARK)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_belongs_to_its_text_alone() {
        let mut sum = Sum::default();
        sum.add("thou");
        sum.add("ght é");
        let whole = sum.written();
        assert_eq!(check(&whole, "thought é"), Some(true));
        assert_eq!(check(&whole, "thought e"), Some(false));
        for foreign in ["", "EqQBCgIYAhIM", &seal("thought é")] {
            assert_eq!(check(foreign, "thought é"), None, "{foreign}");
        }
    }

    #[test]
    fn what_is_sealed_can_be_opened_and_nothing_else() {
        assert_eq!(open(&seal("thought é\u{2028}")).as_deref(), Some("thought é\u{2028}"));
        for foreign in ["", "gAAAAABo", "farllama1.%", "farllama1._w"] {
            assert_eq!(open(foreign), None, "{foreign}");
        }
    }
}
