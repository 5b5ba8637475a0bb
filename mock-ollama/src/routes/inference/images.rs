//! Images and sounds of a request: bare base64, judged as Go does.

use serde_json::Value;

use crate::routes::Refusal;

/// Base64 images of a message or request, counted.
///
/// # Errors
/// Go's text for the first bad one.
pub(crate) fn images(value: Option<&Value>) -> Result<usize, Refusal> {
    let images = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for image in images {
        check_base64(image.as_str().unwrap_or_default())
            .map_err(|at| Refusal::bad_request(format!("illegal base64 data at input byte {at}")))?;
    }
    Ok(images.len())
}

/// Standard base64 with padding, newlines skipped; the offset at which Go stops.
fn check_base64(text: &str) -> Result<(), usize> {
    let bytes: Vec<(usize, u8)> = text.bytes().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n')).collect();
    let digits =
        bytes.iter().take_while(|(_, byte)| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
    let rest = &bytes[digits..];
    let padding = (4 - digits % 4) % 4;
    match rest.first() {
        None if padding == 0 => Ok(()),
        None => Err(text.len()),
        Some((at, b'=')) if padding == 0 || padding == 3 => Err(*at),
        Some((_, b'=')) => match rest.get(..padding) {
            Some(marks) if marks.iter().all(|(_, byte)| *byte == b'=') => {
                rest.get(padding).map_or(Ok(()), |(at, _)| Err(*at))
            }
            _ => Err(text.len()),
        },
        Some((at, _)) => Err(*at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_judged_as_go_does() {
        assert_eq!(check_base64("!!!"), Err(0));
        assert_eq!(check_base64("data:image/png;base64,iVBO"), Err(4));
        assert_eq!(check_base64("YWJj\nZA=="), Ok(()));
        assert_eq!(check_base64("YWI"), Err(3));
        assert_eq!(check_base64(""), Ok(()));
    }
}
