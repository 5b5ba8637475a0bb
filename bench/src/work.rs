//! What is asked, what the remote answers, and how a response is checked. The remote writes it and the load generator
//! expects it, so both are here.
//!
//! The model's name says what the remote does: `words-200-1000` answers with 200 words, 1,000 µs apart; `floats-1024`
//! embeds in 1,024 dimensions. Each word is ` wN@T.`: its number, and the time at which it was written, in nanoseconds
//! of the Unix epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::IgnoredAny};

/// The API in which a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub(crate) enum Api {
    /// `/v1`, which farllama translates.
    Openai,
    /// `/api`, which it passes through.
    Native,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A chat of `messages` messages with `bytes` bytes in all, answered with `words` words.
    Chat { streamed: bool, words: usize, pause: Duration, messages: usize, bytes: usize },
    /// A batch of texts.
    Embed { inputs: usize, dimensions: usize },
}

impl Work {
    /// A chat with a prompt of 1 KB.
    pub(crate) const fn chat(streamed: bool, words: usize, pause: Duration) -> Self {
        Self::Chat { streamed, words, pause, messages: 2, bytes: 1024 }
    }

    /// Path and body of the request.
    pub(crate) fn request(self, api: Api) -> (&'static str, Bytes) {
        match self {
            Self::Chat { streamed, words, pause, messages, bytes } => {
                let text = sentence(bytes / messages);
                let roles = ["system", "user", "assistant"];
                let messages: Vec<_> = (0..messages)
                    .map(|n| serde_json::json!({"role": if n + 1 == messages { "user" } else { roles[if n == 0 { 0 } else { 1 + (n + 1) % 2 }] }, "content": text}))
                    .collect();
                let model = format!("words-{words}-{}", pause.as_micros());
                let body = match api {
                    Api::Openai => {
                        serde_json::json!({"model": model, "messages": messages, "stream": streamed, "temperature": 0.7, "max_tokens": 1000})
                    }
                    Api::Native => {
                        serde_json::json!({"model": model, "messages": messages, "stream": streamed, "options": {"temperature": 0.7, "num_predict": 1000}})
                    }
                };
                let path = if api == Api::Openai { "/v1/chat/completions" } else { "/api/chat" };
                (path, body.to_string().into())
            }
            Self::Embed { inputs, dimensions } => {
                let input: Vec<_> = (0..inputs).map(|n| format!("{n}: {}", sentence(100))).collect();
                let model = format!("floats-{dimensions}");
                match api {
                    Api::Openai => {
                        let body = serde_json::json!({"model": model, "input": input, "encoding_format": "float"});
                        ("/v1/embeddings", body.to_string().into())
                    }
                    Api::Native => {
                        ("/api/embed", serde_json::json!({"model": model, "input": input}).to_string().into())
                    }
                }
            }
        }
    }

    /// Checks a whole response.
    ///
    /// # Errors
    /// It differs from what the remote was asked for.
    pub(crate) fn check(self, api: Api, body: &[u8]) -> Result<()> {
        match self {
            Self::Chat { streamed: true, words, .. } => {
                let mut stream = Stream::new(api, words);
                stream.read(body, &mut Vec::new())?;
                stream.end()
            }
            Self::Chat { words, .. } => {
                #[derive(Deserialize)]
                struct Message {
                    content: String,
                }
                #[derive(Deserialize)]
                struct Choice {
                    message: Message,
                }
                #[derive(Deserialize)]
                struct Reply {
                    #[serde(default)]
                    choices: Vec<Choice>,
                    message: Option<Message>,
                }
                let reply: Reply = serde_json::from_slice(body).context("the reply is no chat")?;
                let message = match api {
                    Api::Openai => reply.choices.into_iter().next().map(|choice| choice.message),
                    Api::Native => reply.message,
                };
                let content = message.context("the reply has no message")?.content;
                let mut next = 0;
                each_word(&content, |number, _| {
                    ensure!(number == next, "word {number} where {next} is due");
                    next += 1;
                    Ok(())
                })?;
                ensure!(next == words, "{next} of {words} words");
                Ok(())
            }
            Self::Embed { inputs, dimensions } => {
                #[derive(Deserialize)]
                struct Entry {
                    embedding: Vec<IgnoredAny>,
                }
                #[derive(Deserialize)]
                struct Reply {
                    #[serde(default)]
                    data: Vec<Entry>,
                    #[serde(default)]
                    embeddings: Vec<Vec<IgnoredAny>>,
                }
                let reply: Reply = serde_json::from_slice(body).context("the reply has no embeddings")?;
                let vectors: Vec<usize> = match api {
                    Api::Openai => reply.data.iter().map(|entry| entry.embedding.len()).collect(),
                    Api::Native => reply.embeddings.iter().map(Vec::len).collect(),
                };
                ensure!(
                    vectors.len() == inputs && vectors.iter().all(|&length| length == dimensions),
                    "{} vectors of {:?} numbers, not {inputs} of {dimensions}",
                    vectors.len(),
                    vectors.first()
                );
                Ok(())
            }
        }
    }
}

