//! Decompresses request bodies (RFC 9110, section 8.4), with a bound on what comes out.
//!
//! Codex sends `zstd`, other clients `gzip` (ollama/ollama#14122). The native lane does not come here: its bytes pass
//! unchanged.

use std::io::{self, Read};

use bytes::Bytes;
use http::{HeaderMap, header};
use ruzstd::decoding::{
    StreamingDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use crate::error::Error;

/// Codings that one body may have on top of each other: more than one is unusual, more than a few is an attack.
const MOST: usize = 3;

/// Decompresses `body` as its `Content-Encoding` says. Without one, or with `identity`, the body is returned unchanged.
///
/// # Errors
/// Fails if the coding is unknown, if the data does not match it, or if more than `limit` bytes come out of any step.
pub(crate) fn decode(headers: &HeaderMap, mut body: Bytes, limit: usize) -> Result<Bytes, Error> {
    let codings = codings(headers)?;
    if codings.len() > MOST {
        return Err(refused(format!(
            "the request body has {} content codings; at most {MOST} are accepted",
            codings.len()
        )));
    }
    // The last coding was applied last.
    for coding in codings.iter().rev() {
        body = match decoded(coding, &body, limit) {
            Some(Ok(decoded)) if decoded.len() > limit => return Err(Error::TooLarge { limit }),
            Some(Ok(decoded)) => decoded.into(),
            Some(Err(error)) => return Err(refused(format!("the request body is not valid {coding} data: {error}"))),
            None => {
                return Err(refused(format!(
                    "unsupported Content-Encoding '{coding}': send gzip, deflate, br or zstd, or leave the body uncompressed"
                )));
            }
        };
    }
    Ok(body)
}

/// The names of the codings, in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Result<Vec<String>, Error> {
    let mut codings = Vec::new();
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = value.to_str().map_err(|_| refused("the Content-Encoding header is not readable".to_owned()))?;
        let names = value.split(',').map(|name| name.trim().to_ascii_lowercase());
        codings.extend(names.filter(|name| !name.is_empty() && name != "identity"));
    }
    Ok(codings)
}

fn refused(message: String) -> Error {
    Error::Invalid { message, param: None, code: Some("invalid_content_encoding") }
}

/// At most one byte more than `limit`. `None`: the coding is unknown.
fn decoded(coding: &str, body: &[u8], limit: usize) -> Option<io::Result<Vec<u8>>> {
    let bounded = |reader: &mut dyn Read| {
        let mut out = Vec::with_capacity(body.len().saturating_mul(4).min(limit));
        reader.take(limit as u64 + 1).read_to_end(&mut out).map(|_| out)
    };
    Some(match coding {
        "gzip" | "x-gzip" => bounded(&mut flate2::read::MultiGzDecoder::new(body)),
        // HTTP means the zlib format; some clients send bare deflate data under this name.
        "deflate" if is_zlib(body) => bounded(&mut flate2::read::ZlibDecoder::new(body)),
        "deflate" => bounded(&mut flate2::read::DeflateDecoder::new(body)),
        "br" => bounded(&mut brotli_decompressor::Decompressor::new(body, 4096)),
        "zstd" => zstd(body, limit),
        _ => return None,
    })
}

/// RFC 1950, section 2.2: compression method 8, and a header that is a multiple of 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [method, flags, ..] if method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31))
}

/// All frames of a zstd stream; skippable frames hold nothing for us.
fn zstd(mut body: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while !body.is_empty() && out.len() <= limit {
        match StreamingDecoder::new(&mut body) {
            Ok(frame) => {
                let room = (limit - out.len()) as u64 + 1;
                frame.take(room).read_to_end(&mut out)?;
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                body = body.get(length..).ok_or(io::ErrorKind::UnexpectedEof)?;
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use http::HeaderValue;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    const TEXT: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hi hi hi hi hi hi hi hi"}]}"#;

    fn headers(coding: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap())])
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    fn plain(coding: &str, body: Vec<u8>, limit: usize) -> Result<Bytes, Error> {
        decode(&headers(coding), body.into(), limit)
    }

    #[test]
    fn every_common_coding_is_decoded() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(TEXT).unwrap();
        let mut bare = DeflateEncoder::new(Vec::new(), Compression::default());
        bare.write_all(TEXT).unwrap();
        // An uncompressed brotli meta-block: RFC 7932, section 9.2, written by hand for want of an encoder.
        let brotli = {
            let (header, length) = (0b0_0000_u32, u32::try_from(TEXT.len()).unwrap() - 1);
            let bits = header & 1 | length << 4 | 1 << 20;
            [&bits.to_le_bytes()[..3], TEXT, &[3]].concat()
        };
        let mut frames = zstd(&TEXT[..10]);
        frames.extend([0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, b'x', b'y']);
        frames.extend(zstd(&TEXT[10..]));
        for (coding, body) in [
            ("gzip", gzip(TEXT)),
            ("X-GZIP", gzip(TEXT)),
            ("gzip", [gzip(&TEXT[..7]), gzip(&TEXT[7..])].concat()),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", bare.finish().unwrap()),
            ("br", brotli),
            ("zstd", zstd(TEXT)),
            ("zstd", frames),
            ("gzip, zstd", zstd(&gzip(TEXT))),
            ("identity", TEXT.to_vec()),
            ("", TEXT.to_vec()),
        ] {
            assert_eq!(plain(coding, body, 200).as_deref(), Ok(TEXT), "{coding}");
        }
        assert_eq!(decode(&HeaderMap::new(), TEXT.into(), 5).unwrap(), TEXT, "its size was checked as it was read");
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let zeros = vec![0; 8 << 20];
        for (coding, body) in [("gzip", gzip(&zeros)), ("zstd", zstd(&zeros)), ("gzip,gzip", gzip(&gzip(&zeros)))] {
            assert!(body.len() < 100_000);
            assert_eq!(plain(coding, body, 1 << 20), Err(Error::TooLarge { limit: 1 << 20 }), "{coding}");
        }
    }

    #[test]
    fn what_does_not_match_its_coding_is_the_callers_mistake() {
        for (coding, body) in [
            ("gzip", TEXT.to_vec()),
            ("zstd", TEXT.to_vec()),
            ("br", vec![0xff; 40]),
            ("deflate", vec![0xff; 40]),
            ("gzip", gzip(TEXT)[..20].to_vec()),
            ("zstd", zstd(TEXT)[..20].to_vec()),
            ("compress", TEXT.to_vec()),
            ("gzip,gzip,gzip,gzip", TEXT.to_vec()),
        ] {
            let error = plain(coding, body, 1 << 20).unwrap_err();
            assert_eq!(error.row().status, 400, "{coding}");
        }
    }
}
