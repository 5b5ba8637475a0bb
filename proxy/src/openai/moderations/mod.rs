//! `POST /v1/moderations` over `POST /api/chat`: a model of the remote judges. Each input is an ask of its own.

mod judge;
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

use super::{json::Json, models, receipt::Receipt, usage::Usage};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{client::encode, wire::ChatReply},
};

const PATH: &str = "/api/chat";

/// How many inputs are judged at a time.
const AT_ONCE: usize = 4;

/// The judgements of one input or several.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let (asks, facts, model) = {
        let mut ignored = Vec::new();
        let request = wire::Request::read(json.fields()?, &mut ignored)?;
        let model = translate::model(request.model.as_deref(), &app.config.moderation.model)?;
        recorder.model(&model);
        recorder.receipt(Receipt::ignoring(&ignored, app.config.openai.strict)?);
        let (asks, facts) = translate::requests(request, &model)?;
        (asks.iter().map(encode).collect::<Result<Vec<_>, _>>()?, facts, model)
    };
    drop(json);
    // Older versions leave out in silence a picture that the model cannot see, which must not be called harmless.
    if facts.kinds.iter().any(|(_, image)| *image)
        && !app.ollama.version().await?.refuses_pictures()
        && !models::can(&app, &model, "vision").await?
    {
        return Err(Error::unsupported(
            "input",
            format!("The model `{model}` cannot see pictures, so it cannot judge them."),
        ));
    }
    for ask in &asks {
        recorder.payload("ask", ask);
    }
    let asking = asks.into_iter().map(|ask| models::ask(&app, PATH, ask, &model));
    let replies: Vec<Bytes> =
        iter(asking).buffered(AT_ONCE).try_collect().await.map_err(|error: Error| error.about("input"))?;
    for reply in &replies {
        recorder.payload("reply", reply);
    }
    let replies = replies.iter().map(|reply| app.ollama.read(PATH, reply));
    let replies = replies.collect::<Result<Vec<ChatReply<'_>>, _>>()?;
    recorder.usage(
        replies
            .iter()
            .map(Usage::from)
            .fold(Usage::default(), |sum, one| Usage { input: sum.input + one.input, output: sum.output + one.output }),
    );
    Ok(axum::Json(translate::response(&app.stamp("modr-"), &facts, &replies)?).into_response())
}
