//! `POST /v1/images/generations` over `POST /api/generate`, where the remote's version generates images. Never text
//! dressed up as one.

mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    error::{Error, Params},
    observe::Recorder,
    openai::{
        models::can,
        request::{json::Json, options::Native},
        tools::repair::Repairs,
        upstream_request::{
            prepare::{Context, Prepared, take},
            send::{self, UpstreamRequest, VersionGated},
        },
    },
    receipt::Receipt,
    upstream::client::encode,
};

const PATH: &str = "/api/generate";

/// Translates a body; what the answer must know is the model.
///
/// # Errors
/// Fails if the request is invalid, or asks for something that is not available here.
pub(crate) fn prepare(json: &Json, context: &Context<'_>) -> Result<Prepared<String>, Error> {
    let mut receipt = Receipt::default();
    let mut request = wire::Request::read(json.fields()?, &mut receipt)?;
    let facts = request.model.to_string();
    context.policy(&mut request.model, &mut Native::default(), &mut receipt)?;
    let ask = |native| {
        let (model, body) = (request.model.to_string(), encode(&native)?);
        Ok(UpstreamRequest {
            path: PATH,
            params: Params::reading("prompt"),
            model,
            body,
            may_grow: false,
            limit: None,
            effort: None,
            forced: false,
            version_gated: VersionGated::default(),
            reask: Repairs::default(),
        })
    };
    let asks = translate::requests(&request).into_iter().map(ask).collect::<Result<_, Error>>()?;
    Ok(Prepared { asks, facts, receipt })
}

/// One image or several.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    let (asks, model) = take(&app, &recorder, json, prepare).await?;
    let version = app.upstream.version().await?;
    let target = asks.first().map(|ask| ask.model.clone()).unwrap_or_default();
    if !version.generates_images() || !can(&app, &target, "image").await? {
        return Err(translate::refused(&model, &version));
    }
    let mut replies = Vec::with_capacity(asks.len());
    // One after the other: an image takes a whole machine.
    for ask in asks {
        replies.push(send::whole(&app, ask, &recorder).await?);
    }
    let replies = replies.iter().map(|reply| translate::image(reply, &model)).collect::<Result<Vec<_>, _>>()?;
    Ok(axum::Json(translate::response(&app.stamp(""), &model, replies)?).into_response())
}
