//! A file as clients upload and see it. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{error::Error, openai::request::form::Part, stamp::Stamp, text};

/// The purposes that a caller may upload files for.
const PURPOSES: [&str; 4] = ["user_data", "vision", "assistants", "batch"];

/// Maximum number of characters of a file's name.
const LONGEST_NAME: usize = 512;

/// A file, without its content.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct FileObject {
    pub(crate) id: String,
    pub(crate) object: Cow<'static, str>,
    pub(crate) bytes: usize,
    pub(crate) created_at: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) filename: String,
    pub(crate) purpose: String,
    pub(crate) status: Cow<'static, str>,
    pub(crate) status_details: Option<String>,
}

impl FileObject {
    pub(crate) fn new(stamp: Stamp, filename: &str, purpose: &str, bytes: usize, expires_after: Option<u64>) -> Self {
        // Nothing that breaks a header or a prompt.
        let filename = filename.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        Self {
            id: stamp.id,
            object: Cow::Borrowed("file"),
            bytes,
            created_at: stamp.created,
            expires_at: expires_after.map(|seconds| stamp.created.saturating_add(seconds)),
            filename,
            purpose: purpose.to_owned(),
            status: Cow::Borrowed("processed"),
            status_details: None,
        }
    }

    /// Whether it has expired.
    pub(crate) fn is_over(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// An upload, part by part.
#[derive(Debug, Default)]
pub(crate) struct Upload {
    file: Option<(String, Bytes)>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

impl Upload {
    /// Adds a part of the form.
    ///
    /// # Errors
    /// Fails if a text is not UTF-8.
    pub(crate) fn add(&mut self, part: Part) -> Result<(), Error> {
        let field = match &*part.name {
            "file" => {
                self.file = Some((part.filename.unwrap_or_default(), part.value));
                return Ok(());
            }
            "purpose" => &mut self.purpose,
            "expires_after[anchor]" => &mut self.anchor,
            "expires_after[seconds]" => &mut self.seconds,
            other => {
                return Err(Error::Invalid {
                    message: format!("Unknown parameter: '{}'.", text::name(other)),
                    param: Some(text::name(other).into_owned()),
                    code: Some("unknown_parameter"),
                });
            }
        };
        *field = Some(part.text()?.to_owned());
        Ok(())
    }

    /// Returns the file, and its content.
    ///
    /// # Errors
    /// Fails if a part is missing or invalid.
    pub(crate) fn finish(self, stamp: Stamp) -> Result<(FileObject, Bytes), Error> {
        let (name, content) = self.file.ok_or_else(|| Error::missing("file"))?;
        if content.is_empty() {
            return Err(Error::invalid("file", "The file is empty."));
        }
        let purpose = self.purpose.ok_or_else(|| Error::missing("purpose"))?;
        if !PURPOSES.contains(&&*purpose) {
            return Err(Error::invalid(
                "purpose",
                format!(
                    "Invalid value: '{}'. Supported values are: 'user_data', 'vision', 'assistants' and 'batch'; \
                     there is no fine-tuning and there are no evals here.",
                    text::name(&purpose)
                ),
            ));
        }
        let expires_after = expires_after("expires_after", self.anchor.as_deref(), self.seconds.as_deref())?;
        let name = if name.is_empty() { "file" } else { &name };
        Ok((FileObject::new(stamp, name, &purpose, content.len(), expires_after), content))
    }
}

/// Returns the seconds of `{"anchor": "created_at", "seconds": …}`, which stands at `param`.
///
/// # Errors
/// Fails if one of the two is missing or invalid.
pub(crate) fn expires_after(param: &str, anchor: Option<&str>, seconds: Option<&str>) -> Result<Option<u64>, Error> {
    /// From an hour to 30 days, as OpenAI's.
    const SECONDS: std::ops::RangeInclusive<u64> = 3600..=2_592_000;
    let (anchor, seconds) = match (anchor, seconds) {
        (None, None) => return Ok(None),
        (None, _) => return Err(Error::missing(format!("{param}.anchor"))),
        (_, None) => return Err(Error::missing(format!("{param}.seconds"))),
        (Some(anchor), Some(seconds)) => (anchor, seconds),
    };
    if anchor != "created_at" {
        let message = format!("Invalid value: '{}'. Supported values are: 'created_at'.", text::name(anchor));
        return Err(Error::invalid(format!("{param}.anchor"), message));
    }
    match seconds.parse().ok().filter(|seconds| SECONDS.contains(seconds)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(Error::invalid(
            format!("{param}.seconds"),
            format!("Invalid value: '{}'. Expected 3600 (an hour) to 2592000 (30 days).", text::name(seconds)),
        )),
    }
}
