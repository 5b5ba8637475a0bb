//! What is done to a request, as if the proxy did not heed it.
//!
//! OpenAI's fields stand in JSON or in a form. The native API is passed through as bytes and has none.

use serde_json::Value;

use super::{form, message::Message};

/// What a request cannot be without.
const CORE: [&str; 6] = ["model", "messages", "prompt", "input", "stream", "stream_options"];

/// The names of a request's fields, in order.
pub(super) fn fields(request: &Message) -> Vec<String> {
    if !request.head.target().starts_with("/v1/") {
        return Vec::new();
    }
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => form::names(request),
    }
}

/// Takes a field off, wherever it stands in it.
pub(super) fn drop_field(request: &mut Message, name: &str) {
    match serde_json::from_slice(&request.body) {
        Ok(Value::Object(mut fields)) => {
            if fields.shift_remove(name).is_some() {
                request.body = Value::Object(fields).to_string().into_bytes();
            }
        }
        _ => form::drop_part(request, name),
    }
}

pub(super) fn stream_ignored(request: &mut Message, nth: usize) {
    let streams = |body: &[u8]| serde_json::from_slice::<Value>(body).is_ok_and(|body| body["stream"] == true);
    if nth == 0 && request.head.target().starts_with("/v1/") && streams(&request.body) {
        drop_field(request, "stream");
        drop_field(request, "stream_options");
    }
}

pub(super) fn option_dropped(request: &mut Message, nth: usize) {
    let options = fields(request).into_iter().filter(|name| !CORE.contains(&name.as_str()));
    if let Some(option) = options.collect::<Vec<_>>().get(nth) {
        drop_field(request, option);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message::Head, *};

    fn after(change: fn(&mut Message, usize), nth: usize, body: &str) -> String {
        let head = Head { first: "POST /v1/chat/completions HTTP/1.1".to_owned(), headers: Vec::new() };
        let mut request = Message { head, body: body.as_bytes().to_vec() };
        change(&mut request, nth);
        String::from_utf8(request.body).unwrap()
    }

    #[test]
    fn each_option_is_dropped_in_turn() {
        let body = r#"{"model":"m","seed":1,"stream":true,"stop":"a"}"#;
        assert_eq!(after(option_dropped, 0, body), r#"{"model":"m","stream":true,"stop":"a"}"#);
        assert_eq!(after(option_dropped, 1, body), r#"{"model":"m","seed":1,"stream":true}"#);
        assert_eq!(after(option_dropped, 2, body), body);
        assert_eq!(after(stream_ignored, 0, body), r#"{"model":"m","seed":1,"stop":"a"}"#);
    }
}
