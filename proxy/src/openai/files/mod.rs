//! `/v1/files`: OpenAI's Files API, which farllama does not have. Clients get that answer in their dialect instead of the remote's bare 404.

#[cfg(test)]
pub(crate) mod vectors;

use crate::error::Error;

/// Always refused, whatever the method.
pub(crate) async fn refuse() -> Error {
    Error::NotImplemented {
        message: "farllama has no Files API: it stores no files. Send the content in the request itself: text in the message, \
                  images as data URLs in `image_url`, recordings in the form of /v1/audio/transcriptions."
            .to_owned(),
    }
}
