//! `POST /v1/responses/input_tokens`. Ollama has no route that counts tokens, and no option that generates none
//! (`num_predict: 0` is no limit: recorded, `chat/num-predict-0`). What it reports with an answer is exact, so a model
//! that is loaded is asked for one token: the remote reads the prompt, which it then has in its cache for the request
//! that usually follows. A model that is not loaded is not loaded for this; then, and where the remote's version does
//! not count cached tokens, the number is an estimate, and the receipt says so.

use std::borrow::Cow;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::take;
use crate::{
    app::App,
    config::Kind,
    error::Error,
    gate::Owner,
    observe::Recorder,
    ollama::{
        models, name,
        refusal::Refusal,
        wire::{ChatReply, Ps},
    },
    openai::{
        request::{image_urls, input_files, json::Json, options::raw},
        upstream_request::send::{self, UpstreamRequest},
    },
};

/// How long the prompt would be.
pub(crate) async fn input_tokens(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    // Images are not fetched for this; files are, because their text counts.
    let json = input_files::inline(&app, &recorder, json).await?;
    let (json, images) = if app.config.images.fetch { image_urls::stand_in(&json) } else { (json, Vec::new()) };
    let prepared = take(&app, &recorder, owner, json, None, String::new(), None).await?;
    let mut receipt = prepared.receipt;
    let counted = match images.is_empty() {
        true => Box::pin(counted(&app, prepared.ask, &recorder)).await,
        false => None,
    };
    if counted.is_none() {
        receipt.note("input_tokens", "estimate");
    }
    recorder.receipt(receipt);
    let input_tokens = counted.unwrap_or(prepared.facts.estimate);
    Ok(axum::Json(json!({"object": "response.input_tokens", "input_tokens": input_tokens})).into_response())
}

/// How many tokens the remote counts. None: it cannot say, or not without loading the model.
async fn counted(app: &App, ask: UpstreamRequest, recorder: &Recorder) -> Option<u64> {
    if app.config.remote.kind != Kind::Ollama || !app.upstream.version().await.ok()?.counts_cached() {
        return None;
    }
    let loaded = models::loaded(&app.upstream).await?;
    let ps: Ps<'_> = app.upstream.read("/api/ps", &loaded).ok()?;
    if !ps.models.iter().any(|loaded| name::full(&loaded.name) == name::full(&ask.model)) {
        return None;
    }
    match send::whole(app, one_token(ask).await.ok()?, recorder).await {
        Ok(reply) => {
            let reply: ChatReply<'_> = app.upstream.read("/api/chat", &reply).ok()?;
            reply.prompt_eval_count
        }
        // A prompt that does not fit is counted all the same.
        Err(Error::Refused(refused)) => match refused.refusal {
            Refusal::ContextLength { counts: Some((prompt, _)), .. } => Some(prompt),
            _ => None,
        },
        Err(_) => None,
    }
}

/// The same request for one token, whose form does not matter.
async fn one_token(mut ask: UpstreamRequest) -> Result<UpstreamRequest, Error> {
    ask.body = send::changed(ask.body.clone(), |top| {
        ["format", "logprobs", "top_logprobs"].into_iter().for_each(|name| top.remove(name));
        let mut options = send::fields(top.get("options").map_or("{}", |options| options.get()))?;
        options.set("num_predict", Cow::Owned(raw(&1)));
        let options = raw(&options);
        top.set("options", Cow::Owned(options));
        top.set("stream", Cow::Owned(raw(&false)));
        top.set("truncate", Cow::Owned(raw(&false)));
        Ok(())
    })
    .await?;
    (ask.may_grow, ask.forced, ask.version_gated.drops) = (false, false, false);
    ask.reask = crate::openai::tools::repair::Repairs::default();
    Ok(ask)
}
