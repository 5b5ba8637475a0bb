//! The conformance set against a scripted server that answers as OpenAI documents it: all green, nothing skipped.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
};

use assert_cmd::Command;
use base64::{Engine, engine::general_purpose::STANDARD};
use farllama_check::{
    backend::{Backend, endpoint},
    check::library,
    scenario::Need,
};
use predicates::{prelude::PredicateBooleanExt, str::contains};
use serde_json::{Value, json};

const MODEL: &str = "gpt-4.1-mini";
/// What OpenAI answers with: the name of a snapshot.
const SNAPSHOT: &str = "gpt-4.1-mini-2025-04-14";
const EMBEDDER: &str = "text-embedding-3-small";
const WORDS: &str = "One two three four five six seven eight nine ten, said the llama to the sea, and then it counted again until the sun went down.";

/// A whole body, a page for people, or the events of a stream.
enum Answer {
    Json(u16, Value),
    Page(u16),
    Stream(String),
}

fn error(status: u16, message: &str, param: impl Into<Value>, code: impl Into<Value>) -> Answer {
    let (param, code): (Value, Value) = (param.into(), code.into());
    Answer::Json(
        status,
        json!({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}),
    )
}

fn unknown(model: &Value) -> Answer {
    let model = model.as_str().unwrap_or_default();
    let message = format!("The model `{model}` does not exist or you do not have access to it.");
    error(404, &message, Value::Null, json!("model_not_found"))
}

fn answer(method: &str, path: &str, body: &[u8]) -> Answer {
    let model = |id: &str| json!({"id": id, "object": "model", "created": 1_744_316_542, "owned_by": "system"});
    if method == "GET" {
        return match path.strip_prefix("/v1/models") {
            Some("") => Answer::Json(200, json!({"object": "list", "data": [model(MODEL), model(EMBEDDER)]})),
            Some(id) if [MODEL, EMBEDDER].contains(&&id[1..]) => Answer::Json(200, model(&id[1..])),
            _ => error(404, "Not found", Value::Null, Value::Null),
        };
    }
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        let message = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly.)";
        return error(400, message, Value::Null, Value::Null);
    };
    if ![MODEL, EMBEDDER].contains(&request["model"].as_str().unwrap_or_default()) {
        return unknown(&request["model"]);
    }
    match path {
        "/v1/chat/completions" => chat(&request),
        "/v1/completions" => completion(&request),
        "/v1/embeddings" => embeddings(&request),
        "/v1/responses" => response(&request),
        _ => error(404, &format!("Invalid URL (POST {path})"), Value::Null, Value::Null),
    }
}

/// A value that a JSON Schema allows.
fn example(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            fields.map(|(name, schema)| (name.clone(), example(schema))).collect()
        }
        Some("integer") => json!(7),
        _ => json!("Oslo"),
    }
}

/// What is said within a limit, before a stop sequence, and why it ended.
fn said(text: &str, limit: Option<u64>, stop: &Value) -> (String, &'static str, u64) {
    let stops: Vec<&str> = match stop {
        Value::String(stop) => vec![stop],
        stop => stop.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    };
    let cut = stops.iter().filter_map(|stop| text.find(stop)).min().unwrap_or(text.len());
    let tokens: Vec<&str> = text[..cut].split_inclusive(' ').collect();
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let reason = if tokens.len() > most { "length" } else { "stop" };
    let kept: String = tokens.iter().take(most).copied().collect();
    (kept, reason, tokens.len().min(most) as u64)
}

fn prompt_tokens(value: &Value) -> u64 {
    value.to_string().split_whitespace().count() as u64 + 7
}

