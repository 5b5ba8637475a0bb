//! The tools that people point at a server, and what each needs: read from `personas/*.yaml`. The verdicts follow from
//! facts alone. Pure.

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fact::{Fact, State};
use crate::{backend::numbers, text::suggestion};

static FILES: Dir<'_> = include_dir!("$FARLLAMA_CHECK_PERSONAS");

/// Every probe whose failure means that nothing reaches the server.
const WAY: &str = "way.";

/// A tool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Persona {
    /// Its name.
    pub tool: String,
    /// Its short name: `--for codex`.
    pub id: String,
    /// The version that the rules are about.
    pub version: String,
    /// Where the rules come from.
    pub source: String,
    /// What it calls.
    pub calls: Vec<String>,
    /// What it needs.
    pub needs: Vec<Need>,
}

/// Something that a tool needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// The probe that shows whether it is there.
    pub probe: String,
    /// The least measure: a number, or a version.
    pub at_least: Option<Value>,
    /// The largest measure.
    pub at_most: Option<f64>,
    /// The least rate of success, from 0 to 1.
    pub rate: Option<f64>,
    /// Why it is needed.
    pub because: String,
    /// The setting to change.
    pub change: Option<String>,
    /// What its absence means.
    #[serde(default)]
    pub otherwise: Otherwise,
    /// What it means if nothing is known.
    #[serde(default)]
    pub unknown: IfUnknown,
}

/// What the absence of something means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    /// The tool does not work.
    #[default]
    NotReady,
    /// It works with limits.
    Limits,
}

/// What it means if nothing is known about something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IfUnknown {
    /// Nothing can be said about the tool.
    #[default]
    Unknown,
    /// It works, perhaps with limits.
    Limits,
    /// Nothing.
    Ignore,
}

/// Whether a tool works, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It works.
    Ready,
    /// It works with limits.
    Limits,
    /// Nothing can be said.
    Unknown,
    /// It does not work.
    NotReady,
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ready => "READY",
            Self::Limits => "READY WITH LIMITS",
            Self::Unknown => "UNKNOWN",
            Self::NotReady => "NOT READY",
        })
    }
}

/// Whether a tool works on a server, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The tool's short name.
    pub id: String,
    /// Its name.
    pub tool: String,
    /// The version that the rules are about.
    pub version: String,
    /// Where the rules come from.
    pub source: String,
    /// Whether it works.
    pub level: Level,
    /// What is missing.
    pub reasons: Vec<Reason>,
}

/// Something that a tool misses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What it means for the tool.
    pub level: Level,
    /// Why it is needed.
    pub because: String,
    /// The probe that shows it.
    pub probe: String,
    /// What the probe found.
    pub found: String,
    /// Whether it was found out; if not, `change` says how to.
    pub known: bool,
    /// The setting to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
}

/// All tools, in the order of their short names.
///
/// # Errors
/// Fails if a file cannot be read, which would be a bug.
pub fn all() -> Result<Vec<Persona>, String> {
    let mut files: Vec<_> =
        FILES.files().filter(|file| file.path().extension().is_some_and(|ending| ending == "yaml")).collect();
    files.sort_by_key(|file| file.path());
    let read = |file: &include_dir::File<'_>| {
        let text = file.contents_utf8().unwrap_or_default();
        serde_saphyr::from_str(text).map_err(|error| format!("personas/{}: {error}", file.path().display()))
    };
    files.into_iter().map(read).collect()
}

/// The tools with these short names; all of them without a name.
///
/// # Errors
/// Fails on an unknown name, with the nearest one and those that are known.
pub fn chosen(names: &[String]) -> Result<Vec<Persona>, String> {
    let all = all()?;
    if names.is_empty() {
        return Ok(all);
    }
    let known = || all.iter().map(|persona| persona.id.as_str());
    for name in names {
        if !known().any(|known| known == name) {
            let list: Vec<_> = known().collect();
            return Err(format!("unknown tool `{name}`{}; known are {}", suggestion(name, known()), list.join(", ")));
        }
    }
    Ok(all.iter().filter(|persona| names.contains(&persona.id)).cloned().collect())
}

