//! What clients speak: OpenAI's API. One folder per endpoint; `routes.rs` has the list of them.

#[cfg(test)]
pub(crate) mod arbitrary;
pub(crate) mod audio;
pub(crate) mod batches;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod conversations;
pub(crate) mod embeddings;
pub(crate) mod files;
pub(crate) mod images;
pub(crate) mod models;
pub(crate) mod moderations;
pub(crate) mod paging;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod responses;
pub(crate) mod schema;
pub(crate) mod tools;
pub(crate) mod upstream_request;
