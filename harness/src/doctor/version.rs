//! What the remote's version can do, feature by feature: from `features.yaml`.

use serde::Deserialize;

use super::fact::{Fact, State};
use crate::backend::numbers;

const TABLE: &str = include_str!("../../features.yaml");

/// A feature of Ollama.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feature {
    /// Its short name.
    pub id: String,
    /// The first version that has it.
    pub since: String,
    /// The first version that has it no more.
    pub until: Option<String>,
    /// What it is.
    pub what: String,
    /// What is the case without it.
    pub without: String,
}

/// The table.
///
/// # Errors
/// Fails if it cannot be read, which would be a bug.
pub fn table() -> Result<Vec<Feature>, String> {
    serde_saphyr::from_str(TABLE).map_err(|error| format!("features.yaml: {error}"))
}

impl Feature {
    /// Whether a version has it.
    #[must_use]
    pub fn is_in(&self, version: &str) -> bool {
        let number = numbers(version);
        number >= numbers(&self.since) && self.until.as_ref().is_none_or(|until| number < numbers(until))
    }
}

/// The version, and what it has.
pub(super) fn facts(version: &str) -> Vec<Fact> {
    let known = numbers(version).iter().any(|part| *part > 0);
    if !known {
        return vec![Fact::unknown(
            "version",
            "version",
            format!("{version:?} is not a release, so its features are not known"),
        )];
    }
    let mut facts = vec![Fact::new("version", "version", State::Info, format!("Ollama {version}")).with(version)];
    for feature in table().unwrap_or_default() {
        let id = format!("version.{}", feature.id);
        let since = match &feature.until {
            None => format!("since {}", feature.since),
            Some(until) => format!("since {}, until {until}", feature.since),
        };
        facts.push(if feature.is_in(version) {
            Fact::new(&id, &feature.what, State::Good, since).with(true)
        } else {
            Fact::new(&id, &feature.what, State::Limited, format!("not in {version} ({since}): {}", feature.without))
                .with(false)
        });
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_point_of_the_proxy_is_a_feature() {
        let table = table().unwrap();
        let cuts: Vec<_> =
            table.iter().flat_map(|feature| std::iter::once(&feature.since).chain(&feature.until)).collect();
        for (major, minor, patch) in farllama::CUTS {
            let cut = format!("{major}.{minor}.{patch}");
            assert!(cuts.iter().any(|known| **known == cut), "{cut} is in no feature");
        }
    }

    #[test]
    fn a_feature_may_come_and_go() {
        let images = table().unwrap().into_iter().find(|feature| feature.id == "images").unwrap();
        for (version, has) in
            [("0.14.2", false), ("0.14.3", true), ("0.32.5", true), ("0.32.6", false), ("0.33.0-rc2", false)]
        {
            assert_eq!(images.is_in(version), has, "{version}");
        }
    }
}
