//! Stored chats: `store: true` on `POST /v1/chat/completions`, and what is done with one afterwards.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::stream::Chat;
use crate::{
    app::App,
    config::Config,
    error::Error,
    gate::Owner,
    observe::Recorder,
    offload,
    ollama::wire::ChatReply,
    openai::{
        paging::{Paging, Pairs, page},
        request::{
            json::{Json, read},
            metadata::checked,
        },
        response::sse::{Frames, Saving, Translator},
    },
    receipt::Receipt,
    routes::Id,
    store::{Kind, Page, Record, Updated},
    usage::{CompletionUsage, Usage},
};

/// How many records are looked at in one step of a list.
const STEP: usize = 100;

/// The body of a record.
#[derive(Debug, Deserialize, Serialize)]
struct Stored {
    completion: Map<String, Value>,
    /// What was asked.
    messages: Vec<Value>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

/// What is stored of a request besides its answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The size of the body that it is a part of.
    pub(super) size: usize,
    messages: Vec<Value>,
    metadata: Map<String, Value>,
}

/// What is to be stored of a request; None if it is not to be.
///
/// # Errors
/// Fails if its metadata is not one of texts.
pub(super) async fn asked(json: &Json, config: &Config) -> Result<Option<Asked>, Error> {
    if !stores(config) {
        return Ok(None);
    }
    let json = json.clone();
    offload::run(json.bytes().len(), move || asked_by(&json)).await
}

fn asked_by(json: &Json) -> Result<Option<Asked>, Error> {
    if memchr::memmem::find(json.bytes(), b"\"store\"").is_none() {
        return Ok(None);
    }
    let mut fields = json.fields()?;
    if !fields.take::<bool>("store", &mut Vec::new())?.unwrap_or(false) {
        return Ok(None);
    }
    let metadata = fields.take_raw("metadata").map_or(Ok(Map::new()), |raw| checked(read("metadata", raw)?))?;
    let messages = fields.take_raw("messages").map_or(Ok(Vec::new()), |raw| read("messages", raw))?;
    Ok(Some(Asked { size: json.bytes().len(), messages, metadata }))
}

/// Whether anything is stored.
pub(super) fn stores(config: &Config) -> bool {
    config.responses.max_bytes > 0 && config.responses.max_count > 0
}

/// The record of a chat.
pub(super) fn record(owner: Owner, completion: Value, asked: Asked) -> Option<Record> {
    let Value::Object(completion) = completion else { return None };
    let id = completion.get("id")?.as_str()?.to_owned();
    let stored = Stored { completion, messages: asked.messages, metadata: asked.metadata };
    let body = Bytes::from(serde_json::to_vec(&stored).ok()?);
    Some(Record { kind: Kind::Chat, owner, id, previous: None, names: Vec::new(), body })
}

