//! The two kinds of body that the audio API takes: a form as OpenAI has it, or JSON. Either is here whole before it is taken apart.

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, header};

use super::wire::Given;
use crate::{
    error::Error,
    openai::{
        content,
        json::{Json, Text},
    },
};

/// Reads a form where `content_type` says that it is one, else JSON.
///
/// # Errors
/// A body that is neither, or a file that is empty.
pub(super) async fn read(content_type: Option<&HeaderValue>, json: &Json) -> Result<Given, Error> {
    let kind = content_type.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match content_type {
        Some(kind_of_form) if kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data") => {
            multipart(kind_of_form, json.bytes().clone()).await
        }
        _ => object(json),
    }
}

async fn multipart(content_type: &HeaderValue, body: Bytes) -> Result<Given, Error> {
    let broken = |error: &dyn std::fmt::Display| Error::Invalid {
        message: format!("the request body is no whole multipart/form-data: {error}"),
        param: None,
        code: None,
    };
    let mut request = Request::new(Body::from(body));
    request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    // The body is here already, within our own limit.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| broken(&error.body_text()))?;
    let mut given = Given::default();
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error.body_text()))? {
        let name = field.name().unwrap_or_default().to_owned();
        let value = field.bytes().await.map_err(|error| broken(&error.body_text()))?;
        if name == "file" {
            if value.is_empty() {
                return Err(Error::invalid("file", "The file is empty."));
            }
            given.file = Some(STANDARD.encode(&value));
        } else {
            given.fields.push((name, String::from_utf8_lossy(&value).into_owned()));
        }
    }
    Ok(given)
}

/// Of a JSON body, whose `file` is base64 or a data URL.
pub(super) fn object(json: &Json) -> Result<Given, Error> {
    let mut fields = json.fields()?;
    let mut given = Given::default();
    if let Some(file) = fields.take::<Text<'_>>("file", &mut Vec::new())? {
        given.file = Some(content::sound(file.0, "file").map(Cow::into_owned)?);
    }
    for (name, raw) in fields.left() {
        // Numbers and lists as a form would write them.
        let value = serde_json::from_str::<Text<'_>>(raw.get())
            .map_or_else(|_| raw.get().to_owned(), |text| text.0.into_owned());
        given.fields.push((name.into_owned(), value));
    }
    Ok(given)
}
