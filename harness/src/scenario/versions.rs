//! At which versions of Ollama a scenario runs: the one that it names, or each that is asked for and that it speaks of.

use std::str::FromStr;

use mock_ollama::{NoVersion, Version};
use serde_saphyr::{Location, Spanned};

use super::{MockSettings, loaded::Loaded};

/// What `--mock-version` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Every version that the proxy treats differently.
    Each,
    /// One.
    One(Version),
}

impl FromStr for Asked {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        if text == "each" { Ok(Self::Each) } else { text.parse().map(Self::One) }
    }
}

/// Each scenario at each version that is asked for, as far as it speaks of it. Asked for none, they stay unchanged.
#[must_use]
pub fn expand(scenarios: Vec<Loaded>, asked: &[Asked]) -> Vec<Loaded> {
    if asked.is_empty() {
        return scenarios;
    }
    let versions: Vec<Version> = asked.iter().flat_map(Asked::versions).collect();
    let mut expanded = Vec::new();
    for loaded in scenarios {
        let fitting = versions.iter().filter(|version| covers(loaded.scenario.mock.as_ref(), version));
        expanded.extend(fitting.map(|version| at(&loaded, version)));
    }
    expanded
}

impl Asked {
    fn versions(&self) -> Vec<Version> {
        match self {
            Self::Each => farllama::VERSIONS.iter().filter_map(|text| text.parse().ok()).collect(),
            Self::One(version) => vec![version.clone()],
        }
    }
}

/// Whether a scenario speaks of a version: of those between `from` and `before`; of `version` alone, where it names
/// neither; else of all.
#[must_use]
pub fn covers(mock: Option<&MockSettings>, version: &Version) -> bool {
    let Some(mock) = mock else { return true };
    let bound = |bound: &Option<Spanned<String>>| bound.as_ref().and_then(|text| text.value.parse::<Version>().ok());
    match (bound(&mock.from), bound(&mock.before)) {
        (None, None) => mock.version.as_ref().is_none_or(|only| only.value == version.to_string()),
        (from, before) => {
            from.is_none_or(|from| !version.is_older_than(&from))
                && before.is_none_or(|before| version.is_older_than(&before))
        }
    }
}

fn at(loaded: &Loaded, version: &Version) -> Loaded {
    let mut loaded = loaded.clone();
    let text = version.to_string();
    loaded.scenario.title.value.push_str(&format!(" (Ollama {text})"));
    loaded.scenario.mock.get_or_insert_default().version =
        Some(Spanned::new(text, Location::UNKNOWN, Location::UNKNOWN));
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::load::read;

    fn versions(mock: &str, asked: &[&str]) -> Vec<String> {
        let text = format!("title: t\n{mock}\nsteps:\n  - call: models\n    expect: {{ $.object: list }}\n");
        let scenario = read("t.yaml", &text).unwrap();
        let asked: Vec<Asked> = asked.iter().map(|text| text.parse().unwrap()).collect();
        let expanded = expand(vec![Loaded::new("t.yaml".to_owned(), scenario)], &asked);
        let reported = |loaded: Loaded| {
            loaded.scenario.mock.and_then(|mock| mock.version).map_or_else(String::new, |reported| reported.value)
        };
        expanded.into_iter().map(reported).collect()
    }

    #[test]
    fn a_scenario_runs_at_each_version_that_it_speaks_of() {
        let all = ["0.13.5", "0.20.0", "0.33.0"];
        assert_eq!(versions("", &all), all);
        assert_eq!(versions("mock: { from: 0.20.0 }", &all), ["0.20.0", "0.33.0"]);
        assert_eq!(versions("mock: { version: 0.13.5, before: 0.20.0 }", &all), ["0.13.5"]);
        assert_eq!(versions("mock: { version: 0.20.0, from: 0.14.3, before: 0.32.6 }", &all), ["0.20.0"]);
        assert_eq!(versions("mock: { version: 0.20.0 }", &all), ["0.20.0"]);
        assert_eq!(versions("mock: { version: 0.20.0 }", &["0.20.1"]), [""; 0]);
        assert_eq!(versions("", &["each"]), farllama::VERSIONS);
    }

    #[test]
    fn asked_for_no_version_it_runs_once_as_it_says() {
        assert_eq!(versions("mock: { version: 0.20.0 }", &[]), ["0.20.0"]);
        assert_eq!(versions("", &[]), [""]);
    }
}
