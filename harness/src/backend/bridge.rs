//! Ollama's API over an OpenAI server: a mock behind two proxies. The inner one is an OpenAI server, and the outer one
//! makes an Ollama of it again. It runs the scenarios that call Ollama's API; `bridge.yaml` lists those that cannot
//! hold there, each with the reason.

use std::collections::BTreeMap;

use farllama::{
    Config,
    config::{Kind, Local},
};

use super::{Missing, Target, at, mock, proxied, serve};
use crate::scenario::{Call, Scenario};

/// The list: files below `scenarios`, each with a reason.
const LIST: &str = include_str!("../../bridge.yaml");

/// The scenarios that cannot hold over an OpenAI server.
#[derive(Clone, Debug)]
pub struct Exceptions(BTreeMap<String, String>);

impl Exceptions {
    /// Reads the list.
    ///
    /// # Errors
    /// Fails if it is not a map of files to reasons.
    pub fn read() -> Result<Self, String> {
        serde_saphyr::from_str(LIST).map(Self).map_err(|error| format!("bridge.yaml: {error}"))
    }

    /// Why the scenario in `file` cannot hold, if it is on the list.
    #[must_use]
    pub fn reason(&self, file: &str) -> Option<&str> {
        let file = file.replace('\\', "/");
        let is_it =
            |known: &str| file.strip_suffix(known).is_some_and(|folder| folder.is_empty() || folder.ends_with('/'));
        self.0.iter().find(|(known, _)| is_it(known)).map(|(_, reason)| &**reason)
    }
}

/// Whether a scenario calls Ollama's API.
#[must_use]
pub fn is_native(scenario: &Scenario) -> bool {
    let mut calls = scenario.all_steps().flat_map(|step| &step.parts).map(|part| &part.call.value);
    calls.any(|call| match call {
        Call::Http(http) => {
            let path = http.path.split('?').next().unwrap_or_default();
            path == "/" || path.starts_with("/api/")
        }
        _ => false,
    })
}

pub(super) async fn target(scenario: &Scenario) -> Result<Target, Missing> {
    let mock = mock::start(scenario).await?;
    let mut config = Config { remote: at(mock.addr()), ..Config::default() };
    config.local = Local { port: 0, ..Local::default() };
    // Completions of other servers continue a text, too.
    config.completions.raw = true;
    let server = serve(config).await?;
    let mut remote = at(server.addr());
    remote.kind = Kind::OpenAi;
    let mut target = proxied(scenario.config.as_ref(), remote, Some(mock), None).await?;
    target.openai_server = Some(server);
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_names_a_scenario_and_has_a_reason() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
        for (file, reason) in Exceptions::read().unwrap().0 {
            assert!(root.join(&file).is_file(), "{file}");
            assert!(reason.len() > 10, "{file}: {reason}");
        }
    }

    #[test]
    fn a_file_is_found_by_its_path_below_the_folder_of_scenarios() {
        let list = Exceptions(BTreeMap::from([("native/a.yaml".to_owned(), "why".to_owned())]));
        for file in ["native/a.yaml", "scenarios/native/a.yaml", r"C:\x\native\a.yaml"] {
            assert_eq!(list.reason(file), Some("why"), "{file}");
        }
        for file in ["a.yaml", "alternative/a.yaml", "native/b.yaml"] {
            assert_eq!(list.reason(file), None, "{file}");
        }
    }
}
