//! The driver of event streams: a response body that pulls the upstream.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep};

use super::{Feed, Frames, Saving, Translator};
use crate::{
    config::Heartbeat,
    deadline::Alarm,
    error::Error,
    observe::Recorder,
    offload::{self, LARGE},
    openai::upstream_request::send::{AT_ONCE, Opening, Openings},
    upstream::client::Upstream,
};

/// A write is handed over once it holds this much, though more may be ready.
const ENOUGH: usize = 16 << 10;

/// How long the end of our answer waits for the end of the upstream's, which makes its connection usable again.
const LINGER: Duration = Duration::from_millis(100);

/// Answers with an event stream that `translator` makes of the replies that `openings` lead to, [`AT_ONCE`] of them at
/// a time; it knows them apart by [`Translator::source`].
///
/// Ollama sends no header before its first token, and a cold model loads for a minute: this waits [`Heartbeat::after`],
/// so that an early refusal keeps its HTTP status; then the head goes out with heartbeats, and what fails later is an
/// error frame.
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
    if let Some(capture) = recorder.capture().filter(|_| sources.len() > 1) {
        capture.is_parallel();
    }
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
        live: Vec::new(),
        next: 0,
        beat: Alarm::default(),
        every: heartbeat.every,
        wrote: Instant::now(),
        heard: false,
        recorder,
        failed: false,
        large: None,
        saving: None,
    };
    if waiting {
        stream.feed.heartbeat();
    }
    Ok(event_stream(Body::new(Events { stream: Some(stream), working: None })))
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

struct EventStream<T> {
    /// The upstream responses, one for most endpoints.
    sources: Vec<Stage>,
    /// Which of them are under way, in order.
    live: Vec<usize>,
    /// The first that is not under way yet.
    next: usize,
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
    /// What completes a long line of an upstream answer, a packet or the end: it is taken off the event loop.
    large: Option<(usize, Option<Bytes>)>,
    /// What has to be stored before anything else is sent.
    saving: Option<Saving>,
}

/// The body. The stream is elsewhere while a long line is read.
struct Events<T> {
    stream: Option<EventStream<T>>,
    working: Option<Working<T>>,
}

/// Gives the stream back, and whether it has panicked.
type Working<T> = Pin<Box<dyn Future<Output = (EventStream<T>, bool)> + Send>>;

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
        self.live.is_empty() && self.next == self.sources.len()
    }

    /// Lets further upstream responses begin, [`AT_ONCE`] at a time. Those that only linger have given up their place.
    fn begin_more(&mut self) {
        self.live.retain(|nth| !matches!(self.sources[*nth], Stage::Ended));
        let lingers = |nth: &&usize| matches!(self.sources[**nth], Stage::Lingering(..));
        let open = self.live.len() - self.live.iter().filter(lingers).count();
        let more = AT_ONCE.saturating_sub(open).min(self.sources.len() - self.next);
        self.live.extend(self.next..self.next + more);
        self.next += more;
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
                    let Ok(packet) = frame.into_data() else { return Poll::Ready(()) };
                    self.recorder.count_lines(&packet);
                    if let Some(capture) = self.recorder.capture() {
                        capture.replied(&packet);
                    }
                    if self.is_large(nth, &packet) {
                        self.large = Some((nth, Some(packet)));
                        return Poll::Ready(());
                    }
                    self.take_packet(nth, packet)
                }
                Some(Err(error)) => {
                    self.sources[nth] = Stage::Ended;
                    Err(self.feed.fail(error))
                }
                None => {
                    self.sources[nth] = Stage::Ended;
                    if self.feed.begun(nth) >= LARGE {
                        self.large = Some((nth, None));
                        return Poll::Ready(());
                    }
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
        self.settle(nth, outcome);
        Poll::Ready(())
    }

    /// Whether a packet completes a long line, or ends a stream whose end is much work.
    fn is_large(&self, nth: usize, packet: &Bytes) -> bool {
        self.feed.begun(nth) + packet.len() >= LARGE && memchr::memchr(b'\n', packet).is_some()
            || self.feed.translator().weight() >= LARGE && memchr::memmem::find(packet, b"\"done\":true").is_some()
    }

    fn take_packet(&mut self, nth: usize, packet: Bytes) -> Result<(), Error> {
        let outcome = self.feed.packet_of(nth, packet);
        if (self.feed.translator().closed() || self.feed.translator().finished(nth))
            && let Stage::Flowing(body) = std::mem::replace(&mut self.sources[nth], Stage::Ended)
        {
            self.sources[nth] = Stage::Lingering(body, Box::pin(tokio::time::sleep(LINGER)));
        }
        outcome
    }

    /// Takes what was set aside for its size.
    fn take_large(&mut self, nth: usize, packet: Option<Bytes>) {
        let outcome = match packet {
            Some(packet) => self.take_packet(nth, packet),
            None => self.feed.eof_of(nth),
        };
        self.settle(nth, outcome);
    }

    /// Ends the stream if the step of one upstream answer failed.
    fn settle(&mut self, nth: usize, outcome: Result<(), Error>) {
        if outcome.is_err() {
            // One response of several has failed, and with it the whole: the others are given up.
            let others = self.sources.iter_mut().enumerate().filter(|(other, _)| *other != nth);
            others.for_each(|(_, stage)| *stage = Stage::Ended);
            self.next = self.sources.len();
        }
        self.note(outcome);
    }

    /// What is written goes out as one data frame.
    fn hand_over(&mut self) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.wrote = Instant::now();
        self.recorder.receipt(self.feed.receipt());
        let mut frames = self.feed.frames.take();
        // In front of the last events, because nothing follows them; and never before an error (docs/streams.md).
        if self.feed.translator().closed()
            && !self.failed
            && let Some(receipt) = self.recorder.take_unsent()
        {
            self.feed.frames.comment(&format!("receipt {receipt}"));
            self.feed.frames.append(&frames);
            frames = self.feed.frames.take();
        }
        self.recorder.sent(&frames);
        if let Some(usage) = self.feed.translator().usage() {
            self.recorder.usage(usage);
        }
        if self.feed.translator().closed() {
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
        self.next = self.sources.len();
        self.live.clear();
        // What was being written may be half an event.
        self.feed.frames = Frames::default();
        let failing = catch_unwind(AssertUnwindSafe(|| self.feed.fail(error.clone())));
        if failing.is_err() || self.feed.frames.is_empty() {
            self.feed.frames = Frames::default();
            self.feed.frames.error(&error);
        }
        Poll::Ready(Some(Ok(Frame::data(self.feed.frames.take()))))
    }

    /// Ends the stream with an error event if its request is canceled, unless it is at its end anyway.
    fn end_if_canceled(&mut self) {
        if self.failed || self.feed.translator().closed() {
            return;
        }
        if let Some(error) = self.recorder.cancel().error() {
            self.sources.iter_mut().for_each(|stage| *stage = Stage::Ended);
            self.next = self.sources.len();
            self.large = None;
            let error = self.feed.fail(error);
            self.note(Err(error));
        }
    }

    /// Ready when everything is stored that what is written depends on.
    fn poll_saving(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.saving.is_none() {
                self.saving = self.feed.saving();
            }
            let Some(saving) = &mut self.saving else { return Poll::Ready(()) };
            let receipt = ready!(saving.as_mut().poll(cx));
            self.saving = None;
            self.feed.saved(receipt);
        }
    }

    /// Takes steps until there is something to write. Pending without a wake-up if something large was set aside.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.end_if_canceled();
        loop {
            ready!(self.poll_saving(cx));
            self.begin_more();
            let mut moved = false;
            for at in 0..self.live.len() {
                if self.feed.frames.len() >= ENOUGH {
                    ready!(self.poll_saving(cx));
                    return self.hand_over();
                }
                moved |= self.poll_source(self.live[at], cx).is_ready();
                if self.large.is_some() {
                    return Poll::Pending;
                }
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
            if self.feed.translator().closed() {
                return Poll::Pending;
            }
            ready!(self.poll_beat(cx));
            self.feed.heartbeat();
        }
    }
}

