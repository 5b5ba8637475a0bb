//! From native replies to an event stream: [`Frames`], [`Translator`], and the one driver that every streamed endpoint uses.
//!
//! The driver is the response body itself: the client pulls, the upstream is pulled in turn, and dropping the body cancels the upstream.
//! There is no task and no channel. Events that are ready together go out in one write; none is split.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, Sleep};

use crate::{
    config::Heartbeat,
    deadline::Alarm,
    error::{self, Dialect, Error},
    observe::Recorder,
    ollama::{ndjson::Lines, refusal, wire::ErrorLine},
    openai::upstream_request::send::AT_ONCE,
    receipt::Receipt,
    redact::Redactor,
    upstream::client::Upstream,
    usage::Usage,
};

/// A write is handed over once it holds this much, though more may be ready.
const ENOUGH: usize = 16 << 10;

/// How long the end of our answer waits for the end of the upstream's, which makes its connection usable again.
const LINGER: Duration = Duration::from_millis(100);

/// Turns native replies into wire text. A state machine without clock, dice or IO.
///
/// Laws: once [`closed`](Translator::closed), it writes nothing more. Joining the deltas of any chunking gives the unstreamed answer.
pub(crate) trait Translator: Send + Unpin + 'static {
    /// What one line of the upstream holds.
    type Reply<'a>: Deserialize<'a>;
    /// Takes the next reply: 0..n frames.
    fn reply(&mut self, reply: Self::Reply<'_>, out: &mut Frames);
    /// Takes the end before the last reply: one error frame.
    fn fail(&mut self, error: &Error, out: &mut Frames);
    /// Whether the last frame is written.
    fn closed(&self) -> bool;
    /// Which of several upstream answers the next reply belongs to.
    fn source(&mut self, _nth: usize) {}
    /// Whether the last reply of one of several upstream answers was taken.
    fn finished(&self, _nth: usize) -> bool {
        self.closed()
    }
    /// What the exchange cost, once it is known.
    fn usage(&self) -> Option<Usage>;
    /// What has become known of the receipt since this was last asked.
    fn receipt(&mut self) -> Receipt {
        Receipt::default()
    }
    /// What was wrong with the reply that was taken last, so that the stream must fail.
    fn wrong(&mut self) -> Option<Error> {
        None
    }
}

/// Events on their way out, whole ones only.
#[derive(Debug, Default)]
pub(crate) struct Frames(BytesMut);

impl Frames {
    /// Adds `data: <value>` and the blank line.
    pub(crate) fn data(&mut self, value: &impl Serialize) {
        self.0.put_slice(b"data: ");
        let begin = self.0.len();
        let written = serde_json::to_writer((&mut self.0).writer(), value);
        debug_assert!(written.is_ok(), "plain structs always serialize");
        keep_on_one_line(&mut self.0, begin);
        self.0.put_slice(b"\n\n");
    }

    /// Adds `event: <kind>`, `data: <value>` and the blank line.
    pub(crate) fn event(&mut self, kind: &str, value: &impl Serialize) {
        self.0.put_slice(b"event: ");
        self.0.put_slice(kind.as_bytes());
        self.0.put_slice(b"\n");
        self.data(value);
    }

    /// Adds `data: [DONE]`.
    pub(crate) fn done(&mut self) {
        self.0.put_slice(b"data: [DONE]\n\n");
    }

    /// Adds an error in OpenAI's envelope.
    ///
    /// The event is named, because langchain4j takes an unnamed one for a complete answer; and the name follows the data, because
    /// go-openai loses the message otherwise (docs/streams.md).
    pub(crate) fn error(&mut self, error: &Error) {
        self.0.put_slice(b"data: ");
        self.0.put_slice(&error::body(error, Dialect::OpenAi));
        self.0.put_slice(b"\nevent: error\n\n");
    }

