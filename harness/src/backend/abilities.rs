//! What a scenario needs of the model and of the Ollama behind a target, asked of the target itself.

use std::time::Duration;

use serde_json::{Value, json};

use super::Target;
use crate::scenario::Need;

/// Such a question needs no model to be loaded.
const PATIENCE: Duration = Duration::from_secs(20);

impl Target {
    /// Why this target is none for a scenario with these needs, if that is so.
    pub async fn lacks(&self, needs: &[Need], model: &str, http: &reqwest::Client) -> Option<String> {
        for need in needs {
            let lacking = match need {
                Need::Capability(word) => self.capability(word, model, http).await,
                Need::Ollama(version) => self.version(version, http).await,
                Need::Native if self.foreign => {
                    let answer = self.ask(http.get(format!("{}/api/version", self.url))).await;
                    answer.is_none().then(|| "it needs Ollama's native API, which the target has not".to_owned())
                }
                Need::Native | Need::Script | Need::Journal | Need::Proxy => None,
            };
            if lacking.is_some() {
                return lacking;
            }
        }
        None
    }

    async fn capability(&self, word: &str, model: &str, http: &reqwest::Client) -> Option<String> {
        let show = http.post(format!("{}/api/show", self.url)).json(&json!({"model": model}));
        let Some(shown) = self.ask(show).await else {
            return Some(format!("it needs a model with {word}, and nothing tells whether {model} has it"));
        };
        let has = shown["capabilities"].as_array().is_some_and(|all| all.iter().any(|known| known == word));
        (!has).then(|| format!("it needs a model with {word}, which {model} has not (choose one by --model)"))
    }

    async fn version(&self, least: &str, http: &reqwest::Client) -> Option<String> {
        let told = self.ask(http.get(format!("{}/api/version", self.url))).await;
        let Some(version) = told.as_ref().and_then(|told| told["version"].as_str()) else {
            return Some(format!("it needs Ollama {least}, and nothing tells what this is"));
        };
        (numbers(version) < numbers(least)).then(|| format!("it needs Ollama {least}, and this is {version}"))
    }

    /// An answer's JSON, if there is a good one.
    async fn ask(&self, request: reqwest::RequestBuilder) -> Option<Value> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.timeout(PATIENCE).send().await.ok()?.error_for_status().ok()?.json().await.ok()
    }
}

/// The numbers of a version; a release candidate counts as the release.
fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    release.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.9.0") < numbers("0.14.0"));
        assert!(numbers("0.33.0-rc2") >= numbers("0.33.0"));
    }
}
