//! The trace that an exchange belongs to (W3C Trace Context). Pure.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Maximum size of what vendors say about a trace, as the specification has it.
const MAX_STATE: usize = 512;

/// The flag that the caller records its spans.
const SAMPLED: u8 = 1;

/// A caller's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) sampled: bool,
    pub(super) state: String,
}

impl Parent {
    /// Reads the headers of a request. A `traceparent` that is invalid counts as none, and a request that has several
    /// has none.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(&TRACEPARENT).iter();
        let (Some(one), None) = (given.next(), given.next()) else { return None };
        let (trace_id, span_id, flags) = parse(one.as_bytes())?;
        let states: Vec<&str> =
            headers.get_all(&TRACESTATE).iter().filter_map(|value| value.to_str().ok()).map(str::trim).collect();
        let state = states.join(",");
        let state = if state.len() <= MAX_STATE { state } else { String::new() };
        Some(Self { trace_id, span_id, sampled: flags & SAMPLED != 0, state })
    }
}

/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`. A later version may have more behind it.
fn parse(text: &[u8]) -> Option<([u8; 16], [u8; 8], u8)> {
    let (head, rest) = text.split_at_checked(55)?;
    let [version] = hex(&head[..2])?;
    let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    let whole = rest.is_empty() || version > 0 && rest[0] == b'-';
    if version == 0xff || !dashes || !whole {
        return None;
    }
    let (trace_id, span_id, [flags]) = (hex(&head[3..35])?, hex(&head[36..52])?, hex(&head[53..55])?);
    (trace_id != [0; 16] && span_id != [0; 8]).then_some((trace_id, span_id, flags))
}

/// Lowercase digits only, as the specification wants.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (digits.len() == 2 * N).then_some(bytes)
}

/// The header that names a span as the parent of what the remote does.
pub(super) fn header(trace_id: [u8; 16], span_id: [u8; 8], sampled: bool) -> HeaderValue {
    let (trace, span) = (u128::from_be_bytes(trace_id), u64::from_be_bytes(span_id));
    let text = format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(sampled));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_str(value).unwrap());
        }
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        Parent::of(&headers)
    }

    #[test]
    fn a_parent_is_read_and_written_as_it_was() {
        let parent = of(&[GIVEN]).unwrap();
        assert_eq!(header(parent.trace_id, parent.span_id, parent.sampled), GIVEN);
        assert_eq!(parent.state, "a=1,b=2");
        assert!(!of(&[&GIVEN.replace("-01", "-00")]).unwrap().sampled);
        assert!(of(&["01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-more"]).unwrap().sampled);
    }

    #[test]
    fn what_is_invalid_counts_as_none() {
        for wrong in [
            "",
            "00",
            &GIVEN[..54],
            &format!("{GIVEN}0"),
            &format!("{GIVEN}-more"),
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replace('-', "_"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
        assert_eq!(of(&[GIVEN, GIVEN]), None, "several");
    }
}
