//! Keys, which no report shows: neither in the headers that hold them nor wherever else they turn up.

use crate::call::tap::Recording;

/// The ends of names that people give to headers with keys.
const NAMES: [&str; 6] = ["authorization", "key", "token", "secret", "cookie", "password"];

/// What is shorter is no secret: many tools send `x` because they must send something, and a word is found everywhere.
const SHORTEST: usize = 8;

/// The keys that a step has sent.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Those in the headers of requests.
    #[must_use]
    pub fn of<'a>(recordings: impl IntoIterator<Item = &'a Recording>) -> Self {
        let headers = recordings.into_iter().flat_map(|recording| &recording.request_headers);
        let values = headers.filter(|(name, _)| is_secret(name)).map(|(_, value)| value);
        let mut keys: Vec<_> = values.filter_map(|value| value.split_ascii_whitespace().next_back()).collect();
        keys.retain(|key| key.len() >= SHORTEST && *key != crate::call::API_KEY);
        // A key that holds another goes first.
        keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
        keys.dedup();
        Self(keys.into_iter().map(str::to_owned).collect())
    }

    /// These too, which are known to be secret.
    #[must_use]
    pub fn and(mut self, more: &[String]) -> Self {
        self.0.extend(more.iter().filter(|key| !key.is_empty()).cloned());
        self.0.sort_by_key(|key| std::cmp::Reverse(key.len()));
        self
    }

    /// `text` without them.
    #[must_use]
    pub fn hidden(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, key| text.replace(key, "***"))
    }
}

/// Returns the value of a header as reports and recordings show it.
pub(crate) fn masked<'a>(name: &str, value: &'a str) -> &'a str {
    if is_secret(name) { "***" } else { value }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hidden_wherever_it_stands_and_the_harness_own_word_is_no_key() {
        let sent = |name: &str, value: &str| Recording {
            request_headers: vec![(name.to_owned(), value.to_owned())],
            ..Recording::default()
        };
        let secrets = Secrets::of(&[
            sent("Authorization", "Bearer blue-canary"),
            sent("x-team-key", "blue-canary-2"),
            sent("authorization", "Bearer farllama-check"),
            sent("x-other", "no secret"),
            sent("x-api-key", "x"),
        ]);
        let text = "blue-canary, blue-canary-2, farllama-check, no secret, x";
        assert_eq!(secrets.hidden(text), "***, ***, farllama-check, no secret, x");
    }
}
