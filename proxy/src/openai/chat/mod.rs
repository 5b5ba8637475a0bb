//! `POST /v1/chat/completions` over `POST /api/chat`.

mod stream;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

use futures_util::future::try_join_all;

use super::{
    asking::{self, Ask},
    context::Policy,
    json::Json,
    receipt::Receipt,
    sse,
    usage::Usage,
};
use crate::{
    app::App,
    config::Config,
    error::Error,
    observe::Recorder,
    ollama::{client::whole, wire::ChatReply},
};

/// A request, ready to be asked.
pub(crate) struct Prepared {
    /// One for each answer that is wanted.
    pub(crate) asks: Vec<Ask>,
    facts: wire::Facts,
    pub(crate) receipt: Receipt,
}

/// Translates a body. `grown` tells how far the context of its model has grown.
///
/// # Errors
/// What the client got wrong, and what cannot be had here.
pub(crate) fn prepare(
    json: &Json,
    config: &Config,
    grown: impl FnOnce(&str) -> Option<u64>,
) -> Result<Prepared, Error> {
    let mut receipt = Receipt::default();
    let request = wire::Request::read(json.fields()?, &mut receipt)?;
    let facts = request.facts();
    let grown = grown(&facts.model).filter(|_| request.leaves_context());
    if config.openai.strict {
        receipt.strictly()?;
    }
    if let Some(tokens) = grown {
        receipt.note("num_ctx", format!("raised:{tokens}"));
    }
    let asks = translate::asks(request, &Policy::of(config, grown, &facts.model))?;
    Ok(Prepared { asks, facts, receipt })
}

/// One answer, streamed or not.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let Prepared { asks, facts, receipt } = prepare(&json, &app.config, |model| {
        recorder.model(model);
        app.grown.of(model)
    })?;
    recorder.receipt(receipt);
    drop(json);
    for ask in &asks {
        recorder.payload("ask", &ask.body);
    }
    let stamp = app.stamp("chatcmpl-");
    if facts.stream {
        let opening = |ask| -> sse::Opening {
            let (app, recorder) = (app.clone(), recorder.clone());
            Box::pin(async move { asking::open(&app, ask, &recorder).await })
        };
        let openings = asks.into_iter().map(opening).collect();
        return sse::respond(openings, stream::Chat::new(stamp, facts), &app.config.heartbeat, recorder).await;
    }
    let asking = asks.into_iter().map(async |ask| whole(asking::open(&app, ask, &recorder).await?).await);
    let bodies = try_join_all(asking).await?;
    let mut replies: Vec<ChatReply<'_>> = Vec::with_capacity(bodies.len());
    for body in &bodies {
        recorder.payload("reply", body);
        replies.push(app.ollama.read("/api/chat", body)?);
    }
    recorder.usage(replies.iter().map(Usage::from).fold(Usage::default(), Usage::plus));
    let mut receipt = Receipt::default();
    let answer = translate::response(&stamp, &facts, replies, &mut receipt);
    recorder.receipt(receipt);
    Ok(axum::Json(answer?).into_response())
}