fn chat(request: &Value) -> Answer {
    let Some(messages) = request["messages"].as_array() else {
        return error(
            400,
            "Missing required parameter: 'messages'.",
            json!("messages"),
            json!("missing_required_parameter"),
        );
    };
    if request["temperature"].is_string() {
        let message = "Invalid type for 'temperature': expected a decimal, but got a string instead.";
        return error(400, message, json!("temperature"), json!("invalid_type"));
    }
    let asked = messages.last().map(Value::to_string).unwrap_or_default();
    let limit = request["max_completion_tokens"].as_u64().or(request["max_tokens"].as_u64());
    let choice = &request["tool_choice"];
    let forced = choice["function"]["name"].is_string();
    let called = forced || (request["tools"].is_array() && *choice != "none" && asked.contains("Call get_weather"));
    let format = &request["response_format"];
    let text = match format["type"].as_str() {
        Some("json_schema") => example(&format["json_schema"]["schema"]).to_string(),
        Some("json_object") => json!({"greeting": "hello"}).to_string(),
        _ if asked.contains("Repeat these words") => "alpha bravo charlie".to_owned(),
        _ if asked.contains("Repeat exactly") => "Þórður 東京 🦙👩‍🚀".to_owned(),
        _ => WORDS.to_owned(),
    };
    let (text, mut reason, mut tokens) = said(&text, limit, &request["stop"]);
    let call = json!({"id": "call_abc", "type": "function", "function": {"name": "get_weather", "arguments": "{\"city\":\"Oslo\"}"}});
    if called {
        // With a function that is named OpenAI says "stop".
        (reason, tokens) = (if forced { "stop" } else { "tool_calls" }, 12);
    }
    let n = request["n"].as_u64().unwrap_or(1);
    let usage = json!({"prompt_tokens": prompt_tokens(&request["messages"]), "completion_tokens": tokens * n, "total_tokens": prompt_tokens(&request["messages"]) + tokens * n,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}});
    let logprobs = if request["logprobs"] == true {
        let one = |token: &str| json!({"token": token, "logprob": -0.1, "bytes": token.as_bytes()});
        let content: Vec<_> = text
            .split_inclusive(' ')
            .map(|token| {
                let mut entry = one(token);
                entry["top_logprobs"] = json!([one(token), one(" other")]);
                entry
            })
            .collect();
        json!({"content": content, "refusal": null})
    } else {
        Value::Null
    };
    let head = json!({"id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT", "created": 1_741_569_952, "model": SNAPSHOT, "service_tier": "default", "system_fingerprint": "fp_50cad350e4"});
    if request["stream"] != true {
        let mut message = json!({"role": "assistant", "content": text, "refusal": null, "annotations": []});
        if called {
            message["content"] = Value::Null;
            message["tool_calls"] = json!([call]);
        }
        let choices: Vec<_> = (0..n)
            .map(|index| json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}))
            .collect();
        let mut whole = head;
        whole["object"] = "chat.completion".into();
        whole["choices"] = choices.into();
        whole["usage"] = usage;
        return Answer::Json(200, whole);
    }
    let with_usage = request["stream_options"]["include_usage"] == true;
    let mut events = String::new();
    let mut send = |choices: Value, usage: Option<&Value>| {
        let mut chunk = head.clone();
        chunk["object"] = "chat.completion.chunk".into();
        chunk["choices"] = choices;
        if with_usage {
            chunk["usage"] = usage.cloned().unwrap_or_default();
        }
        chunk["obfuscation"] = "x9Q".into();
        events.push_str(&format!("data: {chunk}\n\n"));
    };
    let delta =
        |delta: Value, reason: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]);
    if called {
        let mut begun = call.clone();
        (begun["index"], begun["function"]["arguments"]) = (0.into(), "".into());
        send(
            delta(json!({"role": "assistant", "content": null, "tool_calls": [begun], "refusal": null}), Value::Null),
            None,
        );
        for piece in ["{\"city\":", "\"Oslo\"}"] {
            send(delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}), Value::Null), None);
        }
    } else {
        send(delta(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null), None);
        for piece in text.split_inclusive(' ') {
            send(delta(json!({"content": piece}), Value::Null), None);
        }
    }
    send(delta(json!({}), reason.into()), None);
    if with_usage {
        send(json!([]), Some(&usage));
    }
    events.push_str("data: [DONE]\n\n");
    Answer::Stream(events)
}

