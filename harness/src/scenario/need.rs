//! What a scenario needs of a backend, of the model, or of the Ollama behind it.

use std::fmt;

use mock_ollama::Version;
use serde::{
    Deserialize, Serialize,
    de::{Deserializer, Error},
};

/// Something that not every backend has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// An upstream that plays a script and has the mock's models.
    Script,
    /// An upstream that tells what reached it.
    Journal,
    /// A proxy of ours in front, with the scenario's settings.
    Proxy,
    /// Ollama's native API.
    Native,
    /// A model with this capability, in Ollama's word for it.
    Capability(&'static str),
    /// At least this version of Ollama.
    Ollama(String),
}

/// What a scenario may write, and Ollama's word for it in `/api/show`.
const CAPABILITIES: [(&str, &str); 4] =
    [("tools", "tools"), ("vision", "vision"), ("thinking", "thinking"), ("embeddings", "embedding")];

/// What comes before a version.
const OLLAMA: &str = "ollama>=";

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script => f.write_str("script"),
            Self::Journal => f.write_str("journal"),
            Self::Proxy => f.write_str("proxy"),
            Self::Native => f.write_str("native"),
            Self::Capability(word) => {
                let name = CAPABILITIES.iter().find(|(_, known)| known == word).map_or(*word, |(name, _)| name);
                f.write_str(name)
            }
            Self::Ollama(version) => write!(f, "{OLLAMA}{version}"),
        }
    }
}

impl std::str::FromStr for Need {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, word)) = CAPABILITIES.iter().find(|(name, _)| *name == text) {
            return Ok(Self::Capability(word));
        }
        let tight: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if let Some(version) = tight.strip_prefix(OLLAMA) {
            let read = version.parse::<Version>();
            return read.map(|_| Self::Ollama(version.to_owned())).map_err(|error| format!("{text}: {error}"));
        }
        Ok(match text {
            "script" => Self::Script,
            "journal" => Self::Journal,
            "proxy" => Self::Proxy,
            "native" => Self::Native,
            other => {
                return Err(format!(
                    "unknown need `{other}`, expected one of script, journal, proxy, native, tools, vision, thinking, embeddings, or a version such as {OLLAMA}0.14.0"
                ));
            }
        })
    }
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Need {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_read_and_told_alike() {
        for text in ["script", "journal", "proxy", "native", "tools", "vision", "embeddings", "ollama>=0.14.0"] {
            assert_eq!(text.parse::<Need>().map(|need| need.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("embeddings".parse(), Ok(Need::Capability("embedding")));
        assert_eq!("ollama >= 0.14.0".parse(), Ok(Need::Ollama("0.14.0".to_owned())));
    }

    #[test]
    fn an_unknown_need_is_told_with_the_known_ones() {
        assert!("tool".parse::<Need>().unwrap_err().contains("expected one of script"));
        assert!("ollama>=x".parse::<Need>().is_err());
    }
}
