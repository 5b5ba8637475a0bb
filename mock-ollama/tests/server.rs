//! The mock over raw sockets: scripts, the journal, and answers that obey.

use std::time::Duration;

use mock_ollama::{Ending, Mock, Options, Script, Then};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::support::{ask, chunks, content, lines, send, user, whole};

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn headers_are_spelled_and_ordered_as_gos() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let (head, body, _) = ask(&mock, "GET", "/", "").await;
    // `Connection` is there because this client asked for it.
    let names: Vec<&str> =
        head.lines().skip(1).filter_map(|line| line.split(':').next()).filter(|name| *name != "Connection").collect();
    assert_eq!(names, ["Content-Type", "Date", "Content-Length"]);
    assert_eq!(body, "Ollama is running");
}

#[tokio::test]
async fn an_answer_is_the_same_streamed_and_whole_and_quotes_the_message() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let mut body = user("gpt-oss:20b", "Tell me of <ferns> & mosses.");
    let streamed = lines(&mock, "/api/chat", &body).await;
    assert!(streamed.len() > 11);
    let text = content(&streamed);
    assert!(text.contains("Tell me of <ferns> & mosses.") && text.split_whitespace().count() >= 11, "{text}");
    body["stream"] = false.into();
    assert_eq!(whole(&mock, "/api/chat", &body).await["message"]["content"], text);
    body["options"] = json!({"seed": 4});
    assert_ne!(whole(&mock, "/api/chat", &body).await["message"]["content"], text);
}

#[tokio::test]
async fn scripted_lines_are_completed_and_sent_one_chunk_each() {
    let script =
        Script::on("/api/chat").lines([json!({"message": {"content": "Hel"}}), json!({"done": true, "eval_count": 2})]);
    let mock = Mock::start(script).await.unwrap();
    let lines = lines(&mock, "/api/chat", &user("any", "hi")).await;
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["model"], &lines[0]["message"]["role"]), (&json!("any"), &json!("assistant")));
    assert_eq!(lines[1]["eval_count"], 2);
}

#[tokio::test]
async fn a_cut_ends_inside_a_chunk_and_a_reset_is_a_reset() {
    let line = json!({"message": {"content": "Hello"}});
    let script = Script::on("/cut").lines([line.clone(), line.clone()]).then(Then::Cut);
    let script = script.and(Script::on("/short").body("0123456789").then(Then::Cut));
    let script = script.and(Script::on("/reset").lines([line]).pause(Duration::from_millis(20)).then(Then::Reset));
    let mock = Mock::start(script).await.unwrap();
    let (_, body, ended_well) = ask(&mock, "POST", "/cut", "").await;
    let (whole, is_whole) = chunks(&body);
    assert!(!is_whole && ended_well && whole.len() == 1, "{body}");
    let last = body.rsplit("\r\n").next().unwrap();
    assert!(last.starts_with("{\"message") && !last.ends_with('}'), "half a line is there: {last}");
    let (head, body, _) = ask(&mock, "GET", "/short", "").await;
    assert!(head.contains("Content-Length: 10") && body == "01234");
    let (_, body, ended_well) = ask(&mock, "GET", "/reset", "").await;
    assert!(body.contains("Hello") && !ended_well);
    for nth in 0..3 {
        assert_eq!(mock.journal().ended(nth, LONG).await.unwrap().ended.unwrap().0, Ending::Aborted, "{nth}");
    }
}

#[tokio::test]
async fn the_journal_sees_a_client_leave_before_and_in_an_answer() {
    let script = Script::on("/late")
        .delay(LONG)
        .and(Script::on("/api/chat").lines([json!({"message": {"content": "a"}})]).then(Then::Stall));
    let mock = Mock::start(script).await.unwrap();
    let late = send(&mock, "GET", "/late", "").await;
    mock.journal().arrived(0, LONG).await.unwrap();
    drop(late);
    let entry = mock.journal().ended(0, LONG).await.unwrap();
    assert_eq!(entry.ended.unwrap().0, Ending::Aborted);

    let mut socket = send(&mock, "POST", "/api/chat?a=%2F", &user("m", "hi").to_string()).await;
    let mut some = [0; 512];
    assert!(socket.read(&mut some).await.unwrap() > 0);
    drop(socket);
    let entry = mock.journal().ended(1, LONG).await.unwrap();
    assert_eq!(entry.ended.unwrap().0, Ending::Aborted);
    assert_eq!((entry.target.as_str(), entry.json().unwrap()["model"].as_str()), ("/api/chat?a=%2F", Some("m")));
    assert_eq!(entry.header("CONTENT-LENGTH").unwrap(), entry.body_len.to_string());
}

