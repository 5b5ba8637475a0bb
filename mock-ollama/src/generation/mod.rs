//! A runner without a model: it writes given words token by token, until they end, a stop string is met, or a limit is
//! reached.

mod logprobs;
pub(crate) mod reply;
pub(crate) mod thinking;
pub(crate) mod tool_calls;

use serde_json::Value;

use crate::tokens::{Token, tokens};

/// What is to be written, and what ends it early.
#[derive(Clone, Debug, Default)]
pub(crate) struct Task {
    pub(crate) words: String,
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: usize,
    /// At most so many tokens.
    pub(crate) most: Option<usize>,
    pub(crate) stop: Vec<String>,
    /// Log probabilities with so many alternatives.
    pub(crate) logprobs: Option<usize>,
}

/// A piece of the answer: one token, or some that make a character or might have been a stop string.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<Value>,
    /// Set on the last piece, whose text is empty.
    pub(crate) done: Option<Done>,
}

/// How a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) reason: &'static str,
    pub(crate) prompt_tokens: usize,
    /// The end token counts.
    pub(crate) tokens: usize,
}

/// A generation in progress.
#[derive(Debug)]
pub(crate) struct Generation {
    task: Task,
    words: std::vec::IntoIter<Token>,
    written: usize,
    held: Vec<u8>,
    /// Tokens that make no whole character yet.
    halves: Vec<Token>,
    /// The last character that was whole.
    last: Option<char>,
    logprobs: Vec<Value>,
    reason: Option<&'static str>,
    is_over: bool,
}

impl Generation {
    pub(crate) fn new(task: Task) -> Self {
        let words: Vec<Token> = tokens(&task.words).collect();
        Self {
            words: words.into_iter(),
            task,
            written: 0,
            held: Vec::new(),
            halves: Vec::new(),
            last: None,
            logprobs: Vec::new(),
            reason: None,
            is_over: false,
        }
    }

    /// The held bytes as text, if they may be sent: whole characters that start no stop string.
    fn release(&mut self) -> Option<String> {
        let text = std::str::from_utf8(&self.held).ok()?.to_owned();
        let cut =
            self.task.stop.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str())).min();
        if let Some(cut) = cut {
            self.reason = Some("stop");
            self.held.clear();
            return Some(text[..cut].to_owned());
        }
        let may_be_stop = self
            .task
            .stop
            .iter()
            .any(|stop| (1..stop.len()).any(|len| stop.is_char_boundary(len) && text.ends_with(&stop[..len])));
        if may_be_stop && self.reason.is_none() {
            return None;
        }
        self.held.clear();
        Some(text)
    }

    /// Enters the log probability of the last token, once its character is whole.
    fn judge(&mut self) {
        let Ok(text) = std::str::from_utf8(&self.held) else { return };
        // A text may end where a line does.
        let may_end = text.ends_with('\n')
            && self.last.is_some_and(|last| last == '\n' || !last.is_ascii() || ".!?`".contains(last));
        self.last = text.chars().next_back().or(self.last);
        let tokens = std::mem::take(&mut self.halves);
        if let Some(alternatives) = self.task.logprobs {
            self.logprobs.push(logprobs::of(&tokens, self.written + 1 - tokens.len(), alternatives, may_end));
        }
    }

    fn piece(&mut self, text: String) -> Piece {
        Piece { text, logprobs: std::mem::take(&mut self.logprobs), done: None }
    }
}

impl Iterator for Generation {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        while self.reason.is_none() {
            if self.task.most.is_some_and(|most| self.written >= most) {
                self.reason = Some("length");
                break;
            }
            self.written += 1;
            // Without a next word this is the end token.
            let Some(token) = self.words.next() else {
                self.reason = Some("stop");
                break;
            };
            self.held.extend_from_slice(&token.0);
            self.halves.push(token);
            self.judge();
            if let Some(text) = self.release().filter(|text| !text.is_empty()) {
                return Some(self.piece(text));
            }
        }
        if !self.held.is_empty() {
            // Half a character has no text.
            let text = self.release().unwrap_or_default();
            self.held.clear();
            if !text.is_empty() {
                return Some(self.piece(text));
            }
        }
        if self.is_over {
            return None;
        }
        self.is_over = true;
        let done = Done {
            reason: self.reason.unwrap_or("stop"),
            prompt_tokens: self.task.prompt_tokens,
            tokens: self.written,
        };
        Some(Piece { done: Some(done), ..Piece::default() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(task: Task) -> (Vec<String>, Done) {
        let mut pieces: Vec<Piece> = Generation::new(task).collect();
        let done = pieces.pop().unwrap().done.unwrap();
        (pieces.into_iter().map(|piece| piece.text).collect(), done)
    }

    fn task(words: &str) -> Task {
        Task { words: words.to_owned(), prompt_tokens: 5, ..Task::default() }
    }

    #[test]
    fn it_ends_with_the_words_and_counts_the_end_token() {
        let (texts, done) = run(task("I'm so glad."));
        assert_eq!(texts, ["I", "'m", " so", " glad", "."]);
        assert_eq!(done, Done { reason: "stop", prompt_tokens: 5, tokens: 6 });
    }

    #[test]
    fn a_limit_ends_it_with_length() {
        let (texts, done) = run(Task { most: Some(2), ..task("I'm so glad.") });
        assert_eq!((texts.concat().as_str(), done.reason, done.tokens), ("I'm", "length", 2));
    }

    #[test]
    fn a_stop_string_is_cut_off_wherever_the_tokens_split_it() {
        let (texts, done) = run(Task { stop: vec!["lad to".to_owned()], ..task("I'm so glad to be here") });
        assert_eq!((texts.concat().as_str(), done.reason), ("I'm so g", "stop"));
        let (texts, _) = run(Task { stop: vec!["glad to see".to_owned()], ..task("I'm so glad to be here") });
        assert_eq!(texts.concat(), "I'm so glad to be here");
    }

    #[test]
    fn a_character_is_held_until_it_is_whole() {
        let (texts, done) = run(task("a🌍b"));
        assert_eq!(texts, ["a", "🌍", "b"]);
        assert_eq!(done.tokens, 5);
        assert_eq!(run(Task { most: Some(2), ..task("a🌍b") }).0, ["a"]);
    }

    proptest! {
        #[test]
        fn pieces_joined_are_the_words_up_to_the_stop(words in "[ab ]{0,30}", stop in "[ab ]{1,3}") {
            let whole = words.split(&stop).next().unwrap().to_owned();
            prop_assert_eq!(run(Task { stop: vec![stop], ..task(&words) }).0.concat(), whole);
        }
    }
}