/// Text of `bytes` bytes, with characters that JSON escapes.
fn sentence(bytes: usize) -> String {
    "Say \"hello\" to the world, then tell me about the weather in Paris and in Rome.\n"
        .chars()
        .cycle()
        .take(bytes)
        .collect()
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// A word as the remote writes it.
pub(crate) fn word(number: usize) -> String {
    format!(" w{number}@{}.", now())
}

/// What a model's name asks for.
pub(crate) fn numbers<const N: usize>(model: &str, kind: &str) -> Option<[u64; N]> {
    let mut parts = model.strip_prefix(kind)?.split('-').map(|part| part.parse().ok());
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = parts.next()??;
    }
    Some(numbers)
}

/// Calls `of` with number and time of each word in `text`.
fn each_word(text: &str, mut of: impl FnMut(usize, u64) -> Result<()>) -> Result<()> {
    let mut rest = text;
    while let Some(start) = rest.find(" w") {
        rest = &rest[start + 2..];
        // Other text may hold these two letters too.
        let Some((number, after)) = rest.split_once('@') else { break };
        let Ok(number) = number.parse() else { continue };
        let (time, after) = after.split_once('.').context("a word without its time")?;
        of(number, time.parse().context("a word whose time is no number")?)?;
        rest = after;
    }
    Ok(())
}

/// The check of a stream, as it comes.
pub(crate) struct Stream {
    api: Api,
    words: usize,
    next: usize,
    line: Vec<u8>,
    last: String,
}

impl Stream {
    /// For `words` words.
    pub(crate) fn new(api: Api, words: usize) -> Self {
        Self { api, words, next: 0, line: Vec::new(), last: String::new() }
    }

    /// Reads a piece, and adds how late each of its words is, in nanoseconds.
    ///
    /// # Errors
    /// A word is missing, doubled or out of order.
    pub(crate) fn read(&mut self, piece: &[u8], lags: &mut Vec<u64>) -> Result<()> {
        let now = now();
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                break;
            }
            let line = std::str::from_utf8(&self.line)?.trim_end();
            if !line.is_empty() {
                let next = &mut self.next;
                each_word(line, |number, time| {
                    ensure!(number == *next, "word {number} where {next} is due");
                    *next += 1;
                    lags.push(now.saturating_sub(time));
                    Ok(())
                })?;
                line.clone_into(&mut self.last);
            }
            self.line.clear();
        }
        Ok(())
    }

    /// Checks that all words came, and the end that the API has.
    ///
    /// # Errors
    /// The stream was cut.
    pub(crate) fn end(&self) -> Result<()> {
        let whole = match self.api {
            Api::Openai => self.last == "data: [DONE]",
            Api::Native => self.last.contains("\"done\":true"),
        };
        if self.next != self.words || !whole {
            bail!("the stream ended after {} of {} words with {:?}", self.next, self.words, self.last);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    const CHAT: Work = Work::chat(false, 2, Duration::ZERO);

    #[test]
    fn a_reply_with_all_words_in_order_passes_and_any_other_does_not() {
        let reply = |words: &str| format!("{{\"message\":{{\"content\":\"who wrote{words}\"}}}}");
        assert!(CHAT.check(Api::Native, reply(" w0@5. w1@6.").as_bytes()).is_ok());
        for wrong in [" w0@5.", " w0@5. w2@6.", " w1@5. w0@6.", " w0@5. w1@6. w1@7.", ""] {
            assert!(CHAT.check(Api::Native, reply(wrong).as_bytes()).is_err(), "{wrong}");
        }
        assert!(CHAT.check(Api::Openai, reply(" w0@5. w1@6.").as_bytes()).is_err());
    }

    #[test]
    fn a_stream_in_any_pieces_passes_and_a_cut_one_does_not() {
        let whole = "data: {\"content\":\" w0@5.\"}\n\ndata: {\"content\":\" w1@6.\"}\n\ndata: [DONE]\n\n";
        for size in [1, 2, 7, 1000] {
            let mut stream = Stream::new(Api::Openai, 2);
            let mut lags = Vec::new();
            for piece in whole.as_bytes().chunks(size) {
                stream.read(piece, &mut lags).unwrap();
            }
            stream.end().unwrap();
            assert_eq!(lags.len(), 2);
        }
        let mut cut = Stream::new(Api::Openai, 2);
        cut.read(whole.trim_end_matches("data: [DONE]\n\n").as_bytes(), &mut Vec::new()).unwrap();
        assert!(cut.end().is_err());
    }

    #[test]
    fn embeddings_are_counted() {
        let work = Work::Embed { inputs: 2, dimensions: 3 };
        assert!(work.check(Api::Native, b"{\"embeddings\":[[1,2,3],[4,5,6]]}").is_ok());
        assert!(work.check(Api::Native, b"{\"embeddings\":[[1,2,3],[4,5]]}").is_err());
        assert!(work.check(Api::Openai, b"{\"data\":[{\"embedding\":[1,2,3]}]}").is_err());
    }

    #[test]
    fn a_request_has_the_size_that_was_asked_for() {
        let work = Work::Chat { streamed: false, words: 1, pause: Duration::ZERO, messages: 200, bytes: 1 << 20 };
        for api in [Api::Openai, Api::Native] {
            let (_, body) = work.request(api);
            assert!((1 << 20..1_200_000).contains(&body.len()), "{}", body.len());
        }
        assert_eq!(numbers("words-20-1000", "words-"), Some([20, 1000]));
        assert_eq!(numbers::<2>("words-20", "words-"), None);
    }
}
