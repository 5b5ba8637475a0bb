//! Bodies of `multipart/form-data`, which are here whole before they are taken apart.

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request},
};
use bytes::Bytes;
use http::{HeaderValue, header};

use crate::{
    error::Error,
    openai::request::json::{Json, too_many_fields},
    text,
};

/// One part of a form.
pub(crate) struct Part {
    /// Its name, without the brackets that a list has.
    pub(crate) name: String,
    pub(crate) filename: Option<String>,
    pub(crate) value: Bytes,
}

impl Part {
    /// Its value as text. Strictly, as the gate reads the model's name.
    ///
    /// # Errors
    /// Fails if it is not UTF-8.
    pub(crate) fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.value)
            .map_err(|_| Error::invalid(&*self.name, format!("Invalid '{}': it is not UTF-8.", text::name(&self.name))))
    }
}

/// Whether a body of this content type is a form.
pub(crate) fn is_form(content_type: &HeaderValue) -> bool {
    const KIND: &[u8] = b"multipart/form-data";
    let kind = content_type.as_bytes().trim_ascii_start();
    kind.get(..KIND.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
}

/// Hands each part of the form `body` to `take`, in order.
///
/// # Errors
/// Fails if the body is not a whole form, has too many parts, or if `take` fails.
pub(crate) async fn parts(
    content_type: &HeaderValue,
    body: &Json,
    mut take: impl FnMut(Part) -> Result<(), Error>,
) -> Result<(), Error> {
    let broken = |error: &dyn std::fmt::Display| Error::Invalid {
        message: format!("the request body is not a complete multipart/form-data form: {error}"),
        param: None,
        code: None,
    };
    let mut request = Request::new(Body::from(body.bytes().clone()));
    request.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
    // The body is here already, within our own limit.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| broken(&error.body_text()))?;
    let mut count = 0;
    while let Some(field) = form.next_field().await.map_err(|error| broken(&error.body_text()))? {
        count += 1;
        if body.max_fields() > 0 && count > body.max_fields() {
            return Err(too_many_fields(None, body.max_fields()));
        }
        let name = field.name().unwrap_or_default().trim_end_matches("[]").to_owned();
        let filename = field.file_name().map(str::to_owned);
        let value = field.bytes().await.map_err(|error| broken(&error.body_text()))?;
        take(Part { name, filename, value })?;
    }
    Ok(())
}
