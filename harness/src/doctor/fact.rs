//! What a probe finds out: a fact with its measure, and what to change where it is bad.

use serde::Serialize;
use serde_json::Value;

use crate::report::Exchange;

/// How to find out what was not tried.
pub(super) const MORE_TIME: &str = "--within 10m gives the doctor more time, --tries 2 needs less";

/// How good a fact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Good,
    /// It works with limits, or costs something that can be avoided.
    Limited,
    /// It does not work.
    Bad,
    /// It could not be found out; the text says why.
    Unknown,
    /// A fact that is neither good nor bad.
    Info,
}

/// How often something succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// Successes.
    pub right: usize,
    /// Tries.
    pub tries: usize,
    /// The lower end of the 95 % Wilson interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

impl Rate {
    /// Computes the interval. `tries` must not be 0.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "tries are few")]
    pub fn new(right: usize, tries: usize) -> Self {
        let n = tries.max(1) as f64;
        let share = right as f64 / n;
        let square = Z * Z;
        let center = (share + square / (2.0 * n)) / (1.0 + square / n);
        let half = Z / (1.0 + square / n) * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
        // The ends are exact where all or none succeeded.
        let low = if right == 0 { 0.0 } else { (center - half).max(0.0) };
        let high = if right == tries { 1.0 } else { (center + half).min(1.0) };
        Self { right, tries, low, high }
    }

    /// The share of successes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "tries are few")]
    pub fn share(&self) -> f64 {
        self.right as f64 / self.tries.max(1) as f64
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { right, tries, low, high } = self;
        write!(f, "{right} of {tries} ({:.0}–{:.0} %)", low * 100.0, high * 100.0)
    }
}

/// A request that can be made again: a failed probe as a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replay {
    /// Its method.
    pub method: String,
    /// Its path from the root of the server.
    pub path: String,
    /// Its JSON body.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub body: Value,
    /// What the model should have answered: JSONPath → matcher.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub expect: Value,
}

/// What a probe found out.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// Its name, as rules refer to it: `tools.one`.
    pub id: String,
    /// What was looked at, for people.
    pub title: String,
    /// How good it is.
    pub state: State,
    /// The measure, as rules compare it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub value: Value,
    /// What was found, for people.
    pub text: String,
    /// How often it succeeded, if it was tried several times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// The exchange that shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exchange: Option<Exchange>,
    /// The request of that exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

impl Fact {
    /// A fact without a measure.
    #[must_use]
    pub fn new(id: &str, title: &str, state: State, text: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            state,
            value: Value::Null,
            text: text.into(),
            rate: None,
            cure: None,
            exchange: None,
            replay: None,
        }
    }

    /// A fact that could not be found out.
    #[must_use]
    pub fn unknown(id: &str, title: &str, why: impl Into<String>) -> Self {
        Self::new(id, title, State::Unknown, why)
    }

    /// Adds the measure.
    #[must_use]
    pub fn with(self, value: impl Into<Value>) -> Self {
        Self { value: value.into(), ..self }
    }

    /// Adds what to change.
    #[must_use]
    pub fn cure(self, cure: impl Into<String>) -> Self {
        Self { cure: Some(cure.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_wilson() {
        // Values of the formula as published tables have them.
        for (right, tries, low, high) in
            [(0, 5, 0.0, 0.434), (5, 5, 0.566, 1.0), (8, 10, 0.490, 0.943), (1, 2, 0.095, 0.905)]
        {
            let rate = Rate::new(right, tries);
            assert!((rate.low - low).abs() < 0.001 && (rate.high - high).abs() < 0.001, "{rate:?}");
        }
        assert_eq!(Rate::new(4, 5).to_string(), "4 of 5 (38–96 %)");
    }
}
