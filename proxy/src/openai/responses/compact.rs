//! `POST /v1/responses/compact`: a conversation in one item, which the client carries. The model is asked for a
//! summary.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::{json, value::to_raw_value};

use super::{
    compaction::{self, Compacted, HEADING, WISH},
    take,
};
use crate::{
    app::App,
    error::Error,
    gate::Owner,
    observe::Recorder,
    openai::{
        request::{inline_all, json::Json},
        response::sse::{Feed, Translator},
        responses::{stream::Answer, wire::ResponseUsage},
        upstream_request::send,
    },
    receipt::Receipt,
};

/// Fields of a response that would keep the model from writing a summary, or the summary from its end.
const WITHOUT: [&str; 13] = [
    "background",
    "format",
    "include",
    "max_output_tokens",
    "max_tool_calls",
    "parallel_tool_calls",
    "store",
    "stream",
    "stream_options",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
];

/// The body of the request for a summary; what it leaves out is noted.
///
/// # Errors
/// Fails if `json` is not an object.
fn asked(json: &Json, receipt: &mut Receipt) -> Result<Json, Error> {
    let mut body = b"{\"store\":false".to_vec();
    let internal = |error: serde_json::Error| Error::Internal { message: error.to_string() };
    for (name, value) in json.fields()?.left() {
        if WITHOUT.contains(&&*name) {
            receipt.no_effect(&name);
            continue;
        }
        body.push(b',');
        serde_json::to_writer(&mut body, &*name).map_err(internal)?;
        body.push(b':');
        body.extend_from_slice(value.get().as_bytes());
    }
    body.push(b'}');
    Ok(json.with_body(body))
}

/// The conversation so far as one item.
pub(crate) async fn compact(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    let stamp = app.stamp("resp_");
    let wish = to_raw_value(&json!({"type": "message", "role": "user", "content": WISH}))
        .map_err(|error| Error::Internal { message: error.to_string() })?;
    let mut receipt = Receipt::default();
    let json = inline_all(&app, &recorder, asked(&json, &mut receipt)?).await?;
    let prepared = take(&app, &recorder, owner, json, Some(wish), stamp.random.clone(), None).await?;
    receipt.add(prepared.receipt);
    recorder.receipt(receipt);
    let (id, created, item) = (stamp.id.clone(), stamp.created, compaction::id(&stamp.random));
    let replies = send::whole(&app, prepared.ask, &recorder).await?;
    let mut feed = Feed::of(Answer::new(stamp, prepared.facts), 1).redacting(app.upstream.redactor());
    feed.packet_of(0, replies).and_then(|()| feed.eof_of(0))?;
    let answer = feed.translator();
    let usage = answer.usage().unwrap_or_default();
    recorder.usage(usage);
    let words =
        answer.output().iter().filter(|item| item.r#type == "message").flat_map(|item| item.content.iter().flatten());
    let summary: String = words.map(|part| &*part.text).collect();
    // A client drops what it has for this: half of a summary, or none, would lose the rest.
    if answer.response().status != "completed" || summary.trim().is_empty() {
        return Err(Error::unsupported(
            "input",
            "The model's summary is empty or was cut off before its end; let contexts grow (context.max), use another model, \
             or compact fewer items.",
        ));
    }
    let compacted = Compacted { messages: prepared.carried, summary: format!("{HEADING}{summary}") };
    let carried = compacted.seal(&app.compaction_key)?;
    Ok(axum::Json(json!({
        "id": id,
        "object": "response.compaction",
        "created_at": created,
        "output": [{"type": "compaction", "id": item, "encrypted_content": carried}],
        "usage": ResponseUsage::from(usage),
    }))
    .into_response())
}