fn completion(request: &Value) -> Answer {
    let (text, reason, tokens) = said(WORDS, request["max_tokens"].as_u64().or(Some(16)), &request["stop"]);
    let head = json!({"id": "cmpl-uqkvlQyYK7bGYrRHQ0eXlWi7", "object": "text_completion", "created": 1_589_478_378, "model": SNAPSHOT});
    let usage = json!({"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens});
    let choice =
        |text: &str, reason: Value| json!([{"text": text, "index": 0, "logprobs": null, "finish_reason": reason}]);
    let mut whole = head.clone();
    (whole["choices"], whole["usage"]) = (choice(&text, reason.into()), usage.clone());
    if request["stream"] != true {
        return Answer::Json(200, whole);
    }
    let with_usage = request["stream_options"]["include_usage"] == true;
    let mut chunks: Vec<_> = text.split_inclusive(' ').map(|piece| (choice(piece, Value::Null), Value::Null)).collect();
    chunks.push((choice("", reason.into()), Value::Null));
    if with_usage {
        chunks.push((json!([]), usage));
    }
    let chunk = |(choices, usage): (Value, Value)| {
        let mut chunk = head.clone();
        chunk["choices"] = choices;
        if with_usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    Answer::Stream(chunks.into_iter().map(chunk).collect::<String>() + "data: [DONE]\n\n")
}

fn embeddings(request: &Value) -> Answer {
    let texts: Vec<&str> = match &request["input"] {
        Value::String(text) => vec![text],
        texts => texts.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    };
    let vector = |text: &str| -> Vec<f32> {
        (0..8_u8)
            .map(|nth| f32::from(text.as_bytes()[usize::from(nth) % text.len()]) / 256.0 - f32::from(nth) / 10.0)
            .collect()
    };
    let data: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = vector(text);
            let embedding = if request["encoding_format"] == "base64" {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    Answer::Json(
        200,
        json!({"object": "list", "data": data, "model": EMBEDDER, "usage": {"prompt_tokens": 2, "total_tokens": 2}}),
    )
}

fn response(request: &Value) -> Answer {
    let limit = request["max_output_tokens"].as_u64();
    if limit.is_some_and(|limit| limit < 16) {
        let message = "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16.";
        return error(400, message, json!("max_output_tokens"), json!("integer_below_min_value"));
    }
    let (text, reason, tokens) = said(WORDS, limit, &Value::Null);
    let called = request["tool_choice"]["type"] == "function";
    let status = if reason == "length" && !called { "incomplete" } else { "completed" };
    let part = json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []});
    let item = if called {
        json!({"id": "fc_1", "type": "function_call", "status": "completed", "arguments": "{\"city\":\"Oslo\"}", "call_id": "call_1", "name": "get_weather"})
    } else {
        json!({"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": [part]})
    };
    let object = |status: &str, output: Value, usage: Value| {
        json!({"id": "resp_1", "object": "response", "created_at": 1_741_476_542, "status": status, "background": false, "error": null,
            "incomplete_details": if status == "incomplete" { json!({"reason": "max_output_tokens"}) } else { Value::Null },
            "instructions": request["instructions"], "max_output_tokens": request["max_output_tokens"], "model": SNAPSHOT, "output": output,
            "parallel_tool_calls": true, "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": true,
            "temperature": 1.0, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": usage, "user": null, "metadata": {}})
    };
    let usage = json!({"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 9 + tokens});
    let whole = object(status, json!([item]), usage);
    if request["stream"] != true {
        return Answer::Json(200, whole);
    }
    let begun = object("in_progress", json!([]), Value::Null);
    let mut empty = item.clone();
    empty["status"] = "in_progress".into();
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    if called {
        empty["arguments"] = "".into();
        events.push(json!({"type": "response.output_item.added", "output_index": 0, "item": empty}));
        for delta in ["{\"city\":", "\"Oslo\"}"] {
            events.push(json!({"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": delta}));
        }
        events.push(json!({"type": "response.function_call_arguments.done", "item_id": "fc_1", "output_index": 0, "name": "get_weather", "arguments": item["arguments"]}));
    } else {
        empty["content"] = json!([]);
        let at = |kind: &str, more: Value| {
            let mut event = json!({"type": kind, "item_id": "msg_1", "output_index": 0, "content_index": 0});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            event
        };
        events.push(json!({"type": "response.output_item.added", "output_index": 0, "item": empty}));
        let blank = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
        events.push(at("response.content_part.added", json!({"part": blank})));
        for piece in text.split_inclusive(' ') {
            events.push(at("response.output_text.delta", json!({"delta": piece, "logprobs": []})));
        }
        events.push(at("response.output_text.done", json!({"text": text, "logprobs": []})));
        events.push(at("response.content_part.done", json!({"part": part})));
    }
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": item}));
    events.push(json!({"type": format!("response.{status}"), "response": whole}));
    let reported = events.iter_mut().enumerate().map(|(nth, event)| {
        event["sequence_number"] = nth.into();
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
    });
    // OpenAI's responses end without [DONE].
    Answer::Stream(reported.collect())
}

/// Serves until the process ends; returns the root of the API.
fn serve(of: fn(&str, &str, &[u8]) -> Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || one(stream, of));
        }
    });
    format!("http://{address}/v1")
}

fn one(mut stream: TcpStream, of: fn(&str, &str, &[u8]) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length, mut key) = (String::new(), 0, false);
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        let line = line.to_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        key |= line.trim() == "authorization: bearer sk-conformance";
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let answer = if key {
        of(method, path, &body)
    } else {
        error(401, "Incorrect API key provided.", Value::Null, json!("invalid_api_key"))
    };
    let (status, kind, text) = match answer {
        Answer::Json(status, body) => (status, "application/json", body.to_string()),
        Answer::Page(status) => (status, "text/html", "<!DOCTYPE html><html><h1>Welcome</h1></html>".to_owned()),
        Answer::Stream(events) => (200, "text/event-stream; charset=utf-8", events),
    };
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all((head + &text).as_bytes());
}

fn run(url: &str, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    command.args([
        "run",
        "--library",
        "--base-url",
        url,
        "--model",
        MODEL,
        "--embedding-model",
        EMBEDDER,
        "--jobs",
        "8",
    ]);
    command.args(args).env("FARLLAMA_CHECK_API_KEY", "sk-conformance").env_remove("CI").assert()
}

#[test]
fn what_openai_documents_passes_the_conformance_set() {
    let ran = run(&serve(answer), &["-v"]).code(0);
    let reported = String::from_utf8_lossy(&ran.get_output().stdout).into_owned();
    let last = reported.lines().last().unwrap();
    let passed: usize = last.split(' ').next().unwrap().parse().unwrap();
    assert!(passed >= 35 && last.ends_with("passed, 0 failed, 0 skipped"), "{last}");
}

#[test]
fn what_a_server_refuses_is_skipped_unless_it_is_required() {
    let without = |method: &str, path: &str, body: &[u8]| match path {
        "/v1/responses" | "/v1/completions" | "/v1/embeddings" => error(404, "Not found", Value::Null, Value::Null),
        _ => answer(method, path, body),
    };
    let url = serve(without);
    let reason = contains("it needs responses, and the server refuses to try it (404 Not Found: Not found)");
    run(&url, &["--filter", "response"]).code(3).stdout(reason);
    run(&url, &["--filter", "response", "--capability", "responses,tools"]).code(1).stdout(contains("an error: 404"));
    run(&url, &["--filter", "response", "--capability", "none"])
        .code(3)
        .stdout(contains("which --capability does not name"));
    run(&url, &["--skip", "response", "--skip", "completion", "--skip", "embedding"]).code(0);
}

#[test]
fn what_a_server_ignores_is_skipped_and_a_failure_of_what_was_tried_points_to_the_flag() {
    // It knows messages and `max_tokens`, and passes over every other field in silence.
    let url = serve(|method, path, body| {
        let Ok(request) = serde_json::from_slice::<Value>(body) else { return answer(method, path, body) };
        let known: serde_json::Map<String, Value> = request
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .filter(|(name, _)| {
                ["model", "messages", "max_tokens", "stream", "stream_options"].contains(&name.as_str())
            })
            .collect();
        match path {
            "/v1/chat/completions" => answer(method, path, Value::Object(known).to_string().as_bytes()),
            _ => answer(method, path, body),
        }
    });
    let ran = run(&url, &["-v"]);
    let out = String::from_utf8_lossy(&ran.get_output().stdout).into_owned();
    for (name, effect) in [
        ("tools", "a tool that had to be called was not"),
        ("structured", "the text is not a JSON object"),
        ("logprobs", "the answer has no log probabilities"),
        ("choices", "two choices were asked for, and one came"),
    ] {
        assert!(out.contains(&format!("it needs {name}, and the server ignores it ({effect}")), "{name}: {out}");
    }
    run(&url, &["--capability", "choices"]).code(1);
    // It seems to have vectors, and numbers them wrongly.
    let wrong = serve(|method, path, body| match (path, answer(method, path, body)) {
        ("/v1/embeddings", Answer::Json(200, mut whole)) => {
            whole["object"] = "vectors".into();
            whole["data"][0]["index"] = 7.into();
            Answer::Json(200, whole)
        }
        (_, answer) => answer,
    });
    let reported =
        contains("seemed to have when it was tried: embeddings (").and(contains("--capability NAME,… (or none)"));
    run(&wrong, &["--filter", "embedding"]).code(1).stdout(reported);
}

/// A run that names no model.
fn run_unnamed(url: &str, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    command.args(["run", "--library", "--filter", "conformance/", "--base-url", url]).args(args);
    command.env("FARLLAMA_CHECK_API_KEY", "sk-conformance").env_remove("CI").assert()
}

#[test]
fn a_wrong_path_is_exit_code_2_and_names_the_right_one() {
    let url = serve(answer);
    let root = url.strip_suffix("/v1").unwrap();
    for wrong in ["", "/v2", "/api", "/v1/v1", "/v1/chat/completions", "/v1/models/"] {
        run(&format!("{root}{wrong}"), &[]).code(2).stdout("").stderr(contains(format!("use --base-url {url}\n")));
    }
    // It is no matter of the path if the scenarios call none of OpenAI's API.
    let nowhere = serve(|_, _, _| error(404, "Not found", Value::Null, Value::Null));
    run(&nowhere, &[]).code(2).stdout("").stderr(
        contains(format!("there is no OpenAI API at {nowhere}: GET {nowhere}/models answers 404 Not Found, POST "))
            .and(contains("ends in /v1")),
    );
    let folder = tempfile::tempdir().unwrap();
    let raw = "title: raw\nsteps:\n  - { call: { http: { path: /health } }, wire: { status: 404 } }\n";
    std::fs::write(folder.path().join("raw.yaml"), raw).unwrap();
    let mut command = Command::cargo_bin("farllama-check").unwrap();
    command.args(["run", "raw.yaml", "--base-url", &nowhere, "--api-key", "sk-conformance"]);
    command.env_remove("CI").current_dir(folder.path()).assert().code(0);
}

#[test]
fn a_server_whose_list_of_models_is_no_list_is_exit_code_2() {
    let with_models = |models: fn() -> Answer| {
        // A function has no captures, so each kind of answer is a server of its own.
        serve(match models() {
            Answer::Page(200) => |method, path, body| match path {
                "/v1/models" => Answer::Page(200),
                _ => answer(method, path, body),
            },
            Answer::Page(_) => |_, _, _| Answer::Page(404),
            _ => |method, path, body| match path {
                "/v1/models" => error(500, "the database is gone", Value::Null, Value::Null),
                _ => answer(method, path, body),
            },
        })
    };
    let page = contains("answers 200 OK with an HTML page");
    run(&with_models(|| Answer::Page(200)), &[]).code(2).stdout("").stderr(page);
    let page = contains("answers 404 Not Found with an HTML page");
    run(&with_models(|| Answer::Page(404)), &[]).code(2).stdout("").stderr(page);
    let failing = with_models(|| Answer::Json(500, Value::Null));
    run(&failing, &[]).code(2).stdout("").stderr(contains("/models answers 500 Internal Server Error: the database"));
    run(&failing, &["--filter", "chat-plain", "--no-preflight"]).code(predicates::ord::ne(2));
}

#[test]
fn a_server_without_a_list_of_models_is_checked_with_the_model_that_is_named() {
    let url = serve(|method, path, body| match (method, path) {
        ("GET", _) => error(404, "Not found", Value::Null, Value::Null),
        _ => answer(method, path, body),
    });
    run(&url, &["--filter", "chat"]).code(predicates::ord::ne(2));
    let reported = contains("name the model to ask with --model").and(contains("does not list its models"));
    run_unnamed(&url, &[]).code(2).stdout("").stderr(reported);
    let reported = contains("name the model to ask with --model: without the preflight");
    run_unnamed(&url, &["--no-preflight"]).code(2).stdout("").stderr(reported);
}

#[test]
fn a_key_that_only_the_list_of_models_can_do_without_is_asked_for() {
    // As llama.cpp's server does.
    let url = serve(|method, path, body| match method {
        "GET" => answer(method, path, body),
        _ => error(401, "Invalid API Key", Value::Null, Value::Null),
    });
    run(&url, &[]).code(2).stdout("").stderr(contains("refuses access (401 Unauthorized): Invalid API Key"));
}

#[test]
fn a_dry_run_counts_what_the_run_runs_and_skips() {
    let url = serve(answer);
    for capabilities in ["none", "tools,embeddings"] {
        let numbers = |args: &[&str]| {
            let ran = run(&url, &[&["--capability", capabilities], args].concat()).code(0);
            let out = String::from_utf8_lossy(&ran.get_output().stdout).into_owned();
            let last = out.lines().last().unwrap().replace("would ", "");
            let words = last.split([',', ' ']).filter(|word| word.parse::<usize>().is_ok());
            let numbers: Vec<usize> = words.map(|word| word.parse().unwrap()).collect();
            (numbers[0], *numbers.last().unwrap(), out)
        };
        let (runs, skips, shown) = numbers(&["--dry-run"]);
        let (passed, skipped, _) = numbers(&[]);
        assert!((runs, skips) == (passed, skipped) && skipped > 5, "{runs} {skips}, {passed} {skipped}: {shown}");
        assert!(shown.contains("which --capability does not name"), "{shown}");
        // What was required is no longer open.
        assert!(!shown.contains("if it has tools"), "{shown}");
    }
}

#[test]
fn every_scenario_that_a_target_can_run_is_tagged_as_conformance_or_as_farllamas() {
    let flags = endpoint::Flags { base_url: Some("http://127.0.0.1:9/v1".to_owned()), ..Default::default() };
    let target = Backend::Endpoint(endpoint::Endpoint::new(&flags).unwrap());
    let (mut conformance, mut wrong) = (0, Vec::new());
    for loaded in library::scenarios(None).unwrap() {
        let needs = loaded.scenario.needs();
        let has = |name: &str| loaded.scenario.tags.iter().any(|tag| tag == name);
        let of_ollama = needs.iter().any(|need| matches!(need, Need::Native | Need::Ollama(_)));
        let runs = target.refuses(&loaded.scenario).is_none();
        conformance += usize::from(has("conformance"));
        let tags = ["conformance", "farllama", "smoke"].into_iter().filter(|name| has(name)).count();
        if runs && (tags > 1 || tags == 0 && !of_ollama) || !runs && has("conformance") {
            wrong.push(loaded.name());
        }
    }
    assert!(wrong.is_empty() && conformance > 30, "{conformance} {wrong:#?}");
}
