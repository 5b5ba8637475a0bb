//! `POST /v1/responses/compact`: a conversation in few words. The model is asked for them, and the client carries them.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::{json, value::to_raw_value};

use super::take;
use crate::{
    app::App,
    error::Error,
    gate::Owner,
    observe::Recorder,
    openai::{
        request::{image_urls, json::Json},
        response::sse::{Feed, Translator},
        responses::{stream::Answer, wire::ResponseUsage},
        upstream_request::send,
    },
    sealed,
};

const WISH: &str = "Summarise our conversation so far, so that another assistant can take it up from your summary alone: what was asked for, \
    what was decided and done, what is known and still needed (names, numbers, paths, code word by word), and what comes next. \
    Write nothing but the summary.";

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
    let json = image_urls::inline(&app, &recorder, json).await?;
    let prepared = take(&app, &recorder, owner, json, Some(wish), stamp.random.clone(), None).await?;
    recorder.receipt(prepared.receipt);
    let (id, created, item) = (stamp.id.clone(), stamp.created, format!("cmp_{}", stamp.random));
    let replies = send::whole(&app, prepared.ask, &recorder).await?;
    let mut feed = Feed::of(Answer::new(stamp, prepared.facts), 1).redacting(app.upstream.redactor());
    feed.packet_of(0, replies).and_then(|()| feed.eof_of(0))?;
    let answer = feed.translator();
    let usage = answer.usage().unwrap_or_default();
    recorder.usage(usage);
    let words =
        answer.output().iter().filter(|item| item.r#type == "message").flat_map(|item| item.content.iter().flatten());
    let summary: String = words.map(|part| &*part.text).collect();
    let carried = sealed::seal(&format!("This is what happened so far:\n\n{summary}"));
    Ok(axum::Json(json!({
        "id": id,
        "object": "response.compaction",
        "created_at": created,
        "output": [{"type": "compaction", "id": item, "encrypted_content": carried}],
        "usage": ResponseUsage::from(usage),
    }))
    .into_response())
}
