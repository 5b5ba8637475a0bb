//! Texts that a client carries for this proxy between two requests without reading them: OpenAI's `encrypted_content`,
//! Anthropic's `signature`. Pure.
//!
//! Thoughts are not secret: the client may read the same text elsewhere, and "encrypted" is OpenAI's name. Compactions
//! are: a [`Key`] encrypts and authenticates them, because a changed one would be taken for what really happened.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::error::Error;

/// What ours begins with; that of other servers cannot be read.
const MARK: &str = "farllama1.";

/// What a compaction of ours begins with; it is authenticated with the rest.
const COMPACTED: &str = "farllama-c1.";

/// Encrypts and authenticates what a client carries: AES-256-GCM with a random nonce. Cheap to share, not to make.
#[derive(Debug)]
pub(crate) struct Key(RandomizedNonceKey);

impl Key {
    /// The key that `secret` stands for.
    ///
    /// # Errors
    /// None that a digest can cause.
    pub(crate) fn of(secret: &[u8]) -> Result<Self, Error> {
        let mut digest = Sha256::new();
        digest.update(b"farllama compaction");
        digest.update(secret);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &digest.finalize());
        key.map(Self).map_err(|error| Error::Internal { message: error.to_string() })
    }

    /// A text for the client to carry, which can only be read or changed with the key.
    ///
    /// # Errors
    /// Fails if there is no randomness.
    pub(crate) fn seal(&self, text: &str) -> Result<String, Error> {
        let mut sealed = text.as_bytes().to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::from(COMPACTED), &mut sealed);
        let nonce = nonce.map_err(|error| Error::Internal { message: error.to_string() })?;
        Ok(format!("{COMPACTED}{}", STANDARD.encode([&nonce.as_ref()[..], &sealed].concat())))
    }

    /// The text that was carried, if it was sealed with this key and is unchanged.
    pub(crate) fn open(&self, sealed: &str) -> Option<String> {
        let mut sealed = STANDARD.decode(sealed.strip_prefix(COMPACTED)?).ok()?;
        let (nonce, sealed) = sealed.split_at_mut_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let text = self.0.open_in_place(nonce, Aad::from(COMPACTED), sealed).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Bytes of a nonce.
const NONCE: usize = aws_lc_rs::aead::NONCE_LEN;

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
    fn a_compaction_opens_with_its_key_and_with_every_byte_unchanged() {
        let key = Key::of(b"secret").unwrap();
        let sealed = key.seal("summary é").unwrap();
        assert_eq!(Key::of(b"secret").unwrap().open(&sealed).as_deref(), Some("summary é"), "after a restart");
        assert_ne!(sealed, key.seal("summary é").unwrap(), "no nonce is used twice");
        assert_eq!(Key::of(b"other").unwrap().open(&sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open(&String::from_utf8(changed).unwrap()), None, "byte {at}");
            assert_eq!(key.open(&sealed[..at]), None, "cut at {at}");
        }
        for foreign in ["", "gAAAAABo", "farllama-c1.", &seal("summary é")] {
            assert_eq!(key.open(foreign), None, "{foreign}");
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
