//! The frames of a stream, events or lines, as the layer passes them on.

use std::time::Duration;

use serde_json::Value;

/// An event or a line with the bytes that end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame(pub(super) Vec<u8>);

impl Frame {
    /// The text of an event's data or of a line; nothing of a comment.
    pub(super) fn text(&self) -> Option<&str> {
        let text = std::str::from_utf8(&self.0).ok()?.trim_end();
        if text.starts_with('{') {
            return Some(text);
        }
        text.lines().find_map(|line| line.strip_prefix("data:")).map(str::trim_start)
    }

    /// Its JSON.
    pub(super) fn document(&self) -> Option<Value> {
        serde_json::from_str(self.text()?).ok()
    }

    /// The same frame with another document.
    pub(super) fn with(&self, document: &Value) -> Self {
        let text = String::from_utf8_lossy(&self.0);
        match self.text() {
            Some(old) => Self(text.replacen(old, &document.to_string(), 1).into_bytes()),
            None => self.clone(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.text() == Some("[DONE]")
    }

    /// A chunk in which a choice finishes.
    pub(super) fn finishes(&self) -> bool {
        self.document().is_some_and(|document| document["choices"][0]["finish_reason"].is_string())
    }

    /// A chunk with usage and no choice.
    pub(super) fn tells_usage(&self) -> bool {
        self.document().is_some_and(|document| {
            document["usage"].is_object() && document["choices"].as_array().is_some_and(Vec::is_empty)
        })
    }

    pub(super) fn fails(&self) -> bool {
        self.document().is_some_and(|document| document.get("error").is_some())
    }
}

/// What is done with a frame.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// These bytes go on in one write.
    Write(Vec<u8>),
    /// Nothing goes on for a time.
    Wait(Duration),
    /// The answer ends here, as if this were its proper end.
    End,
    /// Something was changed that the bytes do not show.
    Touched,
}

/// What a mutant does with each frame, and with the end of the stream (`None`).
pub(super) type Tamper = Box<dyn FnMut(Option<Frame>) -> Vec<Act> + Send>;

/// Takes a stream apart as it comes.
#[derive(Debug)]
pub(super) struct Frames {
    mark: &'static [u8],
    rest: Vec<u8>,
}

impl Frames {
    /// For a stream of this media type; nothing if it is none.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        let mark: &[u8] = match media_type {
            "text/event-stream" => b"\n\n",
            "application/x-ndjson" => b"\n",
            _ => return None,
        };
        Some(Self { mark, rest: Vec::new() })
    }

    /// The frames that are complete with this piece.
    pub(super) fn add(&mut self, piece: &[u8]) -> Vec<Frame> {
        self.rest.extend_from_slice(piece);
        let mut frames = Vec::new();
        while let Some(at) = self.rest.windows(self.mark.len()).position(|window| window == self.mark) {
            let left = self.rest.split_off(at + self.mark.len());
            frames.push(Frame(std::mem::replace(&mut self.rest, left)));
        }
        frames
    }

    /// What is no frame yet.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let mut frames = Frames::of("text/event-stream").unwrap();
        assert_eq!(frames.add(b"data: 1\n"), []);
        assert_eq!(frames.add(b"\n: x\n\nda"), [Frame(b"data: 1\n\n".to_vec()), Frame(b": x\n\n".to_vec())]);
        assert_eq!(frames.rest(), b"da");
    }

    #[test]
    fn a_document_can_be_put_in_anothers_place() {
        let frame = Frame(b"data: {\"a\":1}\n\n".to_vec());
        assert_eq!(frame.with(&serde_json::json!({"a": 2})), Frame(b"data: {\"a\":2}\n\n".to_vec()));
        assert_eq!(Frame(b"{\"a\":1}\n".to_vec()).document(), Some(serde_json::json!({"a": 1})));
        assert_eq!(Frame(b": waiting\n\n".to_vec()).text(), None);
    }
}
