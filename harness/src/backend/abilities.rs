//! What a scenario needs of the server and its model: as the command line says, or found out by asking the server
//! itself.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::Target;
use crate::{
    net,
    scenario::{Capability, Need, variables::Variables},
    text::suggestion,
};

/// How long a question may take that needs no model to be loaded.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a request may take that tries a capability: the model may have to be loaded.
const TRIAL: Duration = Duration::from_secs(300);

/// A transparent pixel, PNG.
const PIXEL: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// What is known of the server's capabilities. Clones share what was found out.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    /// All that it has, if a person said so.
    given: Option<Vec<Capability>>,
    /// Why each that was tried is missing, if it is.
    tried: Arc<Mutex<BTreeMap<String, Option<String>>>>,
    /// How long a call may take, which bounds the questions too.
    timeout: Option<Duration>,
}

impl Capabilities {
    /// From names, of which `none` stands for the empty list; without names they are found out.
    ///
    /// # Errors
    /// Fails on an unknown name, with those that are known.
    pub fn given(names: &[String]) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(Self::default());
        }
        let mut given = Vec::new();
        for name in names.iter().filter(|name| *name != "none") {
            let known = Capability::ALL.map(|(_, known)| known);
            given.push(name.parse().map_err(|()| {
                format!("unknown capability `{name}`{}; known are none, {}", suggestion(name, known), known.join(", "))
            })?);
        }
        Ok(Self { given: Some(given), ..Self::default() })
    }

    /// With a bound for the questions.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    fn at_most(&self, usual: Duration) -> Duration {
        self.timeout.map_or(usual, |timeout| timeout.min(usual))
    }

    /// Whether a person said that this is there.
    #[must_use]
    pub fn requires(&self, capability: Capability) -> bool {
        self.given.as_ref().is_some_and(|given| given.contains(&capability))
    }

    /// Why a scenario with these needs does not run, if a person said that something of them is missing.
    #[must_use]
    pub fn excluded(&self, needs: &[Need]) -> Option<String> {
        let given = self.given.as_ref()?;
        let lacking = needs.iter().find(|need| matches!(need, Need::Capability(one) if !given.contains(one)))?;
        Some(format!("it needs {lacking}, which --capability does not name"))
    }

    /// Those that were found to be there by trying or asking.
    #[must_use]
    pub fn found(&self, needs: &[Need]) -> Vec<Capability> {
        let tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let is_found = |capability: &Capability| {
            tried
                .iter()
                .any(|(question, lacking)| lacking.is_none() && question.split(' ').next() == Some(capability.name()))
        };
        let capabilities =
            needs.iter().filter_map(|need| if let Need::Capability(one) = need { Some(*one) } else { None });
        capabilities.filter(is_found).collect()
    }

    fn known(&self, question: &str) -> Option<Option<String>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).get(question).cloned()
    }

    fn learn(&self, question: String, lacking: Option<String>) {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).insert(question, lacking);
    }
}

