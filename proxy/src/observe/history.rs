//! The last exchanges, and sums of the last hour, for the console and the API. Bounded. Most exchanges are formatted
//! only when they are read.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use http::{Method, StatusCode};
use serde::Serialize;

use super::{Ending, Exchange, Reader, log::shown};
use crate::{receipt::Receipt, stamp, usage::Usage};

/// Length of one interval of the charts, and how many there are: an hour.
const INTERVAL: Duration = Duration::from_secs(20);
const INTERVALS: usize = 180;

/// An exchange that has ended. Every text is masked and cut.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// Position in the history: clients ask for rows after the last one they have.
    pub(crate) seq: u64,
    /// The key under which the exchange was listed while it ran.
    pub(crate) key: u64,
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) endpoint: &'static str,
    pub(crate) model: Option<String>,
    pub(crate) caller: Option<String>,
    pub(crate) peer: Option<String>,
    /// None: the client left before there was a response.
    pub(crate) status: Option<u16>,
    /// Unix milliseconds.
    pub(crate) started_ms: u64,
    pub(crate) first_token_ms: Option<f64>,
    pub(crate) total_ms: f64,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) tokens_per_second: Option<f64>,
    pub(crate) ending: &'static str,
    pub(crate) error: Option<String>,
    pub(crate) receipt: Option<String>,
    /// Whether the inspector has its bodies.
    pub(crate) captured: bool,
}

/// Sums over one interval.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Point {
    /// How many seconds ago the interval began.
    pub(crate) age_s: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Milliseconds; None if nothing was streamed.
    pub(crate) first_token_p50_ms: Option<f64>,
    pub(crate) first_token_p95_ms: Option<f64>,
    /// Mean of the requests that have one.
    pub(crate) tokens_per_second: Option<f64>,
}

/// Latencies on a logarithmic scale: three buckets for each doubling, from 1 ms to about an hour.
const SCALE: usize = 66;

#[derive(Clone, Debug)]
struct Sums {
    interval: u64,
    requests: u64,
    errors: u64,
    input: u64,
    output: u64,
    first_token: [u32; SCALE],
    speed: (f64, u32),
}

impl Sums {
    fn new(interval: u64) -> Self {
        let first_token = [0; SCALE];
        Self { interval, requests: 0, errors: 0, input: 0, output: 0, first_token, speed: (0.0, 0) }
    }

    fn add(&mut self, exchange: &Exchange<'_>) {
        self.requests += 1;
        self.errors +=
            u64::from(matches!(exchange.ending, Ending::UpstreamFailed | Ending::ProxyFailed | Ending::Refused));
        if let Some(usage) = exchange.usage {
            self.input += usage.input;
            self.output += usage.output;
        }
        if let Some(first) = exchange.first_token {
            let ms = (first.as_secs_f64() * 1000.0).max(1.0);
            self.first_token[((ms.log2() * 3.0) as usize).min(SCALE - 1)] += 1;
        }
        if let Some(speed) = exchange.tokens_per_second {
            self.speed = (self.speed.0 + speed, self.speed.1 + 1);
        }
    }

    /// The upper bound of the bucket in which `quantile` of the latencies end.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let all: u32 = self.first_token.iter().sum();
        let rank = (f64::from(all) * quantile).ceil() as u32;
        let mut seen = 0;
        let at = self.first_token.iter().position(|count| {
            seen += count;
            seen >= rank
        })?;
        (all > 0).then(|| (2f64.powf((at as f64 + 1.0) / 3.0) * 10.0).round() / 10.0)
    }

    fn point(&self, now: u64) -> Point {
        let (sum, count) = self.speed;
        Point {
            age_s: (now - self.interval) * INTERVAL.as_secs(),
            requests: self.requests,
            errors: self.errors,
            input_tokens: self.input,
            output_tokens: self.output,
            first_token_p50_ms: self.quantile(0.5),
            first_token_p95_ms: self.quantile(0.95),
            tokens_per_second: (count > 0).then(|| (sum / f64::from(count) * 10.0).round() / 10.0),
        }
    }
}

/// The history. Empty until a capacity is set.
#[derive(Debug)]
pub(crate) struct History {
    capacity: AtomicUsize,
    begun: Instant,
    inner: Mutex<Inner>,
}

