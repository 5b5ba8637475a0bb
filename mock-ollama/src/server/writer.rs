//! An answer on the wire, framed as Go's server frames it: each piece is a write of its own, and the journal learns how
//! it ended.

use std::{io, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderName, HeaderValue, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::answer::{Answer, Body, Part, Parts};
use crate::{
    chaos::{Break, Dice},
    journal::OpenEntry,
};

/// Go answers with `Content-Length` what fits its buffer, and chunks what does not.
const BUFFER: usize = 2048;
/// Between the parts of a split piece, so that the peer reads them one by one.
const BETWEEN_PARTS: Duration = Duration::from_millis(1);

/// What of the request decides how its answer is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) is_head: bool,
    pub(crate) is_1_0: bool,
    /// An HTTP/1.0 client wants to keep the connection.
    pub(crate) wants_keep_alive: bool,
    /// The connection ends with this answer.
    pub(crate) closes: bool,
}

/// How the connection goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    KeepAlive,
    Close,
    /// A script or chaos broke the answer off: nothing is said any more.
    Broken,
    /// The same, with a reset.
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    Close,
}

/// Writes one answer.
#[derive(Debug)]
pub(crate) struct Writer<'a, W> {
    pub(crate) stream: &'a mut W,
    pub(crate) entry: &'a mut OpenEntry,
    pub(crate) dice: Option<Dice>,
}

