//! Names and paths of requests inside messages: cut, so that a long one makes no long message.

use std::borrow::Cow;

/// The maximum length of a name or a path, in characters.
pub(crate) const NAME: usize = 200;

/// `text`, cut after `max` characters.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
    }
}

/// A name or a path in a message: cut at [`NAME`].
pub(crate) fn name(text: &str) -> Cow<'_, str> {
    cut(text, NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_says_so() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(name(&"x".repeat(20_000)).chars().count(), NAME + 1);
    }
}
