//! An Ollama in a container, started once for the run and removed after it.

use std::time::Duration;

use farllama::config::Remote as Settings;
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt, TestcontainersError,
    core::{ContainerPort, Mount, WaitFor, client::docker_client_instance, wait::HttpWaitStrategy},
    runners::AsyncRunner,
};
use tokio::sync::{Mutex, OnceCell};

use super::Missing;
use crate::call::{self, tap::chain};

/// Ollama's port in its image.
const PORT: ContainerPort = ContainerPort::Tcp(11434);

/// Where Ollama keeps models, if there is a volume for them.
const MODELS: &str = "/models";

/// How long a server that is there may take to tell its version.
const MOMENT: Duration = Duration::from_secs(10);

/// How long a server may take to answer; pulling the image is not counted.
const PATIENCE: Duration = Duration::from_secs(120);

/// An Ollama in a container, which is removed when the run is over.
#[derive(Debug)]
pub struct Container {
    image: String,
    volume: Option<String>,
    pull: Option<String>,
    started: OnceCell<Result<Started, Missing>>,
}

#[derive(Debug)]
struct Started {
    settings: Settings,
    id: String,
    container: Mutex<Option<ContainerAsync<GenericImage>>>,
}

impl Container {
    /// A container of `image`, such as `ollama/ollama` or `ollama/ollama:0.32.5`; nothing is started yet.
    #[must_use]
    pub fn new(image: &str) -> Self {
        Self { image: image.to_owned(), volume: None, pull: None, started: OnceCell::new() }
    }

    /// With a named volume for models, which outlives the container.
    #[must_use]
    pub fn with_volume(self, volume: Option<String>) -> Self {
        Self { volume, ..self }
    }

    /// Pulls a model before anything is run.
    #[must_use]
    pub fn with_model(self, pull: Option<String>) -> Self {
        Self { pull, ..self }
    }

    /// The container's id, once it was started.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.started.get().and_then(|started| started.as_ref().ok()).map(|started| started.id.clone())
    }

    /// Why nothing that was found can be trusted, if the container has gone in mid-run.
    pub(super) async fn gone(&self, http: &reqwest::Client) -> Option<String> {
        let started = self.started.get()?.as_ref().ok()?;
        let url = format!("http://{}:{}/api/version", started.settings.host, started.settings.port);
        if http.get(url).timeout(MOMENT).send().await.is_ok() {
            return None;
        }
        let container = started.container.lock().await;
        let id = &started.id;
        Some(match container.as_ref()?.is_running().await {
            // The engine may hear of its end later than its clients.
            Ok(_) => format!("the container {id} has ended in mid-run, or answers no more"),
            Err(error) => format!("the container {id} cannot be found any more: {}", chain(&error)),
        })
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
        let started = self.started.get_or_init(|| start(self)).await;
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

async fn start(wanted: &Container) -> Result<Started, Missing> {
    let image = &*wanted.image;
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
    let mut request = container.with_startup_timeout(PATIENCE);
    if let Some(volume) = &wanted.volume {
        request = request.with_mount(Mount::volume_mount(volume, MODELS)).with_env_var("OLLAMA_MODELS", MODELS);
    }
    let container = request.start().await.map_err(told)?;
    let host = container.get_host().await.map_err(told)?.to_string();
    let port = container.get_host_port_ipv4(PORT).await.map_err(told)?;
    let settings = Settings { host, port, ..Settings::default() };
    if let Some(model) = &wanted.pull {
        pull(model, &format!("http://{}:{port}", settings.host)).await.map_err(Missing::Broken)?;
    }
    Ok(Started { settings, id: container.id().to_owned(), container: Mutex::new(Some(container)) })
}

/// Pulls a model, however long that takes.
async fn pull(model: &str, url: &str) -> Result<(), String> {
    let told = |error: reqwest::Error| format!("{model} cannot be pulled: {}", chain(&error));
    let request = call::http().map_err(told)?.post(format!("{url}/api/pull"));
    let answer = request.json(&serde_json::json!({"model": model})).send().await.map_err(told)?;
    let text = answer.text().await.map_err(told)?;
    // A pull that fails has status 200 all the same; its last line tells.
    let last = text.lines().next_back().unwrap_or_default();
    if last.contains("\"success\"") { Ok(()) } else { Err(format!("{model} cannot be pulled: {last}")) }
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
