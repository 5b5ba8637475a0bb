//! The log lines of an exchange, and payload snippets for `--verbose`.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::{
    observe::{Facts, exchange::Exchange, line::ExchangeLog, readers::Reader},
    redact::masked,
};

/// Most bytes of a payload that are printed.
const SNIPPET: usize = 2048;

/// The log line of an exchange that has ended.
#[derive(Debug)]
pub(super) enum Line {
    /// An event of `tracing`.
    Event,
    /// A line of its own.
    Direct(ExchangeLog),
}

impl Reader for Line {
    fn wants(&self) -> bool {
        matches!(self, Self::Direct(_)) || tracing::enabled!(target: "farllama", tracing::Level::INFO)
    }

    fn read(&self, exchange: &Exchange<'_>) {
        match self {
            Self::Event => event(exchange),
            Self::Direct(log) => direct(log, exchange),
        }
    }
}

/// Writes the fields of [`event`], in their order.
pub(super) fn direct(log: &ExchangeLog, exchange: &Exchange<'_>) {
    let secrets = exchange.secrets;
    let route = shown(exchange.route, secrets);
    log.line(exchange.clock, [exchange.method.as_str(), &route], |line| {
        line.text("id", Some(exchange.id));
        line.text("endpoint", Some(exchange.endpoint));
        line.peer("peer", exchange.peer);
        line.text("caller", exchange.caller);
        line.text("model", exchange.model.map(|model| shown(model, secrets)).as_deref());
        line.number("status", exchange.status.map(|status| status.as_u16().into()));
        line.ms("first_byte_ms", exchange.first_byte);
        line.ms("first_token_ms", exchange.first_token);
        line.ms("total_ms", Some(exchange.total));
        line.number("input_tokens", exchange.usage.map(|usage| usage.input));
        line.number("output_tokens", exchange.usage.map(|usage| usage.output));
        line.tenths("tokens_per_second", exchange.tokens_per_second);
        line.text("ended", Some(exchange.ending.as_str()));
        line.text("waiting_for", exchange.waiting_for);
        if !exchange.receipt.is_empty() {
            line.text("receipt", Some(&exchange.receipt.text()));
            line.text("hint", exchange.receipt.hint().as_deref());
        }
        if let Some(error) = exchange.error {
            line.text("error", Some(&shown(&error.to_string(), secrets)));
        }
    });
}

/// Logs an exchange where no log takes lines.
pub(super) fn event(exchange: &Exchange<'_>) {
    let Exchange { id, method, route, endpoint, peer, caller, model, status, first_byte, first_token, total, .. } =
        exchange;
    let Exchange { waiting_for, usage, tokens_per_second, receipt, error, ending, secrets, .. } = exchange;
    let route = shown(route, secrets);
    tracing::info!(
        target: "farllama",
        id,
        endpoint,
        peer = peer.map(tracing::field::display),
        caller,
        model = model.map(|model| shown(model, secrets)).as_deref(),
        status = status.map(|status| status.as_u16()),
        first_byte_ms = first_byte.map(ms),
        first_token_ms = first_token.map(ms),
        total_ms = ms(*total),
        input_tokens = usage.map(|usage| usage.input),
        output_tokens = usage.map(|usage| usage.output),
        tokens_per_second,
        ended = ending.as_str(),
        waiting_for,
        receipt = (!receipt.is_empty()).then(|| receipt.to_string()),
        hint = receipt.hint(),
        error = error.map(|error| shown(&error.to_string(), secrets).into_owned()),
        "{method} {route}",
    );
}

/// Logs one exchange that is still running.
pub(crate) fn running(facts: &Facts, now: Instant) {
    let Facts { id, method, route, endpoint: _, peer, started, recorder } = facts;
    let notes = recorder.notes();
    tracing::info!(
        target: "farllama",
        id = &**id,
        peer = peer.map(tracing::field::display),
        caller = notes.caller.as_deref(),
        model = notes.model.as_ref().map(|model| masked(model, &notes.secrets)).as_deref(),
        running_s = now.saturating_duration_since(*started).as_secs(),
        first_token_ms = notes.first_token.map(|at| ms(at.saturating_duration_since(*started))),
        waiting_for = notes.waiting_for.filter(|_| notes.first_token.is_none()),
        "{method} {route} is still running",
    );
}

fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Whether payloads are printed.
pub(crate) fn verbose() -> bool {
    tracing::enabled!(target: "farllama::payload", tracing::Level::DEBUG)
}

/// The beginning of a payload, without control characters and without `secrets`.
pub(crate) fn snippet(payload: &[u8], secrets: &[HeaderValue]) -> String {
    // Masked before it is cut: half a key is a key's half.
    let text = String::from_utf8_lossy(&payload[..payload.len().min(SNIPPET * 4 + 4096)]);
    let text = masked(&text, secrets);
    let mut out: String = text.chars().take(SNIPPET).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if payload.len() > out.len() {
        out.push_str(&format!("… ({} bytes)", payload.len()));
    }
    out
}

/// Maximum length, in characters, of a name, a path or an error in a log line.
const SHOWN: usize = 200;

/// `text` from a client or a remote as a log line shows it: masked, then cut, without characters that change how the
/// line looks.
pub(crate) fn shown<'a>(text: &'a str, secrets: &[HeaderValue]) -> Cow<'a, str> {
    // Masking looks at no more than can be shown, and a key at its end is masked whole.
    let cut = || text.char_indices().nth(SHOWN + 4096).map_or(text, |(end, _)| &text[..end]);
    let window = if text.len() <= SHOWN + 4096 { text } else { cut() };
    let masked = masked(window, secrets);
    // Most texts are short and have nothing to escape.
    if text.len() <= SHOWN && masked.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return masked;
    }
    let mut chars = masked.chars();
    let mut out = String::new();
    for c in chars.by_ref().take(SHOWN) {
        if changes_the_line(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    if chars.next().is_some() {
        out.push_str(&format!("… ({} bytes)", text.len()));
    }
    Cow::Owned(out)
}

/// Controls, line and paragraph separators, and marks that reverse the direction of text.
fn changes_the_line(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_is_masked_cut_and_made_harmless() {
        let secrets = [HeaderValue::from_static("Bearer fl-secret-key")];
        assert_eq!(shown("/v1/models/fl-secret-key", &secrets), "/v1/models/***");
        assert_eq!(shown("qwen3:8b", &[]), "qwen3:8b");
        assert_eq!(shown("a\u{202e}b\u{2028}c\n", &[]), "a\\u{202e}b\\u{2028}c\\u{a}");
        let long = "é".repeat(20_000_000);
        let long = shown(&long, &[]);
        assert!(
            long.starts_with(&"é".repeat(SHOWN)) && long.ends_with("… (40000000 bytes)") && long.len() < 500,
            "{long}"
        );
        // The key begins within what is shown, and ends beyond it.
        let cut = format!("{}fl-secret-key", "x".repeat(SHOWN - 5));
        let cut = shown(&cut, &secrets);
        assert!(cut.ends_with("x***"), "{cut}");
    }

    #[test]
    fn a_key_in_a_payload_is_masked_and_the_rest_is_cut() {
        let payload = format!("{{\"key\":\"sk-secret\",\"a\":\"{}\"}}", "x".repeat(5000));
        let reported = snippet(payload.as_bytes(), &[HeaderValue::from_static("Bearer sk-secret")]);
        assert!(reported.starts_with("{\"key\":\"***\"") && reported.ends_with("bytes)"), "{reported}");
    }
}
