//! `encrypted_content`: what a client carries for us between two requests, which it need not understand. Pure.
//!
//! It is not secret, because the client has read the same words elsewhere; the name is OpenAI's.

use base64::{Engine, engine::general_purpose::STANDARD};

/// What ours begins with; that of other servers cannot be read.
const MARK: &str = "farllama1.";

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
    fn what_is_sealed_can_be_opened_and_nothing_else() {
        assert_eq!(open(&seal("thought é\u{2028}")).as_deref(), Some("thought é\u{2028}"));
        for foreign in ["", "gAAAAABo", "farllama1.%", "farllama1._w"] {
            assert_eq!(open(foreign), None, "{foreign}");
        }
    }
}