impl Target {
    /// Why this target cannot run a scenario with these needs, if that is so.
    ///
    /// # Errors
    /// Fails if it does not answer, or answers with a server error: nothing can be known, so nothing may be skipped.
    pub async fn lacks(
        &self,
        needs: &[Need],
        variables: &Variables,
        capabilities: &Capabilities,
        http: &reqwest::Client,
    ) -> Result<Option<String>, String> {
        if let Some(reason) = capabilities.excluded(needs) {
            return Ok(Some(reason));
        }
        let patience = capabilities.at_most(PATIENCE);
        for need in needs {
            let lacking = match need {
                Need::Capability(capability) if capabilities.requires(*capability) => None,
                Need::Capability(capability) => {
                    let model = match capability {
                        Capability::Embeddings => variables.embedding_model(),
                        _ => variables.model(),
                    };
                    self.capability(*capability, &model, capabilities, http).await?
                }
                Need::Ollama(version) => self.version(version, patience, http).await?,
                Need::Native if self.foreign => {
                    let answer = self.ask(http.get(format!("{}/api/version", self.url)), patience).await?;
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

    /// Asks Ollama, which knows its models, or tries it.
    async fn capability(
        &self,
        capability: Capability,
        model: &str,
        capabilities: &Capabilities,
        http: &reqwest::Client,
    ) -> Result<Option<String>, String> {
        if !self.foreign && capability.of_model().is_none() {
            return Ok(None);
        }
        let question = format!("{} {model} {}", capability.name(), self.openai);
        let question = if self.foreign { question } else { format!("{} {model}", capability.name()) };
        if let Some(known) = capabilities.known(&question) {
            return Ok(known);
        }
        let lacking = self.find_out(capability, model, capabilities, http).await?;
        capabilities.learn(question, lacking.clone());
        Ok(lacking)
    }

    async fn find_out(
        &self,
        capability: Capability,
        model: &str,
        capabilities: &Capabilities,
        http: &reqwest::Client,
    ) -> Result<Option<String>, String> {
        let name = capability.name();
        let flag = if capability == Capability::Embeddings { "--embedding-model" } else { "--model" };
        if let Some(word) = capability.of_model() {
            let show = http.post(format!("{}/api/show", self.url)).json(&json!({"model": model}));
            let shown = self.ask(show, capabilities.at_most(PATIENCE)).await?;
            if let Some(known) = shown.as_ref().and_then(|shown| shown["capabilities"].as_array()) {
                let has = known.iter().any(|known| known == word);
                let lacking = || format!("it needs a model with {name}, which {model} has not (choose one by {flag})");
                return Ok((!has).then(lacking));
            }
        }
        let Some((path, body)) = trial(capability, model) else {
            return Ok(Some(format!(
                "it needs {name}, and nothing shows whether {model} has it (--capability {name})"
            )));
        };
        let request = self.with_key(http.post(format!("{}{path}", self.openai))).json(&body);
        let request = request.timeout(capabilities.at_most(TRIAL));
        let answer = request.send().await.map_err(|error| format!("{name} cannot be tried: {}", net::why(&error)))?;
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(ignored(capability, &document).map(|effect| {
                format!("it needs {name}, and the server ignores it ({effect}); --capability {name} requires it")
            }));
        }
        let message = document["error"]["message"].as_str().unwrap_or(&body);
        let reported = crate::text::shorten(message.trim(), 200);
        let reported = self.key.as_ref().map_or(reported.clone(), |key| reported.replace(key.as_str(), "***"));
        let refused = format!(
            "it needs {name}, and the server refuses to try it ({status}: {reported}); --capability {name} requires it"
        );
        match status {
            // What keeps every request from being answered says nothing about the capability.
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                Err(format!("{name} cannot be tried: {path} answers {status}: {reported}"))
            }
            _ => Ok(Some(refused)),
        }
    }

    async fn version(&self, least: &str, patience: Duration, http: &reqwest::Client) -> Result<Option<String>, String> {
        let reported = self.ask(http.get(format!("{}/api/version", self.url)), patience).await?;
        let Some(version) = reported.as_ref().and_then(|reported| reported["version"].as_str()) else {
            return Ok(Some(format!("it needs Ollama {least}, and the server does not say that it is one")));
        };
        Ok((numbers(version) < numbers(least)).then(|| format!("it needs Ollama {least}, and this is {version}")))
    }

    /// The request with the target's key.
    pub(super) fn with_key(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// The JSON of an answer; none if the server does not know the path.
    async fn ask(&self, request: RequestBuilder, patience: Duration) -> Result<Option<Value>, String> {
        let asked = self.with_key(request).timeout(patience).send().await;
        let answer = asked.map_err(|error| format!("what it can do cannot be asked: {}", net::why(&error)))?;
        let status = answer.status();
        // An own server answers to unknown paths as it likes, also with 500.
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED && !self.foreign {
            return Err(format!("what it can do cannot be asked: {} answers {status}", answer.url()));
        }
        Ok(if status.is_success() { answer.json().await.ok() } else { None })
    }
}

/// What is missing from a successful answer to a trial if the server ignores what was asked for. Many servers do not
/// refuse unknown fields, so only the effect shows a capability. Whatever else may be wrong is for the scenarios to
/// find.
fn ignored(capability: Capability, answer: &Value) -> Option<&'static str> {
    let choices = answer["choices"].as_array().filter(|choices| !choices.is_empty());
    // An answer cut at the token limit shows nothing, such as that of a model that thinks first.
    let is_cut = answer["choices"][0]["finish_reason"] == "length";
    let is_list = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    match capability {
        Capability::Tools => {
            let message = &choices?[0]["message"];
            (!is_list(&message["tool_calls"]) && !is_cut).then_some("a tool that had to be called was not")
        }
        Capability::Structured => {
            let text = choices?[0]["message"]["content"].as_str().unwrap_or_default().trim();
            let fits = serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
            (!fits && !is_cut).then_some("the text is not a JSON object, as the schema requires")
        }
        Capability::Logprobs => {
            let logprobs = &choices?[0]["logprobs"];
            logprobs.is_null().then_some("the answer has no log probabilities")
        }
        Capability::Choices => (choices?.len() == 1).then_some("two choices were asked for, and one came"),
        Capability::Embeddings => answer["data"].is_null().then_some("the answer has no vectors"),
        Capability::Completions => {
            let first = &choices?[0];
            (first["text"].is_null() && first["message"].is_object()).then_some("it answers as to a chat")
        }
        Capability::Responses => {
            (answer["output"].is_null() && answer["choices"].is_array()).then_some("it answers as to a chat")
        }
        // Whether a model saw an image or thought, no answer proves.
        Capability::Vision | Capability::Thinking => None,
    }
}

/// A small request that needs the capability.
fn trial(capability: Capability, model: &str) -> Option<(&'static str, Value)> {
    let chat = |more: Value| {
        let mut body =
            json!({"model": model, "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello."}]});
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        ("/chat/completions", body)
    };
    let object = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false});
    Some(match capability {
        Capability::Tools => chat(json!({
            "tools": [{"type": "function", "function": {"name": "greet", "parameters": object}}],
            "tool_choice": {"type": "function", "function": {"name": "greet"}},
            "max_tokens": 64,
        })),
        Capability::Vision => chat(json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": PIXEL}},
        ]}]})),
        Capability::Structured => chat(json!({
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": object}},
            "max_tokens": 64,
        })),
        Capability::Logprobs => chat(json!({"logprobs": true, "top_logprobs": 2})),
        Capability::Choices => chat(json!({"n": 2})),
        Capability::Embeddings => ("/embeddings", json!({"model": model, "input": "hello"})),
        Capability::Completions => ("/completions", json!({"model": model, "prompt": "Hello", "max_tokens": 4})),
        Capability::Responses => {
            ("/responses", json!({"model": model, "input": "Say hello.", "max_output_tokens": 16}))
        }
        Capability::Thinking => return None,
    })
}

