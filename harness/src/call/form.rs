//! A form as `multipart/form-data` (RFC 7578). Pure.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::scenario::Field;

/// What stands between the fields; nothing that a scenario writes holds it by chance.
const BOUNDARY: &str = "farllama-check-7e57f04a";

/// The content type and the body.
pub(super) fn multipart(form: &[Field]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for field in form {
        let mut head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{}\"", field.name);
        if let Some(name) = &field.filename {
            head.push_str(&format!("; filename=\"{name}\""));
        }
        if let Some(kind) = &field.content_type {
            head.push_str(&format!("\r\ncontent-type: {kind}"));
        }
        head.push_str("\r\n\r\n");
        body.extend(head.into_bytes());
        match (&field.value, &field.base64) {
            (Some(text), _) => body.extend(text.as_bytes()),
            // What is no base64 was refused when the scenario was read.
            (None, bytes) => {
                body.extend(bytes.as_ref().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default());
            }
        }
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_files_become_parts() {
        let field = |name: &str, value: Option<&str>, base64: Option<&str>, filename: Option<&str>| Field {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            base64: base64.map(str::to_owned),
            filename: filename.map(str::to_owned),
            content_type: filename.map(|_| "audio/wav".to_owned()),
        };
        let form = [field("model", Some("m"), None, None), field("file", None, Some("UklGRg=="), Some("a.wav"))];
        let (kind, body) = multipart(&form);
        assert!(kind.starts_with("multipart/form-data; boundary="), "{kind}");
        assert_eq!(
            String::from_utf8(body).unwrap().replace(BOUNDARY, "B"),
            "--B\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--B\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\ncontent-type: audio/wav\r\n\r\nRIFF\r\n--B--\r\n"
        );
    }
}
