//! Which Ollama is played, and what differs between versions. `versions.json` is the table of differences: from which
//! version on, or up to which, a feature is there. A profile changes single features for a version that the table does
//! not know.
//!
//! Source: recordings of 0.13.5, 0.20.0 and 0.33.0-rc2, and Ollama's release notes for the versions between them.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::LazyLock};

use serde::Deserialize;

/// Something that only some versions do. `versions.json` has a row for each, with what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Feature {
    WrongMethods,
    ShowCapabilities,
    PsContextLength,
    Dimensions,
    ThinksByDefault,
    CallIndex,
    CallId,
    Logprobs,
    NamesIgnoreCase,
    InvalidNames,
    LevelsSwitchThinking,
    ArgumentParser,
    CopilotName,
    ThinkMax,
    LlamaServer,
    CountsUncachedOnly,
    TagsCapabilities,
    UnloadsAtOnce,
    BlobAsParent,
    ShowNamesTag,
}

/// A row of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    feature: Feature,
    /// The first version that has it; without it, all up to `until`.
    since: Option<String>,
    /// The first version that no longer has it.
    until: Option<String>,
    /// What it does, for readers of the table.
    #[serde(rename = "effect")]
    _effect: String,
}

type Number = (u32, u32, u32);

/// The versions that have a feature: from `since` on, before `until`.
#[derive(Debug)]
struct Span {
    feature: Feature,
    since: Option<Number>,
    until: Option<Number>,
}

static TABLE: LazyLock<Vec<Span>> = LazyLock::new(|| {
    let rows: Vec<Row> = serde_json::from_str(include_str!("versions.json")).unwrap_or_default();
    let number =
        |text: Option<String>| text.and_then(|text| text.parse::<Version>().ok()).map(|version| version.number);
    let span = |row: Row| Span { feature: row.feature, since: number(row.since), until: number(row.until) };
    rows.into_iter().map(span).collect()
});

/// A version as `/api/version` reports it. A release candidate counts as the release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    text: String,
    number: Number,
    /// Where a profile differs from the table.
    differs: BTreeMap<Feature, bool>,
}

/// A text that is not a version such as `0.32.5`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ollama version such as 0.32.5")]
pub struct NoVersion(String);

/// A profile that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// It is not JSON, or has unknown keys or features.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Its version is not one.
    #[error(transparent)]
    Version(#[from] NoVersion),
}

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
        Ok(Self { text: text.to_owned(), number, differs: BTreeMap::new() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Default for Version {
    fn default() -> Self {
        Self { text: "0.33.0-rc2".to_owned(), number: (0, 33, 0), differs: BTreeMap::new() }
    }
}

impl Version {
    /// Reads a profile: a version, and features in which it differs from what the mock knows of that version.
    ///
    /// ```
    /// let version = mock_ollama::Version::from_profile(r#"{"version": "0.34.0", "features": {"think_max": false}}"#)?;
    /// assert_eq!(version.to_string(), "0.34.0");
    /// # Ok::<(), mock_ollama::ProfileError>(())
    /// ```
    ///
    /// # Errors
    /// Fails if it is not such an object, or names a feature that `versions.json` does not have.
    pub fn from_profile(json: &str) -> Result<Self, ProfileError> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Profile {
            version: String,
            #[serde(default)]
            features: BTreeMap<Feature, bool>,
        }
        let profile: Profile = serde_json::from_str(json)?;
        Ok(Self { differs: profile.features, ..profile.version.parse()? })
    }

    /// Whether it came before another.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        self.number < other.number
    }

    /// Whether it has a feature: as its profile says, else as the table does.
    pub(crate) fn has(&self, feature: Feature) -> bool {
        let listed = || {
            TABLE.iter().any(|span| {
                span.feature == feature
                    && span.since.is_none_or(|since| self.number >= since)
                    && span.until.is_none_or(|until| self.number < until)
            })
        };
        self.differs.get(&feature).copied().unwrap_or_else(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_shown_verbatim() {
        let version: Version = "0.33.0-rc2".parse().unwrap();
        assert_eq!(version.to_string(), "0.33.0-rc2");
        let llama = Feature::LlamaServer;
        assert!(version.has(llama) && !"0.20.0".parse::<Version>().unwrap().has(llama));
        for wrong in ["", "1", "0.1", "v0.1.2", "0.1.2.3", "a.b.c"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_row_of_the_table_has_valid_bounds_and_every_feature_a_row() {
        let text = include_str!("versions.json");
        let rows: Vec<Row> = serde_json::from_str(text).unwrap();
        assert_eq!(rows.len(), 20);
        for row in &rows {
            assert!(row.since.is_some() || row.until.is_some(), "{row:?}");
            assert!(row.since.iter().chain(&row.until).all(|bound| bound.parse::<Version>().is_ok()), "{row:?}");
            assert_eq!(rows.iter().filter(|other| other.feature == row.feature).count(), 1, "{row:?}");
        }
    }

    #[test]
    fn a_feature_is_there_from_its_first_version_to_its_last() {
        let has = |version: &str, feature| version.parse::<Version>().unwrap().has(feature);
        assert!(!has("0.21.9", Feature::ThinkMax) && has("0.22.0-rc1", Feature::ThinkMax));
        let only = Feature::CountsUncachedOnly;
        assert_eq!(["0.29.9", "0.30.0", "0.30.1"].map(|version| has(version, only)), [false, true, false]);
        assert!(has("0.29.9", Feature::BlobAsParent) && !has("0.30.0", Feature::BlobAsParent));
    }

    #[test]
    fn a_profile_differs_in_single_features() {
        let profile = r#"{"version": "0.34.0", "features": {"think_max": false, "blob_as_parent": true}}"#;
        let version = Version::from_profile(profile).unwrap();
        assert!(!version.has(Feature::ThinkMax) && version.has(Feature::BlobAsParent) && version.has(Feature::CallId));
        for (wrong, why) in [
            (r#"{"version": "new"}"#, "not an Ollama version"),
            (r#"{"version": "0.34.0", "features": {"flies": true}}"#, "unknown variant `flies`"),
            (r#"{"version": "0.34.0", "feature": {}}"#, "unknown field `feature`"),
        ] {
            let error = Version::from_profile(wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