/// A write that ended the answer early.
enum Stopped {
    By(Break),
    Io(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    /// Writes the answer; returns how the connection goes on.
    ///
    /// # Errors
    /// The peer no longer reads.
    pub(crate) async fn write(mut self, answer: Answer, terms: Terms) -> io::Result<Next> {
        let (head, framing, parts, next) = plan(answer, terms);
        match self.send_all(head, framing, parts).await {
            Ok(Some(broken)) => Ok(broken),
            Ok(None) => {
                self.entry.complete();
                Ok(next)
            }
            Err(Stopped::By(Break::Cut)) => Ok(Next::Broken),
            Err(Stopped::By(Break::Reset)) => Ok(Next::Reset),
            // The caller stops waiting when the peer goes away.
            Err(Stopped::By(Break::Stall)) => std::future::pending().await,
            Err(Stopped::Io(error)) => Err(error),
        }
    }

    async fn send_all(
        &mut self,
        head: BytesMut,
        framing: Framing,
        parts: Option<Parts>,
    ) -> Result<Option<Next>, Stopped> {
        let mut pending = head;
        let Some(mut parts) = parts else {
            self.send(&pending).await?;
            return Ok(None);
        };
        loop {
            let part = match parts.next().now_or_never() {
                Some(part) => part,
                None => {
                    // What is there leaves while the next piece is made: at first, the head.
                    if !pending.is_empty() {
                        self.send(&pending).await?;
                        pending.clear();
                    }
                    parts.next().await
                }
            };
            match part {
                Some(Part::Data(bytes)) if bytes.is_empty() => continue,
                Some(Part::Data(bytes)) => {
                    frame(&mut pending, &bytes, framing);
                    self.send(&pending).await?;
                    self.entry.wrote();
                    pending.clear();
                }
                Some(Part::Cut(bytes)) => {
                    if framing == Framing::Chunked && !bytes.is_empty() {
                        pending.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                    }
                    pending.extend_from_slice(&bytes[..bytes.len() / 2]);
                    self.send(&pending).await?;
                    return Ok(Some(Next::Broken));
                }
                Some(Part::Reset) => {
                    if !pending.is_empty() {
                        self.send(&pending).await?;
                    }
                    return Ok(Some(Next::Reset));
                }
                None => break,
            }
        }
        if framing == Framing::Chunked {
            pending.extend_from_slice(b"0\r\n\r\n");
        }
        if !pending.is_empty() {
            self.send(&pending).await?;
        }
        Ok(None)
    }

    /// Writes one piece, or as much of it as chaos allows.
    async fn send(&mut self, piece: &[u8]) -> Result<(), Stopped> {
        let Some(dice) = &mut self.dice else { return Ok(self.stream.write_all(piece).await?) };
        let fate = dice.fate(piece.len());
        if !fate.pause.is_zero() {
            tokio::time::sleep(fate.pause).await;
        }
        let end = fate.ends.map_or(piece.len(), |(_, at)| at);
        let mut sent = 0;
        for split in fate.splits.into_iter().filter(|split| *split < end).chain([end]) {
            if sent > 0 {
                tokio::time::sleep(BETWEEN_PARTS).await;
            }
            self.stream.write_all(&piece[sent..split]).await?;
            sent = split;
        }
        match fate.ends {
            Some((broken, at)) => {
                tracing::info!(?broken, byte = at, of = piece.len(), "chaos");
                Err(Stopped::By(broken))
            }
            None => Ok(()),
        }
    }
}

/// Appends a piece of a body.
fn frame(pending: &mut BytesMut, bytes: &[u8], framing: Framing) {
    if framing == Framing::Chunked {
        pending.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    }
    pending.extend_from_slice(bytes);
    if framing == Framing::Chunked {
        pending.extend_from_slice(b"\r\n");
    }
}

/// The head, the framing of the body, the body, and how the connection goes on.
fn plan(mut answer: Answer, terms: Terms) -> (BytesMut, Framing, Option<Parts>, Next) {
    answer.headers.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    let has_no_body = answer.status == StatusCode::NO_CONTENT || answer.status == StatusCode::NOT_MODIFIED;
    let one = |bytes: Bytes| -> Parts { stream::iter([Part::Data(bytes)]).boxed() };
    let (framing, parts): (Framing, Option<Parts>) = match answer.body {
        Body::Empty | Body::Pending(_) if terms.is_head || has_no_body => (Framing::None, None),
        Body::Empty | Body::Pending(_) => (Framing::Length(0), None),
        Body::Whole(bytes) if bytes.len() <= BUFFER => (Framing::Length(bytes.len() as u64), Some(one(bytes))),
        // A body that Go would chunk leaves no trace in the answer to a HEAD.
        _ if terms.is_head || has_no_body => (Framing::None, None),
        Body::Whole(bytes) | Body::OneChunk(bytes) => (Framing::Chunked, Some(one(bytes))),
        Body::Lines(lines) => (Framing::Chunked, Some(stream::iter(lines.map(Part::Data)).boxed())),
        Body::Stream(pieces) => (Framing::Chunked, Some(pieces.map(Part::Data).boxed())),
        Body::Script { length: Some(length), parts } => (Framing::Length(length), Some(parts)),
        Body::Script { length: None, parts } => (Framing::Chunked, Some(parts)),
    };
    let parts = parts.filter(|_| !terms.is_head && !has_no_body);
    let given = |name: HeaderName| {
        let given = answer.headers.iter().find(|(known, _)| *known == name);
        given.and_then(|(_, value)| value.to_str().ok()).map(str::to_owned)
    };
    // A length that a script sets is announced, whatever follows it.
    let (length, encoding) = (given(header::CONTENT_LENGTH), given(header::TRANSFER_ENCODING));
    let framing = match framing {
        Framing::Chunked | Framing::Length(_) if length.is_some() => Framing::None,
        Framing::Chunked if terms.is_1_0 => Framing::Close,
        framing => framing,
    };
    let closes = terms.closes
        || framing == Framing::Close
        || given(header::CONNECTION).is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let mut head = BytesMut::with_capacity(512);
    let version = if terms.is_1_0 { "HTTP/1.0" } else { "HTTP/1.1" };
    let reason = answer
        .status
        .canonical_reason()
        .map_or_else(|| format!("status code {}", answer.status.as_u16()), str::to_owned);
    head.extend_from_slice(format!("{version} {} {reason}\r\n", answer.status.as_u16()).as_bytes());
    for (name, value) in &answer.headers {
        put(&mut head, &spelled(name), value.as_bytes());
    }
    if given(header::DATE).is_none()
        && let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now())
    {
        put(&mut head, "Date", date.as_bytes());
    }
    if let Framing::Length(length) = framing {
        put(&mut head, "Content-Length", length.to_string().as_bytes());
    }
    if given(header::CONNECTION).is_none() {
        if closes && !terms.is_1_0 {
            put(&mut head, "Connection", b"close");
        } else if !closes && terms.is_1_0 && terms.wants_keep_alive {
            put(&mut head, "Connection", b"keep-alive");
        }
    }
    if framing == Framing::Chunked && encoding.is_none() {
        put(&mut head, "Transfer-Encoding", b"chunked");
    }
    head.extend_from_slice(b"\r\n");
    (head, framing, parts, if closes { Next::Close } else { Next::KeepAlive })
}

