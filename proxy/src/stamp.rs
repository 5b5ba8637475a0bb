//! Time and identity of a response, made once per request by the impure side and handed to pure code.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "log lines, rows and captures show when they happened")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Unix milliseconds, now.
pub(crate) fn unix_ms() -> u64 {
    ms_of(now())
}

/// Unix milliseconds of `time`.
pub(crate) fn ms_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Unix nanoseconds.
#[expect(clippy::disallowed_methods, reason = "spans show when they began and ended")]
pub(crate) fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The time as Ollama writes it, with nanoseconds: `2026-08-21T20:15:01.123456789Z`.
#[expect(clippy::disallowed_methods, reason = "lines of a stream say when they were made")]
pub(crate) fn created_at() -> String {
    jiff::Timestamp::try_from(std::time::SystemTime::now()).unwrap_or_default().to_string()
}

/// Time and identity, handed to pure code.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// The id of the whole answer.
    pub(crate) id: String,
    /// 32 hex digits to make further ids of.
    pub(crate) random: String,
    /// Unix seconds.
    pub(crate) created: u64,
}
