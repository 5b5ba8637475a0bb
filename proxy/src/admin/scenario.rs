//! Makes a curl command, or a scenario for `farllama-check`, of an exchange that the inspector has. Pure.
//!
//! A scenario plays Ollama's recorded reply to the recorded request, and expects what the client got then. Values that
//! differ from run to run (ids, times) are left out. YAML contains JSON, so every value is written as JSON, whatever it
//! holds.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::observe::{Ask, Inspected, Text};

/// Headers that a scenario sends; others belong to the connection or to the client's library.
const SENT: [&str; 2] = ["content-type", "accept"];

/// Fields whose values differ from run to run.
const VARYING: [&str; 8] = [
    "id",
    "created",
    "created_at",
    "completed_at",
    "item_id",
    "system_fingerprint",
    "encrypted_content",
    "obfuscation",
];

/// Leaves of one JSON value that are expected at most.
const LEAVES: usize = 60;

/// A curl command that sends the request again to the proxy at `base`.
pub(crate) fn curl(one: &Inspected, base: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut text = format!("curl -sS -X {} {}", one.method, quoted(&format!("{base}{}", one.path)));
    for (name, value) in &one.request_headers {
        if name == "authorization" {
            text.push_str(" -H \"Authorization: Bearer $FARLLAMA_KEY\"");
        } else if SENT.contains(&&**name) {
            let _ = write!(text, " -H {}", quoted(&format!("{name}: {value}")));
        }
    }
    if one.request.bytes > 0 {
        let _ = write!(text, " --data-binary {}", quoted(&one.request.text));
        if one.request.cut {
            text.push_str("  # the body is longer than what the inspector keeps");
        }
    }
    text.push('\n');
    text
}

/// A scenario that passes at once: OpenAI's routes stand under `base`.
///
/// # Errors
/// Says what of the exchange was not kept.
pub(crate) fn scenario(one: &Inspected, base: &str) -> Result<String, &'static str> {
    let whole = |text: &Text, what| if text.cut { Err(what) } else { Ok(()) };
    whole(&one.request, "its request is longer than what the inspector keeps")?;
    whole(&one.response, "its response is longer than what the inspector keeps")?;
    whole(&one.reply, "Ollama's reply is longer than what the inspector keeps")?;
    let status = one.status.ok_or("the client left before there was a response")?;
    if one.ending != "complete" && one.ending != "refused" {
        return Err("it did not run to its end");
    }
    // On the native lane the client's request and response are Ollama's own.
    let native = one.asks.is_empty() && !one.path.starts_with(base);
    let path = one.path.split('?').next().unwrap_or_default();
    let upstream: Vec<(&str, Value)> = match &one.asks[..] {
        [only] if one.reply.bytes > 0 => vec![(&only.path, reply(&one.reply, 200))],
        [] if native => vec![(path, reply(&one.response, status))],
        [] => Vec::new(),
        asks => asks.iter().map(played).collect::<Result<_, _>>()?,
    };
    let mut out = String::new();
    let model = one.model.as_deref().unwrap_or_default();
    let title = format!("recorded: {} {path} {model}", one.method);
    let _ = writeln!(out, "title: {}", json!(title.trim()));
    out.push_str("tags: [recorded]\n");
    if base != "/v1" {
        let _ = writeln!(out, "config: {}", json!(format!("[openai]\nbase_path = {base:?}\n")));
    }
    if !upstream.is_empty() {
        out.push_str("upstream:\n");
    }
    for (path, reply) in &upstream {
        // Of several, each is played once, in this order. What the mock plays has no variables.
        let once = if upstream.len() > 1 { "\n    times: 1" } else { "" };
        let _ = writeln!(out, "  - when: {{ path: {} }}{once}\n    reply: {reply}", json!(path));
    }
    let mut http = Map::new();
    http.insert("method".to_owned(), json!(one.method));
    http.insert("path".to_owned(), json!(one.path));
    let headers: Map<String, Value> = one
        .request_headers
        .iter()
        .filter(|(name, _)| SENT.contains(&&**name))
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    http.insert("headers".to_owned(), Value::Object(headers));
    if one.request.bytes > 0 {
        // A body that is one variable alone would lose its type: text stays text.
        let body = serde_json::from_str(&one.request.text).unwrap_or_else(|_| json!(one.request.text));
        http.insert("body".to_owned(), body);
    }
    let _ = writeln!(out, "steps:\n  - call: {{ http: {} }}", written(&Value::Object(http)));
    let mut wire = Map::new();
    wire.insert("status".to_owned(), json!(status));
    let streamed = one.response_headers.iter().any(|(name, value)| {
        name == "content-type" && (value.starts_with("text/event-stream") || value.starts_with("application/x-ndjson"))
    });
    if streamed {
        wire.insert("end".to_owned(), json!("complete"));
        if one.response.text.contains("data: [DONE]") {
            wire.insert("done".to_owned(), json!(true));
        }
    }
    let _ = writeln!(out, "    wire: {}", written(&Value::Object(wire)));
    let understood = if streamed { events(&one.response.text) } else { serde_json::from_str(&one.response.text).ok() };
    let mut expected = Map::new();
    if let Some(understood) = &understood {
        leaves(understood, "$", &mut expected);
    }
    if !expected.is_empty() {
        let _ = writeln!(out, "    expect: {}", written(&Value::Object(expected)));
    }
    // Of several, the last is what the others led to.
    if let Some(ask) = one.asks.last() {
        let mut sent = Map::new();
        sent.insert("path".to_owned(), json!(ask.path));
        if let Ok(body) = serde_json::from_str(&ask.body.text) {
            leaves(&body, "$", &mut sent);
        }
        let _ = writeln!(out, "    sent: {}", written(&Value::Object(sent)));
    }
    Ok(out)
}

