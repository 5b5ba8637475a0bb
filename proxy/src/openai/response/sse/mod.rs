//! From native replies to an event stream: [`Frames`], the [`Translator`] of each endpoint, the [`Feed`] that hands it
//! replies, and the one driver that every streamed endpoint uses.
//!
//! The driver is the response body itself: the client pulls, the upstream is pulled in turn, and dropping the body
//! cancels the upstream. There is no task and no channel. Events that are ready together go out in one write; none is
//! split.

mod event_stream;
mod feed;
mod frames;
mod translator;

pub(crate) use event_stream::{event_stream, respond};
pub(crate) use feed::Feed;
pub(crate) use frames::{Frames, on_one_line};
pub(crate) use translator::{OpenChoices, Saving, Translator};
