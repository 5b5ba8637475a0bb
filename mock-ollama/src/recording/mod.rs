//! A recorded exchange with an Ollama server: the format of `fixtures/`, of `farllama-check record` and of `mock-ollama
//! --replay`.
//!
//! ```no_run
//! # fn main() -> Result<(), mock_ollama::recording::ReadError> {
//! for recording in mock_ollama::recording::read_dir("recordings".as_ref())? {
//!     println!("{}: {} {}", recording.name, recording.request.method, recording.request.path);
//! }
//! # Ok(())
//! # }
//! ```

mod differences;
pub mod skeleton;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::differences::{Difference, differences};

/// Headers in their order, spelled as they came.
pub type Headers = Vec<(String, String)>;

/// One exchange.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recording {
    /// The version that the server reported.
    pub ollama: String,
    /// `area/case`.
    pub name: String,
    /// What the exchange shows.
    #[serde(default)]
    pub why: String,
    /// The client closed the connection after so many chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_after_chunks: Option<usize>,
    /// The `100 Continue` before the response, with its time, status line and headers; null in a file where the final
    /// response came instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interim: Option<(u64, String, Headers)>,
    /// The process that runs the model was killed after so many chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_killed_after_chunks: Option<u64>,
    /// The same, so many milliseconds after the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_killed_ms: Option<u64>,
    /// What the client sent.
    pub request: Request,
    /// What the server sent.
    pub response: Response,
}

/// The request of a [`Recording`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// Such as `POST`.
    pub method: String,
    /// The target with its query.
    pub path: String,
    /// Without `Host` and `Content-Length`.
    pub headers: Headers,
    /// The body as text. A text of more than 64,000 characters may be cut: see [`Request::whole_body`].
    #[serde(default)]
    pub body: String,
    /// HTTP's version, if it is not 1.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The body's own chunks, if it came in chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<Vec<String>>,
    /// Sent instead of everything else: bytes that are not HTTP, or not quite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_head: Option<String>,
}

/// The response of a [`Recording`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The status line.
    pub status: String,
    /// All headers.
    pub headers: Headers,
    /// When the head came, in milliseconds after the request.
    #[serde(default)]
    pub head_ms: u64,
    /// `length`, `chunked`, `close` (the body ends with the connection) or `none`.
    pub framing: String,
    /// Milliseconds after the request, and text, of each HTTP chunk as the server wrote it; or of a whole body.
    pub chunks: Vec<(u64, String)>,
}

impl Request {
    /// The headers, texts that were cut at their full length.
    pub fn whole_headers(&self) -> impl Iterator<Item = (&str, String)> {
        self.headers.iter().map(|(name, value)| (&**name, whole(value)))
    }

    /// The body, at its full length.
    #[must_use]
    pub fn whole_body(&self) -> String {
        self.chunks.as_ref().map_or_else(|| whole(&self.body), |chunks| chunks.concat())
    }
}

impl Response {
    /// The status code.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.status.split(' ').nth(1)?.parse().ok()
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// All chunks in one text.
    #[must_use]
    pub fn body(&self) -> String {
        self.chunks.iter().map(|(_, chunk)| &**chunk).collect()
    }
}

/// A text that was cut, at its full length: its last character repeated. JSON is closed where it was cut inside a list
/// of texts.
fn whole(text: &str) -> String {
    let cut = text.split_once("…(+").and_then(|(start, rest)| {
        let missing: usize = rest.strip_suffix(" characters)")?.parse().ok()?;
        let last = start.chars().next_back()?.to_string();
        let end = if start.starts_with('{') { "\"]}" } else { "" };
        Some(start.to_owned() + &last.repeat(missing.checked_sub(end.len())?) + end)
    });
    cut.unwrap_or_else(|| text.to_owned())
}

/// A recording that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file is not a recording.
    #[error("{} is not a recording: {error}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// Why.
        error: serde_json::Error,
    },
    /// The folder holds no recording.
    #[error("no recording (*.json) in {}; `farllama-check record` makes recordings", .0.display())]
    Empty(PathBuf),
}

/// Reads one file.
///
/// # Errors
/// Fails if the file cannot be read or is not a recording.
pub fn read(path: &Path) -> Result<Recording, ReadError> {
    let text = fs::read_to_string(path).map_err(|error| ReadError::Io { path: path.to_owned(), error })?;
    serde_json::from_str(&text).map_err(|error| ReadError::Format { path: path.to_owned(), error })
}

/// Reads all `.json` files of a folder and its subfolders, in the order of their paths.
///
/// # Errors
/// Fails if a file cannot be read or is not a recording, or if there is none.
pub fn read_dir(dir: &Path) -> Result<Vec<Recording>, ReadError> {
    let mut paths = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error| ReadError::Io { path: folder.clone(), error };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
    }
    if paths.is_empty() {
        return Err(ReadError::Empty(dir.to_owned()));
    }
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

impl Recording {
    /// The text of the file that holds it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut bytes = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
        // Texts and numbers alone: there is nothing that cannot be written.
        let _ = self.serialize(&mut serializer);
        String::from_utf8_lossy(&bytes).into_owned() + "\n"
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A recording of `POST path`, whose response has these chunks.
    pub(crate) fn posted(path: &str, body: &str, framing: &str, chunks: &[&str]) -> Recording {
        let media_type = if framing == "chunked" { "application/x-ndjson" } else { "application/json; charset=utf-8" };
        Recording {
            ollama: "0.33.0".to_owned(),
            name: "chat/one".to_owned(),
            request: Request {
                method: "POST".to_owned(),
                path: path.to_owned(),
                body: body.to_owned(),
                ..Request::default()
            },
            response: Response {
                status: "HTTP/1.1 200 OK".to_owned(),
                headers: vec![("Content-Type".to_owned(), media_type.to_owned())],
                head_ms: 0,
                framing: framing.to_owned(),
                chunks: chunks.iter().map(|chunk| (0, (*chunk).to_owned())).collect(),
            },
            ..Recording::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let recording = posted("/api/chat", "{\"model\":\"ä\"}", "chunked", &["{\"done\":true}\n"]);
        fs::create_dir(folder.path().join("chat")).unwrap();
        fs::write(folder.path().join("chat/one.json"), recording.to_json()).unwrap();
        let read = read_dir(folder.path()).unwrap();
        assert_eq!((read.len(), &read[0].response), (1, &recording.response));
        assert_eq!(read[0].request.body, recording.request.body);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_dir(folder.path()).unwrap_err().to_string().starts_with("no recording (*.json) in "));
        let text = read_dir(&folder.path().join("none")).unwrap_err().to_string();
        assert!(text.starts_with("cannot read "), "{text}");
        fs::write(folder.path().join("a.json"), "{}").unwrap();
        let text = read_dir(folder.path()).unwrap_err().to_string();
        assert!(text.contains("a.json is not a recording: missing field"), "{text}");
    }

    #[test]
    fn a_text_that_was_cut_has_its_length_again() {
        assert_eq!(whole("ab…(+3 characters)"), "abbbb");
        assert_eq!(whole("{\"a\":[\"xy…(+5 characters)"), "{\"a\":[\"xyyy\"]}");
        assert_eq!(whole("ab…(+x characters)"), "ab…(+x characters)");
    }
}
