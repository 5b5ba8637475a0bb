//! Fields of requests that not every OpenAI server takes, and which of them a server has refused. Pure.

/// Fields that a request can do without. Of `max_tokens` another name takes the place.
const FIELDS: [&str; 17] = [
    "stream_options",
    "reasoning_effort",
    "chat_template_kwargs",
    "reasoning_content",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repetition_penalty",
    "repeat_last_n",
    "encoding_format",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
];

/// Those of them that are not OpenAI's own: the first to go where a server does not say what it minds.
const FOREIGN: [&str; 9] = [
    "chat_template_kwargs",
    "reasoning_content",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repetition_penalty",
    "repeat_last_n",
    "stream_options",
];

/// A set of [`FIELDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Without(u32);

impl Without {
    /// What OpenAI itself is known to refuse.
    pub(super) fn of_openai() -> Self {
        FOREIGN.iter().filter(|name| **name != "stream_options").fold(Self::default(), |all, name| all.with(name))
    }

    fn bit(name: &str) -> u32 {
        FIELDS.iter().position(|known| *known == name).map_or(0, |at| 1 << at)
    }

    fn with(self, name: &str) -> Self {
        Self(self.0 | Self::bit(name))
    }

    /// Both sets.
    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds `name`, unless it is in `without`. Returns whether it was added.
    pub(super) fn add(&mut self, name: &str, without: &Self) -> bool {
        let bit = Self::bit(name);
        if without.0 & bit != 0 {
            return false;
        }
        self.0 |= bit;
        true
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of the fields in a request that a server's `message` refuses: the ones that it names, or all that are not
    /// OpenAI's if it only says that there is one too many.
    pub(super) fn refused_by(self, message: &str) -> Self {
        let named = |name: &&&str| self.0 & Self::bit(name) != 0 && has_word(message, name);
        let named = FIELDS.iter().filter(named).fold(Self::default(), |all, name| all.with(name));
        if !named.is_empty() {
            return named;
        }
        let message = message.to_ascii_lowercase();
        const COMPLAINTS: [&str; 8] = [
            "extra inputs",
            "extra_forbidden",
            "unknown field",
            "unknown parameter",
            "unrecognized",
            "additional properties",
            "unexpected keyword",
            "unsupported parameter",
        ];
        if !COMPLAINTS.iter().any(|complaint| message.contains(complaint)) {
            return Self::default();
        }
        FOREIGN.iter().filter(|name| self.0 & Self::bit(name) != 0).fold(Self::default(), |all, name| all.with(name))
    }
}

/// Whether `word` stands in `text`, and not within another word.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> Without {
        names.iter().fold(Without::default(), |all, name| all.with(name))
    }

    #[test]
    fn the_fields_that_a_server_minds_are_read_out_of_its_message() {
        let used = set(&["top_k", "temperature", "max_tokens", "stream_options"]);
        for (message, refused) in [
            ("Unrecognized request argument supplied: top_k", &["top_k"][..]),
            ("property 'top_k' is unsupported", &["top_k"]),
            (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                &["max_tokens"],
            ),
            ("Unsupported value: 'temperature' does not support 0.2 with this model.", &["temperature"]),
            ("Extra inputs are not permitted", &["top_k", "stream_options"]),
            ("min_p is not supported", &[]),
            ("This model's maximum context length is 10 tokens", &[]),
            ("top_kk", &[]),
        ] {
            assert_eq!(used.refused_by(message), set(refused), "{message}");
        }
    }

    #[test]
    fn every_foreign_field_can_be_left_out() {
        assert!(FOREIGN.iter().all(|name| Without::bit(name) != 0));
    }
}
