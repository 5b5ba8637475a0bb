//! A scenario that was read from a file, once for each combination of its matrix.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Scenario, variables::Variables, vars};
use crate::text::shorten;

/// A scenario and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file as it was given or found.
    pub file: String,
    /// What it says.
    pub scenario: Scenario,
    /// The combination of its matrix.
    pub given: Vec<(String, Value)>,
}

impl Loaded {
    /// A scenario without a matrix.
    #[must_use]
    pub fn new(file: String, scenario: Scenario) -> Self {
        Self { file, scenario, given: Vec::new() }
    }

    /// What its calls are, whatever its file and title: 16 hex digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let calls = self.scenario.all_steps().flat_map(|step| &step.parts).map(|part| &part.call.value);
        let digest = Sha256::new_with_prefix(format!("{:?}", self.given));
        let digest = calls.fold(digest, |digest, call| digest.chain_update(format!("{call:?}")));
        digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The file, and the combination where there is one.
    #[must_use]
    pub fn name(&self) -> String {
        if self.given.is_empty() { self.file.clone() } else { format!("{} ({})", self.file, described(&self.given)) }
    }
}

/// A combination in words, such as `stream true, n 2`.
fn described(given: &[(String, Value)]) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words: Vec<_> = given.iter().map(|(name, value)| format!("{name} {}", word(value))).collect();
    shorten(&words.join(", "), 80)
}

/// One for each combination of the matrix; their titles distinguish them.
#[must_use]
pub fn expand(file: &str, scenario: &Scenario) -> Vec<Loaded> {
    // What is wrong with a matrix was reported when it was read.
    let all = vars::combinations(&scenario.matrix).unwrap_or_default();
    let each = |given: Vec<(String, Value)>| {
        let mut scenario = scenario.clone();
        let mut variables = Variables::default();
        for (name, value) in &given {
            variables.set(name, value.clone());
        }
        if !given.is_empty() {
            let title = &scenario.title.value;
            scenario.title.value = match variables.text(title) {
                Ok(described) if described != *title => described,
                _ => format!("{title} ({})", described(&given)),
            };
        }
        Loaded { file: file.to_owned(), scenario, given }
    };
    all.into_iter().map(each).collect()
}