/// The numbers of a version; a release candidate counts as the release.
pub(crate) fn numbers(version: &str) -> Vec<u64> {
    let version = version.trim();
    let release = version.strip_prefix('v').unwrap_or(version).split(['-', '+']).next().unwrap_or_default();
    release.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.9.0") < numbers("0.14.0"));
        assert!(numbers("0.33.0-rc2") >= numbers("0.33.0"));
        assert_eq!(numbers(" v1.2.3+x"), [1, 2, 3]);
    }

    #[test]
    fn a_capability_is_judged_by_its_effect() {
        let chat = |message: Value| json!({"choices": [{"message": message, "finish_reason": "stop"}]});
        let plain = chat(json!({"role": "assistant", "content": "Hello!"}));
        for (capability, _) in Capability::ALL {
            let is_ignored = ignored(capability, &plain).is_some();
            let shows = !matches!(capability, Capability::Vision | Capability::Thinking);
            assert_eq!(is_ignored, shows, "{}", capability.name());
        }
        let call = json!([{"id": "1", "type": "function", "function": {"name": "greet", "arguments": "{}"}}]);
        let cut = json!({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]});
        let logprobs = json!({"choices": [{"message": {"content": "a"}, "logprobs": {"content": []}}]});
        for (capability, answer) in [
            (Capability::Tools, chat(json!({"content": null, "tool_calls": call}))),
            (Capability::Tools, cut.clone()),
            (Capability::Structured, chat(json!({"content": " {\"b\": 1} "}))),
            (Capability::Structured, cut),
            (Capability::Logprobs, logprobs),
            (Capability::Choices, json!({"choices": [{}, {}]})),
            (Capability::Embeddings, json!({"data": []})),
            (Capability::Completions, json!({"choices": [{"text": ""}]})),
            (Capability::Responses, json!({"object": "response", "output": []})),
            // What is no answer at all is for the scenarios to find.
            (Capability::Tools, json!({})),
        ] {
            assert_eq!(ignored(capability, &answer), None, "{} {answer}", capability.name());
        }
    }

    #[test]
    fn an_unknown_capability_is_refused_with_the_nearest() {
        let wrong = Capabilities::given(&["tool".to_owned()]).unwrap_err();
        assert!(
            wrong.starts_with("unknown capability `tool`; did you mean `tools`?; known are none, tools"),
            "{wrong}"
        );
        assert_eq!(Capabilities::given(&["none".to_owned()]).unwrap().given, Some(Vec::new()));
    }
}
