//! Repairs the tool calls of Ollama's own `/api/chat` to the tools that the request offers (`tools.repair_native`).
//! Lines without calls, and calls that fit, pass unchanged.

use std::{
    borrow::Cow,
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::{Response, header};
use http_body::{Body as HttpBody, Frame};
use memchr::{memchr_iter, memmem, memrchr};
use serde_json::value::RawValue;

use super::native_body::{Edits, Object, span};
use crate::{
    config::{Repair, Tools},
    observe::Recorder,
    openai::tools::{CalledFunction, Tool, repair::Repairs},
    receipt::Receipt,
};

/// A line that is longer than this passes unchanged.
const LONGEST_LINE: usize = 8 << 20;

/// What the calls in the answer to a native request are checked against: the tools in its `body`. Calls in text stay
/// text.
pub(super) fn repairs(body: &[u8], settings: &Tools) -> Repairs {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<Object<'_>>();
    let Some(Ok(object)) = values.next() else { return Repairs::default() };
    let tools = object.last("tools").and_then(|raw| serde_json::from_str::<Vec<Tool<'_>>>(raw.get()).ok());
    Repairs::new(&tools.unwrap_or_default(), &Tools { rescue: Repair::Off, reask: false, ..*settings })
}

/// Repairs the calls in `response`.
pub(crate) fn repair(response: Response<Body>, repairs: Repairs, recorder: Recorder) -> Response<Body> {
    if !response.status().is_success() || response.headers().contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = Repaired { body, pending: Vec::new(), ready: VecDeque::new(), ended: false, repairs, recorder };
    Response::from_parts(parts, Body::new(body))
}

/// A body whose lines are repaired as they pass.
struct Repaired {
    body: Body,
    /// The beginning of a line.
    pending: Vec<u8>,
    /// What can be handed over.
    ready: VecDeque<Result<Frame<Bytes>, axum::Error>>,
    ended: bool,
    repairs: Repairs,
    recorder: Recorder,
}

impl Repaired {
    fn data(&mut self, data: &Bytes) {
        let Some(last) = memrchr(b'\n', data) else {
            self.pending.extend_from_slice(data);
            if self.pending.len() > LONGEST_LINE {
                let line = std::mem::take(&mut self.pending);
                self.ready.push_back(Ok(Frame::data(line.into())));
            }
            return;
        };
        let rest = data.slice(last + 1..);
        // Mostly whole lines arrive, which need not be copied.
        let whole = if self.pending.is_empty() {
            data.slice(..=last)
        } else {
            self.pending.extend_from_slice(&data[..=last]);
            std::mem::take(&mut self.pending).into()
        };
        self.pending.extend_from_slice(&rest);
        self.lines(whole);
    }

    /// Hands over lines.
    fn lines(&mut self, lines: Bytes) {
        if lines.is_empty() {
            return;
        }
        let mut receipt = Receipt::default();
        let repaired = if memmem::find(&lines, b"\"tool_calls\"").is_some() {
            repaired(&lines, &self.repairs, &mut receipt)
        } else {
            None
        };
        self.recorder.receipt(receipt);
        self.ready.push_back(Ok(Frame::data(repaired.map_or(lines, Into::into))));
    }

    fn end(&mut self) {
        let line = std::mem::take(&mut self.pending);
        self.lines(line.into());
    }
}

impl HttpBody for Repaired {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.ready.pop_front() {
                return Poll::Ready(Some(frame));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.data(&data),
                    Err(trailers) => {
                        this.end();
                        this.ready.push_back(Ok(trailers));
                    }
                },
                Some(Err(error)) => {
                    this.ended = true;
                    // What came of a line came.
                    let line = std::mem::take(&mut this.pending);
                    if !line.is_empty() {
                        this.ready.push_back(Ok(Frame::data(line.into())));
                    }
                    this.ready.push_back(Err(error));
                }
                None => {
                    this.ended = true;
                    this.end();
                }
            }
        }
    }
}

