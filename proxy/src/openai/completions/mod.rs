//! `POST /v1/completions` over `POST /api/generate`. Each of several answers is an ask of its own.

mod stream;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream::iter};
use http::Method;

use super::{
    json::Json,
    models,
    receipt::Receipt,
    sse::{self, Opening},
};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{client::encode, generate::GenerateReply},
};

const PATH: &str = "/api/generate";

/// How many of the asks of one request are on their way at a time: as many as Ollama answers in parallel by default would be too few to
/// keep it busy, and its queue is for others too.
const AT_ONCE: usize = 4;

/// The answers to one prompt or many, streamed or not.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let (asks, facts) = {
        let mut ignored = Vec::new();
        let request = wire::Request::read(json.fields()?, &mut ignored)?;
        recorder.model(&request.model);
        recorder.receipt(Receipt::ignoring(&ignored, app.config.openai.strict)?);
        let facts = request.facts();
        let asks = translate::requests(request, app.config.completions.raw)?;
        (asks.iter().map(encode).collect::<Result<Vec<_>, _>>()?, facts)
    };
    drop(json);
    for ask in &asks {
        recorder.payload("ask", ask);
    }
    let stamp = app.stamp("cmpl-");
    if facts.stream {
        let (asking, model) = (app.clone(), facts.model.clone());
        let mut openings = asks.into_iter().map(move |ask| open(asking.clone(), ask, model.clone()));
        let first = openings.next().ok_or_else(|| Error::Internal { message: "a request without asks".to_owned() })?;
        let translator = stream::Completions::new(stamp, facts);
        return sse::respond_each(first, openings, translator, &app.config.heartbeat, recorder).await;
    }
    let asking = asks.into_iter().map(|ask| models::ask(&app, PATH, ask, &facts.model));
    let replies: Vec<Bytes> =
        iter(asking).buffered(AT_ONCE).try_collect().await.map_err(|error: Error| error.about("prompt"))?;
    for reply in &replies {
        recorder.payload("reply", reply);
    }
    let replies = replies.iter().map(|reply| app.ollama.read(PATH, reply));
    let replies = replies.collect::<Result<Vec<GenerateReply<'_>>, _>>()?;
    recorder.usage(translate::total(&replies));
    Ok(axum::Json(translate::response(&stamp, &facts, replies)?).into_response())
}

fn open(app: App, ask: Bytes, model: String) -> Opening {
    Box::pin(async move {
        match app.ollama.open(Method::POST, PATH, Some(ask)).await {
            Ok(body) => Ok(body),
            Err(error) => Err(models::explain(&app, error, &model).await.about("prompt")),
        }
    })
}