/// An exchange that is kept.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most are facts, and a box for each costs more")]
enum Kept {
    /// Formatted.
    Row(Box<Row>),
    /// As facts, which a reader formats.
    Facts(Ended),
}

/// An exchange whose texts are short and show no key.
#[derive(Debug)]
struct Ended {
    seq: u64,
    now_ms: u64,
    key: u64,
    id: Arc<str>,
    method: Method,
    route: Box<str>,
    endpoint: &'static str,
    model: Option<Box<str>>,
    caller: Option<Box<str>>,
    peer: Option<SocketAddr>,
    status: Option<StatusCode>,
    first_token: Option<Duration>,
    total: Duration,
    usage: Option<Usage>,
    tokens_per_second: Option<f64>,
    ending: Ending,
    /// None: it has no lines.
    receipt: Option<Box<Receipt>>,
}

/// Longest text of an exchange that is kept as it came.
const SHORT: usize = 256;

impl Ended {
    /// None: it must be formatted at once. Its texts are long, or may show keys, which are not kept; or there is more
    /// to it, which is rare.
    fn of(exchange: &Exchange<'_>, seq: u64, now_ms: u64) -> Option<Self> {
        let Exchange { key, id, route, endpoint, peer, caller, model, status, first_token, total, .. } = *exchange;
        let Exchange { method, usage, tokens_per_second, ending, .. } = *exchange;
        let short = [id, route, model.unwrap_or_default()].iter().all(|text| text.len() <= SHORT);
        let plain = exchange.secrets.is_empty() && exchange.error.is_none() && !exchange.receipt.has_notes();
        let facts = exchange.facts.filter(|_| short && plain && exchange.capture.is_none())?;
        // Not the facts themselves: they take a kilobyte, which the next exchange uses again.
        Some(Self {
            seq,
            now_ms,
            key,
            id: facts.id.clone(),
            method: method.clone(),
            route: route.into(),
            endpoint,
            model: model.map(Into::into),
            caller: caller.map(Into::into),
            peer,
            status,
            first_token,
            total,
            usage,
            tokens_per_second,
            ending,
            receipt: (!exchange.receipt.is_empty()).then(|| Box::new(exchange.receipt.clone())),
        })
    }

    fn row(&self) -> Row {
        let (mut row, none) = (Row::default(), Receipt::default());
        let exchange = Exchange {
            key: self.key,
            id: &self.id,
            method: &self.method,
            route: &self.route,
            endpoint: self.endpoint,
            peer: self.peer,
            caller: self.caller.as_deref(),
            model: self.model.as_deref(),
            status: self.status,
            first_byte: None,
            first_token: self.first_token,
            total: self.total,
            waiting_for: None,
            usage: self.usage,
            tokens_per_second: self.tokens_per_second,
            receipt: self.receipt.as_deref().unwrap_or(&none),
            error: None,
            ending: self.ending,
            secrets: &[],
            capture: None,
            facts: None,
            trace: None,
            now: Instant::now(),
            clock: UNIX_EPOCH,
        };
        row.take(&exchange, self.seq, self.now_ms);
        row
    }
}

impl Kept {
    fn seq(&self) -> u64 {
        match self {
            Self::Row(row) => row.seq,
            Self::Facts(ended) => ended.seq,
        }
    }

