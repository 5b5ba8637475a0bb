//! `/v1/conversations`: what was said so far, stored here with its items, for responses to go on from (`conversation`).
//! A response adds what it was asked and what was answered when it has ended.

pub(crate) mod stored;
#[cfg(test)]
pub(crate) mod vectors;

use axum::{
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
        request::{inline_all, json::Json},
        responses::{
            Needs,
            include::Include,
            items, references, resolve,
            stored::{Fetched, StoredItem},
        },
    },
    receipt::Receipt,
    routes::{Id, Ids},
    sealed,
    stamp::Stamp,
    store::{Kind, Record, Store, Updated},
};
use stored::Stored;

/// There is no such conversation; `param` is what names it.
pub(crate) fn missing(id: &str, param: &str) -> Error {
    Error::NotFound {
        message: format!("Conversation with id '{id}' not found."),
        param: Some(param.to_owned()),
        code: "conversation_not_found",
    }
}

fn no_item(id: &str) -> Error {
    Error::NotFound {
        message: format!("Item with id '{id}' not found in this conversation."),
        param: Some("item_id".to_owned()),
        code: "item_not_found",
    }
}

fn too_big(param: &str) -> Error {
    Error::invalid(
        param,
        "The conversation would be larger than what this proxy stores (responses.max_bytes, responses.max_count).",
    )
}

async fn find(app: &App, owner: Owner, id: &str) -> Result<Stored, Error> {
    let record = app.store.get(Kind::Conversation, owner, id).await?.ok_or_else(|| missing(id, "conversation_id"))?;
    offload::run(record.body.len(), move || Stored::read(&record)).await
}

/// How many bytes changing a conversation has to read.
async fn size(store: &Store, owner: Owner, id: &str) -> Result<usize, Error> {
    Ok(store.get(Kind::Conversation, owner, id).await?.map_or(0, |record| record.body.len()))
}

/// Changes a conversation atomically.
///
/// # Errors
/// Fails if there is none, if it becomes too large, or as `change`.
async fn change(
    app: &App,
    owner: Owner,
    id: &str,
    param: &str,
    mut change: impl FnMut(&mut Stored) -> Result<(), Error>,
) -> Result<Stored, Error> {
    let new = |record: &Record| {
        let mut stored = Stored::read(record)?;
        change(&mut stored)?;
        stored.record(owner, id)
    };
    match app.store.update(Kind::Conversation, owner, id, new).await? {
        Updated::Stored(record) => Stored::read(&record),
        Updated::Missing => Err(missing(id, "conversation_id")),
        Updated::TooBig => Err(too_big(param)),
    }
}

/// Adds what a response was asked and what was answered. The receipt says why it could not be.
pub(crate) async fn append(store: &Store, owner: Owner, id: &str, items: Vec<StoredItem>, random: &str) -> Receipt {
    let more: usize = items.iter().map(|item| item.json.get().len()).sum();
    let size = size(store, owner, id).await.unwrap_or(0) + more;
    let (store, id, random) = (store.clone(), id.to_owned(), random.to_owned());
    let appending = async move { append_here(&store, owner, &id, &items, &random).await };
    offload::run_future(size, appending).await
}

async fn append_here(store: &Store, owner: Owner, id: &str, items: &[StoredItem], random: &str) -> Receipt {
    let new = |record: &Record| {
        let mut stored = Stored::read(record)?;
        stored.add(items.to_vec(), random)?;
        stored.record(owner, id)
    };
    let mut receipt = Receipt::default();
    match store.update(Kind::Conversation, owner, id, new).await {
        Ok(Updated::Stored(_)) => {}
        Ok(Updated::Missing) => receipt.note("conversation", "gone"),
        Ok(Updated::TooBig) => receipt.note("conversation", "too-big"),
        Err(_) => receipt.note("conversation", "unreachable"),
    }
    receipt
}

/// Reads the items of a body, puts in the place of references what was `fetched`, and adds them to `stored`.
///
/// # Errors
/// Fails on an item that no model can be given, or that is not there.
fn add(
    stored: &mut Stored,
    json: &Json,
    fetched: &Fetched,
    random: &str,
    key: Option<&sealed::Key>,
    receipt: &mut Receipt,
) -> Result<Vec<StoredItem>, Error> {
    let Some(mut items) = stored::added(&mut json.fields()?)? else { return Ok(Vec::new()) };
    let references = references(&items, "items")?;
    resolve(&mut items, "items", references, &fetched.found()?)?;
    stored.check(&items, key, receipt)?;
    stored.add(items::asked(&items, random)?, random)
}

/// The body of a request, its images fetched, and the records that its items refer to.
async fn read(app: &App, recorder: &Recorder, owner: Owner, json: Json) -> Result<(Json, Fetched), Error> {
    recorder.payload("request", json.bytes());
    let json = inline_all(app, recorder, json).await?;
    let asked = json.clone();
    let referenced = move || match stored::added(&mut asked.fields()?)? {
        Some(items) => Ok::<_, Error>(references(&items, "items")?.into_iter().map(|(_, id)| id).collect()),
        None => Ok(Vec::new()),
    };
    let items = offload::run(json.bytes().len(), referenced).await?;
    let fetched = Needs { items, ..Needs::default() }.fetch(&app.store, None, owner).await?;
    Ok((json, fetched))
}