/// Whether a tool works, by the facts of the server and of a model. What a rule advises is about Ollama; of another
/// server the facts know better.
#[must_use]
pub fn judge(persona: &Persona, facts: &[&Fact], is_ollama: bool) -> Verdict {
    let mut reasons: Vec<Reason> = facts
        .iter()
        .filter(|fact| fact.id.starts_with(WAY) && fact.state == State::Bad)
        .map(|fact| Reason {
            level: Level::NotReady,
            because: "every tool needs the server".to_owned(),
            probe: fact.id.clone(),
            found: fact.text.clone(),
            known: true,
            change: fact.cure.clone(),
        })
        .collect();
    if reasons.is_empty() {
        reasons = persona.needs.iter().filter_map(|need| missing(need, facts, is_ollama)).collect();
        // Of two thresholds on one probe only the worse one counts.
        let worst = |reason: &Reason, all: &[Reason]| {
            all.iter().all(|other| other.probe != reason.probe || other.level <= reason.level)
        };
        let all = reasons.clone();
        reasons.retain(|reason| worst(reason, &all));
        reasons.dedup_by(|one, other| one.probe == other.probe && one.found == other.found);
        reasons = merged(reasons);
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level));
    Verdict {
        id: persona.id.clone(),
        tool: persona.tool.clone(),
        version: persona.version.clone(),
        source: persona.source.clone(),
        level: reasons.iter().map(|reason| reason.level).max().unwrap_or(Level::Ready),
        reasons,
    }
}

/// Makes one reason of those with the same cause and the same cure.
fn merged(reasons: Vec<Reason>) -> Vec<Reason> {
    let mut merged: Vec<Reason> = Vec::new();
    for reason in reasons {
        let same = |known: &&mut Reason| {
            (known.level, &known.found, &known.change) == (reason.level, &reason.found, &reason.change)
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                known.because += "; ";
                known.because += &reason.because;
            }
            None => merged.push(reason),
        }
    }
    merged
}

/// What a need says if it is not met.
fn missing(need: &Need, facts: &[&Fact], is_ollama: bool) -> Option<Reason> {
    let fact = facts.iter().find(|fact| fact.id == need.probe);
    let otherwise = match need.otherwise {
        Otherwise::NotReady => Level::NotReady,
        Otherwise::Limits => Level::Limits,
    };
    let unknown = match need.unknown {
        IfUnknown::Ignore => None,
        IfUnknown::Limits => Some(Level::Limits),
        // What would only be a limit can be no worse if it is unknown.
        IfUnknown::Unknown if need.otherwise == Otherwise::Limits => Some(Level::Limits),
        IfUnknown::Unknown => Some(Level::Unknown),
    };
    let level = match fact {
        None => unknown,
        Some(fact) => match fact.state {
            State::Unknown => unknown,
            State::Bad => Some(otherwise),
            _ => shortfall(need, fact, otherwise),
        },
    };
    let found = fact.map_or_else(|| "it was not probed".to_owned(), |fact| fact.text.clone());
    let cure = fact.and_then(|fact| fact.cure.clone());
    // What to change is known only where something was found; else the cure says how to find out.
    let change = match fact {
        None => None,
        Some(fact) if fact.state == State::Unknown => cure,
        Some(_) if is_ollama => need.change.clone().or(cure),
        Some(_) => cure.or_else(|| need.change.clone()),
    };
    let known = fact.is_some_and(|fact| fact.state != State::Unknown);
    level.map(|level| Reason { level, because: need.because.clone(), probe: need.probe.clone(), found, known, change })
}

