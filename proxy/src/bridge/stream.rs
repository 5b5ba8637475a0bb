//! The answer of an OpenAI server as Ollama's: a stream of events becomes lines, a whole completion one object. Pure.
//!
//! Laws: a stream ends exactly once, with a line that is `done` or with an error; only an upstream that has ended in
//! order gets a `done`; the lines of any splitting into packets are the same; joined, they are the whole answer
//! (`laws.rs`).

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;

use crate::{
    bridge::{
        calls::Calls,
        refusal,
        think::{Split, Splitter},
        translate::{Facts, Shape},
        wire::{
            Answer, Choice, Completion, Costs, Delta, Logprob, Logprobs, Reply, ReplyCall, ReplyMessage, Timings, Usage,
        },
    },
    error::Error,
    json_writer,
    ollama::ndjson::Lines,
    openai::request::surrogates,
    redact::Redactor,
};

/// The time, handed to pure code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now<'a> {
    /// As `created_at` has it.
    pub(crate) created_at: &'a str,
    /// Since the request began.
    pub(crate) elapsed: Duration,
}

/// A stream on its way.
#[derive(Debug)]
pub(crate) struct Stream {
    facts: Facts,
    redactor: Redactor,
    lines: Lines,
    answer: Progress,
    around: Around,
    /// When the first token came.
    first: Option<Duration>,
    closed: bool,
}

/// The bytes of the last event that was nothing but text, in front of its text and behind it: servers write the next
/// one the same way, and that need not be parsed.
#[derive(Debug, Default)]
struct Around {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Around {
    /// Maximum size of what is kept.
    const MOST: usize = 1 << 10;

    /// The text of `event`, if it is the last one with another text that needs no escape.
    fn text<'a>(&self, event: &'a [u8]) -> Option<&'a str> {
        if self.after.is_empty() {
            return None;
        }
        let text = event.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        if json_writer::plain(text) < text.len() {
            return None;
        }
        std::str::from_utf8(text).ok()
    }

    /// Keeps what stands around `text`, which is a part of `event`.
    fn learn(&mut self, event: &[u8], text: &str) {
        let begin = (text.as_ptr() as usize).wrapping_sub(event.as_ptr() as usize);
        let Some((before, rest)) = event.split_at_checked(begin) else { return };
        let Some(after) = rest.get(text.len()..) else { return };
        if before.ends_with(b"\"") && after.starts_with(b"\"") && before.len() + after.len() <= Self::MOST {
            self.before.clear();
            self.before.extend_from_slice(before);
            self.after.clear();
            self.after.extend_from_slice(after);
        }
    }
}

/// The text of an event that has nothing else, if it has no escapes.
fn only_text<'a>(completion: &Completion<'a>) -> Option<&'a str> {
    let Completion { choices, usage: None, timings: None, error: None } = completion else { return None };
    let choice = choices.iter().flatten().next()?;
    let Choice { delta, text, finish_reason, logprobs: None } = choice else { return None };
    if finish_reason.as_ref().is_some_and(|reason| !reason.is_empty()) {
        return None;
    }
    let text = match (delta, text) {
        (None, Some(text)) => &text.0,
        (Some(delta), None) => {
            let Delta { content: Some(said), reasoning_content, reasoning, refusal: None, tool_calls: None } = delta
            else {
                return None;
            };
            let thinks = [reasoning_content, reasoning].into_iter().flatten().any(|text| !text.is_empty());
            if thinks || !said.thinking.is_empty() {
                return None;
            }
            &said.text
        }
        _ => return None,
    };
    match text {
        Cow::Borrowed(text) => Some(text),
        Cow::Owned(_) => None,
    }
}

/// What is known of an answer.
#[derive(Debug)]
struct Progress {
    think: Splitter,
    calls: Calls,
    finish: Option<String>,
    usage: Usage,
    timings: Option<Timings>,
}

impl Progress {
    fn new(facts: &Facts) -> Self {
        Self {
            think: Splitter::new(facts.splits),
            calls: Calls::default(),
            finish: None,
            usage: Usage::default(),
            timings: None,
        }
    }

