//! Counts exchanges for Prometheus. Handles of labeled series are resolved once and kept, so that an exchange allocates
//! nothing and takes no lock that threads fight over.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};

use super::{Ending, Exchange, Reader};
use crate::{error::Error, receipt::Call, routes};

/// Series of one label at most, for labels whose values callers choose; further values share `other`.
const MOST_VALUES: usize = 100;

const OTHER: &str = "other";

/// Seconds, from a cached answer to a model that loads and then thinks.
const BUCKETS: [f64; 18] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 240.0, 360.0, 600.0];

/// Bytes and connections of clients. Written by the listener on every read and write.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What is measured when a scrape comes, and not before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) in_flight: usize,
    pub(crate) listening: bool,
    /// Connections to the remote: idle, and all of them.
    pub(crate) pool: (usize, usize),
    /// Name of a key, requests used in the window, and its limit.
    pub(crate) quotas: Vec<(String, usize, usize)>,
}

/// The series of one route.
#[derive(Debug)]
struct Route {
    duration: OnceLock<Histogram>,
    first_token: OnceLock<Histogram>,
    /// By status and ending. A route has few, and the usual one comes first.
    requests: Mutex<Vec<(u16, Ending, IntCounter)>>,
}

/// The series of labels whose values are not known beforehand.
#[derive(Debug)]
struct Open<T> {
    known: Mutex<HashMap<String, T, foldhash::fast::RandomState>>,
    make: fn(&Metrics, &str) -> T,
}

impl<T> Open<T> {
    fn new(make: fn(&Metrics, &str) -> T) -> Self {
        Self { known: Mutex::default(), make }
    }