impl<T: Translator> HttpBody for Events<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(working) = &mut this.working {
                let (mut stream, panicked) = ready!(working.as_mut().poll(cx));
                this.working = None;
                let ended = panicked.then(|| stream.panicked());
                this.stream = Some(stream);
                if let Some(ended) = ended {
                    return ended;
                }
            }
            let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
            let polled = catch_unwind(AssertUnwindSafe(|| stream.poll_events(cx)));
            let polled = polled.unwrap_or_else(|_| stream.panicked());
            let Some((nth, packet)) = stream.large.take() else { return polled };
            let size =
                stream.feed.begun(nth) + packet.as_ref().map_or(0, Bytes::len) + stream.feed.translator().weight();
            let Some(mut stream) = this.stream.take() else { return Poll::Ready(None) };
            this.working = Some(Box::pin(offload::run(size, move || {
                let taken = catch_unwind(AssertUnwindSafe(|| stream.take_large(nth, packet)));
                (stream, taken.is_err())
            })));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.ended() && stream.feed.frames.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Usage;

    /// Panics when it is to fail, if it is `stubborn`.
    struct Panics {
        stubborn: bool,
        closed: bool,
        weight: usize,
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

        fn weight(&self) -> usize {
            self.weight
        }
    }

    /// A stream whose remote makes the proxy panic.
    fn stream_of(translator: Panics, recorder: Recorder) -> EventStream<Panics> {
        EventStream {
            sources: vec![Stage::Opening(Box::pin(async { panic!("on purpose") }))],
            live: Vec::new(),
            next: 0,
            feed: Feed::of(translator, 1),
            beat: Alarm::default(),
            every: Duration::ZERO,
            wrote: Instant::now(),
            heard: false,
            failed: false,
            large: None,
            saving: None,
            recorder,
        }
    }

    #[test]
    fn long_lines_and_ends_that_are_much_work_leave_the_event_loop() {
        let large = |weight, packet: &[u8]| {
            let stream = stream_of(Panics { stubborn: false, closed: false, weight }, Recorder::default());
            stream.is_large(0, &Bytes::copy_from_slice(packet))
        };
        let (line, done) = (b"{\"done\":false}\n", b"{\"done\":true}\n");
        assert!(!large(LARGE - 1, done) && !large(LARGE, line) && large(LARGE, done));
        assert!(!large(0, &[b'a'; LARGE]) && large(0, &[&[b'a'; LARGE][..], b"\n"].concat()));
    }

    #[tokio::test]
    async fn a_panic_in_a_stream_is_one_error_event_and_its_end() {
        use http_body_util::BodyExt;
        for (stubborn, event) in [(false, "event: failed\ndata: "), (true, "data: {\"error\":")] {
            let recorder = Recorder::default();
            let mut stream = stream_of(Panics { stubborn, closed: false, weight: 0 }, recorder.clone());
            stream.feed.frames.append(b"data: half an ev");
            let mut stream = Events { stream: Some(stream), working: None };
            let frame = stream.frame().await.unwrap().unwrap().into_data().unwrap();
            let frame = str::from_utf8(&frame).unwrap();
            assert!(frame.starts_with(event) && frame.contains("the proxy failed"), "{frame}");
            assert_eq!(frame.matches("\n\n").count(), 1, "{frame}");
            assert!(stream.frame().await.is_none());
            assert_eq!(recorder.notes().error, Some(Error::panicked()));
        }
    }
}