/// What it means that a measure falls short.
fn shortfall(need: &Need, fact: &Fact, otherwise: Level) -> Option<Level> {
    let number = fact.value.as_f64();
    let too_small = need.at_least.as_ref().is_some_and(|least| match (least, number) {
        (Value::String(least), _) => fact.value.as_str().is_some_and(|version| numbers(version) < numbers(least)),
        (least, Some(number)) => least.as_f64().is_some_and(|least| number < least),
        _ => false,
    });
    let too_large = matches!((need.at_most, number), (Some(most), Some(number)) if number > most);
    if too_small || too_large {
        return Some(otherwise);
    }
    let (least, rate) = (need.rate?, fact.rate?);
    if rate.share() >= least {
        return None;
    }
    // Few tries prove little: only a rate that is surely too low is worse than a limit.
    Some(if rate.high < least || rate.right == 0 { otherwise } else { otherwise.min(Level::Limits) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::fact::Rate;

    fn need(yaml: &str) -> Need {
        serde_saphyr::from_str(yaml).unwrap()
    }

    #[test]
    fn every_file_can_be_read_and_names_a_known_probe() {
        let all = all().unwrap();
        assert!(all.len() >= 13, "{}", all.len());
        for persona in all {
            assert!(!persona.calls.is_empty() && !persona.source.is_empty() && !persona.version.is_empty());
            for need in &persona.needs {
                assert!(super::super::PROBES.contains(&&*need.probe), "{}: unknown probe {}", persona.id, need.probe);
                assert!(need.rate.is_none_or(|rate| (0.0..=1.0).contains(&rate)), "{}", persona.id);
            }
        }
    }

    #[test]
    fn every_tool_has_a_scenario_that_claims_which_mutants_it_notices() {
        let library = crate::check::library::scenarios(Some("personas")).unwrap();
        for persona in all().unwrap() {
            let tag = format!("persona:{}", persona.id);
            let own: Vec<_> = library.iter().filter(|loaded| loaded.scenario.tags.contains(&tag)).collect();
            assert!(!own.is_empty(), "no scenario has the tag {tag}");
            let claims = |tags: &[String]| tags.iter().any(|tag| tag.starts_with(crate::proof::TAG));
            assert!(own.iter().all(|loaded| claims(&loaded.scenario.tags)), "{tag} claims no mutant");
        }
    }

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        let need = need("{ probe: version, at_least: 0.13.4, because: x }");
        let fact = |version: &str| Fact::new("version", "v", State::Info, version).with(version);
        assert_eq!(shortfall(&need, &fact("0.9.0"), Level::NotReady), Some(Level::NotReady));
        assert_eq!(shortfall(&need, &fact("0.33.0-rc2"), Level::NotReady), None);
    }

    #[test]
    fn few_tries_prove_little() {
        let need = need("{ probe: tools.one, rate: 0.8, because: x }");
        let fact = |right, tries| Fact {
            rate: Some(Rate::new(right, tries)),
            ..Fact::new("tools.one", "t", State::Good, "x")
        };
        assert_eq!(shortfall(&need, &fact(5, 5), Level::NotReady), None);
        assert_eq!(shortfall(&need, &fact(3, 5), Level::NotReady), Some(Level::Limits));
        assert_eq!(shortfall(&need, &fact(1, 20), Level::NotReady), Some(Level::NotReady));
        assert_eq!(shortfall(&need, &fact(0, 2), Level::NotReady), Some(Level::NotReady));
    }

    #[test]
    fn what_is_unknown_is_said_to_be_unknown() {
        let hard = need("{ probe: a, because: x }");
        assert_eq!(missing(&hard, &[], true).map(|reason| reason.level), Some(Level::Unknown));
        let unknown = Fact::unknown("a", "a", "no way to know");
        assert_eq!(missing(&hard, &[&unknown], true).map(|reason| reason.found), Some("no way to know".to_owned()));
        for (yaml, level) in [
            ("{ probe: a, because: x, otherwise: limits }", Some(Level::Limits)),
            ("{ probe: a, because: x, unknown: limits }", Some(Level::Limits)),
            ("{ probe: a, because: x, unknown: ignore }", None),
        ] {
            assert_eq!(missing(&need(yaml), &[&unknown], true).map(|reason| reason.level), level, "{yaml}");
        }
    }

    #[test]
    fn what_to_change_fits_what_was_found() {
        let need = need("{ probe: a, because: x, change: set OLLAMA_A }");
        let change = |fact: &Fact, is_ollama| missing(&need, &[fact], is_ollama).unwrap().change;
        let bad = Fact::new("a", "a", State::Bad, "no");
        assert_eq!(change(&bad, true).as_deref(), Some("set OLLAMA_A"));
        // Another server is not changed by settings of Ollama, if its fact says how.
        let bad = bad.cure("start it with -a");
        assert_eq!(change(&bad, false).as_deref(), Some("start it with -a"));
        // Nothing is known to be wrong.
        let unknown = Fact::unknown("a", "a", "the time was up");
        assert_eq!(change(&unknown, true), None);
        assert_eq!(change(&unknown.cure("--within 10m"), true).as_deref(), Some("--within 10m"));
    }

    #[test]
    fn one_cause_is_one_reason() {
        let persona: Persona = serde_saphyr::from_str(
            "{ tool: T, id: t, version: '1', source: s, calls: [a], needs: [{ probe: a, because: it lists }, { probe: b, because: it streams }] }",
        )
        .unwrap();
        let gone = |id: &str| Fact::new(id, id, State::Bad, "not there").cure("put farllama in front");
        let verdict = judge(&persona, &[&gone("a"), &gone("b")], false);
        assert_eq!(verdict.reasons.len(), 1);
        assert_eq!(verdict.reasons[0].because, "it lists; it streams");
    }
}
