//! What is done to an answer that is no stream.

use serde_json::Value;

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

pub(super) fn header_dropped(answer: &mut Message, nth: usize) {
    // Without these it would be another mutant: no answer that can be read.
    let frames = |name: &str| matches!(name, "content-length" | "transfer-encoding" | "connection");
    let names = answer.head.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).filter(|name| !frames(name));
    if let Some(name) = names.collect::<Vec<_>>().get(nth) {
        answer.head.remove(name);
    }
}

pub(super) fn value_changed(answer: &mut Message, nth: usize) {
    if let Ok(mut document) = serde_json::from_slice::<Value>(&answer.body)
        && change_leaf(&mut document, nth).is_none()
    {
        answer.body = document.to_string().into_bytes();
    }
}

/// Changes the `nth` value that holds no others; of a long list the first and the last item stand for all. How many are
/// still to be passed, if there were too few.
fn change_leaf(value: &mut Value, nth: usize) -> Option<usize> {
    let within: Vec<&mut Value> = match value {
        Value::Array(items) => {
            let last = items.len().saturating_sub(1);
            items.iter_mut().enumerate().filter(|(at, _)| *at == 0 || *at == last).map(|(_, item)| item).collect()
        }
        Value::Object(fields) => fields.values_mut().collect(),
        _ if nth > 0 => return Some(nth - 1),
        Value::Null => {
            *value = 0.into();
            return None;
        }
        Value::Bool(flag) => {
            *flag = !*flag;
            return None;
        }
        Value::Number(number) => {
            *value = (number.as_f64().unwrap_or_default() + 1.0).into();
            return None;
        }
        Value::String(text) => {
            text.insert(0, '~');
            return None;
        }
    };
    within.into_iter().try_fold(nth, |nth, value| change_leaf(value, nth))
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
    fn headers_and_values_are_taken_in_turn() {
        let nth = |change: fn(&mut Message, usize), nth: usize| {
            let headers =
                [("Content-Length", "9"), ("X-A", "1"), ("X-B", "2")].map(|(name, value)| (name.into(), value.into()));
            let body = br#"{"a":[1,"b"],"c":null,"d":{},"e":true}"#.to_vec();
            let head = Head { first: String::new(), headers: headers.to_vec() };
            let mut answer = Message { head, body };
            change(&mut answer, nth);
            (answer.head.headers.len(), String::from_utf8(answer.body).unwrap())
        };
        assert_eq!([0, 1, 2].map(|n| nth(header_dropped, n).0), [2, 2, 3]);
        assert_eq!(nth(value_changed, 0).1, r#"{"a":[2.0,"b"],"c":null,"d":{},"e":true}"#);
        assert_eq!(nth(value_changed, 1).1, r#"{"a":[1,"~b"],"c":null,"d":{},"e":true}"#);
        assert_eq!(nth(value_changed, 2).1, r#"{"a":[1,"b"],"c":0,"d":{},"e":true}"#);
        assert_eq!(nth(value_changed, 3).1, r#"{"a":[1,"b"],"c":null,"d":{},"e":false}"#);
        assert_eq!(nth(value_changed, 4), nth(value_changed, 9));
    }

    #[test]
    fn gzip_is_as_the_standard_has_it() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let zipped = gzip(b"ab");
        assert_eq!(zipped[10..], [1, 2, 0, 253, 255, b'a', b'b', 0x6d, 0x48, 0x83, 0x9e, 2, 0, 0, 0]);
    }
}