    /// Adds a heartbeat: bytes that mean nothing to any reader of events.
    ///
    /// It is not a comment, because go-openai loses the message of an error that follows one; and it is two empty lines, because
    /// readers that split a stream at `\n\n` would find a single one in front of the next event (docs/streams.md).
    fn heartbeat(&mut self) {
        self.0.put_slice(b"\n\n");
    }

    /// Adds a comment, which every client skips.
    fn comment(&mut self, text: &str) {
        self.0.put_slice(b": ");
        self.0.put_slice(text.as_bytes());
        self.0.put_slice(b"\n\n");
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes what is there, as one write.
    pub(crate) fn take(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

/// Makes JSON, which stands in `text` from `begin` on, text in which no reader finds a line end: some clients split streams at U+0085,
/// U+2028 and U+2029 as well. They stand in strings only, where they can be escaped. Carried JSON may be printed over several lines; these
/// ends stand outside of strings only, where they mean nothing.
fn keep_on_one_line(text: &mut BytesMut, begin: usize) {
    // All three begin with one of two rare bytes: most events are looked at once.
    let suspect =
        |from: &[u8]| memchr::memchr2(0xC2, 0xE2, from).is_some() || memchr::memchr2(b'\n', b'\r', from).is_some();
    if !suspect(&text[begin..]) {
        return;
    }
    let json = text.split_off(begin);
    let ends = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut rest = str::from_utf8(&json).unwrap_or_default();
    while let Some((at, end)) = rest.match_indices(ends).next() {
        text.put_slice(&rest.as_bytes()[..at]);
        if !end.is_ascii() {
            end.chars().for_each(|end| text.put_slice(format!("\\u{:04x}", u32::from(end)).as_bytes()));
        }
        rest = &rest[at + end.len()..];
    }
    text.put_slice(rest.as_bytes());
}

/// Answers with an event stream that `translator` makes of the replies that `openings` lead to, [`AT_ONCE`] of them at a time; it tells
/// them apart by [`Translator::source`].
///
/// Ollama sends no header before its first token, and a cold model loads for a minute: this waits [`Heartbeat::after`], so that an early
/// refusal keeps its HTTP status; then the head goes out with heartbeats, and what fails later is an error frame.
///
/// # Errors
/// A refusal within [`Heartbeat::after`], if it is the first that is heard.
pub(crate) async fn respond<T: Translator>(
    Openings { openings, redactor }: Openings,
    translator: T,
    heartbeat: &Heartbeat,
    recorder: Recorder,
) -> Result<Response, Error> {
    let mut sources: Vec<Stage> = openings.into_iter().map(Stage::Opening).collect();
    let first = poll_fn(|cx| {
        for stage in sources.iter_mut().take(AT_ONCE) {
            if let Stage::Opening(opening) = stage
                && let Poll::Ready(opened) = opening.as_mut().poll(cx)
            {
                return Poll::Ready(opened.map(|body| *stage = Stage::Flowing(body)));
            }
        }
        Poll::Pending
    });
    let waiting = match tokio::time::timeout(heartbeat.after, first).await {
        Ok(opened) => {
            opened?;
            false
        }
        Err(_) => true,
    };
    let mut stream = EventStream {
        feed: Feed::of(translator, sources.len()).redacting(&redactor),
        sources,
        beat: Alarm::default(),
        every: heartbeat.every,
        wrote: Instant::now(),
        heard: false,
        recorder,
        failed: false,
    };
    if waiting {
        stream.feed.frames.heartbeat();
    }
    Ok(event_stream(Body::new(stream)))
}

/// An answer whose body is an event stream.
pub(crate) fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would hold the stream back otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Leads to the body of an answer.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Upstream, Error>> + Send>>;

/// What leads to the bodies of the upstream responses that one stream is made of.
pub(crate) struct Openings {
    pub(crate) openings: Vec<Opening>,
    /// Masks the remote's credentials.
    pub(crate) redactor: Redactor,
}

enum Stage {
    /// The upstream has not answered yet.
    Opening(Opening),
    /// Replies come in.
    Flowing(Upstream),
    /// The last frame is written; the upstream gets a moment to end too.
    Lingering(Upstream, Pin<Box<Sleep>>),
    /// Nothing more comes.
    Ended,
}

/// Packets in, frames out: cuts lines, reads replies, and hands them to the translator. Pure.
pub(crate) struct Feed<T> {
    translator: T,
    /// Of each upstream answer its own.
    lines: Vec<Lines>,
    pub(crate) frames: Frames,
    /// Masks credentials that the remote repeats in an error.
    redactor: Redactor,
}

impl<T: Translator> Feed<T> {
    /// Takes packets of one upstream answer.
    #[cfg(test)]
    pub(crate) fn new(translator: T) -> Self {
        Self::of(translator, 1)
    }

    /// [`Feed::packet_of`] the only upstream answer.
    #[cfg(test)]
    pub(crate) fn packet(&mut self, packet: Bytes) -> Result<(), Error> {
        self.packet_of(0, packet)
    }

    /// [`Feed::eof_of`] the only upstream answer.
    #[cfg(test)]
    pub(crate) fn eof(&mut self) -> Result<(), Error> {
        self.eof_of(0)
    }

    /// Takes packets of `n` upstream answers.
    pub(crate) fn of(translator: T, n: usize) -> Self {
        let lines = std::iter::repeat_with(Lines::default).take(n).collect();
        Self { translator, lines, frames: Frames::default(), redactor: Redactor::default() }
    }

    /// Masks credentials in the errors of the remote.
    pub(crate) fn redacting(self, redactor: &Redactor) -> Self {
        Self { redactor: redactor.clone(), ..self }
    }

    /// Takes the next packet.
    ///
    /// # Errors
    /// What ended the stream before it was done; its frame is written.
    pub(crate) fn packet_of(&mut self, nth: usize, packet: Bytes) -> Result<(), Error> {
        if let Err(error) = self.lines[nth].push(packet) {
            return Err(self.fail(error));
        }
        while let Some(line) = self.lines[nth].next() {
            self.line(nth, &line)?;
        }
        Ok(())
    }

    /// Takes the end of the packets.
    ///
    /// # Errors
    /// As [`Feed::packet`].
    pub(crate) fn eof_of(&mut self, nth: usize) -> Result<(), Error> {
        if let Some(line) = self.lines[nth].rest() {
            self.line(nth, &line)?;
        }
        if self.translator.finished(nth) {
            return Ok(());
        }
        Err(self.fail(Error::unfinished()))
    }

    /// What all was told to.
    pub(crate) fn translator(&self) -> &T {
        &self.translator
    }

    /// Whether the last frame is written.
    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.translator.closed()
    }

    /// Ends the stream with an error; gives it back.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.translator.fail(&error, &mut self.frames);
        error
    }

    /// What has become known of the receipt since this was last asked.
    pub(crate) fn receipt(&mut self) -> Receipt {
        self.translator.receipt()
    }

    fn line(&mut self, nth: usize, line: &[u8]) -> Result<(), Error> {
        if self.translator.closed() {
            return Ok(());
        }
        self.translator.source(nth);
        let unreadable = match serde_json::from_slice::<T::Reply<'_>>(line) {
            Ok(reply) => {
                self.translator.reply(reply, &mut self.frames);
                return self.translator.wrong().map_or(Ok(()), |error| Err(self.fail(error)));
            }
            Err(unreadable) => unreadable,
        };
        let error = match serde_json::from_slice::<ErrorLine<'_>>(line) {
            // Ollama reports an error in mid-stream, where there is no status.
            Ok(line) => refusal::from_text(StatusCode::INTERNAL_SERVER_ERROR, &line.error, &self.redactor).into(),
            Err(_) => {
                Error::Cut { message: format!("the remote sent a line that is no reply of Ollama's: {unreadable}") }
            }
        };
        Err(self.fail(error))
    }
}

