//! Traces: a span for each exchange, and one for what the model is asked, sent to a collector by OTLP over HTTP.
//!
//! Names are those of OpenTelemetry's semantic conventions for HTTP and generative AI. Off by default: then no exchange
//! has a [`Trace`].

use std::{
    collections::VecDeque,
    io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use prost::Message;
use tokio::sync::Notify;

use super::{
    Ending, Exchange, Reader,
    log::shown,
    otlp::{
        ExportTraceServiceRequest, ExportTraceServiceResponse, InstrumentationScope, KeyValue, Resource, ResourceSpans,
        ScopeSpans, Span, SpanKind, Status, StatusCode as SpanStatus,
    },
    trace_context::{self, Parent},
};
use crate::{
    config::{Remote, Timeouts, Traces},
    stamp::unix_ns,
    upstream::{
        connect::{Connector, cause},
        pool::{Failure, Outgoing, Pool},
        request_body::RequestBody,
    },
};

/// How long spans are gathered before they are sent.
const GATHER: Duration = Duration::from_secs(2);

/// How many spans are sent together, and how many may wait. Further ones are dropped.
const BATCH: usize = 512;
const QUEUE: usize = 4096;

/// How long a collector may take to answer, and the longest pause between two attempts.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(30);

/// Maximum size of what a collector answers that is read.
const ANSWER: usize = 64 << 10;

/// The trace of one exchange, and its two spans.
#[derive(Debug)]
pub(crate) struct Trace {
    trace_id: [u8; 16],
    parent: Option<[u8; 8]>,
    state: String,
    sampled: bool,
    exchange: [u8; 8],
    /// The span of what the remote is asked; the parent of what it does itself.
    remote: [u8; 8],
    asked: OnceLock<Asked>,
}

/// When the remote was asked, and where it is.
#[derive(Debug)]
struct Asked {
    at: Instant,
    host: String,
    port: u16,
}

impl Trace {
    fn new(parent: Option<Parent>) -> Self {
        let random = uuid::Uuid::new_v4().into_bytes();
        let spans = uuid::Uuid::new_v4().into_bytes();
        let (mut exchange, mut remote) = ([0; 8], [0; 8]);
        exchange.copy_from_slice(&spans[..8]);
        remote.copy_from_slice(&spans[8..]);
        let (trace_id, span, sampled, state) = match parent {
            Some(Parent { trace_id, span_id, sampled, state }) => (trace_id, Some(span_id), sampled, state),
            None => (random, None, true, String::new()),
        };
        Self { trace_id, parent: span, state, sampled, exchange, remote, asked: OnceLock::new() }
    }

    /// The value of `traceparent` for the remote.
    pub(crate) fn for_remote(&self) -> HeaderValue {
        trace_context::header(self.trace_id, self.remote, self.sampled)
    }

    /// Notes that the remote at `host` is asked now.
    pub(crate) fn asks(&self, host: &str, port: u16) {
        self.asked.get_or_init(|| Asked { at: Instant::now(), host: host.to_owned(), port });
    }
}

/// Makes spans of exchanges, and sends them.
#[derive(Debug, Default)]
pub(crate) struct Tracer {
    on: AtomicBool,
    collector: ArcSwapOption<Collector>,
    queue: Mutex<Queue>,
    more: Notify,
    /// Whether something sends them.
    exporting: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    spans: VecDeque<Span>,
    dropped: u64,
}

/// Where spans are sent.
struct Collector {
    settings: Traces,
    pool: Pool,
    path: String,
    lines: Vec<u8>,
    resource: Resource,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("url", &self.settings.url).finish_non_exhaustive()
    }
}

/// Why spans were not taken.
enum Failed {
    /// Another attempt may succeed.
    Later(String),
    /// The collector does not want them.
    Refused(String),
}

