//! What is done to the frames of a stream.

use std::time::Duration;

use serde_json::Value;

use super::frame::{Act, Frame, Tamper};

/// Long enough that two writes arrive as two.
const MOMENT: Duration = Duration::from_millis(20);
/// More than a model calls at once.
const LATE: Duration = Duration::from_secs(2);

/// A mutant that does something with each frame and nothing with the end.
fn each(mut does: impl FnMut(Frame) -> Vec<Frame> + Send + 'static) -> Tamper {
    Box::new(move |frame| frame.map_or_else(Vec::new, |frame| written(does(frame))))
}

fn written(frames: impl IntoIterator<Item = Frame>) -> Vec<Act> {
    frames.into_iter().map(|frame| Act::Write(frame.0)).collect()
}

/// A mutant that does something with the `nth` frame that is no comment.
fn at(nth: usize, mut does: impl FnMut(Frame) -> Vec<Frame> + Send + 'static) -> Tamper {
    let mut seen = 0;
    each(move |frame| {
        if frame.text().is_none() {
            return vec![frame];
        }
        seen += 1;
        if seen == nth + 1 { does(frame) } else { vec![frame] }
    })
}

pub(super) fn dropped(nth: usize) -> Tamper {
    at(nth, |_| Vec::new())
}

pub(super) fn doubled(nth: usize) -> Tamper {
    at(nth, |frame| vec![frame.clone(), frame])
}

pub(super) fn swapped(nth: usize) -> Tamper {
    let (mut seen, mut held) = (0, None);
    Box::new(move |frame| {
        let Some(frame) = frame else { return written(held.take()) };
        if frame.text().is_none() {
            return written([frame]);
        }
        seen += 1;
        if seen == nth + 1 {
            held = Some(frame);
            return Vec::new();
        }
        written([frame].into_iter().chain(held.take()))
    })
}

pub(super) fn split() -> Tamper {
    Box::new(|frame| {
        let Some(Frame(mut first)) = frame else { return Vec::new() };
        let second = first.split_off(first.len() / 2);
        vec![Act::Write(first), Act::Wait(MOMENT), Act::Write(second)]
    })
}

pub(super) fn crlf() -> Tamper {
    each(|Frame(bytes)| vec![Frame(String::from_utf8_lossy(&bytes).replace('\n', "\r\n").into_bytes())])
}

pub(super) fn without_heartbeats() -> Tamper {
    each(|frame| if frame.text().is_none() { Vec::new() } else { vec![frame] })
}

pub(super) fn finish_twice() -> Tamper {
    each(|frame| if frame.finishes() { vec![frame.clone(), frame] } else { vec![frame] })
}

pub(super) fn usage_missing() -> Tamper {
    each(|frame| if frame.tells_usage() { Vec::new() } else { vec![frame] })
}

pub(super) fn usage_twice() -> Tamper {
    each(|frame| if frame.tells_usage() { vec![frame.clone(), frame] } else { vec![frame] })
}

pub(super) fn usage_early() -> Tamper {
    let mut held: Option<Frame> = None;
    Box::new(move |frame| {
        let Some(frame) = frame else { return written(held.take()) };
        if frame.finishes() {
            return written(held.replace(frame));
        }
        let finish = held.take();
        if frame.tells_usage() {
            written([frame].into_iter().chain(finish))
        } else {
            written(finish.into_iter().chain([frame]))
        }
    })
}

/// The first number gets a zero more; a whole one becomes a fraction.
pub(super) fn float_rewritten(frame: Frame) -> Frame {
    let text = String::from_utf8_lossy(&frame.0).into_owned();
    let number = regex::Regex::new(r"[:\[]\s*(-?\d+(\.\d+)?)\s*[,}\]]").ok();
    match number.as_ref().and_then(|number| number.captures(&text)).and_then(|found| found.get(1)) {
        Some(number) => {
            let more = if number.as_str().contains('.') { "0" } else { ".0" };
            let (before, after) = text.split_at(number.end());
            Frame(format!("{before}{more}{after}").into_bytes())
        }
        None => frame,
    }
}

pub(super) fn key_order(frame: Frame) -> Frame {
    match frame.document() {
        Some(Value::Object(fields)) => frame.with(&Value::Object(fields.into_iter().rev().collect())),
        _ => frame,
    }
}

pub(super) fn early_end() -> Tamper {
    let mut seen = 0;
    Box::new(move |frame| {
        seen += usize::from(frame.as_ref().is_some_and(|frame| frame.text().is_some()));
        if seen > 2 { vec![Act::End] } else { written(frame) }
    })
}

