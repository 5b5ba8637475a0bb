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
    /// An upstream that shows what reached it.
    Journal,
    /// A proxy of ours in front, with the scenario's settings.
    Proxy,
    /// Ollama's native API.
    Native,
    /// A server or a model with this capability.
    Capability(Capability),
    /// At least this version of Ollama.
    Ollama(String),
}

/// What not every server or model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// The model calls tools.
    Tools,
    /// The model sees images.
    Vision,
    /// The model thinks before it answers.
    Thinking,
    /// The model makes vectors of texts.
    Embeddings,
    /// The server has the legacy completions.
    Completions,
    /// The server has the Responses API.
    Responses,
    /// The server forces an answer into a JSON Schema.
    Structured,
    /// The server returns log probabilities.
    Logprobs,
    /// The server returns several choices for one request (`n`).
    Choices,
}

impl Capability {
    /// Each with its name.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Tools, "tools"),
        (Self::Vision, "vision"),
        (Self::Thinking, "thinking"),
        (Self::Embeddings, "embeddings"),
        (Self::Completions, "completions"),
        (Self::Responses, "responses"),
        (Self::Structured, "structured"),
        (Self::Logprobs, "logprobs"),
        (Self::Choices, "choices"),
    ];

    /// Its name, as scenarios and `--capability` have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, _)| *known == self).map_or("", |(_, name)| name)
    }

    /// Ollama's word for it in `/api/show`, if it is a capability of the model.
    #[must_use]
    pub fn of_model(self) -> Option<&'static str> {
        match self {
            Self::Tools | Self::Vision | Self::Thinking => Some(self.name()),
            Self::Embeddings => Some("embedding"),
            _ => None,
        }
    }
}

impl std::str::FromStr for Capability {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(known, _)| *known).ok_or(())
    }
}

impl Need {
    /// Whether only the server can say if it has it.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        matches!(self, Self::Capability(_) | Self::Ollama(_) | Self::Native)
    }
}

/// What comes before a version.
const OLLAMA: &str = "ollama>=";

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script => f.write_str("script"),
            Self::Journal => f.write_str("journal"),
            Self::Proxy => f.write_str("proxy"),
            Self::Native => f.write_str("native"),
            Self::Capability(capability) => f.write_str(capability.name()),
            Self::Ollama(version) => write!(f, "{OLLAMA}{version}"),
        }
    }
}

impl std::str::FromStr for Need {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(capability) = text.parse() {
            return Ok(Self::Capability(capability));
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
                let capabilities = Capability::ALL.map(|(_, name)| name).join(", ");
                return Err(format!(
                    "unknown need `{other}`, expected one of script, journal, proxy, native, {capabilities}, or a version such as {OLLAMA}0.14.0"
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
    fn a_need_is_read_and_written_alike() {
        for text in
            ["script", "journal", "proxy", "native", "tools", "vision", "embeddings", "responses", "ollama>=0.14.0"]
        {
            assert_eq!(text.parse::<Need>().map(|need| need.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("embeddings".parse(), Ok(Need::Capability(Capability::Embeddings)));
        assert_eq!("ollama >= 0.14.0".parse(), Ok(Need::Ollama("0.14.0".to_owned())));
    }

    #[test]
    fn an_unknown_need_is_reported_with_the_known_ones() {
        assert!("tool".parse::<Need>().unwrap_err().contains("expected one of script"));
        assert!("ollama>=x".parse::<Need>().is_err());
    }
}
