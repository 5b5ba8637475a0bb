//! How many requests a key may make in any window of time: a true sliding window, as a log of instants. `now` is an argument; nothing here
//! has a clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The instants at which one key's requests were admitted, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Log(VecDeque<Instant>);

/// What a key may do in any window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) requests: usize,
    pub(crate) window: Duration,
}

/// Where a key stands once a request of its was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Standing {
    pub(crate) admitted: bool,
    /// How many requests are left now.
    pub(crate) remaining: usize,
    /// How long until one more is admitted; zero while some are left.
    pub(crate) next: Duration,
    /// How long until all are left again.
    pub(crate) reset: Duration,
}

impl Standing {
    /// `next` in whole seconds, never too few: sent then, a request is admitted unless another took its place.
    pub(crate) fn retry_after(&self) -> u64 {
        (self.next.as_secs() + u64::from(self.next.subsec_nanos() > 0)).max(1)
    }
}

impl Log {
    /// Judges a request that comes `now`, which is never before an earlier one's. Only what is admitted counts.
    pub(crate) fn ask(&mut self, now: Instant, limit: Limit) -> Standing {
        let before = self.look(now, limit);
        if before.remaining == 0 {
            return before;
        }
        self.0.push_back(now);
        Standing { admitted: true, ..self.look(now, limit) }
    }

    /// Where the key stands `now`, without a request.
    pub(crate) fn look(&mut self, now: Instant, limit: Limit) -> Standing {
        while self.0.front().is_some_and(|oldest| now.duration_since(*oldest) >= limit.window) {
            self.0.pop_front();
        }
        let remaining = limit.requests.saturating_sub(self.0.len());
        // With a limit that was lowered meanwhile, more must leave than the oldest.
        let leaves = |at: usize| self.0.get(at).map_or(Duration::ZERO, |at| limit.window - now.duration_since(*at));
        let next = if remaining > 0 { Duration::ZERO } else { leaves(self.0.len().saturating_sub(limit.requests)) };
        Standing { admitted: false, remaining, next, reset: leaves(self.0.len().saturating_sub(1)) }
    }

    /// Takes back a request that was admitted at `then` and came to nothing here.
    pub(crate) fn take_back(&mut self, then: Instant) {
        if let Some(at) = self.0.iter().rposition(|at| *at == then) {
            self.0.remove(at);
        }
    }
}

/// A duration as OpenAI's `x-ratelimit-reset-…` headers write it: `6m0s`, `1.25s`, `20ms`.
pub(crate) fn written(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let (minutes, ms_left) = (ms / 60_000, ms % 60_000);
    let seconds = format!("{}.{:03}", ms_left / 1000, ms_left % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (minutes, ms) {
        (0, 0..1000) => format!("{ms}ms"),
        (0, _) => format!("{seconds}s"),
        (1..60, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    proptest! {
        #[test]
        fn no_window_ever_admits_more_than_the_limit(steps in vec(0u32..40, 1..300), requests in 1usize..8, window in 1u32..100) {
            let limit = Limit { requests, window: window * MS };
            let (mut now, mut log, mut admitted) = (Instant::now(), Log::default(), Vec::new());
            for step in steps {
                now += step * MS;
                if log.ask(now, limit).admitted {
                    admitted.push(now);
                }
            }
            for (at, end) in admitted.iter().enumerate() {
                let within = admitted[..=at].iter().filter(|then| end.duration_since(**then) < limit.window).count();
                prop_assert!(within <= requests, "{within} of {requests}");
            }
        }

        #[test]
        fn a_refusal_says_when_the_next_is_admitted_and_not_a_moment_too_late(steps in vec(0u32..40, 1..100), requests in 1usize..8, window in 1u32..100) {
            let limit = Limit { requests, window: window * MS };
            let (mut now, mut log) = (Instant::now(), Log::default());
            for step in steps {
                now += step * MS;
                let standing = log.ask(now, limit);
                prop_assert_eq!(standing.remaining > 0, standing.next.is_zero());
                if !standing.admitted {
                    prop_assert!(!log.ask(now + standing.next - Duration::from_nanos(1), limit).admitted);
                    prop_assert!(Duration::from_secs(standing.retry_after()) >= standing.next);
                    now += standing.next;
                    prop_assert!(log.ask(now, limit).admitted);
                }
            }
        }

        #[test]
        fn what_is_refused_costs_nothing(refused in 0usize..50) {
            let limit = Limit { requests: 1, window: 100 * MS };
            let (start, mut log) = (Instant::now(), Log::default());
            prop_assert!(log.look(start, limit).remaining == 1);
            prop_assert!(log.ask(start, limit).admitted);
            for _ in 0..refused {
                prop_assert!(!log.ask(start + 99 * MS, limit).admitted);
            }
            prop_assert!(log.ask(start + 100 * MS, limit).admitted);
        }
    }

    #[test]
    fn what_is_taken_back_leaves_its_place() {
        let limit = Limit { requests: 1, window: 100 * MS };
        let (now, mut log) = (Instant::now(), Log::default());
        assert!(log.ask(now, limit).admitted);
        log.take_back(now);
        assert!(log.ask(now, limit).admitted);
    }

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (ms, text) in [
            (0, "0ms"),
            (20, "20ms"),
            (1000, "1s"),
            (8640, "8.64s"),
            (360_000, "6m0s"),
            (61_500, "1m1.5s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(written(ms * MS), text);
        }
    }
}
