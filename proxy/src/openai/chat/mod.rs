//! `POST /v1/chat/completions` over `POST /api/chat`.

mod stored;
mod stream;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use axum::{extract::State, response::Response};

use crate::{
    app::App,
    error::Error,
    gate::Owner,
    observe::Recorder,
    offload,
    ollama::wire::ChatReply,
    openai::{
        request::json::Json,
        response::{self, sse},
        upstream_request::{
            prepare::{Context, Prepared, take_with_images},
            send,
        },
    },
    receipt::Receipt,
    usage::Usage,
};

pub(crate) use stored::{delete, list, messages, retrieve, update};

/// Translates a body.
///
/// # Errors
/// Fails if the request is invalid, or asks for something that is not available here.
pub(crate) fn prepare(json: &Json, context: &Context<'_>) -> Result<Prepared<wire::Facts>, Error> {
    let mut receipt = Receipt::default();
    let fields = json.fields()?;
    if fields.raw("store").is_some_and(|store| store.get() == "true") && !stored::stores(context.config) {
        receipt.no_effect("store");
    }
    let tools = context.tools(&fields);
    let mut request = wire::Request::read(fields, &tools, &mut receipt)?;
    let facts = request.facts();
    let policy = context.policy(&mut request.model, &mut request.native, &mut receipt)?;
    let asks = translate::asks(request, &policy, context.config.limits.body, &mut receipt)?;
    receipt.enforce_strict(context.config)?;
    Ok(Prepared { asks, facts, receipt })
}

/// One answer, streamed or not.
pub(crate) async fn create(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    let asked = stored::asked(&json, &app.config).await?;
    let (asks, facts) = take_with_images(&app, &recorder, json, prepare).await?;
    let stamp = app.stamp("chatcmpl-");
    if facts.stream {
        let openings = send::openings(&app, asks, &recorder);
        let (chat, heartbeat) = (stream::Chat::new(&stamp, facts), &app.config.heartbeat);
        return match asked {
            None => sse::respond(openings, chat, heartbeat, recorder).await,
            // Boxed, so that all others do not carry the room for it.
            Some(asked) => {
                let storing = stored::Storing::new(chat, &app, owner, asked);
                Box::pin(sse::respond(openings, storing, heartbeat, recorder)).await
            }
        };
    }
    let bodies = send::all(&app, asks, &recorder).await?;
    let (state, notes) = (app.clone(), recorder.clone());
    let response = send::respond(bodies, move |bodies| {
        let replies = bodies.iter().map(|body| app.upstream.read("/api/chat", body));
        let replies = replies.collect::<Result<Vec<ChatReply<'_>>, _>>()?;
        recorder.usage(replies.iter().map(Usage::from).sum());
        let mut receipt = Receipt::default();
        let answer = translate::response(&stamp, &facts, replies, &mut receipt);
        recorder.receipt(receipt);
        response::json(&answer?, bodies.iter().map(|body| body.len() + 512).sum())
    })
    .await?;
    match asked {
        None => Ok(response),
        Some(asked) => {
            let size = asked.size;
            let keeping = async move { stored::keep(&state, owner, asked, response, &notes).await };
            Box::pin(offload::run_future(size, keeping)).await
        }
    }
}

/// The stream of one answer.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn stream_of_one(stamp: &crate::stamp::Stamp) -> stream::Chat {
    stream::Chat::new(stamp, wire::Facts { model: "m".to_owned(), stream: true, ..wire::Facts::default() })
}