    /// Hands over the series of `value`, or of `other` once there are too many values.
    fn with<R>(&self, metrics: &Metrics, value: &str, read: impl FnOnce(&T) -> R) -> R {
        let mut known = lock(&self.known);
        if let Some(series) = known.get(value) {
            return read(series);
        }
        let value = if known.len() < MOST_VALUES { value } else { OTHER };
        read(known.entry(value.to_owned()).or_insert_with(|| (self.make)(metrics, value)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The series of one model.
#[derive(Debug)]
struct Model {
    label: std::sync::Arc<str>,
    input: IntCounter,
    output: IntCounter,
}

/// All series.
#[derive(Debug)]
pub(crate) struct Metrics {
    on: AtomicBool,
    registry: Registry,
    routes: HashMap<&'static str, Route, foldhash::fast::RandomState>,
    models: Open<Model>,
    callers: Open<IntCounter>,
    requests: IntCounterVec,
    duration: HistogramVec,
    first_token: HistogramVec,
    input_tokens: IntCounterVec,
    output_tokens: IntCounterVec,
    tool_calls: IntCounterVec,
    by_caller: IntCounterVec,
    upstream_failures: IntCounterVec,
    refusals: IntCounterVec,
    canceled: IntCounterVec,
    in_flight: IntGauge,
    listening: IntGauge,
    pool: IntGaugeVec,
    quota_used: IntGaugeVec,
    quota_limit: IntGaugeVec,
    received: IntCounter,
    sent: IntCounter,
    pub(crate) traffic: std::sync::Arc<Traffic>,
}

impl Default for Metrics {
    #[expect(clippy::expect_used, reason = "names and labels are constants, which a test checks")]
    fn default() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            register(&registry, &made);
            made
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let made = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
            register(&registry, &made);
            made
        };
        let histograms = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            let made = HistogramVec::new(opts, &["endpoint"]).expect("a valid name");
            register(&registry, &made);
            made
        };
        let counter = |name: &str, help: &str| {
            let made = IntCounter::new(name, help).expect("a valid name");
            register(&registry, &made);
            made
        };
        let gauge = |name: &str, help: &str| {
            let made = IntGauge::new(name, help).expect("a valid name");
            register(&registry, &made);
            made
        };
        let labels = routes::TABLE.iter().map(|row| row.name).chain([OTHER]);
        let route = |label| {
            let requests = Mutex::default();
            (label, Route { duration: OnceLock::new(), first_token: OnceLock::new(), requests })
        };
        gauges("farllama_build_info", "The version that runs; always 1.", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Self {
            on: AtomicBool::new(false),
            routes: labels.map(route).collect(),
            models: Open::new(|metrics, model| Model {
                label: model.into(),
                input: metrics.input_tokens.with_label_values(&[model]),
                output: metrics.output_tokens.with_label_values(&[model]),
            }),
            callers: Open::new(|metrics, caller| metrics.by_caller.with_label_values(&[caller])),
            requests: counters(
                "farllama_requests_total",
                "Requests that have ended, by route, status (none: the client left before) and ending.",
                &["endpoint", "status", "ending"],
            ),
            duration: histograms(
                "farllama_request_duration_seconds",
                "Time from a request's head to the end of its response.",
            ),
            first_token: histograms(
                "farllama_time_to_first_token_seconds",
                "Time from a request's head to the first token of its stream.",
            ),
            input_tokens: counters("farllama_input_tokens_total", "Tokens of prompts, by model.", &["model"]),
            output_tokens: counters("farllama_output_tokens_total", "Tokens of answers, by model.", &["model"]),
            tool_calls: counters(
                "farllama_tool_calls_total",
                "Tool calls of models that were checked, by model and outcome. Rescued and reasked ones count as another outcome too.",
                &["model", "outcome"],
            ),
            by_caller: counters(
                "farllama_caller_requests_total",
                "Requests that have ended, by the name of the caller's key.",
                &["caller"],
            ),
            upstream_failures: counters(
                "farllama_upstream_failures_total",
                "Requests that failed because of the remote, by kind.",
                &["kind"],
            ),
            refusals: counters(
                "farllama_refusals_total",
                "Requests that were refused, by reason (the error's code, or its type).",
                &["reason"],
            ),
            canceled: counters(
                "farllama_canceled_requests_total",
                "Requests that did not run to their end, by who canceled them.",
                &["by"],
            ),
            in_flight: gauge("farllama_requests_in_flight", "Requests that are running, streams included."),
            listening: gauge("farllama_listener_up", "Whether the data listener accepts connections."),
            pool: gauges("farllama_upstream_connections", "Connections to the remote, by state.", &["state"]),
            quota_used: gauges(
                "farllama_quota_requests_used",
                "Requests of a key in the current window, for keys with a limit.",
                &["caller"],
            ),
            quota_limit: gauges(
                "farllama_quota_requests_limit",
                "Requests that a key may make in a window.",
                &["caller"],
            ),
            received: counter("farllama_received_bytes_total", "Bytes read from clients, heads included."),
            sent: counter("farllama_sent_bytes_total", "Bytes written to clients, heads included."),
            traffic: std::sync::Arc::default(),
            registry,
        }
    }
}

/// Registers a collector whose name no other has, which a test checks.
fn register(registry: &Registry, collector: &(impl Collector + Clone + 'static)) {
    let registered = registry.register(Box::new(collector.clone()));
    debug_assert!(registered.is_ok(), "{registered:?}");
}

impl Metrics {
    /// Counts from now on. Until then an exchange costs nothing here.
    pub(crate) fn switch_on(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// The text of a scrape.
    pub(crate) fn text(&self, gauges: &Gauges) -> String {
        self.in_flight.set(signed(gauges.in_flight));
        self.listening.set(i64::from(gauges.listening));
        let (idle, all) = gauges.pool;
        self.pool.with_label_values(&["idle"]).set(signed(idle));
        self.pool.with_label_values(&["busy"]).set(signed(all.saturating_sub(idle)));
        self.quota_used.reset();
        self.quota_limit.reset();
        for (caller, used, limit) in gauges.quotas.iter().take(MOST_VALUES) {
            self.quota_used.with_label_values(&[caller.as_str()]).set(signed(*used));
            self.quota_limit.with_label_values(&[caller.as_str()]).set(signed(*limit));
        }
        catch_up(&self.received, &self.traffic.received);
        catch_up(&self.sent, &self.traffic.sent);
        let mut text = Vec::new();
        // It fails only if a family is empty, which `gather` leaves out.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(target: "farllama", "cannot encode the metrics: {error}");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Brings a counter up to a number that only grows.
fn catch_up(counter: &IntCounter, now: &AtomicU64) {
    counter.inc_by(now.load(Ordering::Relaxed).saturating_sub(counter.get()));
}

/// What went wrong with the remote, in one word.
fn upstream_failure(error: &Error) -> &'static str {
    match error {
        Error::Unreachable { .. } => "unreachable",
        Error::Timeout { .. } => "timeout",
        Error::Cut { .. } => "cut",
        Error::NotOllama { .. } => "not_ollama",
        Error::Loop { .. } => "loop",
        _ => "error",
    }
}

impl Reader for Metrics {
    fn wants(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn read(&self, exchange: &Exchange<'_>) {
        let Exchange { endpoint, status, ending, total, first_token, .. } = exchange;
        let known = self.routes.get_key_value(endpoint).or_else(|| self.routes.get_key_value(OTHER));
        let Some((&label, route)) = known else { return };
        let code = status.map_or(0, |status| status.as_u16());
        let mut requests = lock(&route.requests);
        if let Some((.., counter)) = requests.iter().find(|(known, end, _)| *known == code && end == ending) {
            counter.inc();
        } else {
            let text = if code == 0 { "none".to_owned() } else { code.to_string() };
            // A remote may answer with any of 900 codes.
            let text = if requests.len() < MOST_VALUES { &*text } else { OTHER };
            let counter = self.requests.with_label_values(&[label, text, ending.label()]);
            counter.inc();
            if requests.len() < MOST_VALUES {
                requests.push((code, *ending, counter));
            }
        }
        drop(requests);
        route.duration.get_or_init(|| self.duration.with_label_values(&[label])).observe(total.as_secs_f64());
        if let Some(first) = first_token {
            let series = route.first_token.get_or_init(|| self.first_token.with_label_values(&[label]));
            series.observe(first.as_secs_f64());
        }
        // Only names that a model has answered to: others are the callers' inventions.
        if let (Some(model), Some(usage)) = (exchange.model, exchange.usage) {
            self.models.with(self, model, |series| {
                series.input.inc_by(usage.input);
                series.output.inc_by(usage.output);
                for (call, outcome) in Call::NAMED {
                    let count = exchange.receipt.counted(call);
                    if count > 0 {
                        self.tool_calls.with_label_values(&[&*series.label, outcome]).inc_by(count.into());
                    }
                }
            });
        }
        if let Some(caller) = exchange.caller {
            self.callers.with(self, caller, IntCounter::inc);
        }
        match ending {
            Ending::Complete | Ending::ProxyFailed => {}
            Ending::UpstreamFailed => {
                let kind = exchange.error.map_or("cut", upstream_failure);
                self.upstream_failures.with_label_values(&[kind]).inc();
            }
            Ending::Refused => {
                let reason = exchange.error.map_or("remote", |error| {
                    let row = error.row();
                    row.code.unwrap_or(row.kind)
                });
                self.refusals.with_label_values(&[reason]).inc();
            }
            Ending::ClientGone => self.canceled.with_label_values(&["client"]).inc(),
            Ending::Canceled => {
                let by = match exchange.error {
                    Some(Error::Canceled { shutdown: true }) => "shutdown",
                    Some(Error::CanceledByCaller) => "client",
                    _ => "operator",
                };
                self.canceled.with_label_values(&[by]).inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {

    use http::StatusCode;

    use super::*;
    use crate::receipt::Receipt;

    fn exchange<'a>(receipt: &'a Receipt, model: &'a str) -> Exchange<'a> {
        Exchange { model: Some(model), ..Exchange::sample(receipt) }
    }

    #[test]
    fn an_exchange_is_counted_under_its_labels() {
        let (metrics, mut receipt) = (Metrics::default(), Receipt::default());
        receipt.count(Call::Repaired);
        assert!(!metrics.wants(), "nothing is counted until it is switched on");
        metrics.switch_on();
        metrics.read(&exchange(&receipt, "m"));
        metrics.read(&exchange(&receipt, "m"));
        let gone = Exchange { status: None, usage: None, ending: Ending::ClientGone, ..exchange(&receipt, "m") };
        metrics.read(&gone);
        metrics.traffic.received(5);
        let quotas = vec![("ann".to_owned(), 2, 60)];
        let text = metrics.text(&Gauges { in_flight: 1, listening: true, pool: (1, 3), quotas });
        for line in [
            "farllama_requests_total{ending=\"complete\",endpoint=\"chat\",status=\"200\"} 2",
            "farllama_requests_total{ending=\"client_gone\",endpoint=\"chat\",status=\"none\"} 1",
            "farllama_input_tokens_total{model=\"m\"} 14",
            "farllama_output_tokens_total{model=\"m\"} 6",
            "farllama_tool_calls_total{model=\"m\",outcome=\"repaired\"} 2",
            "farllama_time_to_first_token_seconds_bucket{endpoint=\"chat\",le=\"0.05\"} 3",
            "farllama_request_duration_seconds_sum{endpoint=\"chat\"} 6",
            "farllama_canceled_requests_total{by=\"client\"} 1",
            "farllama_caller_requests_total{caller=\"ann\"} 3",
            "farllama_requests_in_flight 1",
            "farllama_upstream_connections{state=\"busy\"} 2",
            "farllama_quota_requests_used{caller=\"ann\"} 2",
            "farllama_received_bytes_total 5",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn the_dashboard_asks_only_for_metrics_and_labels_that_exist() {
        let (metrics, mut receipt) = (Metrics::default(), Receipt::default());
        receipt.count(Call::Fits);
        metrics.read(&exchange(&receipt, "m"));
        let refused = Error::TooLarge { limit: 1 };
        for (ending, error) in
            [(Ending::ClientGone, None), (Ending::UpstreamFailed, None), (Ending::Refused, Some(&refused))]
        {
            metrics.read(&Exchange { ending, error, ..exchange(&receipt, "m") });
        }
        let text = metrics.text(&Gauges { quotas: vec![("ann".to_owned(), 1, 2)], ..Gauges::default() });
        let dashboard = include_str!("../../../contrib/grafana/farllama.json");
        let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let mut asked = std::collections::BTreeSet::new();
        for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
            let expr = target["expr"].as_str().unwrap();
            let apart = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
            let names: Vec<&str> = expr.split(apart).filter(|name| name.starts_with("farllama_")).collect();
            assert!(!names.is_empty(), "{expr}");
            for name in names {
                let is = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
                let series = text.lines().find(is).unwrap_or_else(|| panic!("{name} in {expr} is no metric"));
                let by = expr.split("by (").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
                for label in by.split(", ").filter(|label| !label.is_empty()) {
                    assert!(series.contains(&format!("{label}=")), "{name} has no label {label}: {expr}");
                }
                asked.insert(name.trim_end_matches("_bucket").to_owned());
            }
        }
        let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let unseen: Vec<&str> = kinds.filter(|name| !asked.contains(*name)).collect();
        assert!(unseen.is_empty(), "the dashboard shows all metrics but {unseen:?}");
    }

    #[test]
    fn names_that_callers_choose_make_a_bounded_number_of_series() {
        let (metrics, receipt) = (Metrics::default(), Receipt::default());
        for n in 0..1000 {
            metrics.read(&exchange(&receipt, &format!("model-{n}")));
        }
        let text = metrics.text(&Gauges::default());
        let series = text.lines().filter(|line| line.starts_with("farllama_input_tokens_total{")).count();
        assert_eq!(series, MOST_VALUES + 1);
        assert!(text.contains("farllama_input_tokens_total{model=\"other\"} 6300"), "{text}");
    }

    #[test]
    fn the_statuses_of_a_route_are_bounded() {
        let (metrics, receipt) = (Metrics::default(), Receipt::default());
        for code in 200..600 {
            metrics.read(&Exchange { status: StatusCode::from_u16(code).ok(), ..exchange(&receipt, "m") });
        }
        let text = metrics.text(&Gauges::default());
        let series = text.lines().filter(|line| line.starts_with("farllama_requests_total{")).count();
        assert_eq!(series, MOST_VALUES + 1);
    }
}
