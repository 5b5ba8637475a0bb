//! `remote.base_path` as a fence: a caller's path must not leave it, however the gateway in front of the remote
//! normalizes paths. Pure.

use percent_encoding::percent_decode;

/// Whether `path`, appended to a base path, could be normalized to a path outside of it.
///
/// Gateways differ: some decode `%2e` and `%2f` before they resolve `..`, some decode twice, merge slashes, take `\\`
/// for `/` or cut `;…` off. So every `..` in any of these spellings goes one level up, and only a plain segment goes
/// one level down.
pub(crate) fn leaves(path: &str) -> bool {
    let mut depth = 0_i64;
    path.split('/').any(|segment| {
        let decoded = decode(segment);
        let names = || {
            decoded
                .split(|byte| matches!(byte, b'/' | b'\\'))
                .map(|part| part.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
        };
        let up = names().filter(|name| *name == b"..").count();
        let is_down = up == 0 && names().all(|name| !name.is_empty() && name != b".");
        depth += i64::from(is_down) - i64::try_from(up).unwrap_or(i64::MAX / 2);
        depth < 0
    })
}

/// Decodes until nothing changes any more, overlong UTF-8 of `.`, `/` and `\\` included.
fn decode(segment: &str) -> Vec<u8> {
    let mut bytes = segment.as_bytes().to_vec();
    loop {
        let decoded: Vec<u8> = percent_decode(&bytes).collect();
        if decoded.len() == bytes.len() {
            break;
        }
        bytes = decoded;
    }
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = &*bytes;
    while let Some((first, tail)) = rest.split_first() {
        let (byte, length) = match rest {
            [0xC0, 0xAE, ..] => (b'.', 2),
            [0xC0, 0xAF, ..] => (b'/', 2),
            [0xC1, 0x9C, ..] => (b'\\', 2),
            [0xE0, 0x80, 0xAE, ..] => (b'.', 3),
            [0xE0, 0x80, 0xAF, ..] => (b'/', 3),
            _ => (*first, rest.len() - tail.len()),
        };
        plain.push(byte);
        rest = &rest[length..];
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_dots_leaves_the_base_path() {
        for path in [
            "/..",
            "/../admin",
            "/%2e%2e/admin",
            "/%2E./admin",
            "/..%2fadmin",
            "/..%5cadmin",
            "/..\\admin",
            "/%252e%252e/admin",
            "/%25252e%25252e%25252fadmin",
            "/..;x=1/admin",
            "/%2e%2e%3bx/admin",
            "/api/../../admin",
            "/api//../../admin",
            "/api/./../../admin",
            "/api/%2f../../admin",
            "/api/x%2fy/../../../admin",
            "/api%2f..%2f..%2fadmin",
            "/;/../admin",
            "/%c0%ae%c0%ae/admin",
            "/%e0%80%ae%c0%ae%c0%afadmin",
            "/..%20/admin",
            "//../admin",
        ] {
            assert!(leaves(path), "{path}");
        }
    }

    #[test]
    fn what_stays_inside_passes() {
        for path in [
            "/",
            "/api/tags",
            "/api/%2e%2e/tags",
            "/api/../tags",
            "/api/..",
            "/v1/models/hf.co/a/b..c",
            "/api/...",
            "/api/.hidden/..x",
            "/api/blobs/sha256:00",
            "/api/a%20b/%C3%A9",
            "//api//tags",
        ] {
            assert!(!leaves(path), "{path}");
        }
    }
}
