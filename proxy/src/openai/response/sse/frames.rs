//! Events of an event stream, as they cross the wire. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::{
    error::{self, Dialect, Error},
    json_writer,
};

/// Events on their way out, whole ones only.
#[derive(Debug, Default)]
pub(crate) struct Frames(BytesMut);

impl Frames {
    /// Adds `data: <value>` and the blank line.
    pub(crate) fn data(&mut self, value: &impl Serialize) {
        self.data_between(&[], value, &[]);
    }

    /// As [`Self::data`], where `value` stands between JSON that is written already, [on one line](on_one_line).
    pub(crate) fn data_between(&mut self, before: &[u8], value: &(impl Serialize + ?Sized), after: &[u8]) {
        // Room for all of a usual event.
        self.0.reserve(before.len() + 256);
        self.0.put_slice(b"data: ");
        self.0.put_slice(before);
        let begin = self.0.len();
        let written = json_writer::append(&mut self.0, value);
        debug_assert!(written.is_ok(), "plain structs always serialize");
        keep_on_one_line(&mut self.0, begin);
        self.0.put_slice(after);
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
    /// The event is named, because langchain4j takes an unnamed one for a complete answer; and the name follows the
    /// data, because go-openai loses the message otherwise (docs/streams.md).
    pub(crate) fn error(&mut self, error: &Error) {
        self.0.put_slice(b"data: ");
        self.0.put_slice(&error::body(error, Dialect::OpenAi, None));
        self.0.put_slice(b"\nevent: error\n\n");
    }

    /// Adds an error in Anthropic's envelope, as its event.
    pub(crate) fn anthropic_error(&mut self, error: &Error, id: Option<&str>) {
        self.0.put_slice(b"event: error\ndata: ");
        self.0.put_slice(&error::body(error, Dialect::Anthropic, id));
        self.0.put_slice(b"\n\n");
    }

    /// Adds Anthropic's heartbeat, an event that its clients skip, even as the first of a stream.
    pub(crate) fn ping(&mut self) {
        self.0.put_slice(b"event: ping\ndata: {\"type\":\"ping\"}\n\n");
    }

    /// Adds a heartbeat: bytes that mean nothing to any reader of events.
    ///
    /// It is not a comment, because go-openai loses the message of an error that follows one; and it is two empty
    /// lines, because readers that split a stream at `\n\n` would find a single one in front of the next event
    /// (docs/streams.md).
    pub(crate) fn heartbeat(&mut self) {
        self.0.put_slice(b"\n\n");
    }

    /// Adds a comment, which every client skips.
    pub(super) fn comment(&mut self, text: &str) {
        self.0.put_slice(b": ");
        self.0.put_slice(text.as_bytes());
        self.0.put_slice(b"\n\n");
    }

    /// Adds frames that are written already.
    pub(crate) fn append(&mut self, frames: &[u8]) {
        self.0.put_slice(frames);
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

/// JSON as it may stand in an event: without line ends.
pub(crate) fn on_one_line(json: &[u8]) -> Vec<u8> {
    let mut text = BytesMut::from(json);
    keep_on_one_line(&mut text, 0);
    text.into()
}

/// Makes JSON, which stands in `text` from `begin` on, text in which no reader finds a line end: some clients split
/// streams at U+0085, U+2028 and U+2029 as well. They stand in strings only, where they can be escaped. Carried JSON
/// may be printed over several lines; these ends stand outside of strings only, where they mean nothing.
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
        let reported = "data: \"a\\u2028b\\u2029c\\u0085d\\né€\"\n\ndata: { \"a\\n\":\t\"\\u2028\"}\n\n";
        assert_eq!(&frames.take()[..], reported.as_bytes());
    }
}
