//! The log line of an exchange, and payload snippets for `--verbose`.

use aho_corasick::{AhoCorasick, MatchKind};
use http::HeaderValue;

use crate::observe::exchange::Exchange;

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

/// What is shorter is no secret: many tools send `x` or `ollama` because they must send something.
const SHORTEST_KEY: usize = 8;

/// Up to so many keys are searched for one after the other.
const FEW_KEYS: usize = 8;

const MASK: &str = "***";

/// `text` without the keys that `secrets`, values of headers, hold.
pub(crate) fn masked(text: &str, secrets: &[HeaderValue]) -> String {
    let apart = |c: char| c.is_ascii_whitespace() || c == ',';
    let keys = secrets
        .iter()
        .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
        .flat_map(|value| value.split(apart));
    let keys: Vec<&str> = keys.filter(|key| key.len() >= SHORTEST_KEY).collect();
    // One search for each of a few keys is cheaper; a header can hold thousands of words, though, and a text megabytes.
    if keys.len() <= FEW_KEYS {
        return keys.into_iter().fold(text.to_owned(), |text, key| text.replace(key, MASK));
    }
    let masks = vec![MASK; keys.len()];
    let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&keys);
    search.map_or_else(|_| MASK.to_owned(), |search| search.replace_all(text, &masks))
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

    #[test]
    fn every_key_of_a_header_is_masked() {
        let secrets = [
            HeaderValue::from_static("Bearer  sk-secret-1, Bearer sk-secret-2"),
            HeaderValue::from_static("sk-secret-3"),
        ];
        assert_eq!(masked("sk-secret-1 sk-secret-2 sk-secret-3 Bearer", &secrets), "*** *** *** Bearer");
    }

    #[test]
    fn any_number_of_keys_is_masked() {
        let keys: Vec<String> = (0..5000).map(|n| format!("sk-{n:08}")).collect();
        let header = HeaderValue::try_from(keys.join(",")).unwrap();
        // Fast: a search for each of the keys would take a minute.
        let text = keys.join(" ").repeat(20);
        assert!(!masked(&text, &[header]).contains("sk-"));
    }

    #[test]
    fn a_word_that_tools_send_for_want_of_a_key_is_no_key() {
        assert_eq!(masked("registry.ollama.ai", &[HeaderValue::from_static("Bearer ollama")]), "registry.ollama.ai");
    }
}
