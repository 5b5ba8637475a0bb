//! Seeded misbehavior on the wire: responses are cut, reset, stalled, split and delayed at random places, the same ones
//! for the same seed.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error};

use crate::tokens::hash;

/// The longest pause of `slow`, in milliseconds.
const LONGEST_PAUSE: u64 = 30;
/// The most parts into which `split` divides a piece.
const MOST_PARTS: u64 = 4;

/// How often a response misbehaves: probabilities for each piece that is written (a line with its chunk, a whole body,
/// the end of the chunks; the first one includes the head). The byte at which it happens is random too. What happens to
/// a request depends on the seed, the request (method, target, body) and how often the same request came before, so
/// that concurrency does not change a run.
///
/// ```
/// let chaos: mock_ollama::Chaos = "seed=7,cut=0.01,split=0.2".parse().unwrap();
/// assert_eq!(chaos, mock_ollama::Chaos::seeded(7).cut(0.01).split(0.2));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chaos {
    /// Selects the run.
    pub seed: u64,
    /// The piece ends at a random byte, and the connection is closed.
    pub cut: f64,
    /// The piece ends at a random byte, nothing more comes, and the connection stays open.
    pub stall: f64,
    /// The piece ends at a random byte, and the connection is reset.
    pub reset: f64,
    /// The piece is written in parts, divided at random bytes.
    pub split: f64,
    /// The piece is delayed by up to 30 ms.
    pub slow: f64,
}

/// A text that describes no [`Chaos`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoChaos {
    /// Not one of the known names.
    #[error(
        "unknown chaos setting {0:?}: use seed=N and cut, stall, reset, split, slow with a probability, as in seed=7,cut=0.01"
    )]
    Name(String),
    /// A seed that is no whole number.
    #[error("invalid seed {0:?}: expected a whole number, as in seed=7")]
    Seed(String),
    /// A probability out of range.
    #[error("invalid probability {0:?}: expected a number from 0 to 1, as in cut=0.01")]
    Probability(String),
    /// The ways to break off exclude each other.
    #[error("cut, stall and reset exclude each other: their probabilities must not add up to more than 1")]
    Sum,
}

impl Chaos {
    /// A run in which nothing happens yet.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Sets the probability of a cut.
    #[must_use]
    pub fn cut(self, cut: f64) -> Self {
        Self { cut, ..self }
    }

    /// Sets the probability of a stall.
    #[must_use]
    pub fn stall(self, stall: f64) -> Self {
        Self { stall, ..self }
    }

    /// Sets the probability of a reset.
    #[must_use]
    pub fn reset(self, reset: f64) -> Self {
        Self { reset, ..self }
    }

    /// Sets the probability of a split.
    #[must_use]
    pub fn split(self, split: f64) -> Self {
        Self { split, ..self }
    }

    /// Sets the probability of a delay.
    #[must_use]
    pub fn slow(self, slow: f64) -> Self {
        Self { slow, ..self }
    }
}

impl FromStr for Chaos {
    type Err = NoChaos;

    fn from_str(text: &str) -> Result<Self, NoChaos> {
        let mut chaos = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| NoChaos::Name(part.to_owned()))?;
            if name == "seed" {
                chaos.seed = value.parse().map_err(|_| NoChaos::Seed(value.to_owned()))?;
                continue;
            }
            let place = match name {
                "cut" => &mut chaos.cut,
                "stall" => &mut chaos.stall,
                "reset" => &mut chaos.reset,
                "split" => &mut chaos.split,
                "slow" => &mut chaos.slow,
                _ => return Err(NoChaos::Name(name.to_owned())),
            };
            let probability = value.parse().ok().filter(|probability| (0.0..=1.0).contains(probability));
            *place = probability.ok_or_else(|| NoChaos::Probability(value.to_owned()))?;
        }
        if chaos.cut + chaos.stall + chaos.reset > 1.0 {
            return Err(NoChaos::Sum);
        }
        Ok(chaos)
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, cut, stall, reset, split, slow } = self;
        write!(f, "seed={seed},cut={cut},stall={stall},reset={reset},split={split},slow={slow}")
    }
}

impl<'de> Deserialize<'de> for Chaos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Decides what happens to the responses of a mock.
#[derive(Debug, Default)]
pub(crate) struct Fates {
    chaos: Option<Chaos>,
    /// How often each request came, by its hash.
    seen: Mutex<HashMap<u64, u64>>,
}

impl Fates {
    pub(crate) fn new(chaos: Option<Chaos>) -> Self {
        Self { chaos, seen: Mutex::default() }
    }

    /// The dice for the response to one request; none where nothing misbehaves.
    pub(crate) fn dice(&self, method: &str, target: &str, body: &[u8]) -> Option<Dice> {
        let chaos = self.chaos?;
        let request = hash(&[method.as_bytes(), b" ", target.as_bytes(), b"\n", body].concat());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.entry(request).or_default();
        *times += 1;
        let state = hash(&[chaos.seed.to_le_bytes(), request.to_le_bytes(), times.to_le_bytes()].concat());
        Some(Dice { chaos, state })
    }
}

/// A source of chance for one response.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    chaos: Chaos,
    state: u64,
}

/// How a piece ends before its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    Cut,
    Stall,
    Reset,
}

/// What happens to one piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) pause: Duration,
    /// Offsets at which the piece is divided, in order.
    pub(crate) splits: Vec<usize>,
    /// The break, and how many bytes come before it.
    pub(crate) ends: Option<(Break, usize)>,
}

