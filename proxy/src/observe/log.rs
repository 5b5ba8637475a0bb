//! The log line of an exchange, and payload snippets for `--verbose`.

use http::HeaderValue;

use crate::{observe::exchange::Exchange, redact::masked};

/// Most bytes of a payload that are printed.
const SNIPPET: usize = 2048;

/// Prints the line of one exchange.
pub(crate) fn line(exchange: &Exchange) {
    let Exchange {
        id,
        method,
        route,
        endpoint,
        caller,
        model,
        status,
        first_byte,
        total,
        usage,
        receipt,
        error,
        ending,
    } = exchange;
    let ms = |duration: &std::time::Duration| duration.as_micros() as f64 / 1000.0;
    tracing::info!(
        target: "farllama",
        id,
        endpoint,
        caller = caller.as_deref(),
        model = model.as_deref(),
        status = status.as_u16(),
        first_byte_ms = ms(first_byte),
        total_ms = ms(total),
        input_tokens = usage.map(|usage| usage.input),
        output_tokens = usage.map(|usage| usage.output),
        ended = ending.as_str(),
        receipt = (!receipt.is_empty()).then(|| receipt.to_string()),
        error = error.as_deref(),
        "{method} {route}",
    );
}

/// Whether payloads are printed.
pub(crate) fn verbose() -> bool {
    tracing::enabled!(target: "farllama::payload", tracing::Level::DEBUG)
}

/// The beginning of a payload, without control characters and without `secrets`.
pub(crate) fn snippet(payload: &[u8], secrets: &[HeaderValue]) -> String {
    // Masked before it is cut: half a key is a key's half.
    let text = String::from_utf8_lossy(&payload[..payload.len().min(SNIPPET * 2)]);
    let text = masked(&text, secrets);
    let mut out: String = text.chars().take(SNIPPET).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if payload.len() > out.len() {
        out.push_str(&format!("… ({} bytes)", payload.len()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_a_payload_is_masked_and_the_rest_is_cut() {
        let payload = format!("{{\"key\":\"sk-secret\",\"a\":\"{}\"}}", "x".repeat(5000));
        let told = snippet(payload.as_bytes(), &[HeaderValue::from_static("Bearer sk-secret")]);
        assert!(told.starts_with("{\"key\":\"***\"") && told.ends_with("bytes)"), "{told}");
    }
}
