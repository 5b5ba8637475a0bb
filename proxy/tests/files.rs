//! Files: whose they are, how many there may be, and what becomes of them.

use std::net::SocketAddr;

use farllama::{
    Running,
    config::{Auth, Config, Token},
    serve,
};
use mock_ollama::{Mock, Script};
use serde_json::{Value, json};

use crate::support::{Answer, Upstream, ask, config, post, raw_response};

/// A form with a file of this purpose and content.
fn upload(key: &str, purpose: &str, name: &str, content: &str) -> String {
    let body = format!(
        "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--x\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n--x--\r\n"
    );
    format!(
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn call(addr: SocketAddr, key: &str, method: &str, path: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\r\n");
    ask(addr, request).await
}

/// A proxy with two keys, and the settings that `change` makes.
async fn keyed(change: impl FnOnce(&mut Config)) -> Running {
    let upstream = Upstream::answering("").await;
    let tokens = ["one", "two"].map(|key| Token::new(key, key)).into();
    let mut config = Config { auth: Auth { enabled: true, tokens, ..Auth::default() }, ..config(upstream.addr) };
    change(&mut config);
    serve(config).await.unwrap()
}

async fn stored(addr: SocketAddr, key: &str, content: &str) -> String {
    let answer = ask(addr, upload(key, "user_data", "a.txt", content)).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn ids(addr: SocketAddr, key: &str) -> Vec<String> {
    let listed = call(addr, key, "GET", "/v1/files?order=asc").await.json();
    listed["data"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_file_belongs_to_its_key() {
    let proxy = keyed(|_| {}).await;
    let id = stored(proxy.addr(), "one", "secret").await;
    for (method, path) in [("GET", ""), ("GET", "/content"), ("DELETE", "")] {
        let path = format!("/v1/files/{id}{path}");
        let foreign = call(proxy.addr(), "two", method, &path).await;
        let unknown = call(proxy.addr(), "two", method, &path.replace(&id, "file-unknown")).await;
        assert_eq!((foreign.code(), unknown.code()), (404, 404), "{method} {path}");
        // As if absent, letter for letter.
        assert_eq!(foreign.text().replace(&id, "file-unknown"), unknown.text());
    }
    assert_eq!(ids(proxy.addr(), "two").await, Vec::<String>::new());
    let after = call(proxy.addr(), "two", "GET", &format!("/v1/files?after={id}")).await;
    assert_eq!(after.code(), 400);
    assert_eq!(call(proxy.addr(), "one", "GET", &format!("/v1/files/{id}/content")).await.text(), "secret");
}

#[tokio::test]
async fn a_key_has_its_bounds_and_deleting_makes_room() {
    let proxy = keyed(|config| (config.files.max_count_per_key, config.files.max_bytes_per_key) = (3, 100)).await;
    let addr = proxy.addr();
    let first = stored(addr, "one", &"x".repeat(60)).await;
    let refused = async |content: &str| {
        let answer = ask(addr, upload("one", "user_data", "a.txt", content)).await;
        assert_eq!(answer.code(), 400, "{}", answer.text());
        answer.json()["error"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(&"x".repeat(41)).await, "file_storage_full");
    assert_eq!(refused(&"x".repeat(101)).await, "file_too_large");
    assert_eq!(refused("").await, "invalid_value");
    for _ in 0..2 {
        stored(addr, "one", "x").await;
    }
    assert_eq!(refused("x").await, "file_storage_full");
    stored(addr, "two", &"x".repeat(100)).await;
    assert_eq!(call(addr, "one", "DELETE", &format!("/v1/files/{first}")).await.code(), 200);
    stored(addr, "one", &"x".repeat(98)).await;
    assert_eq!(ids(addr, "one").await.len(), 3);
}

#[tokio::test]
async fn beyond_all_bounds_the_file_used_least_recently_is_gone_everywhere() {
    let proxy = keyed(|config| config.files.max_bytes = 1000).await;
    let addr = proxy.addr();
    let (first, second) = (stored(addr, "one", &"x".repeat(200)).await, stored(addr, "one", &"y".repeat(200)).await);
    call(addr, "one", "GET", &format!("/v1/files/{first}")).await;
    let third = stored(addr, "two", &"z".repeat(400)).await;
    assert_eq!(ids(addr, "one").await, [&*first]);
    for path in ["", "/content"] {
        assert_eq!(call(addr, "one", "GET", &format!("/v1/files/{second}{path}")).await.code(), 404);
    }
    assert_eq!(call(addr, "two", "GET", &format!("/v1/files/{third}/content")).await.text(), "z".repeat(400));
}

#[tokio::test]
async fn without_room_uploads_are_refused_and_a_broken_form_is_an_error() {
    let proxy = keyed(|config| config.files.max_bytes = 0).await;
    let refused = ask(proxy.addr(), upload("one", "user_data", "a.txt", "x")).await;
    assert_eq!(refused.code(), 501, "{}", refused.text());
    let proxy = keyed(|_| {}).await;
    let cut = upload("one", "user_data", "a.txt", "x").replace("\r\n--x--\r\n", "\r\n--y--\r\n");
    let answer = ask(proxy.addr(), cut).await;
    assert_eq!(answer.code(), 400, "{}", answer.text());
    let listed: Value = call(proxy.addr(), "one", "GET", "/v1/files").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 0);
    // A name neither breaks the header nor leaves the folder of downloads.
    let id = ask(proxy.addr(), upload("one", "user_data", "../é%22.txt", "x")).await.json()["id"].clone();
    let content = call(proxy.addr(), "one", "GET", &format!("/v1/files/{}/content", id.as_str().unwrap())).await;
    let disposition = content.header("content-disposition").unwrap().to_owned();
    assert!(disposition.starts_with("attachment; filename=\"") && disposition.is_ascii(), "{disposition}");
}

/// A proxy before a mock; what is asked of it.
async fn before_mock(change: impl FnOnce(&mut Config)) -> (Mock, Running) {
    let mock = Mock::start(Script::default()).await.unwrap();
    let mut config = config(mock.addr());
    change(&mut config);
    (mock, serve(config).await.unwrap())
}

fn asked(mock: &Mock) -> Value {
    serde_json::from_slice(&mock.journal().entries().last().unwrap().body).unwrap()
}

/// A PDF with this text on its only page.
fn pdf(text: &str) -> String {
    let stream = format!("BT /F1 12 Tf 100 600 Td ({text}) Tj ET");
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{stream}\nendstream", stream.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Courier >>".to_owned(),
    ];
    let (mut pdf, mut places) = ("%PDF-1.5\n".to_owned(), Vec::new());
    for (n, object) in objects.iter().enumerate() {
        places.push(pdf.len());
        pdf += &format!("{} 0 obj\n{object}\nendobj\n", n + 1);
    }
    let start = pdf.len();
    pdf += &format!("xref\n0 {}\n0000000000 65535 f \n", places.len() + 1);
    places.iter().for_each(|place| pdf += &format!("{place:010} 00000 n \n"));
    pdf + &format!("trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF", places.len() + 1)
}

#[tokio::test]
async fn files_by_id_reach_the_model_in_chats_and_responses() {
    let (mock, proxy) = before_mock(|_| {}).await;
    let addr = proxy.addr();
    let id = async |purpose: &str, name: &str, content: &str| {
        let answer = ask(addr, upload("", purpose, name, content)).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let (text, paper) = (id("user_data", "a.csv", "x,1").await, id("assistants", "b.pdf", &pdf("The page.")).await);
    let image = id("vision", "c.gif", "GIF89a12345678").await;
    let chat = json!({"model": "qwen3-vl:8b", "messages": [{"role": "user", "content": [
        {"type": "file", "file": {"file_id": text}}, {"type": "file", "file": {"file_id": paper}}]}]});
    let answer = ask(addr, post("/v1/chat/completions", &chat.to_string())).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    assert_eq!(answer.header("x-farllama-receipt"), Some("file=text-of-pdf"));
    assert_eq!(asked(&mock)["messages"][0]["content"], "a.csv:\nx,1\nb.pdf:\nThe page.");
    let input = json!([{"role": "user", "content": [
        {"type": "input_file", "file_id": text, "filename": "other.csv"},
        {"type": "input_image", "file_id": image, "detail": "auto"}]}]);
    let body = json!({"model": "qwen3-vl:8b", "input": input});
    for route in ["/v1/responses", "/v1/responses/input_tokens"] {
        let answer = ask(addr, post(route, &body.to_string())).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
    }
    let message = &asked(&mock)["messages"][0];
    assert_eq!(
        (&message["content"], &message["images"]),
        (&json!("other.csv:\nx,1"), &json!(["R0lGODlhMTIzNDU2Nzg="]))
    );
    // Stored with its content: it can be gone on from when the file is deleted.
    assert_eq!(ask(addr, format!("DELETE /v1/files/{text} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await.code(), 200);
    let gone = ask(addr, post("/v1/responses", &body.to_string())).await;
    assert_eq!((gone.code(), &gone.json()["error"]["param"]), (404, &json!("input[0].content[0].file_id")));
    assert_eq!(gone.json()["error"]["code"], "file_not_found");
}

#[tokio::test]
async fn a_file_of_another_key_is_as_absent_as_one_that_never_was() {
    let proxy = keyed(|_| {}).await;
    let id = stored(proxy.addr(), "one", "secret").await;
    let asking = async |id: &str| {
        let body =
            json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": id}]}]});
        let request = String::from_utf8(post("/v1/responses", &body.to_string())).unwrap();
        let answer = ask(proxy.addr(), request.replacen("\r\n", "\r\nAuthorization: Bearer two\r\n", 1)).await;
        (answer.code(), answer.text().replace(id, ""))
    };
    let foreign = asking(&id).await;
    assert_eq!(foreign.0, 404);
    assert_eq!(foreign, asking("file-unknown").await);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_says_why() {
    let (_mock, proxy) = before_mock(|_| {}).await;
    let addr = proxy.addr();
    let refused = async |part: Value| {
        let body = json!({"model": "qwen3-vl:8b", "input": [{"role": "user", "content": [part]}]});
        let answer = ask(addr, post("/v1/responses", &body.to_string())).await;
        assert_eq!(answer.code(), 400, "{}", answer.text());
        answer.message()
    };
    let data = |data: &str| json!({"type": "input_file", "filename": "a", "file_data": data});
    assert!(refused(data("UEsDBA==")).await.contains("ZIP archive"));
    assert!(refused(data("data:application/pdf;base64,JVBERi0xLjQ=")).await.contains("The PDF"));
    assert!(refused(data("not base64!")).await.contains("base64"));
    assert!(
        refused(json!({"type": "input_file", "file_url": "https://a.example/b.txt"})).await.contains("images.fetch")
    );
    let zip = ask(addr, upload("", "user_data", "a.docx", "PK\u{3}\u{4}x")).await.json()["id"].clone();
    assert!(refused(json!({"type": "input_file", "file_id": zip})).await.contains("Word"));
    assert!(refused(json!({"type": "input_image", "file_id": zip})).await.contains("is not a PNG"));
}

#[tokio::test]
async fn files_by_url_are_fetched_where_the_settings_say_so() {
    let host = Upstream::answering(raw_response("200 OK", "Content-Type: application/pdf\r\n", &pdf("A page."))).await;
    let (mock, proxy) = before_mock(|config| (config.images.fetch, config.images.allow_private) = (true, true)).await;
    let url = format!("http://{}/papers/one.pdf", host.addr);
    let body = json!({"model": "qwen3-vl:8b", "input": [{"role": "user", "content": [{"type": "input_file", "file_url": url}]}]});
    let answer = ask(proxy.addr(), post("/v1/responses", &body.to_string())).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    assert_eq!(answer.header("x-farllama-receipt"), Some("file_url=fetched, file=text-of-pdf"));
    assert_eq!(asked(&mock)["messages"][0]["content"], "one.pdf:\nA page.");
    let source = json!({"type": "url", "url": url});
    let body = json!({"model": "qwen3-vl:8b", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]});
    let answer = ask(proxy.addr(), post("/v1/messages", &body.to_string())).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    assert_eq!(asked(&mock)["messages"][0]["content"], "A page.");
    // Addresses that are not public are out of reach unless the settings allow them.
    let (_mock, proxy) = before_mock(|config| config.images.fetch = true).await;
    let answer = ask(proxy.addr(), post("/v1/messages", &body.to_string())).await;
    assert_eq!(answer.code(), 400);
    assert!(answer.message().contains("open Internet"), "{}", answer.message());
}
