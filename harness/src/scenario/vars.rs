//! `vars` and `matrix` of a scenario: values that it names, where they come from, and the combinations that it is run
//! with.

use std::path::Path;

use serde_json::Value;

use super::{Checks, Place};

/// Most combinations of one scenario.
pub const MOST: usize = 200;

/// Where a variable's value comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// It is written there.
    Value(Value),
    /// The environment; its value is a secret by default.
    Env {
        /// The variable's name there.
        name: String,
        /// What it is where the environment has none.
        default: Option<String>,
        /// Whether no report shows it.
        secret: bool,
    },
    /// A text file, found from the scenario's folder; the last line break is no part of it.
    File {
        /// Its path.
        path: String,
        /// Whether no report shows it.
        secret: bool,
    },
}

impl Source {
    /// Reads what stands beside a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(written: &Value) -> Result<Self, String> {
        const FORMS: &str =
            "a variable is a value, { env: NAME, default: …, secret: false } or { file: PATH, secret: true }";
        let Value::Object(fields) = written else { return Ok(Self::Value(written.clone())) };
        let text =
            |name: &str| fields.get(name).map(|value| value.as_str().map(str::to_owned).ok_or(FORMS)).transpose();
        let secret = |usual: bool| fields.get("secret").map_or(Ok(usual), |value| value.as_bool().ok_or(FORMS));
        let only = |known: &[&str]| fields.keys().all(|key| known.contains(&key.as_str()));
        Ok(match (text("env")?, text("file")?) {
            (Some(name), None) if only(&["env", "default", "secret"]) => {
                Self::Env { name, default: text("default")?, secret: secret(true)? }
            }
            (None, Some(path)) if only(&["file", "secret"]) => Self::File { path, secret: secret(false)? },
            _ => return Err(FORMS.to_owned()),
        })
    }

    /// Whether no report shows the value.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        match self {
            Self::Value(_) => false,
            Self::Env { secret, .. } | Self::File { secret, .. } => *secret,
        }
    }

    /// The value.
    ///
    /// # Errors
    /// There is none: the sentence that says so.
    pub fn value(&self, folder: &Path) -> Result<Value, String> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::Env { name, default, .. } => match (std::env::var(name), default) {
                (Ok(value), _) => Ok(value.into()),
                (Err(_), Some(default)) => Ok(default.as_str().into()),
                (Err(_), None) => Err(format!("it needs the environment variable {name}, which is not set")),
            },
            Self::File { path, .. } => match std::fs::read_to_string(folder.join(path)) {
                Ok(text) => {
                    Ok(text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text)).into())
                }
                Err(error) => Err(format!("it needs the file {path}: {error}")),
            },
        }
    }
}

/// Names and values of one combination.
pub type Given = Vec<(String, Value)>;

/// Every combination of a matrix, each a list of names and values; one empty combination where there is no matrix.
///
/// # Errors
/// The entry that is no list, is empty, or makes too many.
pub fn combinations(matrix: &Checks) -> Result<Vec<Given>, (Place, String)> {
    let mut all = vec![Vec::new()];
    for check in &matrix.0 {
        let values = check.expected.as_array().filter(|values| !values.is_empty());
        let values = values.ok_or_else(|| (check.at, "a matrix takes a name and a list of its values".to_owned()))?;
        if all.len().saturating_mul(values.len()) > MOST {
            return Err((check.at, format!("a matrix has {MOST} combinations at most")));
        }
        all = all
            .iter()
            .flat_map(|given| {
                values.iter().map(move |value| {
                    let mut given: Given = given.clone();
                    given.push((check.key.clone(), value.clone()));
                    given
                })
            })
            .collect();
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checks(entries: &[(&str, Value)]) -> Checks {
        let check = |(key, expected): &(&str, Value)| super::super::Check {
            key: (*key).to_owned(),
            expected: expected.clone(),
            at: super::super::Place::default(),
        };
        Checks(entries.iter().map(check).collect())
    }

    #[test]
    fn a_matrix_is_every_combination() {
        let all = combinations(&checks(&[("a", json!([1, 2])), ("b", json!(["x"]))])).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[1], [("a".to_owned(), json!(2)), ("b".to_owned(), json!("x"))]);
        assert_eq!(combinations(&checks(&[])).unwrap(), [vec![]]);
        assert!(combinations(&checks(&[("a", json!([]))])).is_err());
        let many: Vec<_> = (0..15).collect();
        assert!(combinations(&checks(&[("a", json!(many)), ("b", json!(many))])).unwrap_err().1.contains("at most"));
    }

    #[test]
    fn what_comes_from_the_environment_is_a_secret_unless_told() {
        assert!(Source::read(&json!({"env": "X"})).unwrap().is_secret());
        assert!(!Source::read(&json!({"env": "X", "secret": false})).unwrap().is_secret());
        assert!(!Source::read(&json!("plain")).unwrap().is_secret());
        for wrong in [json!({}), json!({"env": 1}), json!({"env": "X", "file": "y"}), json!({"env": "X", "more": 1})] {
            assert!(Source::read(&wrong).unwrap_err().contains("a variable is"), "{wrong}");
        }
    }

    #[test]
    fn a_file_is_found_from_the_scenarios_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "one\ntwo\n").unwrap();
        let source = Source::read(&json!({"file": "a.txt"})).unwrap();
        assert_eq!(source.value(folder.path()), Ok(json!("one\ntwo")));
        let missing = Source::read(&json!({"file": "b.txt"})).unwrap();
        assert!(missing.value(folder.path()).unwrap_err().starts_with("it needs the file b.txt: "));
    }
}
