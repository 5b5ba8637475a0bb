//! Which Ollama is played, and what differs between them: every cut point has a name here, and is asked for by that name.
//!
//! Source: the timeline and the tables of recorded differences between 0.13.5, 0.20.0 and 0.33.0-rc2.

use std::{fmt, str::FromStr};

/// A version as `/api/version` tells it. A release candidate counts as the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    number: (u32, u32, u32),
}

/// A text that is no version such as `0.32.5`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ollama version such as 0.32.5")]
pub struct NoVersion(String);

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let wrong = || NoVersion(text.to_owned());
        let (number, _) = text.split_once('-').unwrap_or((text, ""));
        let mut parts = number.split('.').map(str::parse::<u32>);
        let mut part = || parts.next().and_then(Result::ok).ok_or_else(wrong);
        let number = (part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), number })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Default for Version {
    fn default() -> Self {
        Self { text: "0.33.0-rc2".to_owned(), number: (0, 33, 0) }
    }
}

impl Version {
    /// Whether it came before another.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.number < other.number
    }

    fn at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        self.number >= (major, minor, patch)
    }

    /// Whether a known path asked with a wrong method is 405 instead of 404.
    pub(crate) fn tells_wrong_methods(&self) -> bool {
        self.at_least(0, 7, 0)
    }

    /// Whether `/api/show` lists capabilities.
    pub(crate) fn shows_capabilities(&self) -> bool {
        self.at_least(0, 6, 4)
    }

    /// Whether `/api/ps` tells the context length.
    pub(crate) fn ps_has_context_length(&self) -> bool {
        self.at_least(0, 10, 0)
    }

    /// Whether `dimensions` of an embedding is honoured.
    pub(crate) fn has_dimensions(&self) -> bool {
        self.at_least(0, 11, 11)
    }

    /// Whether a thinking model thinks when nothing is said about it.
    pub(crate) fn thinks_by_default(&self) -> bool {
        self.at_least(0, 12, 4)
    }

    /// Whether a native tool call has an `index`.
    pub(crate) fn calls_have_index(&self) -> bool {
        self.at_least(0, 12, 6)
    }

    /// Whether a native tool call has an `id`.
    pub(crate) fn calls_have_id(&self) -> bool {
        self.at_least(0, 12, 10)
    }

    /// Whether log probabilities exist.
    pub(crate) fn has_logprobs(&self) -> bool {
        self.at_least(0, 12, 11)
    }

    /// Whether a model's name may be written in any case (recorded: not in 0.13.5).
    pub(crate) fn names_ignore_case(&self) -> bool {
        self.at_least(0, 14, 0)
    }

    /// Whether a bad name has the newer texts: 400 `invalid model name` everywhere (recorded: not in 0.13.5).
    pub(crate) fn tells_bad_names(&self) -> bool {
        self.at_least(0, 14, 0)
    }

    /// Whether a thinking level is fine for a model that can only switch thinking (recorded: not in 0.13.5).
    pub(crate) fn levels_switch_thinking(&self) -> bool {
        self.at_least(0, 14, 0)
    }

    /// Whether arguments that are a string get the newer text (recorded: not in 0.13.5).
    pub(crate) fn has_own_argument_parser(&self) -> bool {
        self.at_least(0, 14, 0)
    }

    /// Whether `/api/show` tells GitHub Copilot the asked name as basename.
    pub(crate) fn shows_copilot_its_name(&self) -> bool {
        self.at_least(0, 18, 3)
    }

    /// Whether `think: "max"` exists.
    pub(crate) fn has_think_max(&self) -> bool {
        self.at_least(0, 22, 0)
    }

    /// Whether models run in a llama-server child: its texts leak, sizes are rounded, text-only models refuse pictures.
    pub(crate) fn has_llama_server(&self) -> bool {
        self.at_least(0, 30, 0)
    }

    /// Whether `prompt_eval_count` leaves out what the cache had.
    pub(crate) fn counts_uncached_only(&self) -> bool {
        self.number == (0, 30, 0)
    }

    /// Whether `/api/tags` lists capabilities and lengths.
    pub(crate) fn tags_have_capabilities(&self) -> bool {
        self.at_least(0, 30, 0)
    }

    /// Whether an unloaded model vanishes from `/api/ps` at once.
    pub(crate) fn unloads_at_once(&self) -> bool {
        self.at_least(0, 30, 0)
    }

    /// Whether a model made from a file keeps the server's path as its parent.
    pub(crate) fn shows_blob_as_parent(&self) -> bool {
        !self.at_least(0, 30, 0)
    }

    /// Whether "not found" of `/api/show` names the tag.
    pub(crate) fn show_names_the_tag(&self) -> bool {
        self.at_least(0, 30, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_told_as_they_are() {
        let version: Version = "0.33.0-rc2".parse().unwrap();
        assert_eq!(version.to_string(), "0.33.0-rc2");
        assert!(version.has_llama_server() && !"0.20.0".parse::<Version>().unwrap().has_llama_server());
        for wrong in ["", "1", "0.1", "v0.1.2", "0.1.2.3", "a.b.c"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }
}
