//! Events on their way out: numbered without a gap, and written if a client listens. Pure. Their order is `stream.rs`'s
//! business.

use std::borrow::Cow;

use serde_json::value::{RawValue, to_raw_value};

use crate::{
    ollama::wire::Logprob,
    openai::{
        response::sse::Frames,
        responses::wire::{Alternative, Event, Item, Probability},
    },
};

/// Numbers the events, and writes them if a client listens.
#[derive(Clone, Debug, Default)]
pub(super) struct Events {
    next: u64,
    streamed: bool,
    /// Those up to this number are known.
    after: Option<u64>,
}

impl Events {
    /// `streamed`: whether a client listens.
    pub(super) fn new(streamed: bool) -> Self {
        Self { streamed, ..Self::default() }
    }

    /// The client has them up to this number.
    pub(super) fn known_to(&mut self, after: Option<u64>) {
        self.after = after;
    }

    /// There are no more.
    pub(super) fn end(&self, out: &mut Frames) {
        if self.streamed {
            out.done();
        }
    }

    /// The next one.
    pub(super) fn send(&mut self, event: Event<'_>, out: &mut Frames) {
        if self.streamed && self.after.is_none_or(|after| self.next > after) {
            out.event(event.r#type, &Event { sequence_number: self.next, ..event });
        }
        self.next += 1;
    }
}

/// An item is whole.
pub(super) fn done(index: usize, item: &Item) -> Event<'_> {
    Event { r#type: "response.output_item.done", output_index: Some(index), item: Some(item), ..Event::default() }
}

/// A token's probability. Without bytes from Ollama they are those of the text: strict clients accept no null.
pub(super) fn probability(token: &Logprob<'_>) -> Option<Box<RawValue>> {
    fn bytes<'t>(token: &'t Logprob<'_>) -> Cow<'t, [u8]> {
        let reported = token.bytes.and_then(|raw| serde_json::from_str::<Vec<u8>>(raw.get()).ok());
        reported.map_or_else(|| Cow::Borrowed(token.token.as_bytes()), Cow::Owned)
    }
    let alternatives = token.top_logprobs.iter();
    let reported = Probability {
        token: &token.token,
        logprob: token.logprob,
        bytes: bytes(token),
        top_logprobs: alternatives
            .map(|token| Alternative { token: &token.token, logprob: token.logprob, bytes: bytes(token) })
            .collect(),
    };
    to_raw_value(&reported).ok()
}
