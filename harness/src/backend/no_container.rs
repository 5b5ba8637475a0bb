//! What stands for the container backend in a build without the feature `container`: a type that has no value.

use farllama::config::Remote as Settings;

use super::Missing;

/// An Ollama in a container. This build cannot start one.
#[derive(Debug)]
pub enum Container {}

impl Container {
    /// The container's id, once it was started.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        match *self {}
    }

    /// The image's name.
    #[must_use]
    pub fn image(&self) -> &str {
        match *self {}
    }

    pub(super) async fn gone(&self, _http: &reqwest::Client) -> Option<String> {
        match *self {}
    }

    /// Returns where the server is.
    ///
    /// # Errors
    /// Fails if the container does not start.
    pub async fn settings(&self) -> Result<Settings, Missing> {
        match *self {}
    }

    pub(super) async fn stop(&self) {
        match *self {}
    }
}
