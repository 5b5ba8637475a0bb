//! What is expected of the clock. Times are in milliseconds, counted from the request.

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

/// Expectations of time.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    /// Matcher of when the status and the headers came.
    pub head: Option<Spanned<Value>>,
    /// Matcher of when the first byte of the body came.
    pub first: Option<Spanned<Value>>,
    /// Matcher of when the first event or line with words, thoughts or a call of the model came.
    pub first_token: Option<Spanned<Value>>,
    /// Matcher of the median of the gaps between pieces.
    pub gap_p50: Option<Spanned<Value>>,
    /// Matcher of the gap that 95 of 100 gaps are not longer than.
    pub gap_p95: Option<Spanned<Value>>,
    /// Matcher of when the answer had ended.
    pub total: Option<Spanned<Value>>,
    /// Whether the first piece came before the upstream wrote its last one: proof that the stream is passed on as it
    /// comes.
    pub live: Option<Spanned<bool>>,
}

impl Time {
    /// Name and matcher of each expectation of a time.
    pub fn matchers(&self) -> impl Iterator<Item = (&'static str, &Spanned<Value>)> {
        [
            ("head", &self.head),
            ("first", &self.first),
            ("first_token", &self.first_token),
            ("gap_p50", &self.gap_p50),
            ("gap_p95", &self.gap_p95),
            ("total", &self.total),
        ]
        .into_iter()
        .filter_map(|(name, matcher)| Some((name, matcher.as_ref()?)))
    }

    /// Whether no time is asked. `live` is asked of the upstream too.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matchers().next().is_none()
    }
}
