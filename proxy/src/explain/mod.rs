//! `farllama explain`: the Ollama request that a request becomes, and what happens to its fields. Translation is pure,
//! so nothing is sent; only [`Explained::compare`] asks a remote which models it has and what is loaded there.

mod calls;
mod endpoint;
mod loaded;

use std::fmt::Write;

use serde::Serialize;
use serde_json::value::RawValue;

pub use self::{
    calls::{Pasted, PastedCall},
    endpoint::endpoints,
};
use crate::{
    anthropic, app, bridge,
    config::{Config, Kind},
    error::{self, Dialect, Error},
    observe::Recorder,
    openai::{
        audio, chat, completions, embeddings, images, moderations,
        request::{
            self,
            json::Json,
            parameters::{Endpoint, misspelled},
        },
        responses,
        tools::repair::Repairs,
        upstream_request::{context::Grown, prepare::Context, send::UpstreamRequest},
    },
    upstream::client::Client,
};

/// What a request becomes.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The endpoint that it is for.
    pub endpoint: String,
    /// What the remote would be asked, in this order; several where there are several answers.
    pub requests: Vec<Request>,
    /// What is emulated and what has no effect, as in the header `x-farllama-receipt`; empty where nothing is.
    pub receipt: String,
    /// What would become of a pasted call, or of the text of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pasted: Option<Pasted>,
    /// What may surprise.
    pub warnings: Vec<String>,
    /// Whether the remote wants credentials, which are not shown.
    #[serde(skip)]
    keyed: bool,
    /// Those of the warnings that no remote can take back.
    #[serde(skip)]
    notes: Vec<String>,
    #[serde(skip)]
    asks: Vec<UpstreamRequest>,
    /// Whether their model only stands for one that is chosen later.
    #[serde(skip)]
    is_stand_in: bool,
}

/// A native request.
#[derive(Debug, Serialize)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The whole URL, without credentials.
    pub url: String,
    /// The JSON body, as it would be sent.
    pub body: Box<RawValue>,
}

impl Explained {
    /// As JSON over several lines.
    #[must_use]
    pub fn json(&self) -> String {
        // Through a value, because raw JSON is printed as it stands.
        let value = serde_json::to_string(self).and_then(|text| serde_json::from_str::<serde_json::Value>(&text));
        let mut text = value.and_then(|value| serde_json::to_string_pretty(&value)).unwrap_or_default();
        text.push('\n');
        text
    }

    /// As a command for a shell, one for each request. Receipt and warnings are comments.
    #[must_use]
    pub fn curl(&self) -> String {
        let mut text = format!("# {}\n", self.endpoint);
        if !self.receipt.is_empty() {
            let _ = writeln!(text, "# receipt: {}", self.receipt);
        }
        for line in self.pasted.iter().flat_map(Pasted::lines) {
            let _ = writeln!(text, "# {}", line.replace(char::is_control, " "));
        }
        for warning in &self.warnings {
            // A name or a URL of the request must not end the comment.
            let _ = writeln!(text, "# warning: {}", warning.replace(char::is_control, " "));
        }
        if self.keyed {
            text.push_str("# the remote wants credentials, which are not shown: add them with -H or -u\n");
        }
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        for Request { method, url, body } in &self.requests {
            let _ = writeln!(
                text,
                "curl -N -X {method} {} -H 'Content-Type: application/json' -d {}",
                quoted(url),
                quoted(body.get())
            );
        }
        text
    }

