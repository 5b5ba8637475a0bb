//! An Ollama in a container, started once for the run and removed after it.

mod model;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use farllama::config::Remote as Settings;
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt, TestcontainersError,
    bollard::query_parameters::RemoveContainerOptionsBuilder,
    core::{ContainerPort, Mount, client::docker_client_instance},
    runners::AsyncRunner,
};
use tokio::sync::{Mutex, OnceCell, watch};

use super::Missing;
use crate::{net, text::chain};

/// Ollama's port in its image.
const PORT: ContainerPort = ContainerPort::Tcp(11434);

/// Where Ollama keeps models, if there is a volume for them.
const MODELS: &str = "/models";

/// Maximum time for a running server to answer with its version.
const MOMENT: Duration = Duration::from_secs(10);

/// How long a server may take to answer; pulling the image is not counted.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks whether it answers.
const PAUSE: Duration = Duration::from_millis(100);

/// How many of the last log lines of a container that does not start are reported.
const LAST_WORDS: usize = 5;

/// An Ollama in a container, which is removed when the run is over.
#[derive(Debug)]
pub struct Container {
    image: String,
    volume: Option<String>,
    pull: Option<String>,
    reporter: Reporter,
    /// Its own, so that it can be removed at every point of its start.
    name: String,
    started: OnceCell<Result<Started, Missing>>,
    /// Held for as long as it is being started.
    starting: Mutex<()>,
    /// Whether it is to be removed.
    over: watch::Sender<bool>,
}

/// Receives progress messages.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(&str) + Send + Sync>);

impl Reporter {
    /// By calling `take` with each line.
    pub fn by(take: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    fn say(&self, line: &str) {
        (self.0)(line);
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}

#[derive(Debug)]
struct Started {
    settings: Settings,
    id: String,
    container: Mutex<Option<ContainerAsync<GenericImage>>>,
}

impl Container {
    /// A container of `image`, such as `ollama/ollama` or `ollama/ollama:0.32.5`; nothing is started yet. Long steps
    /// are reported.
    #[must_use]
    pub fn new(image: &str, reporter: Reporter) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            image: image.to_owned(),
            volume: None,
            pull: None,
            reporter,
            name: format!("farllama-check-{}-{}", std::process::id(), since.as_millis()),
            started: OnceCell::new(),
            starting: Mutex::new(()),
            over: watch::Sender::new(false),
        }
    }

    /// With a named volume for models, which outlives the container.
    #[must_use]
    pub fn with_volume(self, volume: Option<String>) -> Self {
        Self { volume, ..self }
    }