fn put(head: &mut BytesMut, name: &str, value: &[u8]) {
    head.put_slice(name.as_bytes());
    head.put_slice(b": ");
    head.put_slice(value);
    head.put_slice(b"\r\n");
}

/// A name as Go spells it: `Content-Type`.
fn spelled(name: &HeaderName) -> String {
    let parts = name.as_str().split('-').map(|part| {
        let mut chars = part.chars();
        chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
    });
    parts.collect::<Vec<String>>().join("-")
}

/// The refusal of an `Expect` that Go's server does not know; it comes before any handler.
pub(crate) fn expectation_failed() -> Answer {
    let mut answer = Answer::empty(StatusCode::EXPECTATION_FAILED);
    answer.headers.push((header::CONNECTION, HeaderValue::from_static("close")));
    answer
}

/// The answer to `OPTIONS *`, which Go's server gives itself: its length is set by a handler, and so comes before the
/// date.
pub(crate) fn options_star() -> Answer {
    let mut answer = Answer::empty(StatusCode::OK);
    answer.headers.push((header::CONTENT_LENGTH, HeaderValue::from_static("0")));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { is_head: false, is_1_0: false, wants_keep_alive: false, closes: false };

    /// The head without its date, the framing, and whether the connection stays.
    fn head(answer: Answer, terms: Terms) -> (String, bool) {
        let (head, _, _, next) = plan(answer, terms);
        let text = String::from_utf8(head.to_vec()).unwrap();
        let lines: Vec<&str> = text.trim_end().lines().filter(|line| !line.starts_with("Date: ")).collect();
        (lines.join("|"), next == Next::KeepAlive)
    }

    fn whole(len: usize) -> Answer {
        Answer::text(StatusCode::OK, "text/plain", vec![b'x'; len])
    }

    #[test]
    fn framing_follows_gos_rules() {
        let (ok, plain) = ("HTTP/1.1 200 OK", "Content-Type: text/plain");
        assert_eq!(head(whole(2048), TERMS), (format!("{ok}|{plain}|Content-Length: 2048"), true));
        assert_eq!(head(whole(2049), TERMS), (format!("{ok}|{plain}|Transfer-Encoding: chunked"), true));
        let is_head = Terms { is_head: true, ..TERMS };
        assert_eq!(head(whole(9), is_head), (format!("{ok}|{plain}|Content-Length: 9"), true));
        assert_eq!(head(whole(2049), is_head), (format!("{ok}|{plain}"), true));
        assert_eq!(head(Answer::empty(StatusCode::NO_CONTENT), TERMS).0, "HTTP/1.1 204 No Content");
        let closes = Terms { closes: true, ..TERMS };
        assert_eq!(head(whole(9), closes), (format!("{ok}|{plain}|Content-Length: 9|Connection: close"), false));
        let chunked = format!("{ok}|{plain}|Connection: close|Transfer-Encoding: chunked");
        assert_eq!(head(whole(2049), closes), (chunked, false));
    }

    #[test]
    fn http_1_0_has_no_chunks_and_closes_unless_asked() {
        let old = Terms { is_1_0: true, closes: true, ..TERMS };
        assert_eq!(head(whole(9), old).0, "HTTP/1.0 200 OK|Content-Type: text/plain|Content-Length: 9");
        assert_eq!(head(whole(2049), old), ("HTTP/1.0 200 OK|Content-Type: text/plain".to_owned(), false));
        let kept = Terms { closes: false, wants_keep_alive: true, ..old };
        assert!(head(whole(9), kept).0.ends_with("Content-Length: 9|Connection: keep-alive"));
        assert!(!head(whole(2049), kept).1, "the end of the connection is the end of the body");
    }

    #[test]
    fn what_a_handler_sets_comes_before_the_date_and_wins() {
        let (text, keeps) = head(whole(9).with(header::CONTENT_LENGTH, "20").with(header::CONNECTION, "close"), TERMS);
        assert_eq!(text, "HTTP/1.1 200 OK|Connection: close|Content-Length: 20|Content-Type: text/plain");
        assert!(!keeps);
        let (text, _) = head(Answer::empty(StatusCode::from_u16(599).unwrap()), TERMS);
        assert_eq!(text, "HTTP/1.1 599 status code 599|Content-Length: 0");
    }
}
