//! What a scenario needs of the model and of the Ollama behind a target, asked of the target itself.

use std::time::Duration;

use serde_json::{Value, json};

use super::Target;
use crate::{scenario::Need, text::chain};

/// Such a question needs no model to be loaded.
const PATIENCE: Duration = Duration::from_secs(20);

impl Target {
    /// Why this target is none for a scenario with these needs, if that is so.
    ///
    /// # Errors
    /// It does not answer, or not as a server that is well: nothing can be known, so nothing may be skipped.
    pub async fn lacks(&self, needs: &[Need], model: &str, http: &reqwest::Client) -> Result<Option<String>, String> {
        for need in needs {
            let lacking = match need {
                Need::Capability(word) => self.capability(word, model, http).await?,
                Need::Ollama(version) => self.version(version, http).await?,
                Need::Native if self.foreign => {
                    let answer = self.ask(http.get(format!("{}/api/version", self.url))).await?;
                    answer.is_none().then(|| "it needs Ollama's native API, which the target has not".to_owned())
                }
                Need::Native | Need::Script | Need::Journal | Need::Proxy => None,
            };
            if lacking.is_some() {
                return Ok(lacking);
            }
        }
        Ok(None)
    }

    async fn capability(&self, word: &str, model: &str, http: &reqwest::Client) -> Result<Option<String>, String> {
        let show = http.post(format!("{}/api/show", self.url)).json(&json!({"model": model}));
        let Some(shown) = self.ask(show).await? else {
            return Ok(Some(format!("it needs a model with {word}, and nothing tells whether {model} has it")));
        };
        let has = shown["capabilities"].as_array().is_some_and(|all| all.iter().any(|known| known == word));
        Ok((!has).then(|| format!("it needs a model with {word}, which {model} has not (choose one by --model)")))
    }

    async fn version(&self, least: &str, http: &reqwest::Client) -> Result<Option<String>, String> {
        let told = self.ask(http.get(format!("{}/api/version", self.url))).await?;
        let Some(version) = told.as_ref().and_then(|told| told["version"].as_str()) else {
            return Ok(Some(format!("it needs Ollama {least}, and nothing tells what this is")));
        };
        Ok((numbers(version) < numbers(least)).then(|| format!("it needs Ollama {least}, and this is {version}")))
    }

    /// An answer's JSON; none if the server knows no such thing.
    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Option<Value>, String> {
        let request = match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        let asked = request.timeout(PATIENCE).send().await;
        let answer = asked.map_err(|error| format!("what it can do cannot be asked: {}", chain(&error)))?;
        let status = answer.status();
        if status.is_server_error() && status != reqwest::StatusCode::NOT_IMPLEMENTED {
            return Err(format!("what it can do cannot be asked: {} answers {status}", answer.url()));
        }
        Ok(if status.is_success() { answer.json().await.ok() } else { None })
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
