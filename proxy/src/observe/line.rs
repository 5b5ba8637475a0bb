//! Writes the log line of an exchange straight into the buffer of the log: byte for byte what `tracing_subscriber`
//! makes of the same fields, at a tenth of its cost. One request has one such line, so this is the only line whose cost
//! counts.

use std::{
    fmt::{self, Debug, Display},
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use itoa::Buffer;

use crate::config::LogFormat;

/// Takes the lines of a log, one after the other.
pub trait LineSink: Debug + Send + Sync {
    /// Adds a line, which `write` appends to a buffer of lines, its line end included.
    fn add(&self, write: &mut dyn FnMut(&mut Vec<u8>));
}

/// Where the lines of exchanges go, and how they look. Without one, they are events of `tracing`.
#[derive(Clone, Debug)]
pub struct ExchangeLog {
    sink: Arc<dyn LineSink>,
    style: Style,
    /// The second of the last line, as text: most lines share it with the one before.
    second: Arc<Mutex<(u64, [u8; SECOND])>>,
}

/// `2026-11-24T12:00:00`
const SECOND: usize = 19;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    Text,
    Colored,
    Json,
}

impl ExchangeLog {
    /// Lines in `format`; text in color if `color` is set.
    pub fn new(sink: Arc<dyn LineSink>, format: LogFormat, color: bool) -> Self {
        let style = match format {
            LogFormat::Json => Style::Json,
            LogFormat::Text if color => Style::Colored,
            LogFormat::Text => Style::Text,
        };
        Self { sink, style, second: Arc::new(Mutex::new((u64::MAX, [0; SECOND]))) }
    }

    /// Adds a line of the time `now` with this message, and the fields that `fields` writes.
    pub(super) fn line(&self, now: SystemTime, [method, route]: [&str; 2], fields: impl Fn(&mut Fields<'_>)) {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = self.second(since.as_secs());
        self.sink.add(&mut |out| {
            let mut line = Fields { out, style: self.style };
            line.begin(&second, since.subsec_micros(), method, route);
            fields(&mut line);
            line.end();
        });
    }

    fn second(&self, second: u64) -> [u8; SECOND] {
        let mut last = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != second {
            let time = jiff::Timestamp::from_second(second.try_into().unwrap_or(0)).unwrap_or_default().to_string();
            if let Some(text) = time.as_bytes().first_chunk() {
                *last = (second, *text);
            }
        }
        last.1
    }
}

/// The bytes that stand in quotes as they are, in every format.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        plain[byte as usize] = byte != b'"' && byte != b'\\';
        byte += 1;
    }
    plain
};

/// A line that is being written.
pub(super) struct Fields<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
}

