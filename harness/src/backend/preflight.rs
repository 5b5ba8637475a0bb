//! The check before a run: the server can be reached, it accepts the key, the API is at that path, and it has the
//! model.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::{Backend, Target, proxied};
use crate::{net, text::shorten};

/// How long a question may take at most.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest number of models that a message lists.
const LISTED: usize = 20;
/// Endpoints of which a server without a list of models has one at least.
const MAKERS: [&str; 4] = ["/chat/completions", "/completions", "/embeddings", "/responses"];

/// What a run is about to ask of the server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'a> {
    /// The model, if one was named or is the default.
    pub model: Option<&'a str>,
    /// No flag named it.
    pub is_default: bool,
    /// Whether a scenario asks a model.
    pub asks_model: bool,
    /// Whether a scenario makes a call of OpenAI's API.
    pub asks_api: bool,
    /// How long a call may take, which bounds the questions too.
    pub timeout: Option<Duration>,
}

impl Backend {
    /// Checks once whether scenarios can run at all. Returns the model to use if none was named and the server has one
    /// alone.
    ///
    /// # Errors
    /// Fails if the server cannot be reached, refuses the key, is no OpenAI server, or does not have the model: one
    /// paragraph for people, with what to change.
    pub async fn preflight(&self, question: Question<'_>, http: &reqwest::Client) -> Result<Option<String>, String> {
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
            Self::Mock | Self::Tampered(_) | Self::Bridge(_) | Self::Standing(_) => return Ok(None),
        };
        let checked = {
            let timeout = question.timeout.unwrap_or(PATIENCE).min(PATIENCE);
            Preflight { target: &target, name: self.name(), http, timeout }.check(question).await
        };
        target.stop().await;
        checked
    }
}

/// What a server answered.
struct Answer {
    status: StatusCode,
    body: String,
    /// Null if the body is no JSON.
    document: Value,
}

impl Answer {
    fn is_list(&self) -> bool {
        self.status.is_success() && self.document["data"].is_array()
    }

    fn is_page(&self) -> bool {
        let start = self.body.trim_start().get(..9).unwrap_or_default().to_ascii_lowercase();
        start.starts_with("<!doctype") || start.starts_with("<html")
    }

    /// Whether the path leads nowhere. A 404 may also be about the model, which the path does lead to.
    fn is_nowhere(&self) -> bool {
        let message = self.document["error"]["message"].as_str().unwrap_or_default().to_lowercase();
        match self.status {
            StatusCode::NOT_FOUND => !message.contains("model"),
            status => matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED),
        }
    }
}

struct Preflight<'a> {
    target: &'a Target,
    name: String,
    http: &'a reqwest::Client,
    timeout: Duration,
}