    /// Asks the remote which version it is and what is loaded there, and warns by that.
    pub async fn compare(&mut self, config: &Config) {
        let Some(ask) = self.asks.first() else { return };
        if self.is_stand_in {
            self.warnings
                .push("not compared with what is loaded: the remote's guard model is chosen per request".to_owned());
            return;
        }
        let seen = match Client::new(config, app::via()) {
            Ok(client) => loaded::look(&client, &ask.model).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match seen {
            Ok(seen) => {
                self.warnings = loaded::warnings(ask, Some(&seen), config.context.max);
                if self.endpoint == endpoint::path(Endpoint::Images) {
                    self.warnings.extend(loaded::makes_none(&seen));
                }
                self.warnings.extend_from_slice(&self.notes);
            }
            Err(error) => self.warnings.push(format!("not compared with what is loaded: {error}")),
        }
    }
}

/// Translates a body. `endpoint` is one of [`endpoints`]; absent, it is found from the body.
///
/// # Errors
/// Fails with the refusal that a client would get, as JSON; a line below it hints at misspelled names.
pub fn explain(body: Vec<u8>, endpoint: Option<&str>, config: &Config) -> Result<Explained, String> {
    explain_with(body, endpoint, None, config)
}

/// Translates a body, and shows what would become of `pasted`: a call as JSON, or the text of an answer.
///
/// # Errors
/// As [`explain`].
pub fn explain_with(
    body: Vec<u8>,
    endpoint: Option<&str>,
    pasted: Option<&str>,
    config: &Config,
) -> Result<Explained, String> {
    if let Some(path) = endpoint.and_then(endpoint::native) {
        let refused = |error| String::from_utf8_lossy(&error::body(&error, Dialect::Ollama, None)).into_owned();
        return bridged(path, &body, config).map_err(refused);
    }
    let json = Json::new(body, &config.limits);
    prepare(&json, endpoint, pasted, config).map_err(|error| {
        let mut text = String::from_utf8_lossy(&error::body(&error, Dialect::OpenAi, None)).into_owned();
        let endpoint = endpoint.and_then(endpoint::named).or_else(|| endpoint::found(&json).ok());
        let hint = json.fields().ok().zip(endpoint).and_then(|(fields, endpoint)| misspelled(endpoint, fields));
        if let Some(hint) = hint {
            text.push('\n');
            text.push_str(&hint);
        }
        text
    })
}

/// What a native request becomes where the remote is an OpenAI server.
fn bridged(path: &str, body: &[u8], config: &Config) -> Result<Explained, Error> {
    let (asked, receipt) = bridge::explain(path, body, config)?;
    let mut notes = Vec::new();
    if config.remote.kind == Kind::Ollama {
        notes.push("remote.kind is \"ollama\": there this request passes through unchanged; this is what an OpenAI server is asked".to_owned());
    }
    if asked.is_none() {
        notes.push("nothing is asked of the remote: the request only loads a model".to_owned());
    }
    notes.extend(receipt.hint());
    let requests = asked.iter().map(|(path, body)| {
        let body = serde_json::from_slice::<Box<RawValue>>(body);
        let body = body.map_err(|error| Error::Internal { message: error.to_string() })?;
        let url = config.remote.url();
        let origin = url.strip_suffix(&*config.remote.base_path).unwrap_or(&url);
        Ok(Request { method: "POST", url: format!("{origin}{path}"), body })
    });
    Ok(Explained {
        endpoint: format!("POST {path}"),
        requests: requests.collect::<Result<_, Error>>()?,
        receipt: receipt.to_string(),
        pasted: None,
        warnings: notes.clone(),
        notes,
        keyed: config.remote.authorization.is_some() || !config.remote.headers.is_empty(),
        asks: Vec::new(),
        is_stand_in: false,
    })
}

fn prepare(json: &Json, endpoint: Option<&str>, pasted: Option<&str>, config: &Config) -> Result<Explained, Error> {
    let (endpoint, others) = match endpoint.and_then(endpoint::named) {
        Some(endpoint) => (endpoint, Vec::new()),
        None => {
            let found = endpoint::found(json)?;
            (found, endpoint::as_likely(json, found)?)
        }
    };
    let (json, urls) = &request::stand_in(json, config.images.fetch);
    // Nothing has grown yet.
    let context = &Context { config, grown: &Grown::default(), recorder: &Recorder::default(), target: None };
    let mut stand_in = None;
    let mut repairs = Repairs::default();
    let (asks, receipt) = match endpoint {
        Endpoint::Chat => chat::prepare(json, context).map(|all| {
            repairs = all.facts.repairs;
            (all.asks, all.receipt)
        }),
        Endpoint::Completions => completions::prepare(json, context).map(|all| (all.asks, all.receipt)),
        Endpoint::Embeddings => embeddings::prepare(json, context).map(|all| (all.asks, all.receipt)),
        Endpoint::Responses => responses::explain(json, config).map(|(asks, receipt, offered)| {
            repairs = offered;
            (asks, receipt)
        }),
        Endpoint::Messages => anthropic::prepare(json, context).map(|all| {
            repairs = all.facts.repairs;
            (all.asks, all.receipt)
        }),
        Endpoint::Moderations => moderations::explain(json, context).map(|(all, guard)| {
            stand_in = guard;
            (all.asks, all.receipt)
        }),
        Endpoint::Images => images::prepare(json, context).map(|all| (all.asks, all.receipt)),
        Endpoint::Transcriptions | Endpoint::Translations => audio::prepare(json, context, endpoint),
    }?;
    let request = |ask: &UpstreamRequest| {
        let body = serde_json::from_slice::<Box<RawValue>>(&ask.body);
        let body = body.map_err(|error| Error::Internal { message: error.to_string() })?;
        Ok(Request { method: "POST", url: config.remote.url() + ask.path, body })
    };
    let mut notes: Vec<_> = urls.iter().map(|url| format!("{url} is fetched first: a placeholder is shown")).collect();
    if !others.is_empty() {
        let others: Vec<_> = others.into_iter().map(endpoint::path).collect();
        let (guess, others) = (endpoint::path(endpoint), others.join(" or "));
        notes.push(format!("guessed {guess}; the body fits {others} as well: name the endpoint with --endpoint"));
    }
    if let Some(guard) = stand_in {
        notes.push(format!(
            "no model is named or configured, so a guard model that the remote has will judge: {guard} is shown in its place (moderation.model chooses one)"
        ));
    }
    notes.extend(receipt.hint());
    if config.remote.kind == Kind::OpenAi && !matches!(endpoint, Endpoint::Responses | Endpoint::Messages) {
        notes.push("remote.kind is \"openai\": there this request passes through unchanged".to_owned());
    }
    let same = asks.first().is_some_and(|first| asks.iter().skip(1).any(|ask| ask.body == first.body));
    if same {
        notes.push("the requests are alike without a seed: Ollama chooses a random one for each".to_owned());
    }
    if asks.is_empty() {
        notes.push("nothing is asked of the remote: the transcript is given".to_owned());
    }
    let mut warnings = asks.first().map(|ask| loaded::warnings(ask, None, config.context.max)).unwrap_or_default();
    warnings.extend_from_slice(&notes);
    Ok(Explained {
        endpoint: endpoint::path(endpoint),
        requests: asks.iter().map(request).collect::<Result<_, Error>>()?,
        receipt: receipt.to_string(),
        pasted: pasted.map(|text| Pasted::of(text, &repairs)),
        warnings,
        notes,
        keyed: config.remote.authorization.is_some() || !config.remote.headers.is_empty(),
        asks,
        is_stand_in: stand_in.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_request_is_shown_as_an_openai_server_is_asked() {
        let config = Config::from_toml("[remote]\nkind = \"openai\"\nurl = \"https://ai.example/api/v1\"").unwrap();
        let body = br#"{"model":"m:latest","messages":[{"role":"user","content":"hi"}],"options":{"num_ctx":1}}"#;
        let explained = explain(body.to_vec(), Some("api/chat"), &config).unwrap();
        assert_eq!(explained.requests[0].url, "https://ai.example/api/v1/chat/completions");
        assert!(explained.requests[0].body.get().contains("\"model\":\"m\""));
        assert_eq!((&*explained.receipt, explained.warnings.len()), ("options.num_ctx=no-effect", 0));
        let refused = explain(b"{".to_vec(), Some("api/chat"), &config).unwrap_err();
        assert_eq!(refused, "{\"error\":\"unexpected EOF\"}");
        let here = explain(br#"{"model":"m","input":"x"}"#.to_vec(), Some("api/embed"), &Config::default()).unwrap();
        assert!(here.warnings[0].contains("passes through unchanged"));
    }

    #[test]
    fn misspelled_names_are_hinted_at_wherever_they_stand_and_if_the_request_fails() {
        let explained = |body: &str| explain(body.as_bytes().to_vec(), None, &Config::default());
        let found =
            explained(r#"{"model":"m","options":{"num_ctxx":5},"messages":[{"role":"user","contnt":"hi"}]}"#).unwrap();
        assert_eq!(found.receipt, "options.num_ctxx=unknown, messages[].contnt=unknown");
        for hint in ["`options.num_ctxx`: did you mean `num_ctx`?", "`messages[].contnt`: did you mean `content`?"] {
            assert!(found.warnings.iter().any(|warning| warning.contains(hint)), "{:?}", found.warnings);
        }
        let off = explained(r#"{"model":"m","thnik":false,"other":false,"messages":[{"role":"user","content":"hi"}]}"#)
            .unwrap();
        assert_eq!(off.receipt, "thnik=unknown");
        let tool = r#"[{"type":"function","name":"f","paramters":{"type":"object"}}]"#;
        let response =
            explained(&format!(r#"{{"model":"m","stor":false,"input":"hi","tools":{tool},"truncation":"auto"}}"#));
        assert_eq!(response.unwrap().receipt, "tools[].paramters=unknown, stor=unknown");
        for (body, hint) in [
            (r#"{"modle":"m","messages":[{"role":"user","content":"hi"}]}"#, "`modle`: did you mean `model`?"),
            (r#"{"model":"m","mesages":[],"max_tokens":5}"#, "`mesages`: did you mean `messages`?"),
            (r#"{"model":"m","temprature":1,"logit_bias":{"1":2},"messages":[]}"#, "did you mean `temperature`?"),
        ] {
            let refusal = explained(body).unwrap_err();
            assert!(refusal.starts_with("{\"error\"") && refusal.contains(hint), "{refusal}");
        }
    }

    #[test]
    fn a_request_is_shown_as_what_it_becomes() {
        let body = br#"{"model":"m","user":"u","num_ctx":8192,"messages":[{"role":"user","content":"it's"}]}"#;
        let explained = explain(body.to_vec(), None, &Config::default()).unwrap();
        assert_eq!(explained.receipt, "user=no-effect");
        assert!(explained.warnings[0].starts_with("num_ctx is 8192") && explained.warnings.len() == 1);
        let sent = r#"{"model":"m","messages":[{"role":"user","content":"it's"}],"stream":false,"options":{"num_ctx":8192},"truncate":false}"#;
        assert_eq!(explained.requests[0].body.get(), sent);
        let curl = explained.curl();
        assert!(
            curl.contains("curl -N -X POST 'http://127.0.0.1:11434/api/chat'") && curl.contains(r"it'\''s"),
            "{curl}"
        );
        let json: serde_json::Value = serde_json::from_str(&explained.json()).unwrap();
        assert_eq!(json["requests"][0]["body"]["options"]["num_ctx"], 8192);
    }

    #[test]
    fn a_pasted_call_is_shown_as_what_it_becomes() {
        let tool = r#"{"name":"get_weather","parameters":{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"}},"required":["city"]}}"#;
        let chat = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],"tools":[{{"type":"function","function":{tool}}}]}}"#
        );
        let responses = format!(r#"{{"model":"m","input":"hi","tools":[{{"type":"function",{}]}}"#, &tool[1..]);
        for body in [chat, responses] {
            for (pasted, calls, text, receipt) in [
                (
                    r#"{"name":"getWeather","arguments":{"city":"Oslo","days":"3"}}"#,
                    r#"[get_weather {"city":"Oslo","days":3}]"#,
                    "",
                    "tools.get_weather=renamed, tools.get_weather.days=coerced",
                ),
                (
                    r#"{"id":"1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":7}"}}"#,
                    r#"[get_weather {"city":"7"}]"#,
                    "",
                    "tools.get_weather.city=coerced",
                ),
                (r#"{"name":"other","arguments":{}}"#, "[other {}]", "", "tools.other=unknown-tool"),
                (
                    "Yes.\n<tool_call>{\"name\":\"get_weather\",\"arguments\":{}}",
                    "[get_weather {}]",
                    "Yes.\n",
                    "tool_calls=rescued, tools.get_weather=does-not-fit",
                ),
                ("It is sunny.", "[]", "It is sunny.", ""),
            ] {
                let explained = explain_with(body.as_bytes().to_vec(), None, Some(pasted), &Config::default()).unwrap();
                let shown = explained.pasted.as_ref().unwrap();
                let reported: Vec<_> =
                    shown.calls.iter().map(|call| format!("{} {}", call.name, call.arguments)).collect();
                assert_eq!(
                    (format!("[{}]", reported.join(", ")), &*shown.text, &*shown.receipt),
                    (calls.to_owned(), text, receipt),
                    "{pasted}"
                );
                assert!(explained.curl().lines().all(|line| line.starts_with("# ") || line.starts_with("curl ")));
            }
        }
    }

    #[test]
    fn a_refused_request_is_shown_as_its_refusal() {
        let refusal = explain(br#"{"model":"m"}"#.to_vec(), None, &Config::default()).unwrap_err();
        assert!(refusal.contains("missing_required_parameter") && refusal.contains("messages"), "{refusal}");
    }

    #[test]
    fn moderations_without_a_model_are_shown_with_a_guard_model_in_its_place() {
        let explained = explain(br#"{"input":"x"}"#.to_vec(), Some("moderations"), &Config::default()).unwrap();
        assert!(explained.requests[0].body.get().contains(r#""model":"llama-guard3""#), "{}", explained.json());
        assert!(explained.warnings.iter().any(|line| line.contains("a guard model that the remote has")));
        let mut named = Config::default();
        named.moderation.model = "judge".to_owned();
        let explained = explain(br#"{"input":"x"}"#.to_vec(), Some("moderations"), &named).unwrap();
        assert!(explained.warnings.iter().all(|line| !line.contains("a guard model")), "{}", explained.json());
    }

    #[test]
    fn every_endpoint_can_be_explained() {
        let mut config = Config::default();
        config.moderation.model = "llama-guard3".to_owned();
        for (name, body, path, requests) in [
            ("chat", r#"{"model":"m","n":3,"messages":[{"role":"user","content":"hi"}]}"#, "/api/chat", 3),
            ("completions", r#"{"model":"m","prompt":["a","b"]}"#, "/api/generate", 2),
            ("embeddings", r#"{"model":"m","input":["a","b"]}"#, "/api/embed", 1),
            ("responses", r#"{"model":"m","input":"hi"}"#, "/api/chat", 1),
            ("messages", r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#, "/api/chat", 1),
            ("moderations", r#"{"input":["a","b"]}"#, "/api/chat", 2),
            ("images", r#"{"model":"m","prompt":"a cat","size":"8x8"}"#, "/api/generate", 1),
            ("transcriptions", r#"{"model":"m","file":"QUJD"}"#, "/api/chat", 1),
            ("translations", r#"{"model":"m","text":"Bonjour"}"#, "/api/chat", 1),
            ("transcriptions", r#"{"model":"m","text":"given"}"#, "", 0),
        ] {
            let explained = explain(body.as_bytes().to_vec(), Some(name), &config).unwrap();
            assert!(explained.endpoint.contains(name), "{name}: {}", explained.endpoint);
            assert_eq!(explained.requests.len(), requests, "{name}");
            assert!(explained.requests.iter().all(|request| request.url.ends_with(path)), "{name}");
            assert_eq!(explained.warnings.iter().any(|line| line.starts_with("nothing is asked")), requests == 0);
        }
    }

    #[test]
    fn nothing_in_a_request_becomes_a_command() {
        let mut config = Config::default();
        config.images.fetch = true;
        let body = r#"{"model":"m'\n$(id)","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://a\nid"}}]}]}"#;
        let curl = explain(body.as_bytes().to_vec(), None, &config).unwrap().curl();
        assert!(curl.contains("# warning: http://a id is fetched first"), "{curl}");
        assert!(curl.lines().all(|line| line.starts_with("# ") || line.starts_with("curl ")), "{curl}");
        assert!(curl.contains(r"m'\''\n$(id)"), "{curl}");
    }
}
