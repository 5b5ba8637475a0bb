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

use super::models;
use crate::{
    app::App,
    config::Config,
    error::Error,
    observe::Recorder,
    ollama::wire::ChatReply,
    openai::{
        request::{image_urls, json::Json},
        upstream_request::{
            context::Policy,
            send::{self, Prepared},
        },
    },
    receipt::Receipt,
    usage::Usage,
};

/// Translates a body. `grown` tells how far the context of its model has grown.
///
/// # Errors
/// What the client got wrong, and what cannot be had here.
pub(crate) fn prepare(
    json: &Json,
    config: &Config,
    grown: impl FnOnce(&str) -> Option<u64>,
) -> Result<Prepared<translate::Facts>, Error> {
    let mut receipt = Receipt::default();
    let request = wire::Request::read(json.fields()?, &mut receipt)?;
    receipt.held_to(config)?;
    let model = translate::model(request.model.as_deref(), &config.moderation.model)?;
    let policy = Policy::of(config, grown(&model), &model, &request.native, &mut receipt);
    let (asks, facts) = translate::asks(request, &model, &policy, config.limits.body)?;
    Ok(Prepared { asks, facts, receipt })
}

/// The judgements of one input or several.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let json = image_urls::inline(&app, &recorder, json).await?;
    let Prepared { asks, facts, receipt } =
        send::take(&app, &recorder, json, |json, config, grown| prepare(json, config, grown)).await?;
    recorder.receipt(receipt);
    let model = asks.first().map(|ask| ask.model.clone()).unwrap_or_default();
    // Older versions leave out in silence a picture that the model cannot see, which must not be called harmless.
    if facts.kinds.iter().any(|(_, image)| *image)
        && !app.upstream.version().await?.refuses_pictures()
        && !models::can(&app, &model, "vision").await?
    {
        return Err(Error::unsupported(
            "input",
            format!("The model `{model}` cannot see pictures, so it cannot judge them."),
        ));
    }
    let replies = send::all(&app, asks, &recorder).await?;
    let replies = replies.iter().map(|reply| app.upstream.read(translate::PATH, reply));
    let replies = replies.collect::<Result<Vec<ChatReply<'_>>, _>>()?;
    recorder.usage(replies.iter().map(Usage::from).sum());
    Ok(axum::Json(translate::response(&app.stamp("modr-"), &facts, &replies)?).into_response())
}
