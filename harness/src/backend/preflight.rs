//! The check before a run: the server can be reached, it accepts the key, and it has the model.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use super::{Backend, Target, proxied};
use crate::text::{chain, shorten};

/// How long the list of models may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest number of models that a message lists.
const LISTED: usize = 20;

impl Backend {
    /// Checks once whether scenarios can run at all. `named` is the model that was asked for, if any, and `is_needed` whether
    /// a scenario asks a model. Returns the model to use if none was asked for and the server has one alone.
    ///
    /// # Errors
    /// Fails if the server cannot be reached, refuses the key, is no OpenAI server, or does not have the model: one paragraph
    /// for people, with what to change.
    pub async fn preflight(
        &self,
        named: Option<&str>,
        is_needed: bool,
        http: &reqwest::Client,
    ) -> Result<Option<String>, String> {
        let target = match self {
            Self::Endpoint(endpoint) => endpoint.target(),
            // What keeps the proxy from starting is reported by the run.
            Self::Remote(remote) => match proxied(None, remote.settings().clone(), None, None).await {
                Ok(target) => target,
                Err(_) => return Ok(None),
            },
            Self::Container(container) => match container.settings().await {
                Ok(settings) => match proxied(None, settings, None, None).await {
                    Ok(target) => target,
                    Err(_) => return Ok(None),
                },
                Err(_) => return Ok(None),
            },
            Self::Mock | Self::Tampered(_) | Self::Standing(_) => return Ok(None),
        };
        let checked = target.usable(self, named, is_needed, http).await;
        target.stop().await;
        checked
    }
}

impl Target {
    async fn usable(
        &self,
        backend: &Backend,
        named: Option<&str>,
        is_needed: bool,
        http: &reqwest::Client,
    ) -> Result<Option<String>, String> {
        let name = backend.name();
        let url = format!("{}/models", self.openai);
        let answer = self.with_key(http.get(&url)).timeout(PATIENCE).send().await;
        let answer = answer.map_err(|error| {
            format!("cannot reach {name}: {}. Is it running, and is the address right?", chain(&error))
        })?;
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        let message = self.without_key(document["error"]["message"].as_str().unwrap_or(&body));
        let message = shorten(message.trim(), 500);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let (variable, flag) = match self.foreign {
                    true => ("FARLLAMA_CHECK_API_KEY", "--api-key"),
                    false => ("FARLLAMA_REMOTE_API_KEY", "--remote-api-key"),
                };
                let key = if self.foreign && self.key.is_none() {
                    format!("No key was given: set {variable}")
                } else {
                    format!("The key comes from {variable}, or from {flag}: is it right?")
                };
                return Err(format!("{name} refuses access ({status}): {message}\n{key} (--no-preflight runs anyway)"));
            }
            status if status.is_success() && document["data"].is_array() => {}
            StatusCode::NOT_FOUND if self.foreign && self.is_below_v1(http).await => {
                let openai = &self.openai;
                return Err(format!(
                    "there is no OpenAI API at {openai}, but there is one at {openai}/v1: use --base-url {openai}/v1"
                ));
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                return Err(format!("{name} cannot be used ({status}): {message}"));
            }
            status if !self.foreign => return Err(format!("{name} cannot be used ({status}): {message}")),
            // A server without a list of models is judged by the scenarios.
            _ => return Ok(None),
        }
        let names: Vec<&str> =
            document["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str()).collect();
        let listed = match &names[..] {
            [] => "no models yet".to_owned(),
            names if names.len() > LISTED => {
                format!("{} and {} more", names[..LISTED].join(", "), names.len() - LISTED)
            }
            names => names.join(", "),
        };
        match (named, &names[..]) {
            (None, [only]) => Ok(Some((*only).to_owned())),
            _ if !is_needed => Ok(None),
            (None, _) => Err(format!("name the model to ask with --model; {name} has: {listed}")),
            (Some(model), names) if lists(names, model) => Ok(None),
            (Some(model), _) if self.knows(model, http).await => Ok(None),
            (Some(model), _) => Err(format!(
                "{name} does not have the model `{model}`. It has: {listed}. Name one of these with --model (--no-preflight runs anyway)"
            )),
        }
    }

    /// Whether the API is below `/v1`, which the base URL does not have.
    async fn is_below_v1(&self, http: &reqwest::Client) -> bool {
        let url = format!("{}/v1/models", self.openai);
        let answer = self.with_key(http.get(url)).timeout(PATIENCE).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Whether a model that is not listed can be looked up all the same.
    async fn knows(&self, model: &str, http: &reqwest::Client) -> bool {
        let Ok(mut url) = reqwest::Url::parse(&format!("{}/models", self.openai)) else { return false };
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(model);
        }
        let answer = self.with_key(http.get(url)).timeout(PATIENCE).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) if !key.is_empty() => text.replace(key, "***"),
            _ => text.to_owned(),
        }
    }
}

/// Whether a model is listed; `m` is `m:latest`, and case does not count.
#[must_use]
pub fn lists(names: &[&str], model: &str) -> bool {
    let base = model.rsplit('/').next().unwrap_or(model);
    let full = if base.contains(':') { model.to_owned() } else { format!("{model}:latest") };
    names.iter().any(|name| name.eq_ignore_ascii_case(model) || name.eq_ignore_ascii_case(&full))
}

#[cfg(test)]
mod tests {
    use super::lists;

    #[test]
    fn a_model_without_a_tag_is_the_latest() {
        assert!(lists(&["llama3.2:latest"], "llama3.2"));
        assert!(lists(&["hf.co/a/B:latest"], "hf.co/a/b"));
        assert!(lists(&["gpt-oss:20b"], "gpt-oss:20b"));
        assert!(!lists(&["gpt-oss:20b"], "gpt-oss"));
        assert!(!lists(&[], "gpt-oss"));
    }
}