    /// Takes the parts of a choice that are not text; returns thinking and answer.
    fn take<'a>(&mut self, delta: Option<Delta<'a>>, text: Option<Cow<'a, str>>, finish: Option<&str>) -> Split<'a> {
        let delta = delta.unwrap_or_default();
        let said = delta.content.unwrap_or_default();
        let mut thinking = said.thinking;
        // A server may give both names.
        if let Some(reasoning) = delta.reasoning_content.or(delta.reasoning).filter(|text| !text.is_empty()) {
            thinking.push_str(&reasoning);
        }
        if !thinking.is_empty() {
            self.think.pass();
        }
        for call in delta.tool_calls.iter().flatten() {
            self.calls.push(call);
        }
        if let Some(finish) = finish.filter(|finish| !finish.is_empty()) {
            self.finish = Some(finish.to_owned());
        }
        // What a model says when it refuses is its answer.
        let text = text.unwrap_or(said.text);
        let text = match delta.refusal.filter(|_| text.is_empty()) {
            Some(refusal) => refusal.0,
            None => text,
        };
        let split = match text {
            Cow::Borrowed(text) => self.think.push(text),
            Cow::Owned(text) => {
                let Split { thinking, answer } = self.think.push(&text);
                Split { thinking, answer: Cow::Owned(answer.into_owned()) }
            }
        };
        thinking.push_str(&split.thinking);
        Split { thinking, answer: split.answer }
    }

    /// Ollama's word for why the model stopped: it says `stop` of tool calls too.
    fn done_reason(&self) -> &str {
        match self.finish.as_deref() {
            Some("length") => "length",
            // A filter's cut is no end of the model's own.
            Some("content_filter") => "content_filter",
            _ => "stop",
        }
    }

    fn costs(&self, first: Option<Duration>, now: &Now<'_>) -> Costs {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let from_ms = |ms: Option<f64>| ms.filter(|ms| *ms > 0.0).map(|ms| (ms * 1e6) as u64);
        let (prompt, eval) = match first {
            Some(first) => (nanos(first), nanos(now.elapsed.saturating_sub(first))),
            None => (0, nanos(now.elapsed)),
        };
        let timings = self.timings.as_ref();
        let cached = self.usage.prompt_tokens_details.and_then(|details| details.cached_tokens);
        Costs {
            total_duration: nanos(now.elapsed),
            prompt_eval_count: self.usage.prompt_tokens.unwrap_or(0),
            prompt_eval_cached_count: cached.unwrap_or(0),
            prompt_eval_duration: timings.and_then(|timings| from_ms(timings.prompt_ms)).unwrap_or(prompt),
            eval_count: self.usage.completion_tokens.unwrap_or(0),
            eval_duration: timings.and_then(|timings| from_ms(timings.predicted_ms)).unwrap_or(eval),
        }
    }
}

/// What one line says.
#[derive(Default)]
struct Said<'a> {
    thinking: &'a str,
    answer: &'a str,
    calls: &'a [ReplyCall<'a>],
    logprobs: Vec<Logprob<'a>>,
    done_reason: Option<&'a str>,
    costs: Costs,
}

/// Writes one line, without its end.
fn write(facts: &Facts, said: Said<'_>, now: &Now<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let Said { thinking, answer, calls, logprobs, done_reason, costs } = said;
    let answer = match facts.shape {
        Shape::Chat => Answer::Chat(ReplyMessage { role: "assistant", content: answer, thinking, tool_calls: calls }),
        Shape::Generate => Answer::Generate { response: answer, thinking },
    };
    let (model, created_at, done) = (&*facts.model, now.created_at, done_reason.is_some());
    let reply = Reply { model, created_at, answer, done, done_reason, logprobs, costs };
    json_writer::append(out, &reply).map_err(|error| Error::Internal { message: error.to_string() })
}

impl Stream {
    pub(crate) fn new(facts: Facts, redactor: Redactor) -> Self {
        let answer = Progress::new(&facts);
        Self { facts, redactor, lines: Lines::default(), answer, around: Around::default(), first: None, closed: false }
    }

    /// Whether the last line is written.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Takes the next packet; writes the lines that it completes.
    ///
    /// # Errors
    /// Fails if the server reports an error or sends what is no event; then nothing more follows.
    pub(crate) fn push(&mut self, packet: Bytes, now: &Now<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.lines.push(packet)?;
        while let Some(line) = self.lines.next() {
            self.line(&line, now, out)?;
        }
        Ok(())
    }

    /// Takes the end of an upstream that has ended in order; writes the last line, unless it is written.
    ///
    /// # Errors
    /// Fails if the answer was not complete.
    pub(crate) fn end(&mut self, now: &Now<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(line) = self.lines.rest() {
            self.line(&line, now, out)?;
        }
        if self.closed {
            return Ok(());
        }
        if self.answer.finish.is_none() {
            self.closed = true;
            return Err(unfinished());
        }
        self.finish(now, out)
    }