/// Stores a whole answer before it goes out.
///
/// # Errors
/// None that a whole body can cause.
pub(super) async fn keep(
    app: &App,
    owner: Owner,
    asked: Asked,
    response: Response,
    recorder: &Recorder,
) -> Result<Response, Error> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| Error::Internal { message: error.to_string() })?.to_bytes();
    let record = serde_json::from_slice(&body).ok().and_then(|completion| record(owner, completion, asked));
    if let Some(record) = record {
        recorder.receipt(app.store.save(record).await);
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Folds the chunks of a stream to the answer that an unstreamed request gets.
#[derive(Debug, Default)]
struct Fold {
    head: Map<String, Value>,
    choices: Vec<Map<String, Value>>,
    failed: bool,
}

impl Fold {
    fn add(&mut self, frames: &[u8]) {
        let data = frames.split(|byte| *byte == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
        for chunk in data.filter_map(|data| serde_json::from_slice::<Map<String, Value>>(data).ok()) {
            self.failed |= chunk.contains_key("error");
            for (name, value) in &chunk {
                match &**name {
                    "choices" => value.as_array().into_iter().flatten().for_each(|choice| self.choice(choice)),
                    "usage" | "object" => {}
                    _ => {
                        self.head.entry(name).or_insert_with(|| value.clone());
                    }
                }
            }
        }
    }

    fn choice(&mut self, chunk: &Value) {
        let index = chunk["index"].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or(0).min(127);
        while self.choices.len() <= index {
            let message = json!({"role": "assistant", "content": null, "refusal": null, "annotations": []});
            let choice =
                json!({"index": self.choices.len(), "message": message, "logprobs": null, "finish_reason": null});
            self.choices.extend(choice.as_object().cloned());
        }
        let choice = &mut self.choices[index];
        if let Some(reason) = chunk["finish_reason"].as_str() {
            choice.insert("finish_reason".to_owned(), reason.into());
        }
        if let Some(tokens) = chunk["logprobs"]["content"].as_array() {
            let logprobs = choice.entry("logprobs").or_insert(Value::Null);
            if logprobs.is_null() {
                *logprobs = json!({"content": [], "refusal": null});
            }
            logprobs["content"].as_array_mut().into_iter().for_each(|all| all.extend(tokens.iter().cloned()));
        }
        let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut) else { return };
        for (name, value) in chunk["delta"].as_object().into_iter().flatten() {
            match (&**name, value) {
                ("content" | "reasoning" | "reasoning_content", Value::String(more)) if !more.is_empty() => {
                    let text = message.entry(name).or_insert(Value::Null);
                    *text = format!("{}{more}", text.as_str().unwrap_or_default()).into();
                }
                ("tool_calls", Value::Array(calls)) => {
                    let all = message.entry(name).or_insert_with(|| json!([]));
                    for call in calls {
                        let mut call = call.clone();
                        // Calls come whole; their number is of streams alone.
                        call.as_object_mut().map(|call| call.remove("index"));
                        all.as_array_mut().into_iter().for_each(|all| all.push(call.clone()));
                    }
                }
                ("function_call", call) => {
                    message.insert(name.clone(), call.clone());
                }
                _ => {}
            }
        }
    }

    fn completion(mut self, usage: Option<Usage>) -> Value {
        for choice in &mut self.choices {
            if let Some(message) = choice.get_mut("message").and_then(Value::as_object_mut)
                && !message.contains_key("tool_calls")
                && !message.contains_key("function_call")
                && message["content"].is_null()
            {
                message.insert("content".to_owned(), "".into());
            }
        }
        let usage = usage.map(|usage| json!(CompletionUsage::from(usage)));
        self.head.insert("object".to_owned(), "chat.completion".into());
        self.head.insert("choices".to_owned(), self.choices.into_iter().map(Value::Object).collect());
        self.head.insert("usage".to_owned(), usage.unwrap_or_default());
        self.head.into()
    }
}

/// A streamed answer that is stored once it is whole.
pub(super) struct Storing {
    chat: Chat,
    app: App,
    owner: Owner,
    asked: Option<Asked>,
    fold: Fold,
    record: Option<Record>,
    receipt: Receipt,
}

impl Storing {
    pub(super) fn new(chat: Chat, app: &App, owner: Owner, asked: Asked) -> Self {
        let (app, receipt) = (app.clone(), Receipt::default());
        Self { chat, app, owner, asked: Some(asked), fold: Fold::default(), record: None, receipt }
    }
}

impl Translator for Storing {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        let mut frames = Frames::default();
        self.chat.reply(reply, &mut frames);
        let frames = frames.take();
        self.fold.add(&frames);
        out.append(&frames);
        if self.chat.closed()
            && !self.fold.failed
            && let Some(asked) = self.asked.take()
        {
            let completion = std::mem::take(&mut self.fold).completion(self.chat.usage());
            self.record = record(self.owner, completion, asked);
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        self.chat.fail(error, out);
    }

    fn closed(&self) -> bool {
        self.chat.closed()
    }

    fn source(&mut self, nth: usize) {
        self.chat.source(nth);
    }

    fn finished(&self, nth: usize) -> bool {
        self.chat.finished(nth)
    }

    fn usage(&self) -> Option<Usage> {
        self.chat.usage()
    }

    fn receipt(&mut self) -> Receipt {
        let mut receipt = self.chat.receipt();
        receipt.add(std::mem::take(&mut self.receipt));
        receipt
    }

    fn saving(&mut self) -> Option<Saving> {
        let (record, store) = (self.record.take()?, self.app.store.clone());
        Some(Box::pin(async move { store.save(record).await }))
    }

    fn saved(&mut self, receipt: Receipt) {
        self.receipt.add(receipt);
    }

    fn wrong(&mut self) -> Option<Error> {
        self.chat.wrong()
    }

    fn weight(&self) -> usize {
        self.asked.as_ref().map_or(0, |asked| asked.size)
    }
}

impl Stored {
    fn read(record: &Record) -> Result<Self, Error> {
        serde_json::from_slice(&record.body).map_err(|error| Error::Internal {
            message: format!("the stored record '{}' cannot be read: {error}", record.id),
        })
    }

    /// The object that clients see.
    fn shown(mut self) -> Value {
        self.completion.insert("metadata".to_owned(), self.metadata.into());
        self.completion.into()
    }
}

fn missing(id: &str) -> Error {
    Error::NotFound {
        message: format!("Chat completion with id '{id}' not found. Only those with `store: true` are stored."),
        param: Some("completion_id".to_owned()),
        code: "chat_completion_not_found",
    }
}

/// Finds a stored chat and makes `of` it, off the event loop if it is large.
///
/// # Errors
/// Fails if there is none, or as `of`.
async fn find<T: Send + 'static>(
    app: &App,
    owner: Owner,
    id: &str,
    of: impl FnOnce(Stored) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let record = app.store.get(Kind::Chat, owner, id).await?.ok_or_else(|| missing(id))?;
    offload::run(record.body.len(), move || of(Stored::read(&record)?)).await
}

