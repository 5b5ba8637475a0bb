//! Models on their way from mock to mock through a registry, and what goes wrong with one.

use crate::registry;
use std::time::Duration;

use mock_ollama::{Mock, Script};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};

use crate::support::{ask, lines, send, whole};

const LONG: Duration = Duration::from_secs(10);

async fn mock() -> Mock {
    Mock::start(Script::default()).await.unwrap()
}

/// A mock that has pushed a model to the registry, and the model's name there.
async fn pushed() -> String {
    let name = format!("{}/me/mine:1", registry::start().await);
    let mock = mock().await;
    let made = json!({"model": name, "from": "caller:135m", "system": "Be brief.", "parameters": {"num_ctx": 300}});
    lines(&mock, "/api/create", &made).await;
    let pushed = lines(&mock, "/api/push", &json!({"model": name, "insecure": true})).await;
    assert_eq!(pushed.last().unwrap(), &json!({"status": "success"}), "{pushed:?}");
    name
}

#[tokio::test]
async fn a_model_comes_from_mock_to_mock_with_all_that_it_is() {
    let name = pushed().await;
    let other = mock().await;
    assert_eq!(
        whole(&other, "/api/pull", &json!({"model": name, "insecure": true, "stream": false})).await["status"],
        "success"
    );
    let shown = whole(&other, "/api/show", &json!({"model": name})).await;
    assert_eq!((&shown["system"], &shown["capabilities"]), (&json!("Be brief."), &json!(["completion", "tools"])));
    assert!(shown["parameters"].as_str().unwrap().contains("300"));
    let body = json!({"model": name, "prompt": "hi", "stream": false});
    assert_eq!(whole(&other, "/api/generate", &body).await["done"], true);
    let again = lines(&other, "/api/push", &json!({"model": name, "insecure": true})).await;
    assert!(again.iter().all(|line| line["total"] == line["completed"]), "all is there already: {again:?}");
}

#[tokio::test]
async fn a_download_goes_on_where_a_client_left_it() {
    let name = pushed().await;
    let mock = mock().await;
    ask(&mock, "DELETE", "/api/delete", "{\"model\":\"caller:135m\"}").await;
    for model in ["smollm2:135m", "pair:135m", "thinker:135m", "filler:135m"] {
        ask(&mock, "DELETE", "/api/delete", &json!({"model": model}).to_string()).await;
    }
    let body = json!({"model": name, "insecure": true});
    let mut socket = send(&mock, "POST", "/api/pull", &body.to_string()).await;
    let mut seen = String::new();
    while seen.matches("\"completed\"").count() < 2 {
        let mut some = [0; 4096];
        let read = timeout(LONG, socket.read(&mut some)).await.unwrap().unwrap();
        assert!(read > 0, "{seen}");
        seen += &String::from_utf8_lossy(&some[..read]);
    }
    drop(socket);
    mock.journal().ended(5, LONG).await.unwrap();
    let completed = |line: &Value| line["completed"].as_u64();
    let left: u64 = seen.rsplit("\"completed\":").next().unwrap().split('}').next().unwrap().parse().unwrap();
    let pulled = lines(&mock, "/api/pull", &body).await;
    assert!(pulled.iter().find_map(completed).unwrap() >= left, "{left} {pulled:?}");
    assert_eq!(pulled.last().unwrap(), &json!({"status": "success"}));
}

/// A registry that gives every request the same answer.
async fn broken(status: &str, body: &str) -> String {
    let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 4096]).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("{addr}/me/mine:1")
}

#[tokio::test]
async fn what_a_registry_does_wrong_is_reported_in_ollamas_words() {
    let mock = mock().await;
    let layer = json!({"digest": format!("sha256:{}", "0".repeat(64)), "size": 5});
    let name = broken("200 OK", &json!({"layers": [layer], "config": layer}).to_string()).await;
    let pulled = lines(&mock, "/api/pull", &json!({"model": name, "insecure": true})).await;
    assert_eq!(pulled.last().unwrap()["error"], "http: no Location header in response", "{pulled:?}");
    let name = broken("500 Internal Server Error", "").await;
    let pulled = lines(&mock, "/api/pull", &json!({"model": name, "insecure": true})).await;
    assert!(pulled.last().unwrap()["error"].as_str().unwrap().starts_with("pull model manifest: 500"), "{pulled:?}");
}

#[tokio::test]
async fn a_script_publishes_models_without_a_registry() {
    let script: Script = serde_json::from_value(json!([{"published": ["127.0.0.1:9/me/mine=tools"]}])).unwrap();
    let mock = Mock::start(script).await.unwrap();
    let pulled = lines(&mock, "/api/pull", &json!({"model": "127.0.0.1:9/me/mine"})).await;
    assert_eq!(pulled.last().unwrap(), &json!({"status": "success"}), "{pulled:?}");
    let pushed = lines(&mock, "/api/push", &json!({"model": "127.0.0.1:9/me/mine"})).await;
    assert_eq!(pushed.last().unwrap(), &json!({"status": "success"}), "{pushed:?}");
    let missing = lines(&mock, "/api/pull", &json!({"model": "127.0.0.1:9/me/other"})).await;
    assert_eq!(missing.last().unwrap()["error"], "pull model manifest: file does not exist");
    let elsewhere = lines(&mock, "/api/pull", &json!({"model": "127.0.0.1:8/me/mine", "insecure": true})).await;
    assert!(
        elsewhere.last().unwrap()["error"].as_str().unwrap().contains("Get \"http://127.0.0.1:8/v2"),
        "{elsewhere:?}"
    );
}
