//! Responses with the OpenAI client: made, fetched, deleted, cancelled, counted and compacted.

use async_openai::types::responses::{
    CompactResource, DeleteResponse, ItemResourceItem, Response, ResponseStreamEvent, TokenCountsResource,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Understood,
    chat::Typed,
    error,
    typed::{OpenAI, read, understand, with_error},
};

/// A list of items. The client's own type takes every item for a reference to one, and sees nothing of it but its id.
#[derive(Deserialize, Serialize)]
struct Items {
    object: String,
    data: Vec<ItemResourceItem>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// `POST /v1/responses`, streamed if `stream: true`: then what is understood is the response of the last event that has
/// one.
pub(super) async fn create(client: &OpenAI, request: Value, understood: &Understood) {
    if request["stream"] != json!(true) {
        return understand::<Response>(client.responses().create_byot(request).await, understood);
    }
    match client.responses().create_stream_byot::<_, Typed<ResponseStreamEvent>>(request).await {
        Err(failed) => understood.set(error(&failed)),
        Ok(stream) => {
            let mut last = json!({});
            let failed = read(stream, |event| {
                if let Some(response) = event.get("response") {
                    last = response.clone();
                }
            })
            .await;
            understood.set(with_error(last, failed));
        }
    }
}

/// `GET /v1/responses/{id}`.
pub(super) async fn retrieve(client: &OpenAI, id: &str, understood: &Understood) {
    understand::<Response>(client.responses().retrieve_byot(id).await, understood);
}

/// `DELETE /v1/responses/{id}`.
pub(super) async fn delete(client: &OpenAI, id: &str, understood: &Understood) {
    understand::<DeleteResponse>(client.responses().delete_byot(id).await, understood);
}

/// `POST /v1/responses/{id}/cancel`.
pub(super) async fn cancel(client: &OpenAI, id: &str, understood: &Understood) {
    understand::<Response>(client.responses().cancel_byot(id).await, understood);
}

/// `GET /v1/responses/{id}/input_items`.
pub(super) async fn input_items(client: &OpenAI, id: &str, understood: &Understood) {
    understand::<Items>(client.responses().list_input_items_byot(id).await, understood);
}

/// `POST /v1/responses/input_tokens`.
pub(super) async fn input_tokens(client: &OpenAI, request: Value, understood: &Understood) {
    understand::<TokenCountsResource>(client.responses().get_input_token_counts_byot(request).await, understood);
}

/// `POST /v1/responses/compact`.
pub(super) async fn compact(client: &OpenAI, request: Value, understood: &Understood) {
    understand::<CompactResource>(client.responses().compact_byot(request).await, understood);
}