/// Which chats are wanted.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    paging: Paging,
    model: Option<String>,
    metadata: Vec<(String, String)>,
}

impl Wanted {
    /// # Errors
    /// Fails if a value is out of range.
    fn read(query: &[(String, String)]) -> Result<Self, Error> {
        let paging = Paging::read(query, Paging { after: None, limit: 20, ascending: true }, 100)?;
        let mut wanted = Self { paging, model: None, metadata: Vec::new() };
        for (name, value) in query {
            if name == "model" {
                wanted.model = Some(value.clone());
            } else if let Some(key) = name.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']')) {
                wanted.metadata.push((key.to_owned(), value.clone()));
            }
        }
        Ok(wanted)
    }

    fn fits(&self, stored: &Stored) -> bool {
        let model = stored.completion.get("model").and_then(Value::as_str);
        let has = |(key, value): &(String, String)| stored.metadata.get(key).and_then(Value::as_str) == Some(value);
        self.model.as_deref().is_none_or(|wanted| model == Some(wanted)) && self.metadata.iter().all(has)
    }
}

/// `GET /v1/chat/completions`: the caller's, page by page.
pub(crate) async fn list(State(app): State<App>, owner: Owner, Query(query): Query<Pairs>) -> Result<Response, Error> {
    let wanted = Wanted::read(&query)?;
    let (mut data, mut after) = (Vec::new(), wanted.paging.after.clone());
    loop {
        let step = Page { after: after.clone(), limit: STEP, ascending: wanted.paging.ascending };
        let Some(step) = app.store.list(Kind::Chat, owner, &step).await? else {
            return Err(Error::invalid(
                "after",
                format!("Chat completion with id '{}' not found.", after.unwrap_or_default()),
            ));
        };
        after = step.records.last().filter(|_| step.has_more).map(|last| last.id.clone());
        let (last, looked, mut found) = (after.is_none(), wanted.clone(), std::mem::take(&mut data));
        let size = size_of_all(&step.records) + found.iter().map(|(_, size)| size).sum::<usize>();
        // Returns the page once it is full, or complete, and what was found so far until then.
        let look = move || {
            for record in &step.records {
                let stored = Stored::read(record)?;
                if !looked.fits(&stored) {
                    continue;
                }
                if found.len() == looked.paging.limit {
                    return Ok::<_, Error>((Some(page_of(found, true)), Vec::new()));
                }
                found.push((stored.shown(), record.body.len()));
            }
            Ok(if last { (Some(page_of(found, false)), Vec::new()) } else { (None, found) })
        };
        let (page, found) = offload::run(size, look).await?;
        if let Some(page) = page {
            return Ok(page);
        }
        data = found;
    }
}

fn size_of_all(records: &[Arc<Record>]) -> usize {
    records.iter().map(|record| record.body.len()).sum()
}

/// A page of chats, each with the size of its record.
fn page_of(found: Vec<(Value, usize)>, has_more: bool) -> Response {
    page(&found.into_iter().map(|(chat, _)| chat).collect::<Vec<_>>(), has_more)
}

/// `GET /v1/chat/completions/{id}`.
pub(crate) async fn retrieve(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    find(&app, owner, &id, |stored| Ok(axum::Json(stored.shown()).into_response())).await
}

/// `POST /v1/chat/completions/{id}`: replaces its metadata.
pub(crate) async fn update(State(app): State<App>, owner: Owner, Id(id): Id, json: Json) -> Result<Response, Error> {
    let metadata: Map<String, Value> = json.fields()?.need("metadata", &mut Vec::new())?;
    let metadata = checked(metadata)?;
    let size = app.store.get(Kind::Chat, owner, &id).await?.map_or(0, |record| record.body.len());
    offload::run_future(size, async move { replace_metadata(&app, owner, &id, metadata).await }).await
}

