//! `POST /v1/moderations` over `POST /api/chat`: a model of the remote judges. Each input is an ask of its own.

mod judge;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use std::borrow::Cow;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};

use self::translate::Means;
use crate::{
    app::App,
    config::Config,
    error::Error,
    observe::Recorder,
    offload,
    ollama::{
        models,
        wire::{ChatReply, Tags},
    },
    openai::{
        models::can,
        request::{
            inline_all,
            json::{Json, Text},
        },
        upstream_request::{
            prepare::{Context, Prepared, hold},
            send,
        },
    },
    receipt::Receipt,
    usage::Usage,
};

/// Translates a body as if the remote had a guard model where one is needed; returns also the name that stands for it.
///
/// # Errors
/// Fails if the request is invalid, or asks for something that is not available here.
pub(crate) fn explain(
    json: &Json,
    context: &Context<'_>,
) -> Result<(Prepared<translate::Facts>, Option<&'static str>), Error> {
    const STAND_IN: &str = "llama-guard3";
    let named: Option<Text<'_>> = json.fields()?.take("model", &mut Vec::new())?;
    let needed = translate::is_open(named.as_deref()) && context.config.moderation.model.is_empty();
    let guard = needed.then_some(STAND_IN);
    let means = Means { guard: guard.map(str::to_owned), ..Means::default() };
    Ok((prepare(json, context, &means)?, guard))
}

/// The model that is asked, if that is known before the remote's models are: `named`, or the one in the settings in
/// place of OpenAI's.
pub(crate) fn model<'a>(config: &'a Config, named: Option<&'a str>) -> Option<&'a str> {
    match translate::is_open(named) {
        true => Some(&*config.moderation.model).filter(|model| !model.is_empty()),
        false => named,
    }
}

fn prepare(json: &Json, context: &Context<'_>, means: &Means) -> Result<Prepared<translate::Facts>, Error> {
    let mut receipt = Receipt::default();
    let mut request = wire::Request::read(json.fields()?, &mut receipt)?;
    let config = context.config;
    let model =
        translate::model(request.model.as_deref(), &config.moderation.model, means.guard.as_deref(), &mut receipt)?;
    let mut model = Text(Cow::Owned(model));
    let policy = context.policy(&mut model, &mut request.native, &mut receipt)?;
    let (asks, facts) = translate::asks(request, &model, &policy, config.limits.body, means.scored)?;
    Ok(Prepared { asks, facts, receipt })
}

/// The judgments of one input or several.
pub(crate) async fn create(State(mut app): State<App>, recorder: Recorder, json: Json) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let json = inline_all(&app, &recorder, json).await?;
    let means = means(&app, json.clone()).await?;
    if let Some(guard) = &means.guard {
        app.upstream = app.upstream_for(guard).await?;
    }
    let (shared, notes) = (app.clone(), recorder.clone());
    let working = app.buffered.working(json.bytes()).await?;
    let prepared = offload::run(json.bytes().len(), move || {
        let _working = working;
        prepare(&json, &Context::of(&shared, &notes), &means)
    });
    let Prepared { mut asks, facts, receipt } = prepared.await?;
    hold(&mut asks, &app.buffered);
    recorder.receipt(receipt);
    let model = asks.first().map(|ask| ask.model.clone()).unwrap_or_default();
    // Older versions leave out in silence an image that the model cannot see, which must not be called harmless.
    if facts.kinds.iter().any(|(_, image)| *image)
        && !app.upstream.version().await?.refuses_images()
        && !can(&app, &model, "vision").await?
    {
        return Err(Error::unsupported(
            "input",
            format!("The model `{model}` cannot process images, so it cannot judge them."),
        ));
    }
    let replies = send::all(&app, asks, &recorder).await?;
    send::respond(replies, move |replies| {
        let replies = replies.iter().map(|reply| app.upstream.read(translate::PATH, reply));
        let replies = replies.collect::<Result<Vec<ChatReply<'_>>, _>>()?;
        recorder.usage(replies.iter().map(Usage::from).sum());
        Ok(axum::Json(translate::response(&app.stamp("modr-"), &facts, &replies)?).into_response())
    })
    .await
}

/// What the remote has to judge with. It is asked for a guard model only where one is needed.
async fn means(app: &App, json: Json) -> Result<Means, Error> {
    let open = offload::run(json.bytes().len(), move || {
        let named: Option<Text<'_>> = json.fields()?.take("model", &mut Vec::new())?;
        Ok::<_, Error>(translate::is_open(named.as_deref()))
    });
    let mut guard = None;
    if open.await? && app.config.moderation.model.is_empty() {
        let reply = models::tags(&app.upstream).await?;
        let tags: Tags<'_> = app.upstream.read("/api/tags", &reply)?;
        let names: Vec<&str> = tags.models.iter().map(|tag| &*tag.name).collect();
        guard = judge::guard(&names).map(ToOwned::to_owned);
    }
    Ok(Means { guard, scored: app.upstream.version().await?.has_logprobs() })
}