/// What the mock plays for one of several requests.
///
/// # Errors
/// Says what was not kept.
fn played(ask: &Ask) -> Result<(&str, Value), &'static str> {
    let reply = match (&ask.refused, &ask.reply) {
        (Some((status, text)), _) => {
            // What the mock answers with, which is no error body of ours.
            let body = Value::from_iter([("error".to_owned(), Value::from(text.clone()))]);
            json!({ "status": status, "body": body })
        }
        (None, Some(kept)) if kept.cut => return Err("Ollama's reply is longer than what the inspector keeps"),
        (None, Some(kept)) if kept.bytes > 0 => reply(kept, 200),
        (None, Some(_)) => return Err("Ollama rejected the request, and its error text was not recorded"),
        (None, None) => return Err("it took several requests to Ollama at the same time"),
    };
    Ok((&ask.path, reply))
}

/// What the mock plays.
fn reply(text: &Text, status: u16) -> Value {
    let lines: Vec<&str> = text.text.lines().filter(|line| !line.trim().is_empty()).collect();
    let parsed: Option<Vec<Value>> =
        lines.iter().map(|line| serde_json::from_str(line).ok().filter(Value::is_object)).collect();
    match parsed {
        // A stream ends with a newline, a whole answer does not.
        Some(parsed) if status == 200 && !parsed.is_empty() && (parsed.len() > 1 || text.text.ends_with('\n')) => {
            json!({ "lines": parsed })
        }
        Some(mut parsed) if parsed.len() == 1 => json!({ "status": status, "body": parsed.remove(0) }),
        _ => json!({ "status": status, "body": text.text }),
    }
}

/// The events of a stream, or its lines, as a list.
fn events(text: &str) -> Option<Value> {
    let lines = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let found: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).filter(Value::is_object).collect();
    (!found.is_empty()).then_some(Value::Array(found))
}

/// Adds an expectation for each leaf of `value` that is the same in every run.
fn leaves(value: &Value, path: &str, found: &mut Map<String, Value>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if plain && !VARYING.contains(&&**name) && !name.ends_with("_duration") {
                    leaves(value, &format!("{path}.{name}"), found);
                }
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                leaves(value, &format!("{path}[{at}]"), found);
            }
        }
        // Null is the same as absent there.
        Value::Null => {}
        leaf => {
            if found.len() < LEAVES {
                found.insert(path.to_owned(), json!({ "equals": leaf }));
            }
        }
    }
}