impl Dice {
    /// SplitMix64, which is the same on every machine and in every release.
    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut roll = self.state;
        roll = (roll ^ (roll >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        roll = (roll ^ (roll >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        roll ^ (roll >> 31)
    }

    /// A number below `below`, in proportion to it: a length that differs by a byte from run to run moves a place by a
    /// byte at most.
    fn below(&mut self, below: usize) -> usize {
        let scaled = u128::from(self.roll()) * below as u128;
        usize::try_from(scaled >> 64).unwrap_or_default()
    }

    /// A number from 0 to 1, without 1.
    fn chance(&mut self) -> f64 {
        let bits = u32::try_from(self.roll() >> 32).unwrap_or_default();
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }

    /// What happens to a piece of so many bytes. Rolls are always made in the same number and order, so that one
    /// probability does not change what another one decides.
    pub(crate) fn fate(&mut self, len: usize) -> Fate {
        let Chaos { cut, stall, reset, split, slow, .. } = self.chaos;
        let (breaks, at) = (self.chance(), self.below(len));
        let (splits, parts) = (self.chance() < split, self.roll() % (MOST_PARTS - 1) + 1);
        let (waits, pause) = (self.chance() < slow, self.roll() % LONGEST_PAUSE + 1);
        let ends = match breaks {
            roll if roll < cut => Some(Break::Cut),
            roll if roll < cut + stall => Some(Break::Stall),
            roll if roll < cut + stall + reset => Some(Break::Reset),
            _ => None,
        };
        let mut offsets: Vec<usize> = Vec::new();
        if splits && len > 1 {
            offsets = (0..parts).map(|_| 1 + self.below(len - 1)).collect();
            offsets.sort_unstable();
            offsets.dedup();
        }
        Fate {
            pause: if waits { Duration::from_millis(pause) } else { Duration::ZERO },
            splits: offsets,
            ends: ends.map(|ends| (ends, at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_mistakes_named() {
        let chaos: Chaos = "seed=7, cut=0.01,stall=0.02,reset=0.005,split=0.2,slow=1".parse().unwrap();
        assert_eq!(chaos, Chaos::seeded(7).cut(0.01).stall(0.02).reset(0.005).split(0.2).slow(1.0));
        assert_eq!(chaos.to_string().parse(), Ok(chaos));
        for (wrong, why) in [
            ("cut", NoChaos::Name("cut".to_owned())),
            ("cats=1", NoChaos::Name("cats".to_owned())),
            ("seed=-1", NoChaos::Seed("-1".to_owned())),
            ("slow=2", NoChaos::Probability("2".to_owned())),
            ("slow=NaN", NoChaos::Probability("NaN".to_owned())),
            ("cut=0.6,reset=0.6", NoChaos::Sum),
        ] {
            assert_eq!(wrong.parse::<Chaos>(), Err(why), "{wrong}");
        }
    }

    fn fates(chaos: Chaos, requests: &[&str]) -> Vec<Fate> {
        let fates = Fates::new(Some(chaos));
        let of = |request: &&str| {
            let mut dice = fates.dice("POST", request, b"{}").unwrap();
            (0..20).map(move |_| dice.fate(100)).collect::<Vec<Fate>>()
        };
        requests.iter().flat_map(of).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_run_whatever_comes_between() {
        let chaos = Chaos::seeded(7).cut(0.1).reset(0.1).split(0.5).slow(0.5);
        let run = fates(chaos, &["/a", "/b", "/a"]);
        assert_eq!(run, fates(chaos, &["/a", "/b", "/a"]));
        assert_eq!(run[..20], fates(chaos, &["/b", "/a"])[20..], "another order of different requests");
        assert_ne!(run[..20], run[40..], "the same request again");
        assert_ne!(run, fates(Chaos { seed: 8, ..chaos }, &["/a", "/b", "/a"]));
    }

    #[test]
    fn probabilities_are_kept() {
        let chaos = Chaos::seeded(1).cut(0.1).stall(0.2).reset(0.3).split(0.4).slow(0.5);
        let mut dice = Fates::new(Some(chaos)).dice("GET", "/", b"").unwrap();
        let run: Vec<Fate> = (0..20_000).map(|_| dice.fate(50)).collect();
        let share = |is: &dyn Fn(&Fate) -> bool| run.iter().filter(|fate| is(fate)).count() as f64 / 20_000.0;
        let ends = |wanted| move |fate: &Fate| fate.ends.is_some_and(|(ends, _)| ends == wanted);
        for (wanted, got) in [
            (0.1, share(&ends(Break::Cut))),
            (0.2, share(&ends(Break::Stall))),
            (0.3, share(&ends(Break::Reset))),
            (0.4, share(&|fate| !fate.splits.is_empty())),
            (0.5, share(&|fate| !fate.pause.is_zero())),
        ] {
            assert!((wanted - got).abs() < 0.02, "{wanted} {got}");
        }
        assert!(run.iter().all(|fate| fate.splits.iter().all(|at| (1..50).contains(at))));
        assert!(run.iter().filter_map(|fate| fate.ends).all(|(_, at)| at < 50));
    }

    #[test]
    fn without_chaos_there_are_no_dice() {
        assert!(Fates::new(None).dice("GET", "/", b"").is_none());
    }
}
