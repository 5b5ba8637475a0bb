//! Which models a key may use, of those that a request names or an answer lists.
//!
//! Judges only keys with a list of models; for all others nothing is read. Where names cannot be read for sure, the request is refused.

use std::collections::HashMap;

use axum::{
    body::{Body, to_bytes},
    extract::Request,
};
use http::{HeaderMap, Method, Response, header};

use super::model_names;
use crate::{
    error::{self, Error},
    openai::request::encoding,
    routes::Names,
    whole_body::{self, Failed},
};

/// A list of models, as patterns: `llama3.2` is every tag of that model, `llama3.2:1b` is one, and a `*` is anything.
#[derive(Clone, Debug)]
pub(crate) struct Models(Vec<String>);

/// Whether the pattern of a key's list covers `model`.
pub(crate) fn allows(pattern: &str, model: &str) -> bool {
    covers(&any_tag(pattern), &full(model))
}

/// Whether a pattern, made by [`any_tag`], covers a name, made by [`full`].
fn covers(pattern: &str, model: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == model,
        Some((before, after)) => {
            model.len() >= before.len() + after.len() && model.starts_with(before) && model.ends_with(after)
        }
    }
}

impl Models {
    pub(crate) fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| any_tag(pattern)).collect())
    }

    /// Whether the list has `model`. A model without a tag is its `latest`, and case makes no difference, as for Ollama.
    pub(crate) fn contain(&self, model: &str) -> bool {
        let model = full(model);
        self.0.iter().any(|pattern| covers(pattern, &model))
    }

    /// # Errors
    /// The list does not have `model`.
    pub(crate) fn check(&self, model: &str) -> Result<(), Error> {
        if self.contain(model) {
            return Ok(());
        }
        let model: String = model.chars().take(200).collect();
        Err(Error::Denied {
            message: format!("this key may not use the model {model:?}; ask for {}", self.0.join(", ")),
        })
    }

    /// Reads the names in the body of `request`, where `named` says, which passes on as it is. On a `translated` route nobody but us reads it, by exact names,
    /// so every spelling of a name counts; Ollama takes the last.
    ///
    /// # Errors
    /// One of the models is not in the list, or the names cannot be read for sure.
    pub(crate) async fn check_body(
        &self,
        request: Request,
        named: Names,
        limit: usize,
        translated: bool,
    ) -> Result<Request, Error> {
        let refused = |why: &str| Error::Denied { message: format!("this key may use only some models, and {why}") };
        let (mut parts, body) = request.into_parts();
        if encoded(&parts.headers) && !translated {
            return Err(refused("the names in a compressed body cannot be read; send it uncompressed"));
        }
        let body = whole_body::read(body, limit).await.map_err(|failed| match failed {
            Failed::TooLarge => Error::TooLarge { limit },
            Failed::Broken(error) => {
                error::own(&*error).unwrap_or_else(|| refused("the names in a body that is broken off cannot be read"))
            }
        })?;
        let body = if encoded(&parts.headers) {
            let body = encoding::decode(&parts.headers, body, limit)?;
            parts.headers.remove(header::CONTENT_ENCODING);
            parts.headers.remove(header::CONTENT_LENGTH);
            body
        } else {
            body
        };
        let found = match named {
            Names::Body(fields) => model_names::in_body(&body, fields).map_err(|_| {
                refused("the names in this body cannot be read: it is no JSON object with texts for them")
            })?,
            Names::Form => model_names::in_form(&body, &parts.headers).await.map_err(|_| {
                refused(
                    "the model in this body cannot be read: it is no whole form and no JSON object with a text for it",
                )
            })?,
            Names::Path | Names::Listed(..) | Names::Nowhere => Vec::new(),
        };
        if translated && found.is_empty() {
            // Without a name the proxy might choose a model of its own.
            return Err(refused("this request names none; say which"));
        }
        let last: HashMap<_, _> = found.iter().enumerate().map(|(at, (field, _))| (field, at)).collect();
        for (at, (field, name)) in found.iter().enumerate() {
            if !name.is_empty() && (translated || last.get(field) == Some(&at)) {
                self.check(name)?;
            }
        }
        Ok(Request::from_parts(parts, Body::from(body)))
    }

    /// Takes out of the list in `response` what is not in this one.
    ///
    /// # Errors
    /// The list cannot be read, so it is not shown.
    pub(crate) async fn filter(
        &self,
        response: Response<Body>,
        list: &str,
        names: &[&str],
        method: &Method,
    ) -> Result<Response<Body>, Error> {
        /// More than any list of models takes.
        const BOUND: usize = 64 << 20;
        if !response.status().is_success() {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        if method == Method::HEAD {
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let unreadable = || Error::NotOllama {
            message: "the remote's list of models cannot be read, so it is not shown".to_owned(),
        };
        let body = to_bytes(body, BOUND).await.map_err(|_| unreadable())?;
        let mut whole: serde_json::Value = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        if let Some(models) = whole.get_mut(list).filter(|models| !models.is_null()) {
            let shown = |model: &serde_json::Value| {
                let mut told = names.iter().filter_map(|name| model.get(name)?.as_str()).peekable();
                told.peek().is_some() && told.all(|name| self.contain(name))
            };
            models.as_array_mut().ok_or_else(unreadable)?.retain(shown);
        }
        let body = serde_json::to_vec(&whole).map_err(|_| unreadable())?;
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}

fn encoded(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// A pattern in lower case. Without a tag and without a `*` it stands for every tag.
fn any_tag(pattern: &str) -> String {
    let name = pattern.rsplit('/').next().unwrap_or_default();
    let tag = if name.contains([':', '*']) { "" } else { ":*" };
    format!("{}{tag}", pattern.to_lowercase())
}

/// In lower case, with a tag.
fn full(model: &str) -> String {
    let name = model.rsplit('/').next().unwrap_or_default();
    let tag = if name.contains([':', '*']) { "" } else { ":latest" };
    format!("{}{tag}", model.to_lowercase())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn check(models: &[&str], fields: &'static [&'static str], body: &str, translated: bool) -> bool {
        let models = Models::new(&models.iter().map(|&model| model.to_owned()).collect::<Vec<_>>());
        let request = Request::new(Body::from(body.to_owned()));
        models.check_body(request, Names::Body(fields), 1000, translated).now_or_never().unwrap().is_ok()
    }

    #[test]
    fn a_model_is_known_by_its_whole_name_whatever_its_case() {
        let models = Models::new(&["llama3.2".to_owned(), "qwen3:*".to_owned(), "ns/m:7b".to_owned()]);
        for (model, there) in [
            ("llama3.2", true),
            ("LLama3.2:latest", true),
            ("llama3.2:1b", true),
            ("llama3.2x", false),
            ("llama3", false),
            ("qwen3", true),
            ("qwen3:0.6b", true),
            ("qwen35", false),
            ("ns/m:7b", true),
            ("ns/m:8b", false),
            ("ns/m", false),
            ("m:7b", false),
            ("registry.example/ns/m:7b", false),
        ] {
            assert_eq!(models.contain(model), there, "{model}");
        }
    }

    #[test]
    fn names_are_read_as_go_reads_them() {
        for (body, passes) in [
            (r#"{"model":"m"}"#, true),
            (r#"{"model":"x"}"#, false),
            (r#"{"MODEL":"x"}"#, false),
            (r#"{"model":"x","Model":"m"}"#, true),
            (r#"{"model":"m","Model":"x"}"#, false),
            (r#"{"model":"x","model":null}"#, false),
            (r#"{"mod\u0065l":"x"}"#, false),
            (r#"{"name":"x"}"#, false),
            (r#"{"model":"m","name":"x"}"#, false),
            (r#"{"model":"m"} {"model":"x"}"#, true),
            (r#"{"model":5}"#, false),
            (r#"{"model":"m""#, false),
            (r#"["m"]"#, false),
            ("", true),
            ("{}", true),
        ] {
            assert_eq!(check(&["m"], &["model", "name"], body, false), passes, "{body}");
        }
        assert!(!check(&["m"], &["source", "destination"], "{\"\u{17f}ource\":\"x\"}", false));
        assert!(!check(&["m"], &["model"], r#"{"model":"m","modelfile":"FROM x"}"#, false));
        assert!(!check(&["m"], &["model"], &format!("{{\"model\":\"m\",\"a\":\"{}\"}}", "x".repeat(1000)), false));
    }

    #[test]
    fn on_a_translated_route_every_spelling_counts() {
        assert!(!check(&["m"], &["model"], r#"{"model":"x","Model":"m"}"#, true));
        assert!(check(&["m"], &["model"], r#"{"model":"m"}"#, true));
        assert!(!check(&["m"], &["model"], "{}", true));
    }
}
