//! Masks keys and other credentials in texts that leave the proxy: log lines, payload snippets and error messages.
//! Pure.

use std::{borrow::Cow, sync::Arc};

use aho_corasick::{AhoCorasick, MatchKind};
use http::HeaderValue;
use memchr::memmem;

/// Shorter words are not keys: many tools send `x` or `ollama` because they must send something.
const SHORTEST_KEY: usize = 8;

/// Up to so many keys are searched for one after the other.
const FEW_KEYS: usize = 8;

const MASK: &str = "***";

/// Knows the values of headers that must not be shown. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor(Arc<[HeaderValue]>);

impl Redactor {
    pub(crate) fn new(secrets: impl IntoIterator<Item = HeaderValue>) -> Self {
        Self(secrets.into_iter().collect())
    }

    /// Returns `text` without the secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        masked(text, &self.0).into_owned()
    }
}

/// Returns `text` without the keys in `secrets`, values of headers.
pub(crate) fn masked<'a>(text: &'a str, secrets: &[HeaderValue]) -> Cow<'a, str> {
    let keys = || secrets.iter().flat_map(keys_of);
    // One search for each of a few keys is cheaper; a header can hold thousands of words, though, and a text megabytes.
    if keys().nth(FEW_KEYS).is_none() {
        let found = |text: &str, key: &str| memmem::find(text.as_bytes(), key.as_bytes()).is_some();
        return keys().fold(Cow::Borrowed(text), |text, key| match found(&text, key) {
            true => Cow::Owned(text.replace(key, MASK)),
            false => text,
        });
    }
    let keys: Vec<&str> = keys().collect();
    let masks = vec![MASK; keys.len()];
    let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&keys);
    Cow::Owned(search.map_or_else(|_| MASK.to_owned(), |search| search.replace_all(text, &masks)))
}

/// Longest text that is searched for one key after the other.
const SHORT: usize = 256;

/// Whether `text` may have a key of `secrets` in it. Most texts are short, and are looked at; a long one may.
pub(crate) fn may_show_key(text: &str, secrets: &[HeaderValue]) -> bool {
    let mut keys = secrets.iter().flat_map(keys_of);
    keys.any(|key| {
        text.len() > SHORT || key.len() <= text.len() && memmem::find(text.as_bytes(), key.as_bytes()).is_some()
    })
}

/// The words of a header that may be keys.
pub(crate) fn keys_of(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    let apart = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
    let words = text.as_bytes().split(apart).filter(|word| word.len() >= SHORTEST_KEY);
    // Cut at ASCII, it is still UTF-8.
    words.filter_map(|word| std::str::from_utf8(word).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_a_header_is_masked() {
        let secrets = [
            HeaderValue::from_static("Bearer  sk-secret-1, Bearer sk-secret-2"),
            HeaderValue::from_static("sk-secret-3"),
        ];
        assert_eq!(masked("sk-secret-1 sk-secret-2 sk-secret-3 Bearer", &secrets), "*** *** *** Bearer");
    }

    #[test]
    fn any_number_of_keys_is_masked() {
        let keys: Vec<String> = (0..5000).map(|n| format!("sk-{n:08}")).collect();
        let header = HeaderValue::try_from(keys.join(",")).unwrap();
        // Fast: a search for each of the keys would take a minute.
        let text = keys.join(" ").repeat(20);
        assert!(!masked(&text, &[header]).contains("sk-"));
    }

    #[test]
    fn a_text_that_shows_no_key_need_not_be_masked() {
        let secrets = [HeaderValue::from_static("Bearer sk-secret-1"), HeaderValue::from_static("sk-secret-2")];
        for (text, shows) in [("/v1/sk-secret-2/x", true), ("sk-secret", false), ("", false), ("/v1/models", false)] {
            assert_eq!(may_show_key(text, &secrets), shows, "{text}");
            assert_eq!(masked(text, &secrets) != text, shows, "{text}");
        }
        let long = "x".repeat(SHORT + 1);
        assert!(may_show_key(&long, &secrets) && !may_show_key(&long, &[]));
    }

    #[test]
    fn a_word_that_tools_send_for_want_of_a_key_is_no_key() {
        assert_eq!(masked("registry.ollama.ai", &[HeaderValue::from_static("Bearer ollama")]), "registry.ollama.ai");
    }
}
