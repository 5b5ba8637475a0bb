//! Ollama's native routes, one file for each family. `/v1/*` is known by name only, so that 405 and preflights are
//! right; its answer is 404.

mod chat;
mod create;
mod embed;
mod generate;
mod inference;
mod list;
mod manage;
mod options;
mod progress;
mod registry;
mod show;
mod transfer;

use crate::version::Feature;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::{
    go::{self, KeepAlive},
    models::Model,
    names::Name,
    server::{answer::Answer, gate, request::Asked},
    state::{Admission, State, Ticket},
};

/// A request on its route.
pub(crate) struct Call<'a> {
    pub(crate) state: &'a Arc<State>,
    pub(crate) asked: &'a Asked,
    /// The last segment, where the route has a parameter.
    pub(crate) parameter: &'a str,
    /// What the model says, where a script decides that.
    pub(crate) words: Option<&'a str>,
    /// The request's place among those that wait for a model.
    pub(crate) ticket: &'a Ticket,
}

type Handler = fn(&Call<'_>) -> Result<Answer, Refusal>;

/// An error that a handler answers with at once, as gin does.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    /// No refusal yet: the request waits for its model.
    waits: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), waits: false }
    }

    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }
}

/// A request that can be answered, or waits for its model.
pub(crate) enum Outcome {
    Answered(Answer),
    Waits,
}

/// Methods in gin's order.
const METHODS: [Method; 4] = [Method::HEAD, Method::GET, Method::POST, Method::DELETE];

/// A path ending in `/:` takes one more segment.
const ROUTES: &[(&str, Method, Handler)] = &[
    ("/", Method::HEAD, list::root),
    ("/", Method::GET, list::root),
    ("/api/version", Method::HEAD, list::version),
    ("/api/version", Method::GET, list::version),
    ("/api/tags", Method::HEAD, list::tags),
    ("/api/tags", Method::GET, list::tags),
    ("/api/ps", Method::GET, list::ps),
    ("/api/show", Method::POST, show::show),
    ("/api/chat", Method::POST, chat::chat),
    ("/api/generate", Method::POST, generate::generate),
    ("/api/embed", Method::POST, embed::embed),
    ("/api/embeddings", Method::POST, embed::embeddings),
    ("/api/create", Method::POST, create::create),
    ("/api/blobs/:", Method::HEAD, manage::head_blob),
    ("/api/blobs/:", Method::POST, manage::post_blob),
    ("/api/copy", Method::POST, manage::copy),
    ("/api/delete", Method::DELETE, manage::delete),
    ("/api/pull", Method::POST, transfer::pull),
    ("/api/push", Method::POST, transfer::push),
    ("/v1/chat/completions", Method::POST, not_ours),
    ("/v1/completions", Method::POST, not_ours),
    ("/v1/embeddings", Method::POST, not_ours),
    ("/v1/responses", Method::POST, not_ours),
    ("/v1/messages", Method::POST, not_ours),
    ("/v1/audio/transcriptions", Method::POST, not_ours),
    ("/v1/models", Method::GET, not_ours),
    ("/v1/models/:", Method::GET, not_ours),
];

fn not_ours(_: &Call<'_>) -> Result<Answer, Refusal> {
    Ok(gate::not_found())
}

/// The route of a method and path, with its parameter.
pub(crate) fn find<'a>(method: &Method, path: &'a str) -> Option<(Handler, &'a str)> {
    ROUTES
        .iter()
        .filter(|(_, known, _)| known == method)
        .find_map(|(route, _, handler)| Some((*handler, parameter(route, path)?)))
}

fn parameter<'a>(route: &str, path: &'a str) -> Option<&'a str> {
    match route.strip_suffix(':') {
        Some(start) => path.strip_prefix(start).filter(|rest| !rest.is_empty() && !rest.contains('/')),
        None => (route == path).then_some(""),
    }
}

/// The other methods of a path, if there are any.
pub(crate) fn allow(method: &Method, path: &str) -> Option<String> {
    let others = METHODS.iter().filter(|known| *known != method && find(known, path).is_some());
    let others: Vec<&str> = others.map(Method::as_str).collect();
    (!others.is_empty()).then(|| others.join(", "))
}

/// The answer of the route, or why there is none.
pub(crate) fn answer(state: &Arc<State>, asked: &Asked, words: Option<&str>, ticket: &Ticket) -> Outcome {
    let Some((handler, parameter)) = find(&asked.method, &asked.route) else {
        return Outcome::Answered(match allow(&asked.method, &asked.route) {
            Some(methods) if state.version.has(Feature::WrongMethods) => gate::wrong_method(&methods),
            _ => gate::not_found(),
        });
    };
    match handler(&Call { state, asked, parameter, words, ticket }) {
        Ok(answer) => Outcome::Answered(answer),
        Err(refusal) if refusal.waits => Outcome::Waits,
        Err(refusal) => Outcome::Answered(Answer::error(refusal.status, &refusal.text)),
    }
}

/// Whether the route's handler reads the body. A blob that is there, or has no valid name, is answered before.
pub(crate) fn reads_body(state: &State, asked: &Asked) -> bool {
    let is_read = asked.method != Method::GET && asked.method != Method::HEAD && !asked.route.starts_with("/v1/");
    match find(&asked.method, &asked.route) {
        Some((_, digest)) if asked.route.starts_with("/api/blobs/") => {
            create::is_digest(digest) && state.blob(&digest.replacen('-', ":", 1)).is_none()
        }
        Some(_) => is_read,
        None => false,
    }
}