    /// Pulls a model before anything is run, unless it is there.
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
        let url = format!("{}/api/version", started.settings.url());
        if http.get(url).timeout(MOMENT).send().await.is_ok() {
            return None;
        }
        let container = started.container.lock().await;
        let id = &started.id;
        Some(match container.as_ref()?.is_running().await {
            // The engine may hear of its end later than its clients.
            Ok(_) => format!("the container {id} ended during the run, or no longer answers"),
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
        let started = self.started.get_or_init(|| async {
            let _starting = self.starting.lock().await;
            // It is big, and is needed once.
            Box::pin(self.start()).await
        });
        started.await.as_ref().map(|started| started.settings.clone()).map_err(Clone::clone)
    }

    /// Removes the container, whether it was started, is being started, or could not be; nothing can be started
    /// afterwards.
    pub(super) async fn stop(&self) {
        self.over.send_replace(true);
        let _starting = self.starting.lock().await;
        let failed = |error: &dyn std::error::Error| {
            eprintln!("the container {} of {} could not be removed: {}", self.name, self.image, chain(error));
        };
        if let Some(Ok(started)) = self.started.get()
            && let Some(container) = started.container.lock().await.take()
            && let Err(error) = container.rm().await
        {
            failed(&error);
        }
    }

    async fn start(&self) -> Result<Started, Missing> {
        let image = &*self.image;
        let absent = |error: &dyn std::error::Error| {
            let reason = chain(error);
            Missing::Service(format!("no Docker engine found ({reason}); start one, or name one by DOCKER_HOST"))
        };
        let docker = docker_client_instance().await.map_err(|error| absent(&error))?;
        docker.ping().await.map_err(|error| absent(&error))?;
        let reported = |error: TestcontainersError| {
            Missing::Broken(format!("the container of {image} does not come up: {}", chain(&error)))
        };
        let (name, tag) = split(image);
        let mut request = GenericImage::new(name, tag).with_exposed_port(PORT).with_container_name(&self.name);
        if let Some(volume) = &self.volume {
            request = request.with_mount(Mount::volume_mount(volume, MODELS)).with_env_var("OLLAMA_MODELS", MODELS);
        }
        if docker.inspect_image(&format!("{name}:{tag}")).await.is_err() {
            self.reporter.say(&format!("pulling the image {name}:{tag}, which is not on this machine yet"));
            request = self.unless_over(request.pull_image()).await?.map_err(reported)?;
        }
        // It takes a moment, and is not to be cut in two: who asks for its end waits.
        let container = match request.start().await {
            Ok(container) => container,
            Err(error) => {
                // It may have been made, and then not started.
                let force = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                let _ = docker.remove_container(&self.name, Some(force)).await;
                return Err(reported(error));
            }
        };
        match self.unless_over(self.furnish(&container)).await {
            Ok(Ok(settings)) => {
                Ok(Started { settings, id: container.id().to_owned(), container: Mutex::new(Some(container)) })
            }
            Ok(Err(why)) | Err(why) => {
                let _ = container.rm().await;
                Err(why)
            }
        }
    }

    /// Waits until it answers and has its model.
    async fn furnish(&self, container: &ContainerAsync<GenericImage>) -> Result<Settings, Missing> {
        let settings = match tokio::time::timeout(PATIENCE, answering(container)).await {
            Ok(Some(settings)) => settings,
            Ok(None) => return Err(self.silent("it has ended", container).await),
            Err(_) => {
                let why = format!("it does not answer on port 11434 within {} seconds", PATIENCE.as_secs());
                return Err(self.silent(&why, container).await);
            }
        };
        if let Some(model) = &self.pull {
            model::bring(model, &settings.url(), &self.reporter).await.map_err(Missing::Broken)?;
        }
        Ok(settings)
    }

    /// A container that does not come up, with its last words.
    async fn silent(&self, why: &str, container: &ContainerAsync<GenericImage>) -> Missing {
        let (out, err) = (container.stdout_to_vec().await, container.stderr_to_vec().await);
        let said = [out.unwrap_or_default(), err.unwrap_or_default()].concat();
        let said = String::from_utf8_lossy(&said);
        let mut last: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).rev().take(LAST_WORDS).collect();
        last.reverse();
        let last = if last.is_empty() { String::new() } else { format!("; it said: {}", last.join(" / ")) };
        Missing::Broken(format!("the container of {} does not come up: {why}{last}", self.image))
    }

    /// Does `work`, unless the run is over before it is done.
    async fn unless_over<T>(&self, work: impl Future<Output = T>) -> Result<T, Missing> {
        let mut over = self.over.subscribe();
        tokio::select! {
            done = work => Ok(done),
            _ = over.wait_for(|over| *over) => Err(Missing::Broken("the run was over before the container was ready".to_owned())),
        }
    }
}

/// Where it answers, once it does; nothing if it has ended.
async fn answering(container: &ContainerAsync<GenericImage>) -> Option<Settings> {
    let http = net::client().ok()?;
    loop {
        if let (Ok(host), Ok(port)) = (container.get_host().await, container.get_host_port_ipv4(PORT).await) {
            let settings = Settings { host: host.to_string(), port, ..Settings::default() };
            let asked = http.get(format!("{}/api/version", settings.url())).timeout(MOMENT).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Some(settings);
            }
        }
        if !container.is_running().await.unwrap_or(false) {
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
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