impl Collector {
    /// # Errors
    /// Fails if TLS cannot be set up.
    fn new(settings: &Traces) -> io::Result<Option<Self>> {
        let Some(url) = &settings.url else { return Ok(None) };
        let remote = Remote { protocol: url.protocol, host: url.host.clone(), port: url.port, ..Remote::default() };
        let timeouts = Timeouts { connect: PATIENCE, ..Timeouts::default() };
        let (_, authority) = remote.origin();
        let mut lines = Vec::new();
        let given = settings.headers.iter().map(|(name, value)| (name, value));
        let ours = [
            (header::HOST, HeaderValue::try_from(authority).map_err(io::Error::other)?),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
            (header::USER_AGENT, HeaderValue::from_static(concat!("farllama/", env!("CARGO_PKG_VERSION")))),
        ];
        for (name, value) in ours.iter().map(|(name, value)| (name, value)).chain(given) {
            for part in [HeaderName::as_str(name).as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        let attributes = vec![
            KeyValue::new("service.name", &*settings.service_name),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        Ok(Some(Self {
            pool: Pool::new(Connector::new(&remote, &timeouts)?),
            path: url.path.clone(),
            lines,
            resource: Resource { attributes },
            settings: settings.clone(),
        }))
    }

    fn encode(&self, spans: Vec<Span>) -> Vec<u8> {
        let scope = InstrumentationScope { name: "farllama".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    async fn send(&self, body: bytes::Bytes) -> Result<(), Failed> {
        let body = RequestBody::whole(body);
        let request = Outgoing::new(&Method::POST, &self.path, &HeaderMap::new(), |_| false, &self.lines, body);
        let sending = async {
            let response = self.pool.send(request, PATIENCE).await.map_err(|failure| match failure {
                Failure::Connect(cause) => cause.to_string(),
                Failure::Exchange(error) => cause(&error).to_string(),
                Failure::FirstByte => "no response".to_owned(),
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let (status, answer) = match tokio::time::timeout(PATIENCE, sending).await {
            Ok(answered) => answered.map_err(Failed::Later)?,
            Err(_) => return Err(Failed::Later(format!("no response within {} s", PATIENCE.as_secs()))),
        };
        // The codes that OTLP calls retryable.
        if matches!(status.as_u16(), 429 | 502 | 503 | 504) {
            return Err(Failed::Later(format!("it answered {status}")));
        }
        if status != StatusCode::OK {
            return Err(Failed::Refused(format!("it answered {status}")));
        }
        let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
        match answer.partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(Failed::Refused(format!(
                "it rejected {} spans: {}",
                partial.rejected_spans,
                crate::text::name(&partial.error_message)
            ))),
            _ => Ok(()),
        }
    }
}

impl Tracer {
    /// Follows the settings from now on. Returns what sends the spans, if nothing does yet.
    ///
    /// # Errors
    /// Fails if TLS cannot be set up. Then nothing changes.
    pub(crate) fn set(
        self: &Arc<Self>,
        settings: &Traces,
    ) -> io::Result<Option<impl Future<Output = ()> + Send + use<>>> {
        let known = self.collector.load_full();
        if known.as_ref().map_or(settings.url.is_none(), |known| known.settings == *settings) {
            return Ok(None);
        }
        let collector = Collector::new(settings)?;
        self.on.store(collector.is_some(), Ordering::Relaxed);
        self.collector.store(collector.map(Arc::new));
        let begins = self.on.load(Ordering::Relaxed) && !self.exporting.swap(true, Ordering::Relaxed);
        let tracer = Arc::downgrade(self);
        Ok(begins.then_some(async move {
            let mut failing = false;
            while let Some(tracer) = tracer.upgrade() {
                tracer.export(&mut failing).await;
            }
        }))
    }

    /// The trace of an exchange that begins with these headers; None where there are no traces.
    pub(crate) fn begin(&self, headers: &HeaderMap) -> Option<Trace> {
        self.on.load(Ordering::Relaxed).then(|| Trace::new(Parent::of(headers)))
    }

    /// Whether the trace is passed on to the remote.
    pub(crate) fn propagates(&self) -> bool {
        self.collector.load().as_ref().is_some_and(|collector| collector.settings.propagate)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, spans: impl IntoIterator<Item = Span>) {
        let mut queue = self.queue();
        let was_empty = queue.spans.is_empty();
        for span in spans {
            if queue.spans.len() < QUEUE {
                queue.spans.push_back(span);
            } else {
                queue.dropped += 1;
            }
        }
        if was_empty || queue.spans.len() >= BATCH {
            self.more.notify_one();
        }
    }

    /// Waits for spans, gathers more for a moment, and sends them.
    async fn export(&self, failing: &mut bool) {
        while self.queue().spans.is_empty() {
            self.more.notified().await;
        }
        let mut gathered = pin!(tokio::time::sleep(GATHER));
        while self.queue().spans.len() < BATCH {
            tokio::select! {
                () = &mut gathered => break,
                () = self.more.notified() => {}
            }
        }
        self.send_batch(failing, true).await;
    }

    /// Sends what waits, for at most `within`: the process is about to end.
    pub(crate) async fn flush(&self, within: Duration) {
        let sending = async {
            while self.on.load(Ordering::Relaxed) && !self.queue().spans.is_empty() {
                self.send_batch(&mut false, false).await;
            }
        };
        let _ = tokio::time::timeout(within, sending).await;
    }

    /// Sends the oldest spans; again and again, if they cannot be sent and `persists`.
    async fn send_batch(&self, failing: &mut bool, persists: bool) {
        let spans: Vec<Span> = {
            let mut queue = self.queue();
            let count = queue.spans.len().min(BATCH);
            queue.spans.drain(..count).collect()
        };
        let Some(collector) = self.collector.load_full() else { return };
        let (count, url) = (spans.len(), collector.settings.url.as_ref().map(ToString::to_string).unwrap_or_default());
        let body: bytes::Bytes = collector.encode(spans).into();
        let mut pause = Duration::from_secs(1);
        loop {
            let text = match collector.send(body.clone()).await {
                Ok(()) => {
                    let dropped = std::mem::take(&mut self.queue().dropped);
                    if std::mem::take(failing) {
                        tracing::info!(target: "farllama", "traces: {url} takes spans again; {dropped} were dropped");
                    }
                    return;
                }
                Err(Failed::Refused(text)) => {
                    tracing::warn!(target: "farllama", "traces: {url} does not take {count} spans: {text} (traces.url)");
                    return;
                }
                Err(Failed::Later(text)) => text,
            };
            if !std::mem::replace(failing, true) {
                tracing::warn!(target: "farllama", "traces: cannot send spans to {url}: {text} (traces.url); trying again");
            }
            let replaced = self.collector.load().as_ref().is_none_or(|now| !Arc::ptr_eq(now, &collector));
            if !persists || replaced {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
        }
    }
}

/// What a request is about in the words of the conventions for generative AI; None for requests that ask no model.
fn operation(endpoint: &str) -> Option<&'static str> {
    Some(match endpoint {
        "chat" | "responses" | "messages" | "api/chat" => "chat",
        "completions" | "api/generate" => "text_completion",
        "embeddings" | "api/embed" | "api/embeddings" => "embeddings",
        "transcriptions" | "translations" | "images" => "generate_content",
        _ => return None,
    })
}

impl Reader for Tracer {
    fn wants(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn read(&self, exchange: &Exchange<'_>) {
        if let Some(trace) = exchange.trace.filter(|trace| trace.sampled) {
            self.push(spans(trace, exchange, unix_ns()));
        }
    }
}

/// The spans of an exchange that has ended `now`, in Unix nanoseconds.
fn spans(trace: &Trace, exchange: &Exchange<'_>, now: u64) -> Vec<Span> {
    let Exchange { method, route, endpoint, secrets, .. } = exchange;
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let begun = now.saturating_sub(nanos(exchange.total));
    let error = error_type(exchange);
    let text = exchange.error.map(|error| shown(&error.to_string(), secrets).into_owned());
    let status = |is_error: bool| {
        is_error.then(|| Status { message: text.clone().unwrap_or_default(), code: SpanStatus::Error.into() })
    };
    let route = shown(route, secrets);
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.as_str()),
        KeyValue::new("url.path", &*route),
        KeyValue::new("farllama.endpoint", *endpoint),
        KeyValue::new("farllama.request.id", &*shown(exchange.id, secrets)),
        KeyValue::new("farllama.ending", exchange.ending.as_str()),
    ];
    if let Some(status) = exchange.status {
        attributes.push(KeyValue::new("http.response.status_code", u64::from(status.as_u16())));
    }
    if let Some(peer) = exchange.peer {
        attributes.push(KeyValue::new("client.address", &*peer.ip().to_string()));
    }
    if let Some(caller) = exchange.caller {
        attributes.push(KeyValue::new("enduser.id", caller));
    }
    if !exchange.receipt.is_empty() {
        attributes.push(KeyValue::new("farllama.receipt", &*shown(&exchange.receipt.to_string(), secrets)));
    }
    // A server's span fails only by what the server did wrong.
    let server_failed = matches!(exchange.ending, Ending::UpstreamFailed | Ending::ProxyFailed);
    if let Some(error) = error.as_deref().filter(|_| server_failed) {
        attributes.push(KeyValue::new("error.type", error));
    }
    let flags = u32::from(trace.sampled);
    let mut spans = vec![Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.exchange.to_vec(),
        trace_state: trace.state.clone(),
        parent_span_id: trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: format!("{method} {}", if *endpoint == "other" { "other" } else { endpoint }),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: begun,
        end_time_unix_nano: now,
        attributes,
        status: status(server_failed),
        flags,
    }];
    let (Some(operation), Some(asked)) = (operation(endpoint), trace.asked.get()) else { return spans };
    let waited = nanos(asked.at.elapsed()).min(now - begun);
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", operation),
        KeyValue::new("gen_ai.provider.name", "ollama"),
        KeyValue::new("server.address", &*asked.host),
        KeyValue::new("server.port", u64::from(asked.port)),
    ];
    let model = exchange.model.map(|model| shown(model, secrets));
    if let Some(model) = &model {
        attributes.push(KeyValue::new("gen_ai.request.model", &**model));
    }
    if let Some(usage) = exchange.usage {
        attributes.push(KeyValue::new("gen_ai.usage.input_tokens", usage.input));
        if operation != "embeddings" {
            attributes.push(KeyValue::new("gen_ai.usage.output_tokens", usage.output));
        }
    }
    if let Some(first) = exchange.first_token {
        let before = exchange.total.saturating_sub(Duration::from_nanos(waited));
        let first = first.saturating_sub(before).as_secs_f64();
        attributes.push(KeyValue::new("gen_ai.response.time_to_first_chunk", first));
    }
    if let Some(error) = error.as_deref() {
        attributes.push(KeyValue::new("error.type", error));
    }
    spans.push(Span {
        trace_id: trace.trace_id.to_vec(),
        span_id: trace.remote.to_vec(),
        trace_state: trace.state.clone(),
        parent_span_id: trace.exchange.to_vec(),
        name: model.map_or_else(|| operation.to_owned(), |model| format!("{operation} {model}")),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: now - waited,
        end_time_unix_nano: now,
        attributes,
        status: status(error.is_some()),
        flags,
    });
    spans
}

/// Few values: the status code, or how it ended where there is none.
fn error_type(exchange: &Exchange<'_>) -> Option<String> {
    match exchange.ending {
        Ending::Complete => None,
        Ending::Refused | Ending::UpstreamFailed | Ending::ProxyFailed => {
            let failed = exchange.status.filter(|status| status.is_client_error() || status.is_server_error());
            Some(failed.map_or_else(|| exchange.ending.label().to_owned(), |status| status.as_u16().to_string()))
        }
        Ending::ClientGone | Ending::Canceled => Some(exchange.ending.label().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest as Received,
        common::v1::{KeyValue as Attribute, any_value::Value as Any},
        trace::v1::{Span as Seen, span::SpanKind as Kind, status::StatusCode as Code},
    };

    use super::*;
    use crate::receipt::Receipt;

    /// An attribute as text.
    fn of(attributes: &[Attribute], key: &str) -> Option<String> {
        let found = attributes.iter().find(|attribute| attribute.key == key)?;
        Some(match found.value.clone()?.value? {
            Any::StringValue(text) => text,
            Any::IntValue(number) => number.to_string(),
            Any::DoubleValue(number) => format!("{number:.1}"),
            other => panic!("{key}: {other:?}"),
        })
    }

    fn exchange<'a>(receipt: &'a Receipt, trace: &'a Trace) -> Exchange<'a> {
        Exchange {
            peer: Some(([127, 0, 0, 1], 5).into()),
            model: Some("qwen3:8b"),
            first_token: Some(Duration::from_secs(2)),
            total: Duration::from_secs(3),
            trace: Some(trace),
            ..Exchange::sample(receipt)
        }
    }

    /// What a decoder that is not ours reads of the spans of an exchange.
    fn received(trace: &Trace, exchange: &Exchange<'_>) -> Vec<Seen> {
        let settings = Traces {
            url: Some(crate::config::CollectorUrl::parse("http://127.0.0.1:4318").unwrap()),
            ..Traces::default()
        };
        let collector = Collector::new(&settings).unwrap().unwrap();
        let bytes = collector.encode(spans(trace, exchange, 10_000_000_000));
        let mut read = Received::decode(&*bytes).unwrap();
        let mut resource = read.resource_spans.remove(0);
        assert_eq!(of(&resource.resource.unwrap().attributes, "service.name").as_deref(), Some("farllama"));
        let scope = resource.scope_spans.remove(0);
        assert_eq!(scope.scope.unwrap().name, "farllama");
        scope.spans
    }

    fn traced(traceparent: Option<&str>) -> Trace {
        let mut headers = HeaderMap::new();
        if let Some(value) = traceparent {
            headers.insert(trace_context::TRACEPARENT, value.parse().unwrap());
        }
        Trace::new(Parent::of(&headers))
    }

    #[test]
    fn an_exchange_is_a_span_below_its_callers_and_the_model_is_one_below_that() {
        let receipt = Receipt::default();
        let trace = traced(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        trace.asks("127.0.0.1", 11434);
        let spans = received(&trace, &exchange(&receipt, &trace));
        let [server, client] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&*server.name, server.kind), ("POST chat", Kind::Server as i32));
        assert_eq!((&*client.name, client.kind), ("chat qwen3:8b", Kind::Client as i32));
        assert_eq!(server.parent_span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!(client.parent_span_id, server.span_id);
        assert_eq!((server.trace_id[0], client.trace_id[15]), (0x4b, 0x36));
        assert_eq!((server.start_time_unix_nano, server.end_time_unix_nano), (7_000_000_000, 10_000_000_000));
        for (key, value) in [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.provider.name", "ollama"),
            ("gen_ai.request.model", "qwen3:8b"),
            ("gen_ai.usage.input_tokens", "7"),
            ("gen_ai.usage.output_tokens", "3"),
            ("server.address", "127.0.0.1"),
            ("server.port", "11434"),
        ] {
            assert_eq!(of(&client.attributes, key).as_deref(), Some(value), "{key}");
        }
        for (key, value) in [
            ("http.request.method", "POST"),
            ("url.path", "/v1/chat/completions"),
            ("http.response.status_code", "200"),
            ("client.address", "127.0.0.1"),
            ("farllama.request.id", "req_1"),
        ] {
            assert_eq!(of(&server.attributes, key).as_deref(), Some(value), "{key}");
        }
        assert!(of(&client.attributes, "error.type").is_none() && client.status.is_none());
        let header = trace.for_remote();
        let expected: String = client.span_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(header.to_str().unwrap(), format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{expected}-01"));
    }

    #[test]
    fn failures_have_a_type_and_a_text_and_keys_are_masked() {
        let (receipt, trace) = (Receipt::default(), traced(None));
        trace.asks("127.0.0.1", 11434);
        let error = crate::error::Error::Unreachable { message: "no hunter2hunter2".to_owned() };
        let mut secret = HeaderValue::from_static("Bearer hunter2hunter2");
        secret.set_sensitive(true);
        let secrets = [secret];
        let failed = Exchange {
            error: Some(&error),
            ending: Ending::UpstreamFailed,
            status: Some(StatusCode::BAD_GATEWAY),
            model: Some("hunter2hunter2"),
            usage: None,
            secrets: &secrets,
            ..exchange(&receipt, &trace)
        };
        let spans = received(&trace, &failed);
        for span in &spans {
            assert_eq!(of(&span.attributes, "error.type").as_deref(), Some("502"));
            assert_eq!(span.status.as_ref().unwrap().code, Code::Error as i32);
        }
        assert!(!format!("{spans:?}").contains("hunter2"), "{spans:?}");
        // What the caller did wrong is no failure of the server.
        let refused = Exchange { ending: Ending::Refused, status: Some(StatusCode::BAD_REQUEST), ..failed };
        let spans = received(&trace, &refused);
        assert!(spans[0].status.is_none() && spans[1].status.is_some());
        assert_eq!(of(&spans[1].attributes, "error.type").as_deref(), Some("400"));
    }

    #[test]
    fn requests_that_ask_no_model_have_one_span_and_those_not_sampled_none() {
        let (receipt, trace) = (Receipt::default(), traced(None));
        trace.asks("127.0.0.1", 11434);
        let tags = Exchange { endpoint: "api/tags", model: None, usage: None, ..exchange(&receipt, &trace) };
        assert_eq!(received(&trace, &tags).len(), 1);
        let tracer = Tracer::default();
        let unsampled = traced(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"));
        tracer.read(&exchange(&receipt, &unsampled));
        assert!(tracer.queue().spans.is_empty());
        tracer.read(&exchange(&receipt, &trace));
        assert_eq!(tracer.queue().spans.len(), 2);
        for _ in 0..QUEUE {
            tracer.read(&exchange(&receipt, &trace));
        }
        let queue = tracer.queue();
        assert_eq!((queue.spans.len(), queue.dropped), (QUEUE, QUEUE as u64 + 2));
        drop(queue);
        assert!(tracer.begin(&HeaderMap::new()).is_none(), "it is off");
    }
}
