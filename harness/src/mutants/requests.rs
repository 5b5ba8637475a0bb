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

pub(super) fn strict_ignored(request: &mut Message, nth: usize) {
    let Ok(mut body) = serde_json::from_slice::<Value>(&request.body) else { return };
    if nth > 0 || !request.head.target().starts_with("/v1/") {
        return;
    }
    for tool in body["tools"].as_array_mut().into_iter().flatten() {
        for at in ["", "/function"] {
            tool.pointer_mut(at).and_then(Value::as_object_mut).map(|tool| tool.shift_remove("strict"));
        }
    }
    if body["tools"].is_array() {
        request.body = body.to_string().into_bytes();
    }
}

pub(super) fn option_dropped(request: &mut Message, nth: usize) {
    let options = fields(request).into_iter().filter(|name| !CORE.contains(&name.as_str()));
    if let Some(option) = options.collect::<Vec<_>>().get(nth) {
        drop_field(request, option);
    }
}

/// The query, or a header that says something about the request.
pub(super) fn head_dropped(request: &mut Message, nth: usize) {
    let (path, first) = (request.head.target().to_owned(), &request.head.first);
    let query = first.split(' ').nth(1).filter(|target| *target != path);
    let plumbing = ["host", "content-length", "transfer-encoding", "connection"];
    let headers = request.head.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    let headers: Vec<_> = headers.filter(|name| !plumbing.contains(&name.as_str())).collect();
    match (query, nth.checked_sub(usize::from(query.is_some()))) {
        (Some(target), None) => request.head.first = first.replacen(target, &path, 1),
        (_, Some(nth)) if nth < headers.len() => request.head.remove(&headers[nth]),
        _ => {}
    }
}

/// A field of what Ollama is asked with, or of its options.
pub(super) fn native_dropped(request: &mut Message, nth: usize) {
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(&request.body) else { return };
    let mut pointers = Vec::new();
    for (name, value) in &fields {
        match value.as_object().filter(|_| name == "options") {
            Some(options) => pointers.extend(options.keys().map(|option| (name.clone(), Some(option.clone())))),
            None => pointers.push((name.clone(), None)),
        }
    }
    let gone = match pointers.get(nth) {
        Some((name, Some(option))) => {
            fields.get_mut(name).and_then(Value::as_object_mut).and_then(|options| options.shift_remove(option))
        }
        Some((name, None)) => fields.shift_remove(name),
        None => None,
    };
    if gone.is_some() {
        request.body = Value::Object(fields).to_string().into_bytes();
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
    fn what_ollama_is_asked_with_is_dropped_in_turn() {
        let body = r#"{"model":"m","options":{"seed":1,"top_p":0.5},"think":true}"#;
        assert_eq!(after(native_dropped, 0, body), r#"{"options":{"seed":1,"top_p":0.5},"think":true}"#);
        assert_eq!(after(native_dropped, 2, body), r#"{"model":"m","options":{"seed":1},"think":true}"#);
        assert_eq!(after(native_dropped, 3, body), r#"{"model":"m","options":{"seed":1,"top_p":0.5}}"#);
        assert_eq!(after(native_dropped, 4, body), body);
    }

    #[test]
    fn the_query_is_dropped_and_then_each_header() {
        let nth = |nth| {
            let headers = [("Host", "a"), ("X-A", "1"), ("X-B", "2")].map(|(name, value)| (name.into(), value.into()));
            let head = Head { first: "GET /api/tags?q=1 HTTP/1.1".to_owned(), headers: headers.to_vec() };
            let mut request = Message { head, body: Vec::new() };
            head_dropped(&mut request, nth);
            (request.head.first, request.head.headers.len())
        };
        assert_eq!(nth(0), ("GET /api/tags HTTP/1.1".to_owned(), 3));
        assert_eq!([1, 2, 3].map(|n| nth(n).1), [2, 2, 3]);
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
