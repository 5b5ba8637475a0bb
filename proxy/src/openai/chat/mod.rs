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
use http::Method;

use super::{json::Json, models, receipt::Receipt, sse, usage::Usage};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{client::encode, wire::ChatReply},
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
        recorder.receipt(receipt);
        let facts = request.facts();
        (encode(&translate::request(request)?)?, facts)
    };
    drop(json);
    recorder.payload("ask", &ask);
    let stamp = app.stamp("chatcmpl-");
    if facts.stream {
        let (asking, model) = (app.clone(), facts.model.clone());
        let opening = async move {
            match asking.ollama.open(Method::POST, "/api/chat", Some(ask)).await {
                Ok(body) => Ok(body),
                Err(error) => Err(models::explain(&asking, error, &model).await),
            }
        };
        return sse::respond(opening, stream::Chat::new(stamp, facts), &app.config.heartbeat, recorder).await;
    }
    let reply = match app.ollama.call(Method::POST, "/api/chat", Some(ask)).await {
        Ok(reply) => reply,
        Err(error) => return Err(models::explain(&app, error, &facts.model).await),
    };
    recorder.payload("reply", &reply);
    let reply: ChatReply<'_> = app.ollama.read("/api/chat", &reply)?;
    recorder.usage(Usage::from(&reply));
    let mut receipt = Receipt::default();
    let answer = translate::response(&stamp, &facts, reply, &mut receipt);
    recorder.receipt(receipt);
    Ok(axum::Json(answer?).into_response())
}
