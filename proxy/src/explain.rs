//! `farllama explain`: what Ollama would be asked for a request, and what would become of its fields. Translation is pure, so nothing is asked.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    config::{Config, Protocol},
    error::{self, Dialect},
    openai::{asking::Ask, chat, json::Json},
};

/// What a request becomes.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// What the remote would be asked.
    pub request: Request,
    /// What is emulated and what has no effect, as in the header `x-farllama-receipt`; empty where nothing is.
    pub receipt: String,
    /// What may surprise.
    pub warnings: Vec<String>,
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

    /// As a command for a shell. Receipt and warnings are comments.
    #[must_use]
    pub fn curl(&self) -> String {
        let Request { method, url, body } = &self.request;
        let mut text = String::new();
        if !self.receipt.is_empty() {
            let _ = writeln!(text, "# receipt: {}", self.receipt);
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "# warning: {warning}");
        }
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let _ = writeln!(
            text,
            "curl -X {method} {} -H 'Content-Type: application/json' -d {}",
            quoted(url),
            quoted(body.get())
        );
        text
    }
}

/// Translates the body of a chat completion.
///
/// # Errors
/// The refusal that a client would get, as JSON.
pub fn explain(body: Vec<u8>, config: &Config) -> Result<Explained, String> {
    let prepared = chat::prepare(&Json::from(body), config, |_| None);
    let read = |ask: &Ask| serde_json::from_slice::<Box<RawValue>>(&ask.body);
    match prepared {
        Ok(prepared) => {
            let ask = prepared.asks.first().ok_or("nothing is asked")?;
            let mut warnings = warnings(ask);
            if prepared.asks.len() > 1 {
                warnings.push(format!(
                    "n is {}: the remote is asked so many times, each time with another seed",
                    prepared.asks.len()
                ));
            }
            Ok(Explained {
                warnings,
                request: Request {
                    method: "POST",
                    url: url(config, ask.path),
                    body: read(ask).map_err(|error| error.to_string())?,
                },
                receipt: prepared.receipt.to_string(),
            })
        }
        Err(error) => Err(String::from_utf8_lossy(&error::body(&error, Dialect::OpenAi)).into_owned()),
    }
}

fn url(config: &Config, path: &str) -> String {
    let remote = &config.remote;
    let scheme = match remote.protocol {
        Protocol::Http => "http",
        Protocol::Https => "https",
    };
    let host = if remote.host.contains(':') { format!("[{}]", remote.host) } else { remote.host.clone() };
    format!("{scheme}://{host}:{}{}{path}", remote.port, remote.base_path)
}

/// Options that are those of the loaded model, not of one request.
const LOADED: [&str; 7] =
    ["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];

fn warnings(ask: &Ask) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Sent {
        #[serde(default)]
        options: serde_json::Map<String, serde_json::Value>,
        #[serde(default)]
        shift: Option<bool>,
    }
    let sent: Sent = serde_json::from_slice(&ask.body).unwrap_or_default();
    let reloads = "if the model is loaded with another value, the remote loads it anew for this request";
    let options = sent.options.iter().filter(|(name, _)| LOADED.contains(&name.as_str()));
    let mut warnings: Vec<_> = options.map(|(name, value)| format!("{name} is {value}: {reloads}")).collect();
    warnings.extend(sent.shift.map(|shift| format!("shift is {shift}: {reloads}")));
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_shown_as_what_it_becomes() {
        let body = br#"{"model":"m","user":"u","num_ctx":8192,"messages":[{"role":"user","content":"it's"}]}"#;
        let explained = explain(body.to_vec(), &Config::default()).unwrap();
        assert_eq!(explained.receipt, "user=no-effect");
        assert!(explained.warnings[0].starts_with("num_ctx is 8192") && explained.warnings.len() == 1);
        let sent = r#"{"model":"m","messages":[{"role":"user","content":"it's"}],"stream":false,"options":{"num_ctx":8192},"truncate":false}"#;
        assert_eq!(explained.request.body.get(), sent);
        let curl = explained.curl();
        assert!(curl.contains("curl -X POST 'http://127.0.0.1:11434/api/chat'") && curl.contains(r"it'\''s"), "{curl}");
        let json: serde_json::Value = serde_json::from_str(&explained.json()).unwrap();
        assert_eq!(json["request"]["body"]["options"]["num_ctx"], 8192);
    }

    #[test]
    fn a_refused_request_is_shown_as_its_refusal() {
        let refusal = explain(br#"{"model":"m"}"#.to_vec(), &Config::default()).unwrap_err();
        assert!(refusal.contains("missing_required_parameter") && refusal.contains("messages"), "{refusal}");
    }
}