    fn line(&mut self, line: &Bytes, now: &Now<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.closed {
            return Ok(());
        }
        let data = match line.strip_prefix(b"data:") {
            Some(data) => data.trim_ascii(),
            // A gateway may write its error between the events, as it is.
            None if line.starts_with(b"{") => line,
            // Comments, and the names and ids of events.
            None => return Ok(()),
        };
        if data.is_empty() {
            return Ok(());
        }
        let outcome = if data == b"[DONE]" { self.finish(now, out) } else { self.event(data, now, out) };
        if outcome.is_err() {
            self.closed = true;
        }
        outcome
    }

    fn event(&mut self, data: &[u8], now: &Now<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(text) = self.around.text(data) {
            let Split { thinking, answer } = self.answer.think.push(text);
            return self.say(&thinking, &answer, Vec::new(), now, out);
        }
        let mended;
        let completion = match read(data) {
            Ok(completion) => completion,
            Err(_) => {
                mended = surrogates::mend(Bytes::copy_from_slice(data));
                read(&mended).map_err(|error| Error::Cut {
                    message: format!("the remote sent an event that is not a completion: {error}"),
                })?
            }
        };
        if let Some(error) = completion.error {
            return Err(refusal::in_stream(error, &self.redactor));
        }
        self.answer.timings = completion.timings.or(self.answer.timings);
        if let Some(usage) = completion.usage {
            self.answer.usage = usage;
        }
        if let Some(text) = only_text(&completion) {
            self.around.learn(data, text);
        }
        // Only one choice was asked for; some servers repeat an empty one with the usage.
        let Some(choice) = completion.choices.into_iter().flatten().next() else { return Ok(()) };
        let Choice { delta, text, finish_reason, logprobs } = choice;
        let was_open = self.answer.finish.is_none();
        let Split { mut thinking, mut answer } =
            self.answer.take(delta, text.map(|text| text.0), finish_reason.as_deref());
        let finishes = was_open && self.answer.finish.is_some();
        if finishes {
            let rest = self.answer.think.finish();
            thinking.push_str(&rest.thinking);
            if !rest.answer.is_empty() {
                answer.to_mut().push_str(&rest.answer);
            }
        }
        let logprobs = logprobs.map(Logprobs::tokens).unwrap_or_default();
        self.say(&thinking, &answer, logprobs, now, out)?;
        if finishes && !self.answer.calls.is_empty() {
            self.first.get_or_insert(now.elapsed);
            for call in self.answer.calls.finished(self.answer.done_reason() == "length")? {
                let calls = &[call];
                write(&self.facts, Said { calls, ..Said::default() }, now, out)?;
                out.push(b'\n');
            }
        }
        Ok(())
    }

    /// Writes a line, if it says something.
    fn say(
        &mut self,
        thinking: &str,
        answer: &str,
        logprobs: Vec<Logprob<'_>>,
        now: &Now<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if thinking.is_empty() && answer.is_empty() && logprobs.is_empty() {
            return Ok(());
        }
        self.first.get_or_insert(now.elapsed);
        write(&self.facts, Said { thinking, answer, logprobs, ..Said::default() }, now, out)?;
        out.push(b'\n');
        Ok(())
    }

    /// Writes the last line.
    fn finish(&mut self, now: &Now<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.closed = true;
        // A server that says that it is done, but not why.
        if self.answer.finish.is_none() {
            let Split { thinking, answer } = self.answer.think.finish();
            let calls = self.answer.calls.finished(false)?;
            if !(thinking.is_empty() && answer.is_empty() && calls.is_empty()) {
                let said = Said { thinking: &thinking, answer: &answer, calls: &calls, ..Said::default() };
                write(&self.facts, said, now, out)?;
                out.push(b'\n');
            }
        }
        let costs = self.answer.costs(self.first, now);
        let said = Said { done_reason: Some(self.answer.done_reason()), costs, ..Said::default() };
        write(&self.facts, said, now, out)?;
        out.push(b'\n');
        Ok(())
    }
}

fn read(data: &[u8]) -> Result<Completion<'_>, serde_json::Error> {
    // One look at all of it is cheaper than one at each string.
    std::str::from_utf8(data).map_or_else(|_| serde_json::from_slice(data), serde_json::from_str)
}

fn unfinished() -> Error {
    Error::Cut { message: "the remote server ended its answer before it was done".to_owned() }
}

