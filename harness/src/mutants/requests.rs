//! What is done to a request, as if the proxy did not heed it.

use serde_json::Value;

use super::layer::Message;

/// What a request cannot be without.
const CORE: [&str; 6] = ["model", "messages", "prompt", "input", "stream", "stream_options"];

fn change(request: &mut Message, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    // The native API is passed through as bytes; it is OpenAI's whose fields are read.
    if !request.head.first.contains("/v1") {
        return;
    }
    if let Ok(Value::Object(mut fields)) = serde_json::from_slice(&request.body) {
        let before = fields.clone();
        change(&mut fields);
        if fields != before {
            request.body = Value::Object(fields).to_string().into_bytes();
        }
    }
}

pub(super) fn stream_ignored(request: &mut Message, nth: usize) {
    change(request, |fields| {
        if nth == 0 && fields.get("stream") == Some(&Value::Bool(true)) {
            fields.shift_remove("stream");
            fields.shift_remove("stream_options");
        }
    });
}

pub(super) fn option_dropped(request: &mut Message, nth: usize) {
    change(request, |fields| {
        let option = fields.keys().filter(|name| !CORE.contains(&name.as_str())).nth(nth).cloned();
        if let Some(option) = option {
            fields.shift_remove(&option);
        }
    });
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
