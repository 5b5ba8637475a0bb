//! The names of models in a request's body, read as the handler or Ollama will read them. `routes.rs` says where each route has them.
//!
//! Judges nothing. What cannot be read for sure is an error.

use std::fmt;

use axum::{
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request},
};
use http::{HeaderMap, header};
use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

/// The names, each with its field, in the order in which they stand.
pub(super) type Found = Vec<(&'static str, String)>;

/// The values of `fields` in the first JSON value of `body`. As in Go, the case of a key makes no difference, null changes nothing, and
/// what follows the first value is not looked at.
///
/// # Errors
/// It is no object, or the names in it are no texts.
pub(super) fn in_body(body: &Bytes, fields: &'static [&'static str]) -> Result<Found, serde_json::Error> {
    if body.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::Deserializer::from_slice(body).deserialize_map(Names { fields, form: false })
}

/// The values of `model` in a form, where `headers` say that `body` is one, or in JSON with a form's names.
///
/// # Errors
/// It is neither, or broken.
pub(super) async fn in_form(body: &Bytes, headers: &HeaderMap) -> Result<Found, axum::BoxError> {
    const FIELDS: [&str; 1] = ["model"];
    // As `openai/audio` tells them apart.
    let kind = headers.get(header::CONTENT_TYPE).filter(|kind| {
        let kind = kind.to_str().unwrap_or_default().trim_start().to_ascii_lowercase();
        kind.starts_with("multipart/form-data")
    });
    let Some(kind) = kind else {
        return Ok(serde_json::Deserializer::from_slice(body).deserialize_map(Names { fields: &FIELDS, form: true })?);
    };
    let mut request = Request::new(Body::from(body.clone()));
    request.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    // The body is here already, within the read bound.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await?;
    let mut found = Vec::new();
    while let Some(part) = form.next_field().await? {
        if in_a_form(part.name().unwrap_or_default()) == "model" {
            found.push(("model", part.text().await?));
        }
    }
    Ok(found)
}

/// Lists in a form have brackets after their name.
fn in_a_form(name: &str) -> &str {
    name.trim_end_matches("[]")
}

struct Names {
    fields: &'static [&'static str],
    form: bool,
}

impl<'de> Visitor<'de> for Names {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let key = folded(&key);
            let key = if self.form { in_a_form(&key) } else { &key };
            match self.fields.iter().find(|field| **field == key) {
                Some(field) => found.extend(map.next_value::<Option<String>>()?.map(|name| (*field, name))),
                // A whole definition of a model, with names in a language of its own.
                None if key == "modelfile" => {
                    return Err(serde::de::Error::custom("a Modelfile's names are not read"));
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// As Go folds the keys of JSON: two letters beyond ASCII fold into it.
fn folded(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn form(kind: &str, body: &str) -> Option<Vec<String>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let found = in_form(&Bytes::from(body.to_owned()), &headers).now_or_never().unwrap().ok()?;
        Some(found.into_iter().map(|(_, name)| name).collect())
    }

    #[test]
    fn every_model_of_a_form_is_found() {
        let kind = "multipart/form-data; boundary=x";
        let part = |name: &str, value: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = [&*part("file", "model"), &part("model", "m"), &part("model[]", "n"), "--x--\r\n"].concat();
        assert_eq!(form(kind, &body).unwrap(), ["m", "n"]);
        assert_eq!(form("Multipart/Form-Data; boundary=x", &body).unwrap(), ["m", "n"]);
        assert_eq!(form(kind, &part("model", "m")), None, "it is broken off");
        assert_eq!(form("multipart/form-data", &body), None, "it has no boundary");
        assert_eq!(form("application/json", r#"{"model":"m","model[]":"n"}"#).unwrap(), ["m", "n"]);
        assert_eq!(form("text/plain", &body), None);
    }
}
