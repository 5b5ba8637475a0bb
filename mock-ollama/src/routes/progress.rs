//! Routes that report progress: a stream of statuses, or only the last one (`ollama-wire` A8).

use bytes::Bytes;
use http::{StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{
    go,
    server::answer::{Answer, Body},
};

/// One status, or what went wrong after those before it.
pub(super) type Step = Result<Value, Failure>;

/// An error in a stream; it has a status where nothing was sent before it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, text: text.into() }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }
}

/// `{"status": …}`.
pub(super) fn status(text: impl Into<String>) -> Step {
    Ok(json!({"status": text.into()}))
}

/// The statuses of a layer on its way, as a client sees them: announced, then in growing parts.
pub(super) fn layer(verb: &str, digest: &str, total: u64, is_there: bool) -> Vec<Step> {
    let line = |completed: Option<u64>| {
        let mut line = Map::new();
        line.insert("status".to_owned(), format!("{verb} {}", &digest[..12]).into());
        line.insert("digest".to_owned(), format!("sha256:{digest}").into());
        line.insert("total".to_owned(), total.into());
        line.extend(
            completed.filter(|completed| *completed > 0).map(|completed| ("completed".to_owned(), completed.into())),
        );
        Ok(line.into())
    };
    if is_there {
        return vec![line(Some(total))];
    }
    (0..=4).map(|quarter| line(Some(total * quarter / 4))).collect()
}

/// The answer that the steps make.
pub(super) fn answer(stream: bool, steps: impl Iterator<Item = Step> + Send + 'static) -> Answer {
    if stream { streamed(steps) } else { whole(steps) }
}

fn streamed(steps: impl Iterator<Item = Step> + Send + 'static) -> Answer {
    let mut steps = steps.peekable();
    if let Some(Err(failure)) = steps.next_if(Result::is_err) {
        return Answer::stream_error(failure.status, &failure.text);
    }
    let mut is_over = false;
    Answer::lines(std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let step = steps.next()?;
        is_over = step.is_err();
        Some(step.unwrap_or_else(|failure| json!({"error": failure.text})))
    }))
}

fn whole(steps: impl Iterator<Item = Step>) -> Answer {
    let mut last = json!({});
    let (status, value) = 'steps: {
        for step in steps {
            match step {
                Ok(value) => last = value,
                Err(failure) => break 'steps (failure.status, json!({"error": failure.text})),
            }
        }
        (StatusCode::OK, last)
    };
    let mut answer = Answer::empty(status).with(header::CONTENT_TYPE, "application/json");
    answer.body = Body::Whole(Bytes::from(go::encode(&value)));
    answer
}
