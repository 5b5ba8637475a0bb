//! `/api/copy`, `/api/delete` and `/api/blobs` (`ollama-wire` A8).

use http::StatusCode;
use jiff::Timestamp;

use super::{Call, Refusal, create::is_digest, named, text};
use crate::{go, names::Name, server::answer::Answer};

const COPY: go::Request =
    go::Request { name: "CopyRequest", fields: &[("source", go::Kind::Text), ("destination", go::Kind::Text)] };
const DELETE: go::Request =
    go::Request { name: "DeleteRequest", fields: &[("model", go::Kind::Text), ("name", go::Kind::Text)] };

pub(super) fn copy(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&COPY)?;
    let parse = |role: &str| {
        let asked = text(&fields, role);
        Name::parse(asked).ok_or_else(|| Refusal::bad_request(format!("{role} {asked:?} is invalid")))
    };
    let (source, destination) = (parse("source")?, parse("destination")?);
    let Some(mut model) = call.state.model(&source) else {
        return Err(Refusal::not_found(format!("model {:?} not found", text(&fields, "source"))));
    };
    model.name = destination;
    model.modified = Timestamp::now();
    call.state.put(model);
    Ok(Answer::empty(StatusCode::OK))
}

pub(super) fn delete(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&DELETE)?;
    let asked = named(&fields);
    if asked.is_empty() {
        return Err(Refusal::bad_request("model is required"));
    }
    let name = Name::parse(asked).ok_or_else(|| Refusal::bad_request(format!("name {asked:?} is invalid")))?;
    if call.state.remove(&name) {
        Ok(Answer::empty(StatusCode::OK))
    } else {
        Err(Refusal::not_found(format!("model '{asked}' not found")))
    }
}

pub(super) fn head_blob(call: &Call<'_>) -> Result<Answer, Refusal> {
    let digest = digest(call)?;
    match call.state.blob(&digest) {
        Some(_) => Ok(Answer::empty(StatusCode::OK)),
        None => Err(Refusal::not_found(format!("blob {digest:?} not found"))),
    }
}

pub(super) fn post_blob(call: &Call<'_>) -> Result<Answer, Refusal> {
    let digest = digest(call)?;
    if call.state.blob(&digest).is_some() {
        return Ok(Answer::empty(StatusCode::OK));
    }
    let got = format!("sha256:{}", call.asked.sha256.as_deref().unwrap_or_default());
    if got != digest.to_lowercase() {
        return Err(Refusal::bad_request(format!("digest mismatch, expected {digest:?}, got {got:?}")));
    }
    call.state.put_blob(&digest, call.asked.body.clone());
    Ok(Answer::empty(StatusCode::CREATED))
}

fn digest(call: &Call<'_>) -> Result<String, Refusal> {
    if is_digest(call.parameter) {
        Ok(call.parameter.replacen('-', ":", 1))
    } else {
        Err(Refusal::bad_request("invalid digest format"))
    }
}