/// A value as YAML: JSON, in which `${` does not name a variable.
fn written(value: &Value) -> String {
    value.to_string().replace("${", "$${")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text { text: text.to_owned(), bytes: text.len() as u64, cut: false }
    }

    fn ask(body: &str) -> Ask {
        Ask { path: "/api/chat".to_owned(), body: text(body), refused: None, reply: None }
    }

    fn inspected() -> Inspected {
        Inspected {
            key: 1,
            id: "req_1".to_owned(),
            method: "POST".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            endpoint: "chat",
            model: Some("<img src=x onerror=alert(1)>".to_owned()),
            status: Some(200),
            ending: "complete",
            ended_ms: 0,
            request_headers: vec![
                ("authorization".to_owned(), "***".to_owned()),
                ("content-type".to_owned(), "application/json".to_owned()),
                ("host".to_owned(), "localhost".to_owned()),
            ],
            request: text(
                "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"it's ${model} \u{2028}\"}]}",
            ),
            asks: vec![ask("{\"model\":\"m\",\"stream\":false}")],
            reply: text("{\"model\":\"m\",\"message\":{\"content\":\"${hi}\"},\"done\":true}"),
            response_headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            response: text("{\"id\":\"chatcmpl-1\",\"created\":7,\"model\":\"m\",\"usage\":{\"total_tokens\":3}}"),
            receipt: None,
            error: None,
        }
    }

    #[test]
    fn a_scenario_plays_the_reply_and_expects_what_does_not_vary() {
        let made = scenario(&inspected(), "/v1").unwrap();
        for part in [
            "when: { path: \"/api/chat\" }",
            "\"body\":{\"model\":\"m\",\"message\":{\"content\":\"${hi}\"},\"done\":true}",
            "it's $${model}",
            "\"$.usage.total_tokens\":{\"equals\":3}",
            "sent: {\"path\":\"/api/chat\",\"$.model\":{\"equals\":\"m\"},\"$.stream\":{\"equals\":false}}",
        ] {
            assert!(made.contains(part), "{part} in\n{made}");
        }
        assert!(!made.contains("chatcmpl-1") && !made.contains("authorization"), "{made}");
    }

    #[test]
    fn several_requests_are_played_in_their_order_unless_they_ran_together() {
        let refused = Some((400, "\"m\" does not support thinking".to_owned()));
        let first = Ask { refused, reply: Some(Text::default()), ..ask("{\"think\":true}") };
        let second = Ask { reply: Some(text("{\"done\":true}")), ..ask("{\"think\":false}") };
        let made = scenario(&Inspected { asks: vec![first.clone(), second], ..inspected() }, "/v1").unwrap();
        let refusal = "  - when: { path: \"/api/chat\" }\n    times: 1\n    reply: {\"status\":400,\"body\":{\"error\":\"\\\"m\\\" does not support thinking\"}}\n";
        let answer =
            "  - when: { path: \"/api/chat\" }\n    times: 1\n    reply: {\"status\":200,\"body\":{\"done\":true}}\n";
        assert!(made.contains(&format!("upstream:\n{refusal}{answer}")), "{made}");
        assert!(made.contains("\"$.think\":{\"equals\":false}"), "{made}");
        assert!(scenario(&Inspected { asks: vec![first, ask("{}")], ..inspected() }, "/v1").is_err());
    }

    #[test]
    fn what_was_not_kept_makes_no_scenario() {
        let cut = Text { cut: true, ..text("{") };
        assert!(scenario(&Inspected { request: cut.clone(), ..inspected() }, "/v1").is_err());
        assert!(scenario(&Inspected { reply: cut, ..inspected() }, "/v1").is_err());
        assert!(scenario(&Inspected { status: None, ..inspected() }, "/v1").is_err());
        assert!(scenario(&Inspected { ending: "client gone", ..inspected() }, "/v1").is_err());
        assert!(scenario(&Inspected { reply: Text::default(), ..inspected() }, "/v1").is_err());
    }

    #[test]
    fn a_curl_command_is_safe_to_paste() {
        let made = curl(&inspected(), "http://127.0.0.1:1");
        assert!(made.starts_with("curl -sS -X POST 'http://127.0.0.1:1/v1/chat/completions' -H \"Authorization: Bearer $FARLLAMA_KEY\" -H 'content-type: application/json' --data-binary '"), "{made}");
        assert!(made.contains("it'\\''s") && !made.contains("host:"), "{made}");
    }
}