struct EventStream<T> {
    /// The upstream answers, one for most endpoints.
    sources: Vec<Stage>,
    feed: Feed<T>,
    /// Goes off when it is time to look whether a heartbeat is due.
    beat: Alarm,
    every: Duration,
    wrote: Instant,
    /// Whether the remote has sent anything.
    heard: bool,
    recorder: Recorder,
    /// Whether the stream ends with an error.
    failed: bool,
}

impl<T: Translator> EventStream<T> {
    /// Notes what went wrong, if anything did.
    fn note(&mut self, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            self.failed = true;
            self.recorder.failed(&error);
        }
    }

    /// Whether nothing more comes from any upstream answer.
    fn ended(&self) -> bool {
        self.sources.iter().all(|stage| matches!(stage, Stage::Ended))
    }

    /// Takes the next step of one upstream answer. Ready: there was one.
    fn poll_source(&mut self, nth: usize, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = match &mut self.sources[nth] {
            Stage::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                Ok(body) => {
                    self.sources[nth] = Stage::Flowing(body);
                    Ok(())
                }
                Err(error) => {
                    self.sources[nth] = Stage::Ended;
                    Err(self.feed.fail(error))
                }
            },
            Stage::Flowing(body) => match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if !std::mem::replace(&mut self.heard, true) {
                        self.recorder.first_token();
                    }
                    let outcome = frame.into_data().map_or(Ok(()), |packet| self.feed.packet_of(nth, packet));
                    if (self.feed.translator.closed() || self.feed.translator.finished(nth))
                        && let Stage::Flowing(body) = std::mem::replace(&mut self.sources[nth], Stage::Ended)
                    {
                        self.sources[nth] = Stage::Lingering(body, Box::pin(tokio::time::sleep(LINGER)));
                    }
                    outcome
                }
                Some(Err(error)) => {
                    self.sources[nth] = Stage::Ended;
                    Err(self.feed.fail(error))
                }
                None => {
                    self.sources[nth] = Stage::Ended;
                    self.feed.eof_of(nth)
                }
            },
            Stage::Lingering(body, over) => {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(_) => self.sources[nth] = Stage::Ended,
                    Poll::Pending => {
                        ready!(over.as_mut().poll(cx));
                        self.sources[nth] = Stage::Ended;
                    }
                }
                Ok(())
            }
            Stage::Ended => return Poll::Pending,
        };
        if outcome.is_err() {
            // One answer of several has failed, and with it the whole: the others are given up.
            let others = self.sources.iter_mut().enumerate().filter(|(other, _)| *other != nth);
            others.for_each(|(_, stage)| *stage = Stage::Ended);
        }
        self.note(outcome);
        Poll::Ready(())
    }

    /// What is written goes out as one data frame.
    fn hand_over(&mut self) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.wrote = Instant::now();
        self.recorder.receipt(self.feed.receipt());
        let mut frames = self.feed.frames.take();
        // In front of the last events, because nothing follows them; and never before an error (docs/streams.md).
        if self.feed.translator.closed()
            && !self.failed
            && let Some(receipt) = self.recorder.untold()
        {
            self.feed.frames.comment(&format!("receipt {receipt}"));
            self.feed.frames.0.put_slice(&frames);
            frames = self.feed.frames.take();
        }
        self.recorder.sent(&frames);
        if let Some(usage) = self.feed.translator.usage() {
            self.recorder.usage(usage);
        }
        if self.feed.translator.closed() {
            self.recorder.finished();
        }
        Poll::Ready(Some(Ok(Frame::data(frames))))
    }

    /// Ready when nothing was written for so long that a heartbeat is due.
    fn poll_beat(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.every.is_zero() {
            return Poll::Pending;
        }
        self.beat.poll(self.wrote + self.every, cx)
    }

    /// Ends the stream after a panic: with the translator's error event, or a plain one if the translator panics again.
    fn panicked(&mut self) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let error = Error::panicked();
        self.recorder.failed(&error);
        self.sources.iter_mut().for_each(|stage| *stage = Stage::Ended);
        // What was being written may be half an event.
        self.feed.frames = Frames::default();
        let failing = catch_unwind(AssertUnwindSafe(|| self.feed.fail(error.clone())));
        if failing.is_err() || self.feed.frames.is_empty() {
            self.feed.frames = Frames::default();
            self.feed.frames.error(&error);
        }
        Poll::Ready(Some(Ok(Frame::data(self.feed.frames.take()))))
    }

    /// Takes steps until there is something to write.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let mut moved = false;
            let mut open = 0;
            for nth in 0..self.sources.len() {
                if self.feed.frames.len() >= ENOUGH {
                    return self.hand_over();
                }
                match self.sources[nth] {
                    Stage::Ended => continue,
                    Stage::Lingering(..) => {}
                    // Those after it are not asked before one of these has ended.
                    _ if open == AT_ONCE => break,
                    _ => open += 1,
                }
                moved |= self.poll_source(nth, cx).is_ready();
            }
            if moved {
                continue;
            }
            if !self.feed.frames.is_empty() {
                return self.hand_over();
            }
            if self.ended() {
                return Poll::Ready(None);
            }
            if self.feed.translator.closed() {
                return Poll::Pending;
            }
            ready!(self.poll_beat(cx));
            self.feed.frames.heartbeat();
        }
    }
}

