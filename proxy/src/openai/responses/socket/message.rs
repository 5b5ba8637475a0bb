//! The messages of a WebSocket: what clients ask for, and the events that go out as text. Pure.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::{
    config::Config,
    error::{self, Dialect, Error},
    openai::request::json::{Json, Text},
};

/// A turn that a client asks for.
pub(super) struct Create {
    /// The body of the request that it is.
    pub(super) body: Bytes,
    pub(super) previous: Option<String>,
}

/// What a message of the client's is, besides the fields of a request.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    stream_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    previous_response_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    response_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

/// An event that reports an error.
#[derive(Serialize)]
struct ErrorEvent<'a> {
    r#type: &'static str,
    status: u16,
    error: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<&'a str>,
}

pub(super) fn error_event(error: &Error, headers: &HeaderMap, lane: Option<&str>) -> String {
    let body: Value = serde_json::from_slice(&error::body(error, Dialect::OpenAi, None)).unwrap_or_default();
    let mut inner = body.get("error").cloned().unwrap_or_default();
    let shown = |name: &HeaderName| *name == header::RETRY_AFTER || name.as_str().starts_with("x-");
    let headers: serde_json::Map<String, Value> = headers
        .iter()
        .filter(|(name, _)| shown(name))
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.into())))
        .collect();
    if let Some(object) = inner.as_object_mut()
        && !headers.is_empty()
    {
        object.insert("headers".to_owned(), headers.into());
    }
    let event = ErrorEvent { r#type: "error", status: error.row().status.as_u16(), error: inner, stream_id: lane };
    serde_json::to_string(&event).unwrap_or_default()
}

/// The JSON of the events in whole frames; comments, heartbeats and `[DONE]` are of streams alone.
pub(in crate::openai::responses) fn events(frames: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = frames.clone();
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = memchr::memmem::find(&rest, b"\n\n").map_or(rest.len(), |end| end + 2);
            let frame = rest.split_to(end);
            let data = frame.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data: "));
            if let Some(data) = data.filter(|data| data.starts_with(b"{")) {
                return Some(frame.slice_ref(data));
            }
        }
    })
}

/// An event as it goes out in its lane.
pub(in crate::openai::responses) fn in_lane(event: &Bytes, lane: Option<&str>) -> Option<Utf8Bytes> {
    let Some(lane) = lane else { return Utf8Bytes::try_from(event.clone()).ok() };
    let id = serde_json::to_string(lane).ok()?;
    let mut text = BytesMut::with_capacity(event.len() + id.len() + 16);
    text.extend_from_slice(b"{\"stream_id\":");
    text.extend_from_slice(id.as_bytes());
    text.extend_from_slice(b",");
    text.extend_from_slice(event.get(1..)?);
    Utf8Bytes::try_from(text.freeze()).ok()
}

/// The id of the response that an event has.
pub(super) fn response_id(event: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        response: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_slice::<Event>(event).ok().map(|event| event.response.id)
}

/// What a client asks for with one message.
pub(super) enum Asked {
    Create(Option<String>, Create),
    Cancel(Option<String>, Option<String>),
    /// Not done here; the event says so.
    Steer(String),
}

/// The event that says that a response cannot be steered.
#[derive(Serialize)]
struct SteerFailed<'a> {
    r#type: &'static str,
    sequence_number: u64,
    error: SteerError,
    steer: Steer<'a>,
}

#[derive(Serialize)]
struct SteerError {
    r#type: &'static str,
    code: &'static str,
    message: &'static str,
}

#[derive(Serialize)]
struct Steer<'a> {
    input: Option<&'a RawValue>,
    previous_response_id: &'a str,
}

/// Reads a message.
///
/// # Errors
/// Fails if it is none of those that a client sends.
pub(super) fn read(text: Bytes, config: &Config) -> Result<Asked, Error> {
    let json = Json::new(text, &config.limits);
    // As the errors of a POST, which name fields.
    let fields = json.fields()?;
    let head: Head<'_> = serde_json::from_slice(json.bytes()).map_err(|error| Error::Invalid {
        message: format!("The message cannot be read: {error}"),
        param: None,
        code: Some("invalid_type"),
    })?;
    let lane = head.stream_id.map(|id| id.to_string());
    match head.kind.as_deref() {
        Some("response.create") => {
            let mut body = Vec::with_capacity(json.bytes().len() + 16);
            body.extend_from_slice(b"{\"stream\":true");
            let own = ["type", "stream_id", "stream"];
            for (name, value) in fields.left().filter(|(name, _)| !own.contains(&&**name)) {
                body.push(b',');
                serde_json::to_writer(&mut body, &*name)
                    .map_err(|error| Error::Internal { message: error.to_string() })?;
                body.push(b':');
                body.extend_from_slice(value.get().as_bytes());
            }
            body.push(b'}');
            let previous = head.previous_response_id.map(|id| id.to_string());
            Ok(Asked::Create(lane, Create { body: body.into(), previous }))
        }
        Some("response.cancel") => Ok(Asked::Cancel(lane, head.response_id.map(|id| id.to_string()))),
        Some("response.steer") => {
            let event = SteerFailed {
                r#type: "response.steer.failed",
                sequence_number: 0,
                error: SteerError {
                    r#type: "invalid_request_error",
                    code: "steering_not_supported",
                    message: "Ollama takes no input while it answers; cancel the response and create another one.",
                },
                steer: Steer {
                    input: head.input,
                    previous_response_id: head.previous_response_id.as_deref().unwrap_or_default(),
                },
            };
            let event =
                serde_json::to_string(&event).map_err(|error| Error::Internal { message: error.to_string() })?;
            Ok(Asked::Steer(event))
        }
        Some(other) => Err(Error::Invalid {
            message: format!(
                "Unknown message type '{}'. Supported types are: 'response.create', 'response.cancel', and 'response.steer'.",
                crate::text::name(other)
            ),
            param: Some("type".to_owned()),
            code: Some("invalid_value"),
        }),
        None => Err(Error::missing("type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_body_of_a_request_without_its_envelope() {
        let text = r#"{"type":"response.create","model":"m","input":"hi \u00e9","stream":false,"stream_id":"a","previous_response_id":"resp_1","store":null}"#;
        let Ok(Asked::Create(lane, create)) = read(Bytes::from(text), &Config::default()) else { panic!() };
        assert_eq!((lane.as_deref(), create.previous.as_deref()), (Some("a"), Some("resp_1")));
        let body = r#"{"stream":true,"model":"m","input":"hi \u00e9","previous_response_id":"resp_1"}"#;
        assert_eq!(create.body, body);
        for (wrong, param) in [("{}", Some("type")), (r#"{"type":"x"}"#, Some("type")), ("[]", None), ("", None)] {
            let Err(error) = read(Bytes::from(wrong), &Config::default()) else { panic!("{wrong}") };
            assert_eq!(error.param(), param, "{wrong}");
        }
    }

    #[test]
    fn of_frames_the_events_alone_go_out_and_know_their_lane() {
        let frames = Bytes::from(
            ": receipt a\n\n\n\nevent: x\ndata: {\"type\":\"x\"}\n\ndata: {\"error\":1}\nevent: error\n\ndata: [DONE]\n\n",
        );
        let events: Vec<_> = events(&frames).collect();
        assert_eq!(events, ["{\"type\":\"x\"}", "{\"error\":1}"]);
        assert_eq!(in_lane(&events[0], Some("a\"")).unwrap().as_str(), r#"{"stream_id":"a\"","type":"x"}"#);
        assert_eq!(in_lane(&events[0], None).unwrap().as_str(), r#"{"type":"x"}"#);
    }
}
