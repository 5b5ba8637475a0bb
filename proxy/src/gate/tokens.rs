//! How many tokens a key may use in any window of time: a sliding window over what requests used. A request reserves an
//! estimate while it runs, because its real count is known only at its end. `now` is an argument; nothing here has a
//! clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// A window holds at most about this many entries: what is used within a fraction of it is counted together, at the
/// latest instant.
const ENTRIES: u32 = 600;

/// The tokens of one key in one window.
#[derive(Debug, Default)]
pub(crate) struct TokenLog {
    /// The oldest first.
    used: VecDeque<Entry>,
    sum: u64,
    /// Estimates of the requests that run.
    reserved: u64,
}

#[derive(Debug)]
struct Entry {
    first: Instant,
    last: Instant,
    tokens: u64,
}

/// What a key may use in any window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenLimit {
    pub(crate) tokens: u64,
    pub(crate) window: Duration,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenStanding {
    pub(crate) admitted: bool,
    /// Tokens in this window, reserved ones included.
    pub(crate) used: u64,
    pub(crate) remaining: u64,
    /// How long until the tokens that were asked for are free; zero while they are.
    pub(crate) next: Duration,
    /// How long until all are free again.
    pub(crate) reset: Duration,
}

impl TokenLog {
    /// Where the key stands `now`, if a request needs `tokens` more.
    pub(crate) fn look(&mut self, now: Instant, limit: TokenLimit, tokens: u64) -> TokenStanding {
        let leaves = |entry: &Entry| (entry.last + limit.window).saturating_duration_since(now);
        while let Some(oldest) = self.used.front().filter(|oldest| leaves(oldest).is_zero()) {
            self.sum -= oldest.tokens;
            self.used.pop_front();
        }
        let used = self.sum.saturating_add(self.reserved);
        // A request that needs more than a whole window is admitted in an empty one.
        let needed = tokens.min(limit.tokens);
        let mut excess = used.saturating_add(needed).saturating_sub(limit.tokens);
        let admitted = excess == 0;
        let mut next = Duration::ZERO;
        for entry in &self.used {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(entry.tokens);
            next = leaves(entry);
        }
        // The rest is reserved, and free when the requests that run have used less.
        if excess > 0 {
            next = next.max(Duration::from_secs(1)).min(limit.window);
        }
        let reset = match (self.reserved, self.used.back()) {
            (0, None) => Duration::ZERO,
            (0, Some(last)) => leaves(last),
            _ => limit.window,
        };
        TokenStanding { admitted, used, remaining: limit.tokens.saturating_sub(used), next, reset }
    }

    pub(crate) fn reserve(&mut self, tokens: u64) {
        self.reserved = self.reserved.saturating_add(tokens);
    }

    pub(crate) fn release(&mut self, tokens: u64) {
        self.reserved = self.reserved.saturating_sub(tokens);
    }

    /// Counts what a request used; `now` is never before an earlier one's.
    pub(crate) fn charge(&mut self, now: Instant, window: Duration, tokens: u64) {
        if tokens == 0 {
            return;
        }
        self.sum = self.sum.saturating_add(tokens);
        match self.used.back_mut() {
            Some(entry) if now.saturating_duration_since(entry.first) < window / ENTRIES => {
                entry.last = now;
                entry.tokens = entry.tokens.saturating_add(tokens);
            }
            _ => self.used.push_back(Entry { first: now, last: now, tokens }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    proptest! {
        // Requests that use what they estimated never use more than the limit in a window.
        #[test]
        fn in_no_window_more_is_used_than_the_limit(
            steps in vec((0u32..40, 0u64..20), 1..300), tokens in 1u64..50, window in 1u32..100,
        ) {
            let limit = TokenLimit { tokens, window: window * MS };
            let (mut now, mut log, mut used) = (Instant::now(), TokenLog::default(), Vec::new());
            for (step, wanted) in steps {
                now += step * MS;
                let wanted = wanted.min(tokens);
                let standing = log.look(now, limit, wanted);
                if standing.admitted {
                    log.reserve(wanted);
                    log.release(wanted);
                    log.charge(now, limit.window, wanted);
                    used.push((now, wanted));
                } else {
                    prop_assert!(!standing.next.is_zero());
                    prop_assert!(log.look(now + standing.next, limit, wanted).admitted, "no longer than needed");
                    // Looking has let entries go that have not left yet at `now`.
                    now += standing.next;
                }
            }
            for (at, (end, _)) in used.iter().enumerate() {
                let within = used[..=at].iter().filter(|(then, _)| end.duration_since(*then) < limit.window);
                let sum: u64 = within.map(|(_, tokens)| tokens).sum();
                prop_assert!(sum <= tokens, "{sum} of {tokens}");
            }
        }

        #[test]
        fn a_window_holds_few_entries(requests in 1usize..3000) {
            let limit = TokenLimit { tokens: u64::MAX, window: Duration::from_secs(60) };
            let (start, mut log) = (Instant::now(), TokenLog::default());
            for n in 0..requests {
                let now = start + u32::try_from(n).unwrap() * 20 * MS;
                log.look(now, limit, 1);
                log.charge(now, limit.window, 1);
            }
            prop_assert!(log.used.len() <= usize::try_from(ENTRIES).unwrap() + 1);
            prop_assert_eq!(log.sum, u64::try_from(requests.min(3000)).unwrap());
        }
    }

    #[test]
    fn a_reservation_counts_until_it_is_settled() {
        let limit = TokenLimit { tokens: 100, window: 60_000 * MS };
        let (now, mut log) = (Instant::now(), TokenLog::default());
        log.reserve(80);
        let standing = log.look(now, limit, 30);
        assert_eq!((standing.admitted, standing.used, standing.remaining), (false, 80, 20));
        assert_eq!(standing.next, Duration::from_secs(1), "no entry says when");
        log.release(80);
        log.charge(now, limit.window, 10);
        assert!(log.look(now, limit, 90).admitted && !log.look(now, limit, 91).admitted);
        assert_eq!(log.look(now + 20_000 * MS, limit, 91).next, 40_000 * MS);
        assert_eq!(log.look(now + 60_000 * MS, limit, 91).reset, Duration::ZERO);
    }

    #[test]
    fn a_request_larger_than_the_limit_is_admitted_in_an_empty_window_alone() {
        let limit = TokenLimit { tokens: 10, window: 1000 * MS };
        let (now, mut log) = (Instant::now(), TokenLog::default());
        assert!(log.look(now, limit, 5000).admitted);
        log.charge(now, limit.window, 5000);
        let standing = log.look(now, limit, 1);
        assert_eq!((standing.admitted, standing.remaining, standing.next), (false, 0, 1000 * MS));
    }
}
