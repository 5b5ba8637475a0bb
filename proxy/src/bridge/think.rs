//! Thinking that a model writes into its text between tags, separated from its answer as Ollama does (recorded:
//! `thinking/default-stream`): the tags and the white space after them are dropped, what stands before the closing tag
//! stays. Pure.

/// Tags that models think between.
const TAGS: [(&str, &str); 2] = [("<think>", "</think>"), ("<thought>", "</thought>")];

/// Splits a text that comes in pieces.
#[derive(Debug)]
pub(super) struct Splitter {
    state: State,
    /// What is not certain yet.
    held: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing but white space, or the beginning of a tag, has come.
    Start,
    /// The space after an opening tag, with the closing one.
    Opened(&'static str),
    /// Until the closing tag.
    Thinking(&'static str),
    /// The space after a closing tag.
    Closed,
    /// The answer.
    Answer,
}

/// What a piece added.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Split<'a> {
    pub(super) thinking: String,
    pub(super) answer: std::borrow::Cow<'a, str>,
}

impl Splitter {
    /// Splits, or passes all on as the answer.
    pub(super) fn new(splits: bool) -> Self {
        Self { state: if splits { State::Start } else { State::Answer }, held: String::new() }
    }

    /// The thinking comes apart from the text, so no tag is looked for.
    pub(super) fn pass(&mut self) {
        if self.state == State::Start && self.held.is_empty() {
            self.state = State::Answer;
        }
    }

    /// Takes the next piece.
    pub(super) fn push<'a>(&mut self, piece: &'a str) -> Split<'a> {
        if self.state == State::Answer {
            return Split { answer: piece.into(), ..Split::default() };
        }
        self.held.push_str(piece);
        let (mut thinking, mut answer) = (String::new(), String::new());
        loop {
            match self.state {
                State::Start => {
                    let begun = self.held.trim_ascii_start();
                    if let Some((open, close)) = TAGS.iter().find(|(open, _)| begun.starts_with(open)) {
                        self.held = begun[open.len()..].to_owned();
                        self.state = State::Opened(close);
                    } else if TAGS.iter().any(|(open, _)| open.starts_with(begun)) {
                        break;
                    } else {
                        self.state = State::Answer;
                    }
                }
                State::Opened(close) => {
                    self.held = self.held.trim_ascii_start().to_owned();
                    if self.held.is_empty() {
                        break;
                    }
                    self.state = State::Thinking(close);
                }
                State::Thinking(close) => {
                    if let Some(at) = self.held.find(close) {
                        thinking.push_str(&self.held[..at]);
                        self.held = self.held[at + close.len()..].to_owned();
                        self.state = State::Closed;
                    } else {
                        let sure = self.held.len() - begun_at_end(&self.held, close);
                        thinking.push_str(&self.held[..sure]);
                        self.held = self.held[sure..].to_owned();
                        break;
                    }
                }
                State::Closed => {
                    self.held = self.held.trim_ascii_start().to_owned();
                    if self.held.is_empty() {
                        break;
                    }
                    self.state = State::Answer;
                }
                State::Answer => {
                    answer.push_str(&std::mem::take(&mut self.held));
                    break;
                }
            }
        }
        Split { thinking, answer: answer.into() }
    }

    /// What was held back, now that nothing more comes.
    pub(super) fn finish(&mut self) -> Split<'static> {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Thinking(_) => Split { thinking: held, ..Split::default() },
            State::Start | State::Answer => Split { answer: held.into(), ..Split::default() },
            State::Opened(_) | State::Closed => Split::default(),
        }
    }
}

/// How many bytes at the end of `text` may be the beginning of `tag`.
fn begun_at_end(text: &str, tag: &str) -> usize {
    (1..tag.len()).rev().find(|length| text.ends_with(&tag[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&str]) -> (String, String) {
        let mut splitter = Splitter::new(true);
        let (mut thinking, mut answer) = (String::new(), String::new());
        for piece in pieces {
            let split = splitter.push(piece);
            thinking.push_str(&split.thinking);
            answer.push_str(&split.answer);
        }
        let last = splitter.finish();
        (thinking + &last.thinking, answer + &last.answer)
    }

    #[test]
    fn what_stands_between_tags_at_the_beginning_is_thinking() {
        for (text, thinking, answer) in [
            ("<think>\nI add.\n</think>\n\nFour.", "I add.\n", "Four."),
            ("\n<thought>a</thought>b", "a", "b"),
            ("<think></think>x", "", "x"),
            ("<think>cut", "cut", ""),
            ("<think>a</thi", "a</thi", ""),
            (" plain <think>no</think>", "", " plain <think>no</think>"),
            ("<thin", "", "<thin"),
            ("<b>x", "", "<b>x"),
            ("", "", ""),
        ] {
            assert_eq!(split(&[text]), (thinking.to_owned(), answer.to_owned()), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_of_any_size_split_alike(
            text in "[ \n]{0,2}(<think>|<thought>|<thi|)[ a<\n]{0,4}(</think>|</thought>|</th|)[ b<\né]{0,5}", size in 1_usize..6,
        ) {
            let chars: Vec<char> = text.chars().collect();
            let pieces: Vec<String> = chars.chunks(size).map(|piece| piece.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            proptest::prop_assert_eq!(split(&pieces), split(&[&text]));
        }
    }
}
