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

use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::wire::ChatReply,
    openai::{
        models::can,
        request::json::Json,
        upstream_request::{
            prepare::{Context, Prepared, take_with_images},
            send,
        },
    },
    receipt::Receipt,
    usage::Usage,
};

/// Translates a body.
///
/// # Errors
/// What the client got wrong, and what cannot be had here.
pub(crate) fn prepare(json: &Json, context: &Context<'_>) -> Result<Prepared<translate::Facts>, Error> {
    let mut receipt = Receipt::default();
    let request = wire::Request::read(json.fields()?, &mut receipt)?;
    let config = context.config;
    let model = translate::model(request.model.as_deref(), &config.moderation.model)?;
    let policy = context.policy(&model, &request.native, &mut receipt)?;
    let (asks, facts) = translate::asks(request, &model, &policy, config.limits.body)?;
    Ok(Prepared { asks, facts, receipt })
}

/// The judgements of one input or several.
pub(crate) async fn create(State(app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    let (asks, facts) = take_with_images(&app, &recorder, json, prepare).await?;
    let model = asks.first().map(|ask| ask.model.clone()).unwrap_or_default();
    // Older versions leave out in silence a picture that the model cannot see, which must not be called harmless.
    if facts.kinds.iter().any(|(_, image)| *image)
        && !app.upstream.version().await?.refuses_pictures()
        && !can(&app, &model, "vision").await?
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
