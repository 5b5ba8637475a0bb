//! `POST /v1/images/generations` over `POST /api/generate`, where the remote's version makes pictures. Never text dressed up as one.

mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

use super::{json::Json, models, receipt::Receipt};
use crate::{app::App, error::Error, observe::Recorder, ollama::client::encode};

const PATH: &str = "/api/generate";

/// One picture or several.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let (asks, model) = {
        let mut ignored = Vec::new();
        let request = wire::Request::read(json.fields()?, &mut ignored)?;
        recorder.model(&request.model);
        recorder.receipt(Receipt::ignoring(&ignored, app.config.openai.strict)?);
        let asks = translate::requests(&request).iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        (asks, request.model.to_string())
    };
    drop(json);
    let version = app.ollama.version().await?;
    if !version.makes_pictures() || !models::can(&app, &model, "image").await? {
        return Err(translate::refused(&model, &version));
    }
    let mut replies = Vec::with_capacity(asks.len());
    // One after the other: a picture takes a whole machine.
    for ask in asks {
        recorder.payload("ask", &ask);
        replies.push(models::ask(&app, PATH, ask, &model).await?);
    }
    let replies = replies.iter().map(|reply| translate::picture(reply, &model)).collect::<Result<Vec<_>, _>>()?;
    Ok(axum::Json(translate::response(&app.stamp(""), &model, replies)?).into_response())
}
