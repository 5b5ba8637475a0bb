//! `/v1/files`: files that requests name by their ids, and those of batches. They are records of the store, and each
//! belongs to the key that uploaded it.

pub(crate) mod stored;
#[cfg(test)]
pub(crate) mod vectors;
pub(crate) mod wire;

use axum::{
    extract::{FromRequest, Query, Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use serde_json::json;

use crate::{
    app::App,
    error::Error,
    gate::Owner,
    offload,
    openai::{
        paging::{Paging, Pairs, page},
        request::{form, json::Json},
    },
    routes::Id,
};
use stored::missing;
use wire::Upload;

/// Maximum number of files in one page, and the default.
const PAGE: usize = 10_000;

/// What the form around a file takes, at most: an upload that is larger than there is room for, by more than this, is
/// refused before it is read.
const FORM: usize = 1 << 10;

/// `POST /v1/files`: stores an upload.
pub(crate) async fn create(State(app): State<App>, owner: Owner, request: Request) -> Result<Response, Error> {
    let headers = request.headers();
    let Some(content_type) = headers.get(header::CONTENT_TYPE).filter(|kind| form::is_form(kind)).cloned() else {
        return Err(Error::Invalid {
            message: "Files are uploaded as multipart/form-data, with the fields 'file' and 'purpose'.".to_owned(),
            param: None,
            code: None,
        });
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let room = stored::reserve(&app, owner, length.unwrap_or(0).saturating_sub(FORM)).await?;
    let json = Json::from_request(request, &app).await?;
    let stamp = app.stamp("file-");
    let reading = async move {
        let mut upload = Upload::default();
        form::parts(&content_type, &json, |part| upload.add(part)).await?;
        upload.finish(stamp)
    };
    let (file, content) = offload::run_future(length.unwrap_or(offload::LARGE), reading).await?;
    // From the form's size, or none, to that of the file.
    drop(room);
    let room = stored::reserve(&app, owner, file.bytes).await?;
    stored::put(&app, room, &file, content).await?;
    Ok(axum::Json(file).into_response())
}

/// `GET /v1/files`: the caller's, page by page.
pub(crate) async fn list(State(app): State<App>, owner: Owner, Query(query): Query<Pairs>) -> Result<Response, Error> {
    let paging = Paging::read(&query, Paging { after: None, limit: PAGE, ascending: false }, PAGE)?;
    let purpose = query.iter().find(|(name, _)| name == "purpose").map(|(_, purpose)| &**purpose);
    let mut files = stored::all(&app, owner).await?;
    if !paging.ascending {
        files.reverse();
    }
    if let Some(after) = &paging.after {
        let at = files.iter().position(|file| file.id == *after);
        let at = at.ok_or_else(|| Error::invalid("after", format!("No such File object: '{after}'.")))?;
        files.drain(..=at);
    }
    files.retain(|file| purpose.is_none_or(|purpose| file.purpose == purpose));
    let has_more = files.len() > paging.limit;
    files.truncate(paging.limit);
    Ok(page(&files, has_more))
}

/// `GET /v1/files/{id}`.
pub(crate) async fn retrieve(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    let (file, _) = stored::get(&app, owner, &id).await?.ok_or_else(|| missing(&id, "file_id"))?;
    Ok(axum::Json(file).into_response())
}

/// `GET /v1/files/{id}/content`: what was uploaded, byte for byte.
pub(crate) async fn content(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    let (file, content) = stored::get(&app, owner, &id).await?.ok_or_else(|| missing(&id, "file_id"))?;
    let mut response = content.into_response();
    // A browser must neither show nor run an upload.
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, disposition(&file.filename));
    Ok(response)
}

/// An attachment with this name (RFC 6266; other characters than ASCII become `_`).
fn disposition(filename: &str) -> HeaderValue {
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ' { c } else { '_' };
    let name: String = filename.chars().map(plain).collect();
    HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

/// `DELETE /v1/files/{id}`.
pub(crate) async fn delete(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    if !stored::remove(&app, owner, &id).await? {
        return Err(missing(&id, "file_id"));
    }
    Ok(axum::Json(json!({"id": id, "object": "file", "deleted": true})).into_response())
}

/// Always refused: Anthropic's Files API has objects of its own.
pub(crate) async fn refuse() -> Error {
    Error::NotImplemented {
        message: "Anthropic's Files API is not available here. Send the content in the request itself, as base64 or text in 'source'."
            .to_owned(),
    }
}
