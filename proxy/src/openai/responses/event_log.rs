//! The events of a response in the background, each under its number, so that a stream can begin after any of them.
//! Pure.

use bytes::Bytes;

/// What the events of a stream end with.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// The events so far.
#[derive(Debug, Default)]
pub(super) struct EventLog {
    /// One for each number.
    events: Vec<Bytes>,
    /// The last ones, which wait until the response is stored.
    last: Vec<Bytes>,
    ended: bool,
}

impl EventLog {
    /// Adds whole events; those of a response that is `closed` wait for [`Self::end`].
    pub(super) fn add(&mut self, mut frames: Bytes, closed: bool) {
        let events = if closed { &mut self.last } else { &mut self.events };
        while let Some(end) = memchr::memmem::find(&frames, b"\n\n") {
            let event = frames.split_to(end + 2);
            if event != DONE {
                events.push(event);
            }
        }
    }

    /// The response is stored, or cannot be: the last events may go out.
    pub(super) fn end(&mut self) {
        self.events.append(&mut self.last);
        self.events.shrink_to_fit();
        self.ended = true;
    }

    /// How many bytes it takes.
    pub(super) fn size(&self) -> usize {
        const EACH: usize = size_of::<Bytes>();
        self.events.iter().map(|event| event.len() + EACH).sum()
    }
}

/// A place in a log that a stream has come to.
#[derive(Debug)]
pub(super) struct Place {
    next: usize,
    sent: bool,
}

impl Place {
    /// The place after the event with the number `after`; the beginning without one.
    pub(super) fn after(after: Option<u64>) -> Self {
        let next = after.map_or(0, |after| usize::try_from(after).map_or(usize::MAX, |after| after.saturating_add(1)));
        Self { next, sent: false }
    }

    /// The events from here on, and whether the log has ended, in which case the last event is always among those that
    /// a stream was sent.
    pub(super) fn read(&mut self, log: &EventLog) -> (Bytes, bool) {
        if log.ended && !self.sent {
            self.next = self.next.min(log.events.len().saturating_sub(1));
        }
        let events = log.events.get(self.next..).unwrap_or_default();
        self.next += events.len();
        self.sent |= !events.is_empty();
        let mut text = events.concat();
        if log.ended {
            text.extend_from_slice(&DONE);
        }
        (text.into(), log.ended)
    }
}
