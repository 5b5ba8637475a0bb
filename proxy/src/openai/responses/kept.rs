//! What is done with a response that is kept: fetch it, whole or as a stream; delete it; list what it was asked; and
//! cancel one in the background.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    app::App,
    error::Error,
    gate::Owner,
    observe::Recorder,
    offload,
    openai::{
        paging::{Paging, Pairs},
        response::sse,
        responses::{
            elsewhere::{self, Found},
            include::Include,
            items,
            stored::Stored,
            stream::Answer,
        },
    },
    receipt::Receipt,
    routes::Id,
    store::{Kind, Record},
};

async fn find(app: &App, owner: Owner, id: &str) -> Result<Found, Error> {
    elsewhere::find(app, owner, id).await?.ok_or_else(|| missing(id))
}

/// Makes `of` a stored response, off the event loop if it is large.
///
/// # Errors
/// As [`Stored::read`] and `of`.
async fn read<T: Send + 'static>(
    record: Arc<Record>,
    of: impl FnOnce(Stored) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    offload::run(record.body.len(), move || of(Stored::read(&record)?)).await
}

fn missing(id: &str) -> Error {
    Error::NotFound {
        message: format!("Response with id '{id}' not found."),
        param: Some("response_id".to_owned()),
        code: "response_not_found",
    }
}

/// `GET /v1/responses/{id}`: the object, or with `stream=true` its events.
pub(crate) async fn retrieve(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    Id(id): Id,
    Query(query): Query<Pairs>,
) -> Result<Response, Error> {
    let value = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    let streamed = matches!(value("stream"), Some("true" | "1"));
    let after = if streamed { starting_after(&query)? } else { None };
    let mut receipt = Receipt::default();
    let include = Include::read(&query, &mut receipt)?;
    if matches!(value("include_obfuscation"), Some("true" | "1")) {
        receipt.no_effect("include_obfuscation");
    }
    recorder.receipt(receipt);
    let run = app.background.get(owner, &id);
    if let Some(now) = run.as_ref().filter(|_| !streamed).and_then(|run| run.response()) {
        return Ok(now);
    }
    if let Some(run) = run.clone().filter(|run| streamed && !run.ended()) {
        return Ok(run.stream(after, app.config.heartbeat.every));
    }
    let found = find(&app, owner, &id).await?;
    if let Found::Elsewhere(_) = &found
        && streamed
    {
        return Ok(elsewhere::stream(&app, owner, id, after));
    }
    if let Some(run) = run.filter(|_| streamed) {
        return Ok(run.stream(after, Duration::ZERO));
    }
    read(found.into_record(), move |stored| {
        let stored = stored.showing(&include)?;
        match streamed {
            true => Ok(sse::event_stream(Body::from(Answer::restore(&stored)?.replay(after).take()))),
            false => Ok(axum::Json(stored.response).into_response()),
        }
    })
    .await
}

/// The number of the last event that the client has.
///
/// # Errors
/// Fails if the parameter is not a number.
pub(crate) fn starting_after(query: &[(String, String)]) -> Result<Option<u64>, Error> {
    let after = query.iter().find(|(name, _)| name == "starting_after").map(|(_, after)| {
        after.parse::<u64>().map_err(|_| {
            Error::invalid("starting_after", format!("Invalid 'starting_after': expected a number, but got '{after}'."))
        })
    });
    after.transpose()
}

/// `DELETE /v1/responses/{id}`.
pub(crate) async fn delete(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    let run = app.background.get(owner, &id);
    match &run {
        Some(run) => app.background.remove(run).await,
        // What another process runs is canceled first, as it would be stored otherwise.
        None => drop(elsewhere::cancel(&app, owner, &id).await?),
    }
    if !app.store.remove(Kind::Response, owner, &id).await? && run.is_none() {
        return Err(missing(&id));
    }
    Ok(axum::Json(json!({"id": id, "object": "response", "deleted": true})).into_response())
}

/// `POST /v1/responses/{id}/cancel`: of one in the background. One that has ended stays what it is; what else runs is
/// canceled by hanging up.
pub(crate) async fn cancel(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    if let Some(run) = app.background.get(owner, &id) {
        run.cancel().await;
    }
    let record = elsewhere::cancel(&app, owner, &id).await?.ok_or_else(|| missing(&id))?;
    read(record, |stored| {
        if !stored.background()? {
            return Err(Error::invalid(
                "response_id",
                "Cannot cancel a synchronous response: only those with 'background' can be cancelled.",
            ));
        }
        Ok(axum::Json(stored.response).into_response())
    })
    .await
}

/// `GET /v1/responses/{id}/input_items`: what it was asked, and what went before, page by page.
pub(crate) async fn input_items(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    Id(id): Id,
    Query(query): Query<Pairs>,
) -> Result<Response, Error> {
    let mut receipt = Receipt::default();
    let (paging, include) = (Paging::of_items(&query)?, Include::read(&query, &mut receipt)?);
    recorder.receipt(receipt);
    let running = app.background.get(owner, &id).and_then(|run| run.input());
    let (previous, input) = match running {
        Some(running) => running,
        None => {
            let record = find(&app, owner, &id).await?.into_record();
            (record.previous.clone(), read(record, |stored| Ok(stored.input)).await?)
        }
    };
    let chain = match &previous {
        Some(previous) => app.store.chain(Kind::Response, owner, previous).await?,
        None => Ok(Vec::new()),
    };
    let sizes = chain.iter().flatten().map(|record| record.body.len());
    let size = sizes.sum::<usize>() + input.iter().map(|item| item.json.get().len()).sum::<usize>();
    let page = move || {
        let mut items = Vec::new();
        // What is missing of what went before cannot be listed.
        for earlier in chain.iter().flatten() {
            items.extend(Stored::read(earlier)?.into_items()?);
        }
        items.extend(input);
        let items: Vec<_> = items.into_iter().map(|item| include.shown(item)).collect();
        Ok(axum::Json(items::page(&items.iter().collect::<Vec<_>>(), &paging)?).into_response())
    };
    offload::run(size, page).await
}