impl Call<'_> {
    /// The body's known fields.
    pub(crate) fn decode(&self, request: &go::Request) -> Result<Map<String, Value>, Refusal> {
        go::decode(&self.asked.body, request, self.state.version.has(Feature::ArgumentParser))
            .map_err(Refusal::bad_request)
    }
}

/// Gives the request its model; returns whether it had to be loaded.
pub(crate) fn load(
    call: &Call<'_>,
    model: &Model,
    context_length: usize,
    keep_alive: Option<KeepAlive>,
) -> Result<bool, Refusal> {
    let context_length = u32::try_from(context_length).unwrap_or(u32::MAX);
    let text = "server busy, please try again.  maximum pending requests exceeded";
    match call.state.load(model, context_length, keep_alive, call.ticket) {
        Admission::Runs { is_cold } => Ok(is_cold),
        Admission::Waits => Err(Refusal { waits: true, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text) }),
        Admission::Refused => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text)),
    }
}

/// A text field; an absent one is empty.
pub(crate) fn text<'a>(fields: &'a Map<String, Value>, key: &str) -> &'a str {
    fields.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A flag; `absent` where it is not given.
pub(crate) fn flag(fields: &Map<String, Value>, key: &str, absent: bool) -> bool {
    fields.get(key).and_then(Value::as_bool).unwrap_or(absent)
}

/// The model that is named by `model`, or by the deprecated `name`.
pub(crate) fn named(fields: &Map<String, Value>) -> &str {
    match text(fields, "model") {
        "" => text(fields, "name"),
        model => model,
    }
}

/// A name that follows the grammar.
pub(crate) fn name(text: &str) -> Result<Name, Refusal> {
    Name::parse(text).ok_or_else(|| Refusal::bad_request("invalid model name"))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http::HeaderMap;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::models::Stock;

    fn asked(method: &Method, path: &str, body: Vec<u8>) -> Asked {
        Asked {
            method: method.clone(),
            path: path.to_owned(),
            route: path.to_owned(),
            query: None,
            headers: HeaderMap::new(),
            body: body.into(),
            sha256: Some(String::new()),
            fault: None,
        }
    }

    /// All routes answer the body, to the end.
    fn answer_all(version: &str, body: &[u8]) {
        let state = State::new(version.parse().unwrap(), 64, true, None, Stock::Usual.models());
        let state = Arc::new(state);
        for (path, method, _) in ROUTES {
            let asked = asked(method, &path.replace(':', "x"), body.to_vec());
            let Outcome::Answered(answer) = answer(&state, &asked, None, &Ticket::default()) else {
                panic!("nothing has to wait");
            };
            let Some(answer) = futures_util::FutureExt::now_or_never(answer.settled()) else { continue };
            let mut pieces = answer.pieces();
            while let Some(Some(_)) = futures_util::FutureExt::now_or_never(pieces.next()) {}
        }
    }

    /// Values that a field may be given, right or wrong.
    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e20..1e20_f64).prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
            prop_oneof![
                Just("gpt-oss:20b"),
                Just("pair:135m"),
                Just("all-minilm"),
                Just("filler:135m"),
                Just("json"),
                Just("user")
            ]
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((keys(), inner), 0..5)
                    .prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn keys() -> impl Strategy<Value = String> {
        prop_oneof![
            "model|messages|role|content|tools|function|name|arguments|tool_calls|parameters|properties|type|options|num_ctx|num_predict|stop|seed",
            "input|prompt|suffix|context|images|format|think|keep_alive|truncate|shift|logprobs|top_logprobs|dimensions|raw|template|system",
            "from|files|source|destination|license|quantize|stream|required|enum|items|anyOf|pattern|minItems|minimum",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn no_json_makes_a_route_panic(mut fields in proptest::collection::vec((keys(), values()), 0..8), model in prop_oneof![Just("gpt-oss:20b"), Just("pair:135m"), Just("all-minilm"), Just("agent")]) {
            fields.push(("model".to_owned(), model.into()));
            let body = Value::from(fields.into_iter().collect::<Map<_, _>>()).to_string();
            for version in ["0.5.0", "0.33.0"] {
                answer_all(version, body.as_bytes());
            }
        }

        #[test]
        fn no_bytes_make_a_route_panic(body in proptest::collection::vec(any::<u8>(), 0..40)) {
            answer_all("0.33.0", &body);
        }
    }

    #[test]
    fn paths_are_found_by_their_method() {
        assert_eq!(find(&Method::POST, "/api/blobs/sha256:1").unwrap().1, "sha256:1");
        assert!(find(&Method::POST, "/api/blobs/a/b").is_none() && find(&Method::GET, "/api/chat").is_none());
        assert_eq!(allow(&Method::GET, "/api/blobs/x").unwrap(), "HEAD, POST");
        assert_eq!(allow(&Method::POST, "/").unwrap(), "HEAD, GET");
        assert_eq!(allow(&Method::GET, "/nope"), None);
    }

    #[test]
    fn numbers_that_count_to_the_end_of_all_numbers_are_no_danger() {
        let text = format!("{} {} {}", u64::MAX - 2, u64::MAX - 1, u64::MAX);
        let body =
            json!({"model": "pair:135m", "prompt": text, "options": {"num_keep": i64::MAX, "num_ctx": i64::MIN}});
        answer_all("0.33.0", body.to_string().as_bytes());
    }
}