async fn replace_metadata(app: &App, owner: Owner, id: &str, metadata: Map<String, Value>) -> Result<Response, Error> {
    let change = |record: &Record| {
        let stored = Stored { metadata: metadata.clone(), ..Stored::read(record)? };
        let body = serde_json::to_vec(&stored).map_err(|error| Error::Internal { message: error.to_string() })?;
        Ok(Record { body: body.into(), ..record.clone() })
    };
    match app.store.update(Kind::Chat, owner, id, change).await? {
        Updated::Stored(record) => Ok(axum::Json(Stored::read(&record)?.shown()).into_response()),
        Updated::Missing => Err(missing(id)),
        Updated::TooBig => Err(Error::invalid("metadata", "With this metadata it is larger than what is stored.")),
    }
}

/// `DELETE /v1/chat/completions/{id}`.
pub(crate) async fn delete(State(app): State<App>, owner: Owner, Id(id): Id) -> Result<Response, Error> {
    if !app.store.remove(Kind::Chat, owner, &id).await? {
        return Err(missing(&id));
    }
    Ok(axum::Json(json!({"id": id, "object": "chat.completion.deleted", "deleted": true})).into_response())
}

/// `GET /v1/chat/completions/{id}/messages`: what it was asked, page by page.
pub(crate) async fn messages(
    State(app): State<App>,
    owner: Owner,
    Id(id): Id,
    Query(query): Query<Pairs>,
) -> Result<Response, Error> {
    let wanted = Wanted::read(&query)?.paging;
    let of = id.clone();
    find(&app, owner, &id, move |stored| messages_page(&of, stored, &wanted)).await
}

/// A page of the messages of the chat `id`.
///
/// # Errors
/// Fails if `wanted.after` is none of them.
fn messages_page(id: &str, stored: Stored, wanted: &Paging) -> Result<Response, Error> {
    let mut messages: Vec<Value> =
        stored.messages.into_iter().enumerate().map(|(n, message)| message_of(id, n, message)).collect();
    if !wanted.ascending {
        messages.reverse();
    }
    if let Some(after) = &wanted.after {
        let at = messages.iter().position(|message| message["id"] == **after).ok_or_else(|| {
            Error::invalid("after", format!("Message with id '{after}' not found in this chat completion."))
        })?;
        messages.drain(..=at);
    }
    let has_more = messages.len() > wanted.limit;
    messages.truncate(wanted.limit);
    Ok(page(&messages, has_more))
}

/// A message as it is listed: its text, and the parts that it was made of.
fn message_of(id: &str, n: usize, message: Value) -> Value {
    let Value::Object(mut message) = message else { return Value::Null };
    let content = message.remove("content").unwrap_or_default();
    let text = match &content {
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            Value::from(texts.join("\n"))
        }
        content => content.clone(),
    };
    let parts = if content.is_array() { content } else { Value::Null };
    message.insert("id".to_owned(), format!("{id}-{n}").into());
    message.insert("content".to_owned(), text);
    message.entry("refusal").or_insert(Value::Null);
    message.insert("content_parts".to_owned(), parts);
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_fold_to_the_unstreamed_answer() {
        let mut fold = Fold::default();
        let frames = [
            json!({"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
            json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [1]}}]}),
            json!({"id": "c", "choices": [{"index": 1, "delta": {"tool_calls": [{"index": 0, "id": "call_1"}]}}]}),
            json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop", "logprobs": {"content": [2]}}]}),
        ];
        for frame in frames {
            fold.add(format!("data: {frame}\n\n").as_bytes());
        }
        fold.add(b"data: [DONE]\n\n");
        let completion = fold.completion(Some(Usage { input: 1, output: 2, cached: 0 }));
        assert_eq!(
            (&completion["id"], &completion["object"], &completion["model"]),
            (&json!("c"), &json!("chat.completion"), &json!("m"))
        );
        let [first, second] = [&completion["choices"][0], &completion["choices"][1]];
        assert_eq!((&first["message"]["content"], &first["finish_reason"]), (&json!("ab"), &json!("stop")));
        assert_eq!(first["logprobs"]["content"], json!([1, 2]));
        assert_eq!(
            (&second["message"]["content"], &second["message"]["tool_calls"]),
            (&Value::Null, &json!([{"id": "call_1"}]))
        );
        assert_eq!(completion["usage"]["total_tokens"], 3);
    }

    #[test]
    fn filters_are_read() {
        let query = [("metadata[a]", "b"), ("order", "desc"), ("limit", "3"), ("model", "m")];
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let wanted = Wanted::read(&query).unwrap();
        assert_eq!((wanted.paging.limit, wanted.paging.ascending, wanted.metadata.len()), (3, false, 1));
        assert!(Wanted::read(&[("limit".to_owned(), "0".to_owned())]).is_err());
    }
}
