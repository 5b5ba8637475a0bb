//! A model's text, split as it streams: thinking, content, tool calls.

use serde_json::Value;

use super::{
    Done, Generation, Piece, Task,
    thinking::Thinking,
    tool_calls::{Call, ToolCalls},
};

/// The content of one line of a response.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) thinking: String,
    pub(crate) content: String,
    pub(crate) calls: Vec<Call>,
    pub(crate) logprobs: Vec<Value>,
    pub(crate) done: Option<Done>,
}

impl Event {
    fn is_silent(&self) -> bool {
        self.thinking.is_empty() && self.content.is_empty() && self.calls.is_empty() && self.done.is_none()
    }
}

/// How a text is split.
#[derive(Debug, Default)]
pub(crate) struct ReplyOptions {
    pub(crate) thinking: Option<Thinking>,
    pub(crate) tool_calls: Option<ToolCalls>,
    /// All calls stand on the last event.
    pub(crate) calls_last: bool,
    /// Tokens that a parser holds back give silent events too (`/api/generate`).
    pub(crate) sends_silent_events: bool,
    /// What is written once thinking is over, by a second generation: a grammar only binds what follows.
    pub(crate) then: Option<Task>,
}

/// The events of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    generation: Generation,
    options: ReplyOptions,
    calls: Vec<Call>,
    thought: usize,
}

impl Reply {
    pub(crate) fn new(task: Task, options: ReplyOptions) -> Self {
        Self { generation: Generation::new(task), options, calls: Vec::new(), thought: 0 }
    }

    fn event(&mut self, piece: Piece) -> Option<Event> {
        let Piece { text, logprobs, done } = piece;
        let mut event = Event { content: text, done, ..Event::default() };
        let mut is_held = false;
        if let Some(thinking) = &mut self.options.thinking {
            (event.thinking, event.content) = thinking.add(&event.content);
            is_held = event.is_silent();
            if thinking.is_over()
                && let Some(mut then) = self.options.then.take()
            {
                then.prompt_tokens += self.thought;
                self.generation = Generation::new(then);
                self.options.thinking = None;
                return Some(Event::default());
            }
        }
        if is_held {
            // The log probabilities of what is held here are lost.
            return self.options.sends_silent_events.then(Event::default);
        }
        if let Some(tool_calls) = &mut self.options.tool_calls {
            (event.content, event.calls) = tool_calls.add(&event.content);
        }
        if self.options.calls_last {
            self.calls.append(&mut event.calls);
            if event.done.is_some() {
                event.calls = std::mem::take(&mut self.calls);
            }
        }
        event.logprobs = logprobs;
        let tells = !event.is_silent() || self.options.sends_silent_events || !event.logprobs.is_empty();
        tells.then_some(event)
    }
}

impl Iterator for Reply {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let piece = self.generation.next()?;
            self.thought += 1;
            if let Some(event) = self.event(piece) {
                return Some(event);
            }
        }
    }
}

/// All events as one: the unstreamed answer.
pub(crate) fn fold(events: impl Iterator<Item = Event>) -> Event {
    events.fold(Event::default(), |mut whole, event| {
        whole.thinking += &event.thinking;
        whole.content += &event.content;
        whole.calls.extend(event.calls);
        whole.logprobs.extend(event.logprobs);
        whole.done = event.done.or(whole.done);
        whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(words: &str) -> Task {
        Task { words: words.to_owned(), prompt_tokens: 5, ..Task::default() }
    }

    #[test]
    fn a_grammar_binds_what_follows_the_thinking() {
        let options =
            ReplyOptions { thinking: Some(Thinking::default()), then: Some(task("{}")), ..ReplyOptions::default() };
        let events: Vec<Event> = Reply::new(task("<think>\nHm.\n</think>\n\nNo JSON"), options).collect();
        assert!(events.contains(&Event::default()), "an empty event marks the restart");
        let whole = fold(events.into_iter());
        assert_eq!((whole.thinking.as_str(), whole.content.as_str()), ("Hm.\n", "{}"));
        let done = whole.done.unwrap();
        assert!(done.prompt_tokens > 10 && done.tokens == 3, "{done:?}");
    }

    #[test]
    fn calls_stand_alone_or_on_the_last_event() {
        let words = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
        for calls_last in [false, true] {
            let tool_calls = Some(ToolCalls::new(vec!["f".to_owned()]));
            let events: Vec<Event> =
                Reply::new(task(words), ReplyOptions { tool_calls, calls_last, ..ReplyOptions::default() }).collect();
            assert_eq!(events.len(), if calls_last { 1 } else { 2 });
            assert_eq!(events.last().unwrap().calls.len(), usize::from(calls_last));
        }
    }
}
