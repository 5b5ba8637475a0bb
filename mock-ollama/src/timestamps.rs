//! Times as Go writes them: RFC 3339 in UTC, up to nine digits of a second, trailing zeros trimmed.

use jiff::Timestamp;

/// The present.
pub(crate) fn now() -> String {
    Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_trimmed_as_go_does() {
        let text = |nanoseconds| Timestamp::new(1_795_351_060, nanoseconds).unwrap().to_string();
        assert_eq!(text(520_000_000), "2026-11-22T12:37:40.52Z");
        assert_eq!(text(0), "2026-11-22T12:37:40Z");
        assert_eq!(text(1), "2026-11-22T12:37:40.000000001Z");
    }
}