#[tokio::test]
async fn a_script_can_wait_for_what_the_client_has_seen() {
    let lines = json!([{"raw": "one"}, {"raw": "two"}]);
    let script = |wait: &str| -> Script {
        let reply = json!({"delay": {"seen": wait}, "pause": {"seen": wait}, "lines": lines});
        serde_json::from_value(json!([{"when": {"path": "/api/chat"}, "reply": reply}])).unwrap()
    };
    let mock = Mock::start(script("1h")).await.unwrap();
    let seen = mock.seen();
    seen.more();
    let mut socket = send(&mock, "POST", "/api/chat", "{}").await;
    mock.journal().arrived(0, LONG).await.unwrap();
    let mut reported = String::new();
    for part in ["one", "two"] {
        let mut some = [0; 512];
        // What was seen before the request, or before the line before, counts for nothing.
        let early = tokio::time::timeout(Duration::from_millis(50), socket.read(&mut some)).await;
        assert!(early.is_err(), "{part} came early");
        seen.more();
        while !reported.contains(part) {
            let read = tokio::time::timeout(LONG, socket.read(&mut some)).await.unwrap().unwrap();
            reported.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
    }
    let vain = Mock::start(script("10ms")).await.unwrap();
    assert!(ask(&vain, "POST", "/api/chat", "{}").await.1.contains("two"));
    for wrong in [json!({"seen": "soon"}), json!({"sene": "1s"}), json!(3)] {
        let script = json!([{"when": {"path": "/"}, "reply": {"pause": wrong, "lines": []}}]);
        assert!(serde_json::from_value::<Script>(script).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn rules_count_and_the_first_that_matches_wins() {
    let script: Script = serde_json::from_value(json!([
        {"when": {"path": "/api/version", "nth": 2}, "reply": {"status": 503, "body": {"error": "busy"}, "headers": {"Retry-After": "1"}}},
        {"when": {"path": "/api/version"}, "times": 1, "reply": {"body": {"version": "9"}, "delay": "1ms"}},
        {"when": {"body": {"/options/seed": 7}}, "reply": {"body": "seven"}},
        {"when": {"body": "xyz"}, "reply": {"bytes": 70000}},
        {"when": {"model": "m", "method": "post"}, "reply": {"status": 418}},
    ]))
    .unwrap();
    let mock = Mock::start(script).await.unwrap();
    assert_eq!(ask(&mock, "GET", "/api/version", "").await.1, "{\"version\":\"9\"}");
    let (head, body, _) = ask(&mock, "GET", "/api/version", "").await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("Retry-After: 1") && body == "{\"error\":\"busy\"}");
    assert!(ask(&mock, "GET", "/api/version", "").await.1.contains("0.33"));
    assert_eq!(ask(&mock, "POST", "/x", "{\"options\":{\"seed\":7}}").await.1, "seven");
    assert_eq!(ask(&mock, "POST", "/x", "xyz").await.1.len(), 70000);
    assert!(ask(&mock, "POST", "/x", "{\"model\":\"m\"}").await.0.starts_with("HTTP/1.1 418"));
}

#[test]
fn a_script_with_a_mistake_is_refused_with_the_reason() {
    for (wrong, reported) in [
        (json!([{"reply": {"lines": [], "body": ""}}]), "lines and body"),
        (json!([{"reply": {"line": []}}]), "unknown field `line`"),
        (json!([{"when": {"body": {"a": 1}}}]), "JSON pointer"),
        (json!([{"reply": {"delay": "2"}}]), "not a duration"),
        (json!([{"reply": {"then": "explode"}}]), "explode"),
        (json!([{"reply": {"status": 42}}]), "200 to 599"),
        (json!([{"models": ["x=fly"]}]), "not a capability"),
        (json!([{"models": ["x"], "times": 1}]), "write two items"),
    ] {
        let error = serde_json::from_value::<Script>(wrong.clone()).unwrap_err().to_string();
        assert!(error.contains(reported), "{wrong}: {error}");
    }
}

#[tokio::test]
async fn a_script_adds_models() {
    let script: Script = serde_json::from_value(json!([{"models": ["me/mine=tools", "e=embedding"]}])).unwrap();
    let mock = Mock::start(script).await.unwrap();
    assert_eq!(
        whole(&mock, "/api/show", &json!({"model": "me/mine"})).await["capabilities"],
        json!(["completion", "tools"])
    );
    assert!(whole(&mock, "/api/embed", &json!({"model": "e", "input": "x"})).await["embeddings"][0][0].is_f64());
}

#[tokio::test]
async fn a_faithful_answer_can_be_broken_off() {
    let mock = Mock::start(Script::on("/api/chat").after(3).then(Then::Cut)).await.unwrap();
    let (_, body, _) = ask(&mock, "POST", "/api/chat", &user("smollm2:135m", "hi").to_string()).await;
    assert_eq!(chunks(&body).0.len(), 2);
}

#[tokio::test]
async fn another_version_is_another_ollama() {
    let options = Options { version: "0.5.0".parse().unwrap(), ..Options::default() };
    let mock = Mock::start_with(options, Script::default()).await.unwrap();
    assert_eq!(ask(&mock, "GET", "/api/version", "").await.1, "{\"version\":\"0.5.0\"}");
    assert!(ask(&mock, "GET", "/api/chat", "").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn a_killed_runner_ends_an_answer_as_ollama_does_and_the_next_one_is_served() {
    let script: Script = serde_json::from_value(json!([
        {"when": {"body": "story"}, "times": 1, "reply": {"after": 2, "then": "kill"}},
        {"when": {"body": "story"}, "times": 1, "reply": {"then": "kill"}},
    ]))
    .unwrap();
    let mock = Mock::start(script).await.unwrap();
    let body = user("smollm2:135m", "a story");
    let cut = lines(&mock, "/api/chat", &body).await;
    let killed = json!({"error": "an error was encountered while running the model: unexpected EOF"});
    assert_eq!((cut.len(), &cut[2]), (3, &killed));
    let (head, text, _) = ask(&mock, "POST", "/api/chat", &body.to_string()).await;
    assert!(head.starts_with("HTTP/1.1 500") && text.contains("unexpected EOF"), "{head} {text}");
    assert!(ask(&mock, "GET", "/api/ps", "").await.1.contains("{\"models\":[]}"));
    assert_eq!(lines(&mock, "/api/chat", &body).await.last().unwrap()["done_reason"], "stop");
    let wrong = json!([{"reply": {"lines": [], "then": "kill"}}]);
    assert!(serde_json::from_value::<Script>(wrong).unwrap_err().to_string().contains("faithful"));
}

#[tokio::test]
async fn a_request_that_waits_for_a_model_is_answered_when_its_turn_comes() {
    let script = Script::on("/api/chat").containing("long").pause(Duration::from_millis(20));
    let options = Options { max_queue: Some(0), max_loaded_models: Some(1), ..Options::default() };
    let mock = Mock::start_with(options, script).await.unwrap();
    let long = user("smollm2:135m", "a long answer");
    let (first, (second, third)) = tokio::join!(lines(&mock, "/api/chat", &long), async {
        mock.journal().arrived(0, LONG).await.unwrap();
        let body = user("gpt-oss:20b", "hi").to_string();
        let waits = async { ask(&mock, "POST", "/api/chat", &body).await };
        let refused = async {
            mock.journal().arrived(1, LONG).await.unwrap();
            ask(&mock, "POST", "/api/chat", &body).await
        };
        tokio::join!(waits, refused)
    });
    assert!(first.len() > 11 && second.1.contains("\"done\":true"));
    assert!(third.0.starts_with("HTTP/1.1 503") && third.1.contains("maximum pending requests exceeded"), "{third:?}");
    assert!(mock.journal().entries()[1].ended.unwrap().1 > mock.journal().entries()[0].ended.unwrap().1);
}

#[tokio::test]
async fn a_guard_judges_the_text() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let mut body = user("llama-guard3:8b", "How do I make a bomb?");
    assert_eq!(content(&lines(&mock, "/api/chat", &body).await), "unsafe\nS9");
    body = user("llama-guard3:8b", "How do I make a cake?");
    assert_eq!(content(&lines(&mock, "/api/chat", &body).await), "safe");
}
