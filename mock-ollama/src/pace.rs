//! The time that a model's runner takes, and two traps of llama-server that only time shows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Method;

use crate::{server::request::Asked, tokens};

/// A prompt of so many tokens is long.
const LONG: usize = 1000;
/// So many long prompts fill the slots.
const SLOTS: usize = 16;

/// How long the runner takes. Without it, everything is answered at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Tokens of prompts that are read in a second, one prompt after the other. A prompt that has begun is read to its
    /// end, although its client has left (measured with Ollama 0.33.0-rc2 on an H200: 3,300 tokens, about 3 s).
    pub prompt_speed: u32,
    /// How long a short request waits after 16 long prompts, while llama-server copies their idle slots to memory
    /// (`--cache-ram`; measured with Ollama 0.33.0-rc2 and 32 slots: 4.9 s). Zero: it does not copy them, as with
    /// `LLAMA_ARG_CACHE_RAM=0`.
    pub cache_stall: Duration,
}

/// A runner at work.
#[derive(Clone, Debug)]
pub(crate) struct Runner {
    pace: Pace,
    /// Held while a prompt is read.
    reading: Arc<tokio::sync::Mutex<()>>,
    /// Long prompts since the last short one.
    long: Arc<Mutex<usize>>,
}

impl Runner {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, reading: Arc::default(), long: Arc::default() }
    }

    /// Waits until the prompt of a request is read. If the caller leaves, the runner goes on.
    pub(crate) async fn read(&self, asked: &Asked) {
        let is_prompt = asked.method == Method::POST && matches!(asked.path.as_str(), "/api/chat" | "/api/generate");
        if !is_prompt {
            return;
        }
        let tokens = tokens::count(&String::from_utf8_lossy(&asked.body));
        let stall = self.stall(tokens);
        let reading = Arc::clone(&self.reading).lock_owned().await;
        let time = Duration::from_secs(1) * u32::try_from(tokens).unwrap_or(u32::MAX) / self.pace.prompt_speed.max(1);
        let work = tokio::spawn(async move {
            tokio::time::sleep(time + stall).await;
            drop(reading);
        });
        // It ends in any case; nothing cancels it.
        let _ = work.await;
    }

    /// How long the copy of idle slots takes that this prompt waits for.
    fn stall(&self, tokens: usize) -> Duration {
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens >= LONG {
            *long += 1;
            return Duration::ZERO;
        }
        if std::mem::take(&mut *long) >= SLOTS { self.pace.cache_stall } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_prompt_after_many_long_ones_waits() {
        let runner = Runner::new(Pace { prompt_speed: 1000, cache_stall: Duration::from_secs(5) });
        assert_eq!(runner.stall(10), Duration::ZERO);
        for _ in 0..SLOTS {
            assert_eq!(runner.stall(LONG), Duration::ZERO);
        }
        assert_eq!(runner.stall(10), Duration::from_secs(5));
        assert_eq!(runner.stall(10), Duration::ZERO, "copied once");
    }
}