/// Lines with their calls repaired. None if nothing changes.
fn repaired(lines: &[u8], repairs: &Repairs, receipt: &mut Receipt) -> Option<Vec<u8>> {
    let mut edits = Edits::default();
    let mut start = 0;
    for end in memchr_iter(b'\n', lines).chain([lines.len()]) {
        let line = &lines[start..end];
        start = (end + 1).min(lines.len());
        if memmem::find(line, b"\"tool_calls\"").is_some() {
            repair_line(line, lines, repairs, receipt, &mut edits);
        }
    }
    (!edits.is_empty()).then(|| edits.apply(lines))
}

/// Repairs the calls of one line of `lines`.
fn repair_line(line: &[u8], lines: &[u8], repairs: &Repairs, receipt: &mut Receipt, edits: &mut Edits) -> Option<()> {
    fn object(raw: &RawValue) -> Option<Object<'_>> {
        serde_json::from_str(raw.get()).ok()
    }
    let answer: Object<'_> = serde_json::from_slice(line).ok()?;
    let message = object(answer.last("message")?)?;
    let calls: Vec<&RawValue> = serde_json::from_str(message.last("tool_calls")?.get()).ok()?;
    for call in calls {
        let function = object(object(call)?.last("function")?)?;
        let (name, arguments) = (function.last("name")?, function.last("arguments")?);
        let said: Cow<'_, str> = serde_json::from_str(name.get()).ok()?;
        let mut fixed = CalledFunction { name: said.clone(), arguments: Cow::Borrowed(arguments.get()) };
        repairs.fix(&mut fixed, receipt);
        if fixed.name != said {
            edits.replace(span(lines, name), serde_json::Value::from(&*fixed.name).to_string());
        }
        if fixed.arguments != arguments.get() {
            edits.replace(span(lines, arguments), fixed.arguments.into_owned());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use http_body_util::BodyExt;

    use super::*;

    const TOOLS: &str = r#"{"model":"m","tools":[{"type":"function","function":{"name":"get_weather","parameters":{"type":"object","properties":{"days":{"type":"integer"}},"required":["days"]}}}]}"#;

    /// What comes of an answer that arrives in `parts`.
    fn passed(parts: &[&str]) -> String {
        let repairs = repairs(TOOLS.as_bytes(), &Tools::default());
        assert!(!repairs.is_empty());
        let parts: Vec<_> = parts.iter().map(|part| Ok::<_, std::io::Error>(Bytes::from((*part).to_owned()))).collect();
        let response = Response::new(Body::from_stream(stream::iter(parts)));
        let body = repair(response, repairs, Recorder::default()).into_body();
        let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn calls_are_repaired_and_every_other_byte_stays() {
        let call = |name: &str, days: &str| {
            format!(
                "{{\"message\":{{\"content\":\"\" ,\"tool_calls\":[{{\"function\":{{\"name\":\"{name}\",\"arguments\":{{ \"days\":{days} }}}}}}]}},\"done\":false}}\n"
            )
        };
        let text = "{\"message\":{\"content\":\"\\u00e9\"},\"done\":false}\n";
        let fits = call("get_weather", "3");
        assert_eq!(passed(&[text, &fits]), format!("{text}{fits}"));
        let wrong = call("getWeather", "\"3\"");
        let right = passed(&[text, &wrong, text]);
        assert!(right.starts_with(text) && right.ends_with(text), "{right}");
        let middle = &right[text.len()..right.len() - text.len()];
        assert!(middle.contains("\"name\":\"get_weather\"") && middle.contains("\"days\":3"), "{middle}");
        // However it is cut, and with or without a last newline.
        let whole = format!("{text}{wrong}");
        for step in [1, 7, 40] {
            let parts: Vec<String> =
                whole.as_bytes().chunks(step).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
            assert_eq!(
                passed(&parts.iter().map(String::as_str).collect::<Vec<_>>()),
                right[..right.len() - text.len()],
                "{step}"
            );
        }
        assert_eq!(passed(&[wrong.trim_end()]) + "\n", right[text.len()..right.len() - text.len()]);
    }
}
