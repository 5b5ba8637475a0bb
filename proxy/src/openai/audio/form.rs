//! The two kinds of body that the audio API takes: a form as OpenAI has it, or JSON. Either is here whole before it is
//! taken apart.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::{
    error::Error,
    offload,
    ollama::wire::Options,
    openai::{
        audio::wire::Given,
        request::{
            content, form,
            json::{Json, Text},
            options::raw,
        },
    },
    upstream::client::encode,
};

/// Reads a form where `content_type` says that it is one, else JSON; off the event loop if it is large.
///
/// # Errors
/// A body that is neither, or a file that is empty.
pub(crate) async fn read(content_type: Option<&HeaderValue>, json: Json) -> Result<Given, Error> {
    let content_type = content_type.cloned();
    let size = json.bytes().len();
    offload::run_future(size, async move { read_here(content_type.as_ref(), &json).await }).await
}

async fn read_here(content_type: Option<&HeaderValue>, json: &Json) -> Result<Given, Error> {
    match content_type.filter(|kind| form::is_form(kind)) {
        Some(kind) => multipart(kind, json).await,
        None => object(json),
    }
}

async fn multipart(content_type: &HeaderValue, json: &Json) -> Result<Given, Error> {
    let (mut file, mut fields) = (None, IndexMap::<String, Vec<String>>::new());
    form::parts(content_type, json, |part| {
        if part.name == "file" {
            if part.value.is_empty() {
                return Err(Error::invalid("file", "The file is empty."));
            }
            file = Some(STANDARD.encode(&part.value));
            return Ok(());
        }
        let value = part.text()?.to_owned();
        fields.entry(part.name).or_default().push(value);
        Ok(())
    })
    .await?;
    let mut top = Options::default();
    for (name, values) in fields {
        let value = as_json(&name, values)?;
        top.set(name, Cow::Owned(value));
    }
    Ok(Given { fields: json.with_body(encode(&top)?), file })
}

/// A form has text alone; what is a number or a list elsewhere is made one.
fn as_json(name: &str, mut values: Vec<String>) -> Result<Box<RawValue>, Error> {
    const TEXTS: [&str; 5] = ["model", "text", "prompt", "language", "response_format"];
    const LISTS: [&str; 2] = ["languages", "keywords"];
    if LISTS.contains(&name) || values.len() > 1 && !TEXTS.contains(&name) {
        return Ok(raw(&values));
    }
    // Of a name that stands twice, the last value counts.
    let value = values.pop().unwrap_or_default();
    match serde_json::from_str::<Box<RawValue>>(&value) {
        Ok(json) if !TEXTS.contains(&name) => Ok(json),
        _ => Ok(raw(&value)),
    }
}

/// Of a JSON body, whose `file` is base64 or a data URL.
pub(super) fn object(json: &Json) -> Result<Given, Error> {
    let mut fields = json.fields()?;
    let file = fields.take::<Text<'_>>("file", &mut Vec::new())?;
    let file = file.map(|file| content::sound(file.0, "file").map(Cow::into_owned)).transpose()?;
    let mut top = Options::default();
    fields.left().for_each(|(name, value)| top.set(name, Cow::Borrowed(value)));
    Ok(Given { fields: json.with_body(encode(&top)?), file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_form_says_is_what_json_would_say() {
        let said = |name: &str, values: &[&str]| {
            as_json(name, values.iter().map(ToString::to_string).collect()).unwrap().get().to_owned()
        };
        assert_eq!(said("temperature", &["0.2"]), "0.2");
        assert_eq!(said("prompt", &["1984"]), r#""1984""#);
        assert_eq!(said("languages", &["de"]), r#"["de"]"#);
        assert_eq!(said("include", &["a", "b"]), r#"["a","b"]"#);
        assert_eq!(said("stream", &["false"]), "false");
        assert_eq!(said("user", &["max"]), r#""max""#);
    }

    #[tokio::test]
    async fn a_form_with_too_many_parts_is_refused() {
        let body = |parts: usize| {
            let part = |n: usize| format!("--x\r\nContent-Disposition: form-data; name=\"k{n}\"\r\n\r\n1\r\n");
            (0..parts).map(part).collect::<String>() + "--x--\r\n"
        };
        let limits = crate::config::Limits { fields: 10, ..Default::default() };
        let form = HeaderValue::from_static("multipart/form-data; boundary=x");
        let read = async |parts| read(Some(&form), Json::new(body(parts), &limits)).await;
        assert_eq!(read(11).await.unwrap_err().row().code, Some("object_above_max_properties"));
        assert_eq!(read(10).await.unwrap().fields.fields().unwrap().left().count(), 10);
    }
}
