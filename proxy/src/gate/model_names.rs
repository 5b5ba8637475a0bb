//! Where each route has its models' names, and those names, read as whoever will act on them reads them.
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

/// Where a route has its models' names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Named<'a> {
    /// In these fields of a JSON body.
    Body(&'static [&'static str]),
    /// In the field `model` of a form, or of a JSON body that has a form's names.
    Form,
    /// In the path: this one.
    Path(&'a str),
    /// Nowhere: the answer is a list, under this field, with names under these.
    Listed(&'static str, &'static [&'static str]),
    /// Nowhere, and nothing to hide. Whose a stored response is, its own routes ask.
    Nowhere,
}

const MODEL: Named<'static> = Named::Body(&["model"]);

impl<'a> Named<'a> {
    /// Of a path that was read ([`super::paths::read`]), where OpenAI's routes stand under `base`. None: a route that nobody knows.
    pub(crate) fn of(path: &'a str, base: &str) -> Option<Self> {
        if let Some(route) = path.strip_prefix(base).and_then(|rest| rest.strip_prefix('/')) {
            return match route {
                "audio/transcriptions" | "audio/translations" => Some(Self::Form),
                route => Self::openai(route),
            };
        }
        // Ollama's own, where ours stand elsewhere.
        if let Some(route) = path.strip_prefix("/v1/") {
            return Self::openai(route);
        }
        Some(match path {
            "/" | "/api/version" => Self::Nowhere,
            "/api/chat" | "/api/generate" | "/api/embed" | "/api/embeddings" => MODEL,
            "/api/show" | "/api/delete" | "/api/pull" | "/api/push" => Self::Body(&["model", "name"]),
            "/api/create" => Self::Body(&["model", "name", "from"]),
            "/api/copy" => Self::Body(&["source", "destination"]),
            "/api/tags" | "/api/ps" => Self::Listed("models", &["name", "model"]),
            path if path.starts_with("/api/blobs/") => Self::Nowhere,
            _ => return None,
        })
    }

    fn openai(route: &'a str) -> Option<Self> {
        Some(match route {
            "chat/completions"
            | "completions"
            | "embeddings"
            | "moderations"
            | "audio/speech"
            | "images/generations"
            | "images/edits"
            | "responses"
            | "responses/input_tokens"
            | "responses/compact"
            // Anthropic's, which Ollama has too.
            | "messages" => MODEL,
            "models" => Self::Listed("data", &["id"]),
            route => match route.split_once('/')? {
                ("models", model) => Self::Path(model),
                ("responses", rest) => match rest.split_once('/') {
                    None | Some((_, "input_items" | "cancel")) => Self::Nowhere,
                    Some(_) => return None,
                },
                _ => return None,
            },
        })
    }
}

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

    #[test]
    fn routes_are_known_by_where_they_have_names() {
        for (path, named) in [
            ("/v1/models/a/b", Named::Path("a/b")),
            ("/api/copy", Named::Body(&["source", "destination"])),
            ("/v1/audio/transcriptions", Named::Form),
            ("/v1/responses/compact", MODEL),
            ("/v1/responses/resp_1", Named::Nowhere),
            ("/v1/responses/resp_1/input_items", Named::Nowhere),
            ("/v1/messages", MODEL),
        ] {
            assert_eq!(Named::of(path, "/v1"), Some(named), "{path}");
        }
        for unknown in ["/x", "/v1", "/v1/files", "/v1/responses/a/b", "/v10/models", "/api/experimental"] {
            assert_eq!(Named::of(unknown, "/v1"), None, "{unknown}");
        }
    }

    #[test]
    fn where_ours_stand_elsewhere_ollamas_own_are_known_too() {
        assert_eq!(Named::of("/openai/chat/completions", "/openai"), Some(MODEL));
        assert_eq!(Named::of("/v1/chat/completions", "/openai"), Some(MODEL));
        // Ollama reads a form by rules of its own.
        assert_eq!(Named::of("/v1/audio/transcriptions", "/openai"), None);
    }

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
