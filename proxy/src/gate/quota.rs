//! How many requests a key may make in any window of time: a true sliding window, as a log of the instants at which
//! they began. One that still waits for its turn holds its place in the window until it begins. `now` is an argument;
//! nothing here has a clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// One key's requests.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// When they began, the oldest first.
    begun: VecDeque<Instant>,
    /// Admitted, but not begun.
    waiting: usize,
}

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

/// A wait in whole seconds, never too few: a request that is sent then is admitted unless another took its place.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl Log {
    /// Judges a request that comes `now`, which is never before an earlier one's. What is admitted holds a place until
    /// it begins or is taken back; what is refused costs nothing.
    pub(crate) fn ask(&mut self, now: Instant, limit: Limit) -> Standing {
        let before = self.look(now, limit);
        if before.remaining == 0 {
            return before;
        }
        self.waiting += 1;
        Standing { admitted: true, ..self.look(now, limit) }
    }

    /// One that was admitted begins `now`.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.waiting = self.waiting.saturating_sub(1);
        self.begun.push_back(now);
    }

    /// One that was admitted will not begin.
    pub(crate) fn take_back(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Where the key stands `now`, without a request.
    pub(crate) fn look(&mut self, now: Instant, limit: Limit) -> Standing {
        while self.begun.front().is_some_and(|oldest| now.duration_since(*oldest) >= limit.window) {
            self.begun.pop_front();
        }
        let used = self.begun.len() + self.waiting;
        let remaining = limit.requests.saturating_sub(used);
        // Those that wait leave last, a window after they begin, which is now at best.
        let leaves = |at: usize| match self.begun.get(at) {
            Some(at) => limit.window - now.duration_since(*at),
            None if at < used => limit.window,
            None => Duration::ZERO,
        };
        // With a limit that was lowered meanwhile, more must leave than the oldest.
        let next = if remaining > 0 { Duration::ZERO } else { leaves(used.saturating_sub(limit.requests)) };
        Standing { admitted: false, remaining, next, reset: leaves(used.saturating_sub(1)) }
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

    /// A request that need not wait.
    fn at_once(log: &mut Log, now: Instant, limit: Limit) -> Standing {
        let standing = log.ask(now, limit);
        if standing.admitted {
            log.begin(now);
        }
        standing
    }

    proptest! {
        // Each request comes after a while, waits so long for its turn, and then begins or leaves.
        #[test]
        fn in_no_window_more_begin_than_the_limit_however_long_they_wait(
            comes in vec((0u32..40, prop_oneof![Just(0u32), 0u32..300], 0u32..5), 1..300),
            requests in 1usize..8,
            window in 1u32..100,
        ) {
            let limit = Limit { requests, window: window * MS };
            let (mut now, mut log) = (Instant::now(), Log::default());
            let (mut waiting, mut begun): (Vec<(Instant, bool)>, Vec<Instant>) = (Vec::new(), Vec::new());
            for (step, waits, fate) in comes {
                now += step * MS;
                waiting.sort();
                let due = waiting.iter().take_while(|(at, _)| *at <= now).count();
                for (at, begins) in waiting.drain(..due) {
                    if begins {
                        log.begin(at);
                        begun.push(at);
                    } else {
                        log.take_back();
                    }
                }
                if log.ask(now, limit).admitted {
                    waiting.push((now + waits * MS, fate > 0));
                }
            }
            for (at, end) in begun.iter().enumerate() {
                let within = begun[..=at].iter().filter(|then| end.duration_since(**then) < limit.window).count();
                prop_assert!(within <= requests, "{within} of {requests}");
            }
        }

        #[test]
        fn a_refusal_says_when_the_next_is_admitted_and_not_a_moment_too_late(steps in vec(0u32..40, 1..100), requests in 1usize..8, window in 1u32..100) {
            let limit = Limit { requests, window: window * MS };
            let (mut now, mut log) = (Instant::now(), Log::default());
            for step in steps {
                now += step * MS;
                let standing = at_once(&mut log, now, limit);
                prop_assert_eq!(standing.remaining > 0, standing.next.is_zero());
                if !standing.admitted {
                    prop_assert!(!log.ask(now + standing.next - Duration::from_nanos(1), limit).admitted);
                    prop_assert!(Duration::from_secs(whole_seconds(standing.next)) >= standing.next);
                    now += standing.next;
                    prop_assert!(at_once(&mut log, now, limit).admitted);
                }
            }
        }

        #[test]
        fn what_is_refused_costs_nothing(refused in 0usize..50) {
            let limit = Limit { requests: 1, window: 100 * MS };
            let (start, mut log) = (Instant::now(), Log::default());
            prop_assert!(log.look(start, limit).remaining == 1);
            prop_assert!(at_once(&mut log, start, limit).admitted);
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
        assert!(!log.ask(now, limit).admitted);
        log.take_back();
        assert!(log.ask(now, limit).admitted);
    }

    #[test]
    fn what_waits_holds_its_place_and_leaves_a_window_after_it_began() {
        let limit = Limit { requests: 1, window: 100 * MS };
        let (now, mut log) = (Instant::now(), Log::default());
        assert!(log.ask(now, limit).admitted);
        let later = now + 500 * MS;
        assert_eq!(log.ask(later, limit), Standing { admitted: false, remaining: 0, next: 100 * MS, reset: 100 * MS });
        log.begin(later);
        assert_eq!(log.look(later + 60 * MS, limit).next, 40 * MS);
        assert!(log.ask(later + 100 * MS, limit).admitted);
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
