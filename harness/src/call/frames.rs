//! A body taken apart: one JSON document, the events of a stream, or its lines. Pure, but for the parser's async face.

use bytes::Bytes;
use eventsource_stream::{Event, Eventsource};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::tap::Recording;

/// What a stream of chat chunks ends with.
pub const DONE: &str = "[DONE]";

/// A body by its kind.
#[derive(Clone, Debug)]
pub enum Frames {
    /// Server-sent events.
    Events(Vec<Event>),
    /// Newline-delimited JSON.
    Lines(Vec<String>),
    /// One document, JSON or not.
    Whole(String),
}

impl Frames {
    /// Takes the recorded body apart, as its content type says.
    pub async fn of(recording: &Recording) -> Self {
        let body = recording.body();
        match recording.media_type() {
            "text/event-stream" => Self::Events(events(body).await),
            "application/x-ndjson" => Self::Lines(String::from_utf8_lossy(&body).lines().map(str::to_owned).collect()),
            _ => Self::Whole(String::from_utf8_lossy(&body).into_owned()),
        }
    }

    /// The events before `[DONE]`, or the lines; none of a whole body.
    #[must_use]
    pub fn count(&self) -> Option<usize> {
        match self {
            Self::Events(events) => Some(events.iter().filter(|event| event.data != DONE).count()),
            Self::Lines(lines) => Some(lines.len()),
            Self::Whole(_) => None,
        }
    }

    /// The JSON of the body, or the array of that of its events (without `[DONE]`) or lines. What is no JSON is a text.
    #[must_use]
    pub fn document(&self) -> Value {
        match self {
            Self::Events(_) | Self::Lines(_) => self.events().map(|(_, document)| document).collect(),
            Self::Whole(text) if text.is_empty() => Value::Null,
            Self::Whole(text) => json_or_text(text),
        }
    }

    /// The events before `[DONE]` or the lines, each with the name of its event (`message` where none is written) and
    /// its JSON.
    pub fn events(&self) -> impl Iterator<Item = (Option<String>, Value)> {
        let (events, lines) = match self {
            Self::Events(events) => (&events[..], &[][..]),
            Self::Lines(lines) => (&[][..], &lines[..]),
            Self::Whole(_) => (&[][..], &[][..]),
        };
        let events = events.iter().filter(|event| event.data != DONE);
        let events = events.map(|event| (Some(event.event.clone()), json_or_text(&event.data)));
        events.chain(lines.iter().map(|line| (None, json_or_text(line))))
    }
}

async fn events(body: Vec<u8>) -> Vec<Event> {
    let pieces = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(body))]);
    // What cannot be read as an event is reported by the laws, which read the bytes.
    pieces.eventsource().filter_map(|event| async { event.ok() }).collect().await
}

fn json_or_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
