//! Which Ollama the remote is, as `/api/version` reports it, and what that decides: every cut point has a name here,
//! and is asked for by it.
//!
//! The version decides only what no response shows; where an error shows it, farllama waits for that error
//! (`openai/upstream_request/send.rs`). What cannot be read as a version (a fork, a gateway, a development build, which
//! calls itself 0.0.0) is taken for the newest. Pure.
//!
//! Source of the cut points: Ollama's release notes, and exchanges recorded with 0.13.5, 0.20.0 and 0.33.0-rc2.

use std::borrow::Cow;

use serde::Deserialize;

type Number = (u32, u32, u32);

const LOGPROBS: Number = (0, 12, 11);
const PICTURES: Number = (0, 14, 3);
const NO_PICTURES: Number = (0, 32, 6);
const THINK_MAX: Number = (0, 22, 0);
const REFUSES_PICTURES: Number = (0, 30, 0);
/// The oldest version that was recorded to obey it.
const TRUNCATE: Number = (0, 13, 5);
const COUNTS_CACHED: Number = (0, 30, 1);

/// The cut points: each version that does something for the first or no longer.
pub const CUTS: [(u32, u32, u32); 7] =
    [LOGPROBS, TRUNCATE, PICTURES, THINK_MAX, REFUSES_PICTURES, COUNTS_CACHED, NO_PICTURES];

/// The versions on both sides of every cut point, the oldest first, and the newest: testing at each of them covers all
/// that the proxy does.
pub const VERSIONS: [&str; 14] = [
    "0.12.10",
    "0.12.11",
    "0.13.4",
    "0.13.5",
    "0.14.2",
    "0.14.3",
    "0.21.3",
    "0.22.0",
    "0.29.4",
    "0.30.0",
    "0.30.1",
    "0.32.5",
    "0.32.6",
    "0.33.0-rc2",
];

/// A version. A release candidate counts as the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// `None`: the newest.
    number: Option<Number>,
    text: String,
}

/// Answer of `GET /api/version`.
#[derive(Deserialize)]
struct VersionReply<'a> {
    #[serde(borrow)]
    version: Cow<'a, str>,
}

impl Version {
    /// The newest there is.
    pub(crate) fn newest() -> Self {
        Self { number: None, text: "of unknown version".to_owned() }
    }

    /// Reads what `/api/version` has answered.
    pub(crate) fn from_reply(reply: &[u8]) -> Self {
        serde_json::from_slice::<VersionReply<'_>>(reply)
            .map_or_else(|_| Self::newest(), |reply| Self::read(&reply.version))
    }

    /// Reads a version such as `0.32.5`.
    pub(crate) fn read(text: &str) -> Self {
        Self { number: number(text).filter(|number| *number != (0, 0, 0)), text: text.to_owned() }
    }

    /// As the remote reports it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn at_least(&self, least: Number) -> bool {
        self.number.is_none_or(|number| number >= least)
    }

    /// Whether it gives probabilities. Before, it answered without them.
    pub(crate) fn has_logprobs(&self) -> bool {
        self.at_least(LOGPROBS)
    }

    /// Whether it refuses a prompt that does not fit, where it is asked not to cut it (`truncate: false`). Before, it
    /// cut it without a word.
    pub(crate) fn obeys_truncate(&self) -> bool {
        self.at_least(TRUNCATE)
    }

    /// Whether `prompt_eval_count` counts the tokens that were in the cache, too. Before, it could be small or absent.
    pub(crate) fn counts_cached(&self) -> bool {
        self.at_least(COUNTS_CACHED)
    }

    /// Whether it can generate images, which came and went.
    pub(crate) fn generates_images(&self) -> bool {
        self.at_least(PICTURES) && !self.at_least(NO_PICTURES)
    }

    /// Whether `think: "max"` exists. Before, it was refused (recorded: 0.20.0 thinking/level-max).
    pub(crate) fn has_think_max(&self) -> bool {
        self.at_least(THINK_MAX)
    }

    /// Whether an image is refused by a model that cannot see. Before, it was left out in silence (recorded: 0.20.0
    /// chat/images-on-plain).
    pub(crate) fn refuses_images(&self) -> bool {
        self.at_least(REFUSES_PICTURES)
    }
}

fn number(text: &str) -> Option<Number> {
    let text = text.trim();
    let mut parts = text.strip_prefix('v').unwrap_or(text).split(['-', '+']).next()?.split('.').map(str::parse::<u32>);
    let mut part = || parts.next().map_or(Some(0), Result::ok);
    let number = (part()?, part()?, part()?);
    parts.next().is_none().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_version_is_the_newest() {
        for reply in
            [r#"{"version":"0.0.0"}"#, r#"{"version":"main"}"#, r#"{"version":""}"#, r#"{"version":7}"#, "{}", "Ollama"]
        {
            let version = Version::from_reply(reply.as_bytes());
            assert!(version.has_think_max() && version.refuses_images() && version.has_logprobs(), "{reply}");
            assert!(!version.generates_images(), "{reply}: the newest makes none");
        }
        assert_eq!(Version::from_reply(br#"{"version":"v0.21.3-rc1"}"#).number, Some((0, 21, 3)));
        assert_eq!(Version::from_reply(br#"{"version":"0.15"}"#).number, Some((0, 15, 0)));
    }

    #[test]
    fn every_cut_point_stands_in_the_list_and_a_version_before_it() {
        let versions: Vec<_> = VERSIONS.iter().map(|text| number(text).unwrap()).collect();
        assert!(versions.is_sorted_by(|a, b| a < b));
        for cut in CUTS {
            assert!(versions[0] < cut && versions.contains(&cut), "{cut:?}");
        }
    }

    #[test]
    fn only_some_versions_generate_images() {
        for version in ["0.14.3", "0.20.0", "0.32.5", "0.32.5-rc1", "0.15"] {
            assert!(Version::read(version).generates_images(), "{version}");
        }
        for version in ["0.14.2", "0.32.6", "0.33.0-rc2", "1.0.0", "0.0.0", "", "main"] {
            assert!(!Version::read(version).generates_images(), "{version}");
        }
    }
}