pub(super) fn done_missing() -> Tamper {
    each(|frame| if frame.is_done() { Vec::new() } else { vec![frame] })
}

pub(super) fn done_twice() -> Tamper {
    each(|frame| if frame.is_done() { vec![frame.clone(), frame] } else { vec![frame] })
}

pub(super) fn done_after_error() -> Tamper {
    each(|frame| if frame.fails() { vec![frame, Frame(b"data: [DONE]\n\n".to_vec())] } else { vec![frame] })
}

/// The last frame before an error comes after it once more.
pub(super) fn chunk_after_error() -> Tamper {
    let mut last: Option<Frame> = None;
    each(move |frame| {
        if frame.fails() {
            return [frame].into_iter().chain(last.take()).collect();
        }
        if frame.document().is_some() {
            last = Some(frame.clone());
        }
        vec![frame]
    })
}

pub(super) fn first_late() -> Tamper {
    let mut late = Some(Act::Wait(LATE));
    Box::new(move |frame| {
        frame.map_or_else(Vec::new, |frame| late.take().into_iter().chain(written([frame])).collect())
    })
}

pub(super) fn buffered() -> Tamper {
    let (mut all, mut frames) = (Vec::new(), 0);
    Box::new(move |frame| {
        let Some(frame) = frame else {
            return vec![Act::Write(std::mem::take(&mut all))];
        };
        all.extend(frame.0);
        frames += 1;
        // One frame alone is no buffer.
        if frames == 2 { vec![Act::Touched] } else { Vec::new() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a stream.
    fn after(tamper: Tamper, frames: &[&str]) -> Vec<String> {
        let frames = frames.iter().map(|frame| Some(Frame(frame.as_bytes().to_vec()))).chain([None]);
        let acts: Vec<Act> = frames.flat_map(tamper).collect();
        let reported = |act| match act {
            Act::Write(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            other => format!("{other:?}"),
        };
        acts.into_iter().map(reported).collect()
    }

    const A: &str = "data: {\"choices\":[{\"delta\":{}}]}\n\n";
    const FINISH: &str = "data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n";
    const USAGE: &str = "data: {\"choices\":[],\"usage\":{}}\n\n";
    const DONE: &str = "data: [DONE]\n\n";
    const HEARTBEAT: &str = "\n\n";

    #[test]
    fn each_mutant_does_what_it_says() {
        let stream = [HEARTBEAT, A, FINISH, USAGE, DONE];
        let is = |tamper: Tamper, expected: &[&str]| assert_eq!(after(tamper, &stream), expected);
        is(dropped(0), &[HEARTBEAT, FINISH, USAGE, DONE]);
        is(dropped(4), &stream);
        is(doubled(1), &[HEARTBEAT, A, FINISH, FINISH, USAGE, DONE]);
        is(swapped(0), &[HEARTBEAT, FINISH, A, USAGE, DONE]);
        is(swapped(3), &stream);
        is(without_heartbeats(), &[A, FINISH, USAGE, DONE]);
        is(finish_twice(), &[HEARTBEAT, A, FINISH, FINISH, USAGE, DONE]);
        is(usage_missing(), &[HEARTBEAT, A, FINISH, DONE]);
        is(usage_early(), &[HEARTBEAT, A, USAGE, FINISH, DONE]);
        is(early_end(), &[HEARTBEAT, A, FINISH, "End", "End", "End"]);
        is(done_missing(), &[HEARTBEAT, A, FINISH, USAGE]);
        assert_eq!(after(crlf(), &[DONE]), ["data: [DONE]\r\n\r\n"]);
        assert_eq!(after(buffered(), &[A, DONE]), ["Touched".to_owned(), format!("{A}{DONE}")]);
        let error = "data: {\"error\":{}}\n\n";
        assert_eq!(after(done_after_error(), &[error]), [error, DONE]);
        assert_eq!(after(chunk_after_error(), &[A, HEARTBEAT, error]), [A, HEARTBEAT, error, A]);
    }

    #[test]
    fn native_lines_are_rewritten_so_that_only_bytes_tell() {
        let frame = |text: &str| Frame(text.as_bytes().to_vec());
        assert_eq!(float_rewritten(frame("{\"a\":0.5,\"b\":1}\n")), frame("{\"a\":0.50,\"b\":1}\n"));
        assert_eq!(float_rewritten(frame("{\"a\":[-2,1]}")), frame("{\"a\":[-2.0,1]}"));
        assert_eq!(key_order(frame("{\"a\":1,\"b\":2}\n")), frame("{\"b\":2,\"a\":1}\n"));
    }
}