    fn row(&self) -> Row {
        match self {
            Self::Row(row) => Row::clone(row),
            Self::Facts(ended) => ended.row(),
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    seq: u64,
    rows: VecDeque<Kept>,
    sums: VecDeque<Sums>,
}

impl Default for History {
    fn default() -> Self {
        Self { capacity: AtomicUsize::new(0), begun: Instant::now(), inner: Mutex::default() }
    }
}

impl History {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the last `rows` exchanges from now on.
    pub(crate) fn switch_on(&self, rows: usize) {
        self.capacity.store(rows.max(1), Ordering::Relaxed);
    }

    /// The rows after `seq`, the oldest first, at most the last `most`.
    pub(crate) fn after(&self, seq: u64, most: usize) -> Vec<Row> {
        let inner = self.inner();
        let newer = inner.rows.iter().rev().take_while(|kept| kept.seq() > seq).count().min(most);
        inner.rows.iter().skip(inner.rows.len() - newer).map(Kept::row).collect()
    }

    /// The last hour, the oldest interval first. Intervals without a request are left out.
    pub(crate) fn hour(&self) -> Vec<Point> {
        self.hour_at(self.begun.elapsed())
    }

    fn hour_at(&self, since_begun: Duration) -> Vec<Point> {
        let now = interval(since_begun);
        let inner = self.inner();
        let young = |sums: &&Sums| sums.interval <= now && now - sums.interval < INTERVALS as u64;
        inner.sums.iter().filter(young).map(|sums| sums.point(now)).collect()
    }

    fn add(&self, exchange: &Exchange<'_>, since_begun: Duration, now_ms: u64) {
        let (capacity, at) = (self.capacity.load(Ordering::Relaxed), interval(since_begun));
        let mut inner = self.inner();
        if inner.sums.back().is_none_or(|last| last.interval < at) {
            if inner.sums.len() == INTERVALS {
                inner.sums.pop_front();
            }
            inner.sums.push_back(Sums::new(at));
        }
        if let Some(last) = inner.sums.back_mut() {
            last.add(exchange);
        }
        let mut old = None;
        while inner.rows.len() >= capacity {
            old = inner.rows.pop_front();
        }
        inner.seq += 1;
        let kept = Ended::of(exchange, inner.seq, now_ms).map(Kept::Facts);
        let kept = kept.unwrap_or_else(|| {
            // The buffers of a row are used again.
            let mut row = match old {
                Some(Kept::Row(row)) => row,
                _ => Box::default(),
            };
            row.take(exchange, inner.seq, now_ms);
            Kept::Row(row)
        });
        inner.rows.push_back(kept);
    }
}

fn interval(since_begun: Duration) -> u64 {
    since_begun.as_secs() / INTERVAL.as_secs()
}

/// Puts `text` where another was, without a new allocation if there is room.
fn put(place: &mut Option<String>, text: Option<&str>) {
    match text {
        None => *place = None,
        Some(text) => {
            let place = place.get_or_insert_default();
            place.clear();
            place.push_str(text);
        }
    }
}

impl Row {
    fn take(&mut self, exchange: &Exchange<'_>, seq: u64, now_ms: u64) {
        let Exchange { key, id, method, route, endpoint, peer, caller, model, status, secrets, .. } = exchange;
        let ms = |duration: Duration| duration.as_micros() as f64 / 1000.0;
        self.seq = seq;
        self.key = *key;
        self.id.clear();
        self.id.push_str(&shown(id, secrets));
        self.method.clear();
        self.method.push_str(method.as_str());
        self.path.clear();
        self.path.push_str(&shown(route, secrets));
        self.endpoint = endpoint;
        put(&mut self.model, model.map(|model| shown(model, secrets)).as_deref());
        put(&mut self.caller, *caller);
        put(&mut self.peer, peer.map(|peer| peer.to_string()).as_deref());
        self.status = status.map(|status| status.as_u16());
        self.started_ms = now_ms.saturating_sub(u64::try_from(exchange.total.as_millis()).unwrap_or(u64::MAX));
        self.first_token_ms = exchange.first_token.map(ms);
        self.total_ms = ms(exchange.total);
        self.input_tokens = exchange.usage.map(|usage| usage.input);
        self.output_tokens = exchange.usage.map(|usage| usage.output);
        self.tokens_per_second = exchange.tokens_per_second;
        self.ending = exchange.ending.as_str();
        self.error = exchange.error.map(|error| shown(&error.to_string(), secrets).into_owned());
        self.receipt =
            (!exchange.receipt.is_empty()).then(|| shown(&exchange.receipt.to_string(), secrets).into_owned());
        self.captured = exchange.capture.is_some();
    }
}

impl Reader for History {
    fn wants(&self) -> bool {
        self.capacity.load(Ordering::Relaxed) > 0
    }

    fn read(&self, exchange: &Exchange<'_>) {
        let since_begun = exchange.now.saturating_duration_since(self.begun);
        self.add(exchange, since_begun, stamp::ms_of(exchange.clock));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::observe::{Facts, Recorder};

    fn exchange<'a>(receipt: &'a Receipt, id: &'a str, first_token_ms: u64) -> Exchange<'a> {
        Exchange {
            id,
            route: "/api/chat",
            endpoint: "api/chat",
            caller: None,
            model: Some("<b>m</b>"),
            first_token: Some(Duration::from_millis(first_token_ms)),
            tokens_per_second: Some(10.0),
            ..Exchange::sample(receipt)
        }
    }

    #[test]
    fn the_last_rows_stay_and_are_found_by_their_position() {
        let (history, receipt) = (History::default(), Receipt::default());
        assert!(!history.wants());
        history.switch_on(3);
        for n in 0..5 {
            history.add(&exchange(&receipt, &format!("req_{n}"), 1), Duration::ZERO, 10_000);
        }
        let ids = |seq, most| history.after(seq, most).into_iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(0, 10), ["req_2", "req_3", "req_4"]);
        assert_eq!(ids(4, 10), ["req_4"]);
        assert_eq!(ids(0, 1), ["req_4"]);
        let row = &history.after(4, 1)[0];
        assert_eq!((row.started_ms, row.model.as_deref()), (8000, Some("<b>m</b>")));
    }

    #[test]
    fn a_row_that_is_formatted_later_is_the_same() {
        let recorder = Recorder::default();
        recorder.model("<b>m</b>");
        recorder.caller("ann");
        recorder.usage(Usage { input: 7, output: 3, cached: 0 });
        let facts = Arc::new(Facts {
            id: "req_1".into(),
            method: Method::POST,
            route: "/api/chat\u{202e}".to_owned(),
            endpoint: "api/chat",
            peer: Some(([127, 0, 0, 1], 7).into()),
            started: Instant::now(),
            recorder,
        });
        let (history, receipt) = (History::default(), Receipt::default());
        history.switch_on(9);
        let now =
            Exchange { route: &facts.route, peer: facts.peer, caller: Some("ann"), ..exchange(&receipt, "req_1", 5) };
        history.add(&now, Duration::ZERO, 10_000);
        history.add(&Exchange { facts: Some(&facts), ..now.clone() }, Duration::ZERO, 10_000);
        let long = "x".repeat(SHORT + 1);
        history.add(&Exchange { facts: Some(&facts), route: &long, ..now.clone() }, Duration::ZERO, 10_000);
        let secrets = [HeaderValue::from_static("Bearer hunter2hunter2")];
        history.add(&Exchange { facts: Some(&facts), secrets: &secrets, ..now }, Duration::ZERO, 10_000);
        let formatted = |kept: &Kept| matches!(kept, Kept::Row(_));
        let kept: Vec<bool> = history.inner().rows.iter().map(formatted).collect();
        assert_eq!(kept, [true, false, true, true], "neither keys nor long texts are kept");
        let rows = history.after(0, 9);
        let text = |at: usize| serde_json::to_string(&Row { seq: 0, ..rows[at].clone() }).unwrap();
        assert_eq!(text(0), text(1));
        assert!(text(1).contains("\\\\u{202e}"), "{}", text(1));
    }

    #[test]
    fn sums_are_of_their_interval_and_of_the_last_hour_only() {
        let (history, receipt) = (History::default(), Receipt::default());
        history.switch_on(1);
        let at = |seconds, ms| history.add(&exchange(&receipt, "r", ms), Duration::from_secs(seconds), 0);
        (0..19).for_each(|_| at(0, 100));
        at(19, 4000);
        at(20, 100);
        let hour = history.hour_at(Duration::from_secs(45));
        assert_eq!(hour.len(), 2);
        assert_eq!((hour[0].age_s, hour[0].requests, hour[0].input_tokens), (40, 20, 140));
        let (p50, p95) = (hour[0].first_token_p50_ms.unwrap(), hour[0].first_token_p95_ms.unwrap());
        assert!((100.0..130.0).contains(&p50) && (100.0..130.0).contains(&p95), "{p50} {p95}");
        assert_eq!(hour[1].tokens_per_second, Some(10.0));
        assert!(history.hour_at(Duration::from_secs(3700)).is_empty());
    }
}
