//! Traces, as a collector receives them: decoded with the generated code of OpenTelemetry's own definitions.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{PATIENCE, ask};
use farllama::{Config, Running, serve};
use mock_ollama::{Mock, Script};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CHAT: &str = r#"{"model":"smollm2:135m","messages":[{"role":"user","content":"hi"}]}"#;

/// A collector that answers with these status codes, one per request, and then with 200.
struct Collector {
    addr: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    heads: Arc<Mutex<Vec<String>>>,
    came: Arc<Notify>,
}

impl Collector {
    async fn start(mut codes: Vec<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            addr: listener.local_addr().unwrap(),
            spans: Arc::default(),
            heads: Arc::default(),
            came: Arc::default(),
        };
        let (spans, heads, came) = (collector.spans.clone(), collector.heads.clone(), collector.came.clone());
        codes.reverse();
        let codes = Arc::new(Mutex::new(codes));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (spans, heads, came, codes) = (spans.clone(), heads.clone(), came.clone(), codes.clone());
                tokio::spawn(async move {
                    loop {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            let Ok(byte) = stream.read_u8().await else { return };
                            head.push(byte);
                        }
                        let head = String::from_utf8(head).unwrap().to_lowercase();
                        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
                        let mut body = vec![0; length.parse().unwrap()];
                        stream.read_exact(&mut body).await.unwrap();
                        let code = codes.lock().unwrap().pop().unwrap_or(200);
                        heads.lock().unwrap().push(head);
                        if code == 200 {
                            let received = ExportTraceServiceRequest::decode(&*body).unwrap();
                            let all = received.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
                            spans.lock().unwrap().extend(all.flat_map(|scope| scope.spans));
                        }
                        let answer = format!(
                            "HTTP/1.1 {code} X\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        came.notify_one();
                    }
                });
            }
        });
        collector
    }

    /// Waits for `count` spans.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let waiting = async {
            loop {
                let spans = self.spans.lock().unwrap().clone();
                if spans.len() >= count {
                    return spans;
                }
                self.came.notified().await;
            }
        };
        let found = tokio::time::timeout(PATIENCE * 2, waiting).await;
        found.unwrap_or_else(|_| panic!("{:?}", self.spans.lock().unwrap()))
    }
}

async fn farllama(mock: &Mock, lines: &str) -> Running {
    let text = format!("[local]\nport = 0\n[remote]\nport = {}\n{lines}", mock.addr().port());
    serve(Config::from_toml(&text).unwrap()).await.unwrap()
}

fn request(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

/// The `traceparent` of the last chat that the mock was asked for.
fn passed_on(mock: &Mock) -> Option<String> {
    let entries = mock.journal().entries();
    let chat = entries.iter().rev().find(|entry| entry.path() == "/api/chat").unwrap();
    chat.header("traceparent").map(str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_translated_and_a_native_request_are_traced_and_the_trace_is_passed_on() {
    let (mock, collector) = (Mock::start(Script::default()).await.unwrap(), Collector::start(vec![]).await);
    let url =
        format!("[traces]\nurl = \"http://{}\"\nheaders = {{ x-key = \"k\" }}\npropagate = true\n", collector.addr);
    let proxy = farllama(&mock, &url).await;
    let parent = format!("traceparent: {PARENT}\r\ntracestate: a=1\r\n");
    let mut passed = Vec::new();
    for path in ["/v1/chat/completions", "/api/chat"] {
        assert_eq!(ask(proxy.addr(), request(path, &parent, CHAT)).await.code(), 200);
        passed.push(passed_on(&mock).unwrap());
    }
    let spans = collector.spans(4).await;
    let of = |kind: SpanKind| spans.iter().filter(|span| span.kind == kind as i32).collect::<Vec<_>>();
    for (server, name) in of(SpanKind::Server).into_iter().zip(["POST chat", "POST api/chat"]) {
        assert_eq!((&*server.name, hex(&server.parent_span_id)), (name, "00f067aa0ba902b7".to_owned()));
        assert_eq!((hex(&server.trace_id), &*server.trace_state), (PARENT[3..35].to_owned(), "a=1"));
        assert!(server.start_time_unix_nano < server.end_time_unix_nano);
    }
    for (client, passed) in of(SpanKind::Client).into_iter().zip(passed) {
        assert_eq!(client.name, "chat smollm2:135m");
        assert_eq!(passed, format!("00-{}-{}-01", &PARENT[3..35], hex(&client.span_id)));
        let attributes = format!("{:?}", client.attributes);
        for key in ["gen_ai.provider.name", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"] {
            assert!(attributes.contains(key), "{key}: {attributes}");
        }
    }
    let head = collector.heads.lock().unwrap()[0].clone();
    assert!(head.starts_with("post /v1/traces http/1.1\r\n") && head.contains("x-key: k\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
}

#[tokio::test]
async fn spans_wait_for_a_collector_that_is_busy_and_for_the_end_of_the_process() {
    let (mock, collector) = (Mock::start(Script::default()).await.unwrap(), Collector::start(vec![503]).await);
    let proxy = farllama(&mock, &format!("[traces]\nurl = \"http://{}\"\n", collector.addr)).await;
    let parent = format!("traceparent: {PARENT}\r\n");
    assert_eq!(ask(proxy.addr(), request("/api/chat", &parent, CHAT)).await.code(), 200);
    assert_eq!(passed_on(&mock).as_deref(), Some(PARENT), "native requests pass through unchanged");
    assert_eq!(collector.spans(2).await.len(), 2);
    assert_eq!(collector.heads.lock().unwrap().len(), 2);
    assert_eq!(ask(proxy.addr(), request("/v1/chat/completions", &parent, CHAT)).await.code(), 200);
    assert_eq!(passed_on(&mock), None);
    // Sooner than spans are sent otherwise.
    tokio::time::timeout(Duration::from_secs(1), proxy.stop(Duration::ZERO)).await.unwrap();
    assert_eq!(collector.spans.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn without_a_collector_nothing_changes_and_a_reload_switches_traces_on_and_off() {
    let (mock, collector) = (Mock::start(Script::default()).await.unwrap(), Collector::start(vec![]).await);
    let proxy = farllama(&mock, "").await;
    let parent = format!("traceparent: {PARENT}\r\n");
    let chat = async || assert_eq!(ask(proxy.addr(), request("/api/chat", &parent, CHAT)).await.code(), 200);
    chat().await;
    assert_eq!(passed_on(&mock).as_deref(), Some(PARENT));
    let off = Config::clone(&proxy.config());
    let on = format!("[remote]\nport = {}\n[traces]\nurl = \"http://{}\"\n", mock.addr().port(), collector.addr);
    let on = Config::from_toml(&on).unwrap();
    proxy.reload(Config { traces: on.traces, ..off.clone() }).unwrap();
    chat().await;
    assert_eq!(collector.spans(2).await.len(), 2);
    proxy.reload(off).unwrap();
    chat().await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(collector.spans.lock().unwrap().len(), 2);
}
