//! An Ollama in a container, started once for the run and removed after it.

use std::time::Duration;

use farllama::config::Remote as Settings;
use testcontainers::{
    ContainerAsync, GenericImage, TestcontainersError,
    core::{ContainerPort, WaitFor, client::docker_client_instance, wait::HttpWaitStrategy},
    runners::AsyncRunner,
};
use tokio::sync::{Mutex, OnceCell};

use super::Missing;
use crate::call::tap::chain;

/// Ollama's port in its image.
const PORT: ContainerPort = ContainerPort::Tcp(11434);

/// How long a server may take to answer; pulling the image is not counted.
const PATIENCE: Duration = Duration::from_secs(120);

/// An Ollama in a container, which is removed when the run is over.
#[derive(Debug)]
pub struct Container {
    image: String,
    started: OnceCell<Result<Started, Missing>>,
}

#[derive(Debug)]
struct Started {
    settings: Settings,
    container: Mutex<Option<ContainerAsync<GenericImage>>>,
}

impl Container {
    /// A container of `image`, such as `ollama/ollama` or `ollama/ollama:0.32.5`; nothing is started yet.
    #[must_use]
    pub fn new(image: &str) -> Self {
        Self { image: image.to_owned(), started: OnceCell::new() }
    }

    /// The image's name.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Where the server is; starts it if this is the first to ask.
    ///
    /// # Errors
    /// There is no Docker engine, or the container does not come up.
    pub async fn settings(&self) -> Result<Settings, Missing> {
        let started = self.started.get_or_init(|| start(&self.image)).await;
        started.as_ref().map(|started| started.settings.clone()).map_err(Clone::clone)
    }

    /// Removes the container, if it was started.
    pub(super) async fn stop(&self) {
        let Some(Ok(started)) = self.started.get() else { return };
        if let Some(container) = started.container.lock().await.take()
            && let Err(error) = container.rm().await
        {
            eprintln!("the container of {} could not be removed: {}", self.image, chain(&error));
        }
    }
}

async fn start(image: &str) -> Result<Started, Missing> {
    let absent = |error: &dyn std::error::Error| {
        let reason = chain(error);
        Missing::Service(format!("there is no Docker engine here ({reason}); start one, or name one by DOCKER_HOST"))
    };
    let docker = docker_client_instance().await.map_err(|error| absent(&error))?;
    docker.ping().await.map_err(|error| absent(&error))?;
    let told = |error: TestcontainersError| {
        Missing::Broken(format!("the container of {image} does not come up: {}", chain(&error)))
    };
    let (name, tag) = split(image);
    let ready = HttpWaitStrategy::new("/api/version").with_expected_status_code(200_u16);
    let container =
        GenericImage::new(name, tag).with_exposed_port(PORT).with_wait_for(WaitFor::http(ready.with_port(PORT)));
    let container = testcontainers::ImageExt::with_startup_timeout(container, PATIENCE).start().await.map_err(told)?;
    let host = container.get_host().await.map_err(told)?.to_string();
    let port = container.get_host_port_ipv4(PORT).await.map_err(told)?;
    let settings = Settings { host, port, ..Settings::default() };
    Ok(Started { settings, container: Mutex::new(Some(container)) })
}

/// Name and tag; a registry's port is no tag.
fn split(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        assert_eq!(split("ollama/ollama"), ("ollama/ollama", "latest"));
        assert_eq!(split("ollama/ollama:0.32.5"), ("ollama/ollama", "0.32.5"));
        assert_eq!(split("localhost:5000/ollama"), ("localhost:5000/ollama", "latest"));
    }
}