impl Preflight<'_> {
    async fn check(&self, question: Question<'_>) -> Result<Option<String>, String> {
        let Self { target, name, http, .. } = self;
        let url = format!("{}/models", target.openai);
        let answer = self.ask(http.get(&url)).await.map_err(|error| {
            format!("cannot reach {name}: {}. Is it running, and is the address right?", net::why(&error))
        })?;
        match answer.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.refused(&answer)),
            _ if answer.is_list() => {}
            status if !target.foreign => {
                return Err(format!("{name} cannot be used ({status}): {}", self.words(&answer)));
            }
            _ if !question.asks_api => {}
            _ => self.find_api(&answer).await?,
        }
        if !answer.is_list() {
            return match question.model {
                None if question.asks_model => {
                    Err(format!("name the model to ask with --model: {name} does not list its models"))
                }
                _ => Ok(None),
            };
        }
        // Some servers list their models to everyone, and want the key for the rest.
        if target.foreign && question.asks_model && question.asks_api {
            let url = format!("{}{}", target.openai, MAKERS[0]);
            if let Ok(answer) = self.ask(http.post(url).json(&json!({}))).await
                && answer.status == StatusCode::UNAUTHORIZED
            {
                return Err(self.refused(&answer));
            }
        }
        self.choose(&answer.document, question).await
    }

    /// The model to use, from the list.
    async fn choose(&self, document: &Value, question: Question<'_>) -> Result<Option<String>, String> {
        let name = &self.name;
        let names: Vec<&str> =
            document["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str()).collect();
        let listed = match &names[..] {
            [] => "no models yet".to_owned(),
            names if names.len() > LISTED => {
                format!("{} and {} more", names[..LISTED].join(", "), names.len() - LISTED)
            }
            names => names.join(", "),
        };
        match (question.model, &names[..]) {
            (None, [only]) => Ok(Some((*only).to_owned())),
            _ if !question.asks_model => Ok(None),
            (None, _) => Err(format!("name the model to ask with --model; {name} has: {listed}")),
            (Some(model), names) if lists(names, model) => Ok(None),
            (Some(model), _) if self.knows(model).await => Ok(None),
            (Some(model), _) => {
                let default = if question.is_default { ", the default" } else { "" };
                Err(format!(
                    "{name} does not have the model `{model}`{default}. It has: {listed}. Name one of these with --model \
                     (--no-preflight runs anyway)"
                ))
            }
        }
    }

    /// Fails if there is no OpenAI API at this path, as far as that can be known from a server without a list of
    /// models.
    async fn find_api(&self, models: &Answer) -> Result<(), String> {
        let Self { target, name, http, .. } = self;
        let openai = &target.openai;
        for elsewhere in candidates(openai) {
            let answer = self.ask(http.get(format!("{elsewhere}/models"))).await;
            if answer.is_ok_and(|answer| answer.is_list()) {
                return Err(format!(
                    "there is no OpenAI API at {openai}, but there is one at {elsewhere}: use --base-url {elsewhere}"
                ));
            }
        }
        let status = models.status;
        let path =
            "Is the path right? Most servers have the API at a path that ends in /v1 (--no-preflight runs anyway)";
        if models.is_page() {
            return Err(format!(
                "there is no OpenAI API at {openai}: GET {openai}/models answers {status} with an HTML page. {path}"
            ));
        }
        if wants_tls(models) && openai.starts_with("http://") {
            let secure = openai.replacen("http://", "https://", 1);
            return Err(format!("{name} speaks TLS on that port: use --base-url {secure}"));
        }
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            let words = self.words(models);
            return Err(format!(
                "{name} cannot be used: GET {openai}/models answers {status}: {words} (--no-preflight runs anyway)"
            ));
        }
        let mut last = None;
        for maker in MAKERS {
            match self.ask(http.post(format!("{openai}{maker}")).json(&json!({}))).await {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => return Err(self.refused(&answer)),
                Ok(answer) if answer.is_page() || answer.is_nowhere() => last = Some(answer.status),
                // What answers there may be right or wrong; the scenarios show it.
                Ok(_) => return Ok(()),
                Err(_) => {}
            }
        }
        let last = last.map(|status| format!(", POST {openai}/chat/completions answers {status}")).unwrap_or_default();
        Err(format!("there is no OpenAI API at {openai}: GET {openai}/models answers {status}{last}. {path}"))
    }

    fn refused(&self, answer: &Answer) -> String {
        let Self { target, name, .. } = self;
        let (variable, flag) = match target.foreign {
            true => (super::endpoint::KEY, "--api-key"),
            false => (super::remote::KEY, "--remote-api-key"),
        };
        let key = if target.foreign && target.key.is_none() {
            format!("No key was given: set {variable}")
        } else {
            format!("The key comes from {variable}, or from {flag}: is it right?")
        };
        let (status, words) = (answer.status, self.words(answer));
        format!("{name} refuses access ({status}): {words}\n{key} (--no-preflight runs anyway)")
    }

    async fn ask(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let answer = self.target.with_key(request).timeout(self.timeout).send().await?;
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        let document = serde_json::from_str(&body).unwrap_or_default();
        Ok(Answer { status, body, document })
    }

    /// An answer's own message, without the key.
    fn words(&self, answer: &Answer) -> String {
        let words = answer.document["error"]["message"].as_str().unwrap_or(&answer.body);
        let words = match &self.target.key {
            Some(key) if !key.is_empty() => words.replace(key.as_str(), "***"),
            _ => words.to_owned(),
        };
        shorten(words.trim(), 500)
    }

    /// Whether a model that is not listed can be looked up all the same.
    async fn knows(&self, model: &str) -> bool {
        let Ok(mut url) = reqwest::Url::parse(&format!("{}/models", self.target.openai)) else { return false };
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(model);
        }
        self.ask(self.http.get(url)).await.is_ok_and(|answer| answer.status.is_success())
    }
}

/// Where the API may be instead: below the path that was given, beside its last part, or at the root.
fn candidates(openai: &str) -> Vec<String> {
    let start = openai.find("://").map_or(0, |at| at + 3);
    let host = openai[start..].find('/').map_or(openai.len(), |at| start + at);
    let mut all = vec![format!("{openai}/v1")];
    if let Some(last) = openai.rfind('/').filter(|last| *last >= host) {
        all.push(format!("{}/v1", &openai[..last]));
    }
    all.push(format!("{}/v1", &openai[..host]));
    all.dedup();
    all.retain(|candidate| candidate != openai);
    all
}

/// Whether a server that speaks TLS complains about a request without it, as nginx and Go's server do.
fn wants_tls(answer: &Answer) -> bool {
    let body = answer.body.to_lowercase();
    answer.status == StatusCode::BAD_REQUEST && body.contains("http request") && body.contains("https")
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
    use super::{candidates, lists};

    #[test]
    fn the_api_is_looked_for_below_beside_and_at_the_root() {
        assert_eq!(candidates("http://a:1"), ["http://a:1/v1"]);
        assert_eq!(candidates("http://a/v2"), ["http://a/v2/v1", "http://a/v1"]);
        assert_eq!(candidates("http://a/x/api"), ["http://a/x/api/v1", "http://a/x/v1", "http://a/v1"]);
        assert_eq!(candidates("http://a/v1"), ["http://a/v1/v1"]);
    }

    #[test]
    fn a_model_without_a_tag_is_the_latest() {
        assert!(lists(&["llama3.2:latest"], "llama3.2"));
        assert!(lists(&["hf.co/a/B:latest"], "hf.co/a/b"));
        assert!(lists(&["gpt-oss:20b"], "gpt-oss:20b"));
        assert!(!lists(&["gpt-oss:20b"], "gpt-oss"));
        assert!(!lists(&[], "gpt-oss"));
    }
}