impl<T: Translator> HttpBody for EventStream<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let polled = catch_unwind(AssertUnwindSafe(|| this.poll_events(cx)));
        polled.unwrap_or_else(|_| this.panicked())
    }

    fn is_end_stream(&self) -> bool {
        self.ended() && self.feed.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_reader_finds_a_line_end_inside_an_event() {
        let mut frames = Frames::default();
        frames.data(&"a\u{2028}b\u{2029}c\u{85}d\né€");
        let carried: Box<serde_json::value::RawValue> =
            serde_json::from_str("{\r\n \"a\\n\":\t\"\u{2028}\"\n}").unwrap();
        frames.data(&carried);
        let told = "data: \"a\\u2028b\\u2029c\\u0085d\\né€\"\n\ndata: { \"a\\n\":\t\"\\u2028\"}\n\n";
        assert_eq!(&frames.take()[..], told.as_bytes());
    }

    /// Panics when it is to fail, if it is `stubborn`.
    struct Panics {
        stubborn: bool,
        closed: bool,
    }

    impl Translator for Panics {
        type Reply<'a> = serde::de::IgnoredAny;

        fn reply(&mut self, _: serde::de::IgnoredAny, _: &mut Frames) {}

        fn fail(&mut self, error: &Error, out: &mut Frames) {
            assert!(!self.stubborn, "on purpose, again");
            out.event("failed", &error.to_string());
            self.closed = true;
        }

        fn closed(&self) -> bool {
            self.closed
        }

        fn usage(&self) -> Option<Usage> {
            None
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_stream_is_one_error_event_and_its_end() {
        use http_body_util::BodyExt;
        for (stubborn, event) in [(false, "event: failed\ndata: "), (true, "data: {\"error\":")] {
            let recorder = Recorder::default();
            let mut feed = Feed::of(Panics { stubborn, closed: false }, 1);
            feed.frames.0.put_slice(b"data: half an ev");
            let mut stream = EventStream {
                sources: vec![Stage::Opening(Box::pin(async { panic!("on purpose") }))],
                feed,
                beat: Alarm::default(),
                every: Duration::ZERO,
                wrote: Instant::now(),
                heard: false,
                failed: false,
                recorder: recorder.clone(),
            };
            let frame = stream.frame().await.unwrap().unwrap().into_data().unwrap();
            let frame = str::from_utf8(&frame).unwrap();
            assert!(frame.starts_with(event) && frame.contains("the proxy failed"), "{frame}");
            assert_eq!(frame.matches("\n\n").count(), 1, "{frame}");
            assert!(stream.frame().await.is_none());
            assert_eq!(recorder.notes().error, Some(Error::panicked()));
        }
    }
}