/// A whole answer, out of a whole completion. As a line of a stream if the client asked for one and the server did not
/// stream.
///
/// # Errors
/// Fails if the server answered with an error or with no completion.
pub(crate) fn whole(facts: &Facts, reply: &[u8], redactor: &Redactor, now: &Now<'_>) -> Result<Vec<u8>, Error> {
    let mended;
    let completion = match read(reply) {
        Ok(completion) => completion,
        Err(_) => {
            mended = surrogates::mend(Bytes::copy_from_slice(reply));
            read(&mended).map_err(|error| refusal::no_completion(reply, &error.to_string(), redactor))?
        }
    };
    if let Some(error) = completion.error {
        return Err(refusal::in_stream(error, redactor));
    }
    let Some(choice) = completion.choices.into_iter().flatten().next() else {
        return Err(refusal::no_completion(reply, "it has no choices", redactor));
    };
    let mut progress = Progress::new(facts);
    progress.usage = completion.usage.unwrap_or_default();
    progress.timings = completion.timings;
    let Choice { delta, text, finish_reason, logprobs } = choice;
    let Split { mut thinking, mut answer } = progress.take(delta, text.map(|text| text.0), finish_reason.as_deref());
    let rest = progress.think.finish();
    thinking.push_str(&rest.thinking);
    if !rest.answer.is_empty() {
        answer.to_mut().push_str(&rest.answer);
    }
    let done_reason = progress.done_reason();
    let calls = progress.calls.finished(done_reason == "length")?;
    let said = Said {
        thinking: &thinking,
        answer: &answer,
        calls: &calls,
        logprobs: logprobs.map(Logprobs::tokens).unwrap_or_default(),
        done_reason: Some(done_reason),
        costs: progress.costs(None, now),
    };
    let mut out = Vec::with_capacity(512 + answer.len() + answer.len() / 8 + thinking.len());
    write(facts, said, now, &mut out)?;
    // What is carried may stand on several lines, though in no string.
    out.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    Ok(out)
}

/// The answer to a request that only loads or unloads a model.
///
/// # Errors
/// None that a name can cause.
pub(crate) fn nothing(facts: &Facts, unloads: bool, now: &Now<'_>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(256);
    let done_reason = Some(if unloads { "unload" } else { "load" });
    write(facts, Said { done_reason, ..Said::default() }, now, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now<'static> = Now { created_at: "t", elapsed: Duration::ZERO };

    /// The lines for events with these choices, each through one stream, or each through a stream of its own.
    fn lines(choices: &[&str], together: bool) -> Vec<String> {
        let new = || Stream::new(Facts { model: "m".to_owned(), ..Facts::default() }, Redactor::default());
        let (mut stream, mut lines) = (new(), Vec::new());
        for choice in choices {
            if !together {
                stream = new();
            }
            let event = format!("data: {{\"id\":\"x\",\"choices\":[{choice}],\"usage\":null}}\n\n");
            let mut out = Vec::new();
            stream.push(event.into(), &NOW, &mut out).unwrap();
            lines.push(String::from_utf8(out).unwrap());
        }
        lines
    }

    #[test]
    fn an_event_like_the_last_one_is_read_as_any_other() {
        let choices = [
            r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"a"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":" b\u00e9"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"é\"},\"x\":{\""},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"","x":""},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"c"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"é"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"d","reasoning":"e"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"reasoning":"f","content":""},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"g"},"finish_reason":null}"#,
            r#"{"index":0,"delta":{"content":"h"},"finish_reason":null,"logprobs":{"content":[]}}"#,
            r#"{"index":0,"text":"i","finish_reason":""}"#,
            r#"{"index":0,"text":"j","finish_reason":""}"#,
            r#"{"index":0,"delta":{"content":"k"},"finish_reason":null}"#,
        ];
        assert_eq!(lines(&choices, true), lines(&choices, false));
    }

    #[test]
    fn the_bytes_around_a_text_are_those_of_an_event_of_text_alone() {
        let mut around = Around::default();
        let event = br#"{"choices":[{"delta":{"content":"a"}}]}"#;
        assert_eq!(around.text(event), None);
        let completion = read(event).unwrap();
        around.learn(event, only_text(&completion).unwrap());
        assert_eq!(around.text(br#"{"choices":[{"delta":{"content":"b c"}}]}"#), Some("b c"));
        for other in [
            &br#"{"choices":[{"delta":{"content":"b\n"}}]}"#[..],
            br#"{"choices":[{"delta":{"content":"b","x":"y"}}]}"#,
            b"{\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}",
            br#"{"choices":[{"delta":{"content":""#,
        ] {
            assert_eq!(around.text(other), None);
        }
        for other in [
            r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"delta":{"content":"a"}}],"usage":{}}"#,
            r#"{"choices":[{"delta":{"content":"a","tool_calls":[]}}]}"#,
            r#"{"choices":[{"delta":{"content":"a\n"}}]}"#,
        ] {
            assert_eq!(only_text(&read(other.as_bytes()).unwrap()), None, "{other}");
        }
    }
}
