//! `/v1/batches`: many requests in one file, which are sent one after the other when the proxy is otherwise idle.

pub(crate) mod run;
mod stored;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use std::sync::Arc;

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    error::Error,
    gate::Owner,
    observe::Recorder,
    openai::{
        files,
        paging::{Paging, Pairs, page},
        request::json::Json,
    },
    receipt::Receipt,
    routes::Id,
    store::{Kind, Page, Record},
};
use wire::Create;

fn missing(id: &str) -> Error {
    Error::NotFound {
        message: format!("No batch found with id '{id}'."),
        param: Some("batch_id".to_owned()),
        code: "batch_not_found",
    }
}

/// `POST /v1/batches`: starts a batch.
pub(crate) async fn create(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    let mut receipt = Receipt::default();
    let created = Create::read(&json, &mut receipt)?;
    receipt.enforce_strict(&app.config)?;
    recorder.receipt(receipt);
    let id = &created.input_file_id;
    let (file, content) =
        files::stored::get(&app, owner, id).await?.ok_or_else(|| files::stored::missing(id, "input_file_id"))?;
    if file.purpose != "batch" {
        return Err(Error::invalid(
            "input_file_id",
            format!("The purpose of the file '{id}' is '{}', but a batch needs a file with 'batch'.", file.purpose),
        ));
    }
    let expires_after = created.output_expires_after;
    let batch = created.batch(app.stamp("batch_"));
    Ok(axum::Json(run::start(&app, owner, batch, content, expires_after).await?).into_response())
}

async fn find(app: &App, owner: Owner, id: &str) -> Result<Arc<Record>, Error> {
    app.store.get(Kind::Batch, owner, id).await?.ok_or_else(|| missing(id))
}

/// `GET /v1/batches/{id}`.
pub(crate) async fn retrieve(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    let record = find(&app, owner, &id).await?;
    Ok(axum::Json(stored::read(&app, &record).await?).into_response())
}

/// `POST /v1/batches/{id}/cancel`: again as often as wanted, until it has ended.
pub(crate) async fn cancel(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    if let Some(run) = app.batches.get(owner, &id) {
        return Ok(axum::Json(run.cancel(app.now())).into_response());
    }
    let record = find(&app, owner, &id).await?;
    Ok(axum::Json(stored::cancel_elsewhere(&app, &record).await?).into_response())
}

/// `GET /v1/batches`: the caller's, page by page.
pub(crate) async fn list(State(app): State<App>, owner: Owner, Query(query): Query<Pairs>) -> Result<Response, Error> {
    let Paging { after, limit, ascending } =
        Paging::read(&query, Paging { after: None, limit: 20, ascending: false }, 100)?;
    let wanted = Page { after, limit, ascending };
    let Some(listed) = app.store.list(Kind::Batch, owner, &wanted).await? else {
        return Err(Error::invalid("after", format!("No batch found with id '{}'.", wanted.after.unwrap_or_default())));
    };
    let mut batches = Vec::with_capacity(listed.records.len());
    for record in &listed.records {
        batches.push(stored::read(&app, record).await?);
    }
    Ok(page(&batches, listed.has_more))
}
