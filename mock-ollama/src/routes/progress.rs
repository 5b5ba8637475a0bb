//! Routes that report progress: a stream of statuses, or only the last one (`ollama-wire` A8).

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
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

/// Where work that takes time reports its statuses.
#[derive(Clone, Debug, Default)]
pub(super) struct Reports(Arc<Mutex<VecDeque<Step>>>);

impl Reports {
    fn push(&self, step: Step) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(step);
    }

    fn pop(&self) -> Option<Step> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Reports `{"status": …}`.
    pub(super) fn status(&self, text: impl Into<String>) {
        self.push(Ok(json!({"status": text.into()})));
    }

    /// Reports that weights have been quantized.
    pub(super) fn quantizing(&self, from: &str, to: &str, size: u64) {
        self.push(Ok(json!({
            "status": format!("quantizing {from} model to {to}"),
            "digest": "0000000000000000000",
            "total": size,
            "completed": size,
        })));
    }

    /// Reports how much of a layer has been transferred.
    pub(super) fn layer(&self, verb: &str, digest: &str, total: u64, completed: u64) {
        let mut line = Map::new();
        line.insert("status".to_owned(), format!("{verb} {}", &digest[..12]).into());
        line.insert("digest".to_owned(), format!("sha256:{digest}").into());
        // Go omits what is zero.
        for (key, number) in [("total", total), ("completed", completed)] {
            if number > 0 {
                line.insert(key.to_owned(), number.into());
            }
        }
        self.push(Ok(line.into()));
    }
}

/// The steps that the work reports; its error is the last one. The work goes on only while the steps are asked for.
pub(super) fn steps<F>(work: impl FnOnce(Reports) -> F) -> impl Stream<Item = Step> + Send
where
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let reports = Reports::default();
    let mut work: Option<Pin<Box<F>>> = Some(Box::pin(work(reports.clone())));
    stream::poll_fn(move |cx| {
        loop {
            if let Some(step) = reports.pop() {
                return Poll::Ready(Some(step));
            }
            let Some(running) = &mut work else { return Poll::Ready(None) };
            match running.as_mut().poll(cx) {
                Poll::Pending => return reports.pop().map_or(Poll::Pending, |step| Poll::Ready(Some(step))),
                Poll::Ready(done) => {
                    work = None;
                    if let Err(failure) = done {
                        reports.push(Err(failure));
                    }
                }
            }
        }
    })
}

/// The answer that the steps make.
pub(super) fn answer(stream: bool, steps: impl Stream<Item = Step> + Send + 'static) -> Answer {
    let mut answer = Answer::empty(StatusCode::OK);
    answer.body = Body::Pending(if stream { Box::pin(streamed(steps)) } else { Box::pin(whole(steps)) });
    answer
}

async fn streamed(steps: impl Stream<Item = Step> + Send + 'static) -> Answer {
    let mut steps = Box::pin(steps.peekable());
    if let Some(Err(failure)) = steps.as_mut().next_if(Result::is_err).await {
        return Answer::stream_error(failure.status, &failure.text);
    }
    let lines = steps.map(|step| {
        let value = step.unwrap_or_else(|failure| json!({"error": failure.text}));
        Bytes::from(go::encode(&value) + "\n")
    });
    let mut answer = Answer::empty(StatusCode::OK).with(header::CONTENT_TYPE, "application/x-ndjson");
    answer.body = Body::Stream(lines.boxed());
    answer
}

async fn whole(steps: impl Stream<Item = Step> + Send) -> Answer {
    let mut steps = std::pin::pin!(steps);
    let (mut status, mut last) = (StatusCode::OK, json!({}));
    while let Some(step) = steps.next().await {
        match step {
            Ok(value) => last = value,
            Err(failure) => {
                status = failure.status;
                last = json!({"error": failure.text});
            }
        }
    }
    let mut answer = Answer::empty(status).with(header::CONTENT_TYPE, "application/json");
    answer.body = Body::Whole(Bytes::from(go::encode(&last)));
    answer
}