/// A conversation out of the body that creates it.
///
/// # Errors
/// Fails on metadata or items that are not understood.
fn made(
    json: &Json,
    fetched: &Fetched,
    stamp: &Stamp,
    key: Option<&sealed::Key>,
    receipt: &mut Receipt,
) -> Result<Stored, Error> {
    let mut fields = json.fields()?;
    let mut new = Stored::new(stamp.created, stored::metadata(&mut fields)?);
    fields.take_raw("items");
    stored::note_rest(fields, receipt);
    add(&mut new, json, fetched, &stamp.random, key, receipt)?;
    Ok(new)
}

/// `POST /v1/conversations`.
pub(crate) async fn create(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    let (json, fetched) = read(&app, &recorder, owner, json).await?;
    let stamp = app.stamp("conv_");
    let size = json.bytes().len() + fetched.size();
    let key = app.compaction_key.clone();
    let work = move || {
        let mut receipt = Receipt::default();
        let new = made(&json, &fetched, &stamp, Some(&*key), &mut receipt)?;
        Ok::<_, Error>((new.record(owner, &stamp.id)?, new.object(&stamp.id), receipt))
    };
    let (record, object, receipt) = offload::run(size, work).await?;
    recorder.receipt(receipt);
    if !app.store.put(record).await? {
        return Err(too_big("items"));
    }
    Ok(axum::Json(object).into_response())
}

/// `GET /v1/conversations/{id}`.
pub(crate) async fn retrieve(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    Ok(axum::Json(find(&app, owner, &id).await?.object(&id)).into_response())
}

/// `POST /v1/conversations/{id}`: replaces its metadata.
pub(crate) async fn update(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    Id(id): Id,
    json: Json,
) -> Result<Response, Error> {
    let mut fields = json.fields()?;
    let metadata = stored::metadata(&mut fields)?;
    let mut receipt = Receipt::default();
    stored::note_rest(fields, &mut receipt);
    recorder.receipt(receipt);
    let size = size(&app.store, owner, &id).await?;
    let changing = async move {
        let set = |stored: &mut Stored| {
            stored.set_metadata(metadata.clone());
            Ok(())
        };
        Ok(axum::Json(change(&app, owner, &id, "metadata", set).await?.object(&id)).into_response())
    };
    offload::run_future(size, changing).await
}

/// `DELETE /v1/conversations/{id}`.
pub(crate) async fn delete(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    if !app.store.remove(Kind::Conversation, owner, &id).await? {
        return Err(missing(&id, "conversation_id"));
    }
    Ok(axum::Json(json!({"id": id, "object": "conversation.deleted", "deleted": true})).into_response())
}

/// A page as a client sees it.
fn page(items: Vec<StoredItem>, include: &Include, paging: &Paging) -> Result<Response, Error> {
    let items: Vec<_> = items.into_iter().map(|item| include.shown(item)).collect();
    Ok(axum::Json(items::page(&items.iter().collect::<Vec<_>>(), paging)?).into_response())
}

/// `POST /v1/conversations/{id}/items`: adds items, and answers with them.
pub(crate) async fn add_items(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    Id(id): Id,
    Query(query): Query<Pairs>,
    json: Json,
) -> Result<Response, Error> {
    let mut receipt = Receipt::default();
    let include = Include::read(&query, &mut receipt)?;
    let (json, fetched) = read(&app, &recorder, owner, json).await?;
    let size = size(&app.store, owner, &id).await? + fetched.size() + json.bytes().len();
    let adding = async move {
        let mut fields = json.fields()?;
        if fields.take_raw("items").is_none() {
            return Err(Error::missing("items"));
        }
        stored::note_rest(fields, &mut receipt);
        let random = app.stamp("").random;
        let mut added = Vec::new();
        let set = |stored: &mut Stored| {
            added = add(stored, &json, &fetched, &random, Some(&*app.compaction_key), &mut receipt)?;
            Ok(())
        };
        change(&app, owner, &id, "items", set).await?;
        Ok((added, receipt))
    };
    let (added, receipt) = offload::run_future(size, adding).await?;
    recorder.receipt(receipt);
    page(added, &include, &Paging::all())
}

/// `GET /v1/conversations/{id}/items`: page by page.
pub(crate) async fn list_items(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    Id(id): Id,
    Query(query): Query<Pairs>,
) -> Result<Response, Error> {
    let mut receipt = Receipt::default();
    let (paging, include) = (Paging::of_items(&query)?, Include::read(&query, &mut receipt)?);
    recorder.receipt(receipt);
    let items = find(&app, owner, &id).await?.into_items();
    page(items, &include, &paging)
}

/// `GET /v1/conversations/{id}/items/{item_id}`.
pub(crate) async fn retrieve_item(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    Ids(id, item_id): Ids,
    Query(query): Query<Pairs>,
) -> Result<Response, Error> {
    let mut receipt = Receipt::default();
    let include = Include::read(&query, &mut receipt)?;
    recorder.receipt(receipt);
    let items = find(&app, owner, &id).await?.into_items();
    let item = items.into_iter().find(|item| item.id == item_id).ok_or_else(|| no_item(&item_id))?;
    Ok(axum::Json(include.shown(item)).into_response())
}

/// `DELETE /v1/conversations/{id}/items/{item_id}`: answers with the conversation.
pub(crate) async fn delete_item(
    State(app): State<App>,
    owner: Owner,
    Ids(id, item_id): Ids,
) -> Result<Response, Error> {
    let size = size(&app.store, owner, &id).await?;
    let removing = async move {
        let remove = |stored: &mut Stored| stored.remove(&item_id).then_some(()).ok_or_else(|| no_item(&item_id));
        Ok(axum::Json(change(&app, owner, &id, "item_id", remove).await?.object(&id)).into_response())
    };
    offload::run_future(size, removing).await
}
