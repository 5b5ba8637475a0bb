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
    pub(crate) ask: Ask,
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
    let ask = translate::ask(request, &Policy::of(config, grown, &facts.model))?;
    Ok(Prepared { ask, facts, receipt })
}

/// One answer, streamed or not.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let Prepared { ask, facts, receipt } = prepare(&json, &app.config, |model| {
        recorder.model(model);
        app.grown.of(model)
    })?;
    recorder.receipt(receipt);
    drop(json);
    recorder.payload("ask", &ask.body);
    let stamp = app.stamp("chatcmpl-");
    if facts.stream {
        let (asking, noting) = (app.clone(), recorder.clone());
        let opening = async move { asking::open(&asking, ask, &noting).await };
        return sse::respond(opening, stream::Chat::new(stamp, facts), &app.config.heartbeat, recorder).await;
    }
    let reply = whole(asking::open(&app, ask, &recorder).await?).await?;
    recorder.payload("reply", &reply);
    let reply: ChatReply<'_> = app.ollama.read("/api/chat", &reply)?;
    recorder.usage(Usage::from(&reply));
    let mut receipt = Receipt::default();
    let answer = translate::response(&stamp, &facts, reply, &mut receipt);
    recorder.receipt(receipt);
    Ok(axum::Json(answer?).into_response())
}
