//! What every streamed endpoint implements, and what those with several choices share. Pure.

use std::pin::Pin;

use super::Frames;
use crate::{error::Error, ollama::wire::Line, receipt::Receipt, usage::Usage};

/// Work of a translator that must be done before its last frames go out. The receipt says what of it failed.
pub(crate) type Saving = Pin<Box<dyn Future<Output = Receipt> + Send>>;

/// Turns native replies into wire text. A state machine without clock, dice or IO.
///
/// Laws: once [`closed`](Translator::closed), it writes nothing more. Joining the deltas of any chunking gives the
/// unstreamed answer.
pub(crate) trait Translator: Send + Unpin + 'static {
    /// What one line of the upstream holds.
    type Reply<'a>: Line<'a>;
    /// Takes the next reply: 0..n frames.
    fn reply(&mut self, reply: Self::Reply<'_>, out: &mut Frames);
    /// Takes the end before the last reply: one error frame.
    fn fail(&mut self, error: &Error, out: &mut Frames);
    /// Whether the last frame is written.
    fn closed(&self) -> bool;
    /// Writes what shows that the stream is alive while there is nothing to say.
    fn heartbeat(&self, out: &mut Frames) {
        out.heartbeat();
    }
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
    /// What has to be stored before the frames that are written go out, so that a client which acts on them finds it.
    /// Asked after each packet; what it gives is polled to its end, and [`saved`](Translator::saved) hears of it.
    fn saving(&mut self) -> Option<Saving> {
        None
    }
    /// Takes what came of [`saving`](Translator::saving).
    fn saved(&mut self, _receipt: Receipt) {}
    /// About how many bytes the end of the stream goes over besides the reply, up to [`LARGE`]: what is stored of a
    /// long request.
    ///
    /// [`LARGE`]: crate::offload::LARGE
    fn weight(&self) -> usize {
        0
    }
    /// What was wrong with the reply that was taken last, so that the stream must fail.
    fn wrong(&mut self) -> Option<Error> {
        None
    }
}

/// How many of the choices that are streamed together are still open, and what all of them cost.
#[derive(Debug)]
pub(crate) struct OpenChoices {
    left: usize,
    closed: bool,
    usage: Option<Usage>,
}

impl OpenChoices {
    pub(crate) fn new(n: usize) -> Self {
        Self { left: n, closed: false, usage: None }
    }

    /// Adds what a choice cost.
    pub(crate) fn count(&mut self, counted: Usage) {
        self.usage = Some(self.usage.unwrap_or_default().plus(counted));
    }

    /// Ends a choice. Returns what all of them cost once the last one has ended.
    pub(crate) fn finish(&mut self, counted: Usage) -> Option<Usage> {
        self.count(counted);
        self.left = self.left.saturating_sub(1);
        self.usage.filter(|_| self.left == 0)
    }

    /// Ends the stream.
    pub(crate) fn done(&mut self, out: &mut Frames) {
        out.done();
        self.closed = true;
    }

    /// Ends the stream with an error, unless it has ended. Never a false `stop`, and no `[DONE]`, which clients take
    /// for success.
    pub(crate) fn fail(&mut self, error: &Error, out: &mut Frames) {
        if !std::mem::replace(&mut self.closed, true) {
            out.error(error);
        }
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }
}
