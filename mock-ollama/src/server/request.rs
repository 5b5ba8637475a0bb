//! A request once it has arrived. Blobs of any size are digested on the way; only what may be JSON is kept whole.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};

use crate::journal::{Entry, KEPT, Pencil};

/// Bodies beyond this are no JSON that anyone means to send; they are counted and digested all the same.
const WHOLE: usize = 256 << 20;

/// A request with its body.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// The target without its query, as it came.
    pub(crate) path: String,
    /// The path that routes are found by: percent signs decoded, as in Go.
    pub(crate) route: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// 64 hex digits, of a blob's body.
    pub(crate) sha256: Option<String>,
}

impl Asked {
    /// A header's value as text.
    pub(crate) fn header(&self, name: &http::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What the journal keeps of a request's head.
pub(crate) fn entry(head: &http::request::Parts) -> Entry {
    let headers = head.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    });
    Entry {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        headers: headers.collect(),
        body: Bytes::new(),
        body_len: 0,
        arrived: Instant::now(),
        read: false,
        wrote: None,
        ended: None,
    }
}

/// Reads the body and tells the journal.
///
/// # Errors
/// The peer went away, or its body is no HTTP.
pub(crate) async fn receive(
    head: http::request::Parts,
    mut body: Incoming,
    pencil: &Pencil,
) -> Result<Asked, hyper::Error> {
    let path = head.uri.path().to_owned();
    let is_blob = path.starts_with("/api/blobs/");
    let most = if is_blob || !path.starts_with("/api/") { KEPT } else { WHOLE };
    let mut digest = is_blob.then(Sha256::new);
    let mut kept = BytesMut::new();
    let mut len = 0_u64;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        len += data.len() as u64;
        if let Some(digest) = &mut digest {
            digest.update(&data);
        }
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(&data[..data.len().min(room)]);
    }
    let kept = kept.freeze();
    // A slice would keep the whole of a large body in memory.
    let noted = if kept.len() > KEPT { Bytes::copy_from_slice(&kept[..KEPT]) } else { kept.clone() };
    pencil.body(noted, len);
    Ok(Asked {
        method: head.method,
        query: head.uri.query().map(str::to_owned),
        route: decode(&path),
        path,
        headers: head.headers,
        body: kept,
        sha256: digest.map(|digest| hex(&digest.finalize())),
    })
}

/// `%41` is `A`; what is no such code stays.
fn decode(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => bytes.extend_from_slice(format!("%{part}").as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_codes_are_decoded_where_they_are_codes() {
        assert_eq!(decode("/api/%74ags%2Fx"), "/api/tags/x");
        assert_eq!(decode("/a%zz%4"), "/a%zz%4");
    }
}
