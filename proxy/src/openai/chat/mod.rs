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

use super::{asking, context::Policy, json::Json, receipt::Receipt, sse, usage::Usage};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{client::whole, wire::ChatReply},
};

/// One answer, streamed or not.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let (ask, facts) = {
        let mut receipt = Receipt::default();
        let request = wire::Request::read(json.fields()?, &mut receipt)?;
        recorder.model(&request.model);
        if app.config.openai.strict {
            receipt.strictly()?;
        }
        let facts = request.facts();
        let grown = app.grown.of(&facts.model).filter(|_| request.leaves_context());
        if let Some(tokens) = grown {
            receipt.note("num_ctx", format!("raised:{tokens}"));
        }
        recorder.receipt(receipt);
        (translate::ask(request, &Policy::of(&app.config, grown, &facts.model))?, facts)
    };
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