impl Fields<'_> {
    fn begin(&mut self, second: &[u8; SECOND], micros: u32, method: &str, route: &str) {
        let (before, after): (&[u8], &[u8]) = match self.style {
            Style::Text => (b"", b"Z  INFO "),
            Style::Colored => (b"\x1b[2m", b"Z\x1b[0m \x1b[32m INFO\x1b[0m "),
            Style::Json => (b"{\"timestamp\":\"", b"Z\",\"level\":\"INFO\",\"message\":\""),
        };
        self.put(before);
        self.put(second);
        let mut fraction = *b".000000";
        let (mut left, mut at) = (micros, fraction.len());
        while left > 0 {
            at -= 1;
            fraction[at] = b'0' + (left % 10) as u8;
            left /= 10;
        }
        self.put(&fraction);
        self.put(after);
        self.put(method.as_bytes());
        self.put(b" ");
        if self.style == Style::Json {
            self.quoted(route, false);
            self.put(b"\"");
        } else {
            self.put(route.as_bytes());
        }
    }

    fn end(&mut self) {
        self.put(if self.style == Style::Json { b"}\n" } else { b"\n" });
    }

    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn name(&mut self, name: &str) {
        let (before, after): (&[u8], &[u8]) = match self.style {
            Style::Text => (b" ", b"="),
            Style::Colored => (b" \x1b[3m", b"\x1b[0m\x1b[2m=\x1b[0m"),
            Style::Json => (b",\"", b"\":"),
        };
        self.put(before);
        self.put(name.as_bytes());
        self.put(after);
    }

    /// A text, in quotes.
    pub(super) fn text(&mut self, name: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.name(name);
        self.quoted(value, true);
    }

    fn quoted(&mut self, value: &str, quotes: bool) {
        let plain = value.bytes().all(|byte| PLAIN[usize::from(byte)]);
        if plain {
            let quote: &[u8] = if quotes { b"\"" } else { b"" };
            self.put(quote);
            self.put(value.as_bytes());
            self.put(quote);
            return;
        }
        let begin = self.out.len();
        if self.style == Style::Json {
            let written = serde_json::to_writer(&mut *self.out, value);
            debug_assert!(written.is_ok(), "a vector takes everything");
        } else {
            self.format(format_args!("{value:?}"));
        }
        if !quotes {
            self.out.remove(begin);
            self.out.pop();
        }
    }

    /// A value that is text in JSON, and stands without quotes elsewhere.
    fn display(&mut self, name: &str, value: Option<impl Display>) {
        let Some(value) = value else { return };
        self.name(name);
        let quote: &[u8] = if self.style == Style::Json { b"\"" } else { b"" };
        self.put(quote);
        self.format(format_args!("{value}"));
        self.put(quote);
    }

    pub(super) fn peer(&mut self, name: &str, value: Option<SocketAddr>) {
        let Some(SocketAddr::V4(peer)) = value else { return self.display(name, value) };
        self.name(name);
        let quote: &[u8] = if self.style == Style::Json { b"\"" } else { b"" };
        self.put(quote);
        let [a, b, c, d] = peer.ip().octets().map(u16::from);
        for (number, end) in [(a, b"."), (b, b"."), (c, b"."), (d, b":")] {
            self.put(Buffer::new().format(number).as_bytes());
            self.put(end);
        }
        self.put(Buffer::new().format(peer.port()).as_bytes());
        self.put(quote);
    }

    pub(super) fn number(&mut self, name: &str, value: Option<u64>) {
        let Some(value) = value else { return };
        self.name(name);
        self.put(Buffer::new().format(value).as_bytes());
    }

    /// A duration in milliseconds, with up to three decimals.
    pub(super) fn ms(&mut self, name: &str, value: Option<Duration>) {
        let Some(value) = value else { return };
        self.name(name);
        self.decimal(u64::try_from(value.as_micros()).unwrap_or(u64::MAX), 1000);
    }

    /// A number with one decimal.
    pub(super) fn tenths(&mut self, name: &str, value: Option<f64>) {
        let Some(value) = value else { return };
        self.name(name);
        let tenths = (value * 10.0).round();
        // Beyond this, floats are written in another way.
        if (0.0..1e15).contains(&tenths) {
            self.decimal(tenths as u64, 10);
        } else if self.style == Style::Json {
            let written = serde_json::to_writer(&mut *self.out, &value);
            debug_assert!(written.is_ok(), "a vector takes everything");
        } else {
            self.format(format_args!("{value:?}"));
        }
    }

    /// `value / of`, where `of` is a power of ten, with at least one decimal and no zeros at its end.
    fn decimal(&mut self, value: u64, of: u64) {
        self.put(Buffer::new().format(value / of).as_bytes());
        self.put(b".");
        let (mut left, mut digit) = (value % of, of / 10);
        loop {
            self.put(&[b'0' + (left / digit) as u8]);
            left %= digit;
            if left == 0 {
                return;
            }
            digit /= 10;
        }
    }

    fn format(&mut self, text: fmt::Arguments<'_>) {
        let written = self.out.write_fmt(text);
        debug_assert!(written.is_ok(), "a vector takes everything");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

    use super::*;

    /// What was logged.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl LineSink for Kept {
        fn add(&self, write: &mut dyn FnMut(&mut Vec<u8>)) {
            write(&mut self.0.lock().unwrap());
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    /// A log without the time of each line, whose form is checked.
    fn timeless(log: &str) -> String {
        let digits = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
        let at = log.find("T").unwrap() - "2026-11-24".len();
        let (before, rest) = log.split_at(at);
        let (time, rest) = rest.split_at("2026-11-24T12:00:00.000000Z".len());
        format!("{before}{}{rest}", digits(time))
    }

    pub(super) fn looks_like_tracing(exchange: &crate::observe::Exchange<'_>) {
        for (format, color) in [(LogFormat::Text, false), (LogFormat::Text, true), (LogFormat::Json, false)] {
            let kept = Kept::default();
            let layer = tracing_subscriber::fmt::layer().with_writer(kept.clone()).with_target(false);
            let registry = tracing_subscriber::registry();
            let event = || crate::observe::log::event(exchange);
            match format {
                LogFormat::Text => tracing::subscriber::with_default(registry.with(layer.with_ansi(color)), event),
                LogFormat::Json => {
                    tracing::subscriber::with_default(registry.with(layer.json().flatten_event(true)), event);
                }
            }
            let expected = timeless(&kept.text());
            crate::observe::log::direct(&ExchangeLog::new(Arc::new(kept.clone()), format, color), exchange);
            assert_eq!(timeless(&kept.text()), expected);
        }
    }

    #[test]
    fn a_line_begins_with_the_time_in_utc() {
        let kept = Kept::default();
        let log = ExchangeLog::new(Arc::new(kept.clone()), LogFormat::Text, false);
        for (seconds, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, 7, "2000-02-28T23:59:59.000007Z"),
            (951_782_400, 123_456, "2000-02-29T00:00:00.123456Z"),
            (951_782_400, 999_999, "2000-02-29T00:00:00.999999Z"),
            (1_795_780_800, 20, "2026-11-27T12:00:00.000020Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            log.line(at, ["GET", "/"], |_| {});
            assert_eq!(kept.text(), format!("{expected}  INFO GET /\n"));
        }
    }

    proptest! {
        #[test]
        fn every_line_is_what_tracing_writes(
            (route, model, message) in ("/[a-z\\\\\"é\u{7f}\u{ad} ]{0,8}", prop::option::of("\\PC{0,9}"), prop::option::of("[ -~\n\u{1b}é]{0,9}")),
            // Up to three years: a float holds no more digits of a longer time.
            (first, total) in (prop::option::of(0..100_000_000_000_000_u64), 0..4_000_000_u64),
            (input, output) in (0..2000_u64, any::<u64>()),
            speed in prop::option::of(prop_oneof![0.0..1e4_f64, 0.0..1e18_f64]),
            peer in prop::option::of(prop_oneof![any::<[u8; 4]>().prop_map(std::net::IpAddr::from), any::<[u16; 8]>().prop_map(Into::into)]),
            misspelled in prop::option::of("[a-z]{1,3}"),
        ) {
            let mut receipt = crate::receipt::Receipt::default();
            if let Some(name) = &misspelled {
                receipt.unknown(name, Some("model"));
            }
            let error = message.map(|message| crate::error::Error::Invalid { message, param: None, code: None });
            let ended = if error.is_some() { crate::observe::Ending::Refused } else { crate::observe::Ending::Complete };
            looks_like_tracing(&crate::observe::Exchange {
                key: 0,
                capture: None,
                now: std::time::Instant::now(),
                clock: SystemTime::UNIX_EPOCH,
                facts: None,
            trace: None,
                id: "req_1",
                method: &http::Method::POST,
                route: &route,
                endpoint: "chat",
                peer: peer.map(|peer| (peer, 7).into()),
                caller: misspelled.as_deref(),
                model: model.as_deref(),
                status: peer.map(|_| http::StatusCode::OK),
                first_byte: first.map(Duration::from_nanos),
                first_token: first.map(Duration::from_micros),
                total: Duration::from_nanos(total),
                waiting_for: peer.is_none().then_some("the remote"),
                usage: speed.map(|_| crate::usage::Usage { input, output, cached: 0 }),
                tokens_per_second: speed.map(|speed: f64| (speed * 10.0).round() / 10.0),
                receipt: &receipt,
                error: error.as_ref(),
                ending: ended,
                secrets: &[],
            });
        }
    }
}
