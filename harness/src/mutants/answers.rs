//! What is done to an answer that is no stream.

use super::message::Message;

pub(super) fn status_swapped(answer: &mut Message) {
    let status = answer.head.status();
    let other = match status {
        200..300 => "202 Accepted",
        500.. => "400 Bad Request",
        _ => "500 Internal Server Error",
    };
    let words = answer.head.first.split(' ').next().unwrap_or_default();
    answer.head.first = format!("{words} {other}");
}

pub(super) fn retry_after_missing(answer: &mut Message) {
    if answer.head.status() == 429 {
        answer.head.remove("retry-after");
    }
}

pub(super) fn length_lies(answer: &mut Message) {
    if !answer.body.is_empty() {
        answer.head.remove("transfer-encoding");
        answer.head.set("content-length", (answer.body.len() + 1).to_string());
    }
}

pub(super) fn gzip_unasked(answer: &mut Message) {
    if !answer.body.is_empty() {
        answer.body = gzip(&answer.body);
        answer.head.set("content-encoding", "gzip");
    }
}

/// Gzip without compression: one stored block for each 64 KiB (RFC 1951, 3.2.4; RFC 1952).
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = bytes.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
    }
    out.extend(crc32(bytes).to_le_bytes());
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::{super::message::Head, *};

    fn after(change: fn(&mut Message), first: &str, body: &str) -> Message {
        let headers = vec![("Retry-After".to_owned(), "3".to_owned())];
        let mut answer = Message { head: Head { first: first.to_owned(), headers }, body: body.as_bytes().to_vec() };
        change(&mut answer);
        answer
    }

    #[test]
    fn each_mutant_does_what_it_says() {
        assert_eq!(after(status_swapped, "HTTP/1.1 200 OK", "").head.first, "HTTP/1.1 202 Accepted");
        assert_eq!(after(status_swapped, "HTTP/1.1 404 Not Found", "").head.status(), 500);
        assert_eq!(after(retry_after_missing, "HTTP/1.1 429", "").head.headers, []);
        assert_eq!(after(length_lies, "HTTP/1.1 200", "abc").head.header("content-length"), Some("4"));
    }

    #[test]
    fn gzip_is_as_the_standard_has_it() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let zipped = gzip(b"ab");
        assert_eq!(zipped[10..], [1, 2, 0, 253, 255, b'a', b'b', 0x6d, 0x48, 0x83, 0x9e, 2, 0, 0, 0]);
    }
}
