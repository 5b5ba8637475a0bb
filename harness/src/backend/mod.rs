//! Where scenarios run: a proxy of its own for each scenario, in front of an upstream that differs in a URL and in what
//! it can promise.
//!
//! Nothing here makes calls or judges.

mod abilities;
pub mod bridge;
#[cfg(feature = "container")]
pub mod container;
#[cfg(not(feature = "container"))]
#[path = "no_container.rs"]
pub mod container;
pub mod endpoint;
pub mod mock;
pub mod preflight;
pub mod remote;

use std::{net::SocketAddr, sync::Arc};

pub use abilities::Capabilities;
pub(crate) use abilities::numbers;

use farllama::{
    Config, Running,
    config::{Local, Remote as RemoteSettings},
};
use mock_ollama::{Journal, Mock, Seen};
use serde_saphyr::Spanned;

use crate::{
    mutants::{Layer, Mutation, Side},
    scenario::{Need, Scenario},
    text::chain,
};

/// A place for scenarios to run.
#[derive(Debug)]
pub enum Backend {
    /// A mock of its own for each scenario.
    Mock,
    /// As the mock, but something on the way is broken; see [`crate::mutants`].
    Tampered(Mutation),
    /// A mock of its own for each scenario, behind an OpenAI server of which the proxy makes an Ollama again.
    Bridge(bridge::Exceptions),
    /// An Ollama that is somewhere.
    Remote(Box<remote::Remote>),
    /// An Ollama in a container that is started once for the run.
    Container(Box<container::Container>),
    /// A proxy that runs already.
    Standing(Standing),
    /// Any server, without a proxy of ours.
    Endpoint(endpoint::Endpoint),
}

/// A proxy that runs already, for every scenario.
#[derive(Debug)]
pub struct Standing {
    /// What it is, for people.
    pub name: String,
    /// Its root, without a slash at the end.
    pub url: String,
    /// The root of its OpenAI API, without a slash at the end.
    pub openai: String,
    /// What reached its upstream, if that is a mock.
    pub journal: Option<Journal>,
}

/// What a scenario talks to. Dropping it stops what was started for it.
#[derive(Debug)]
pub struct Target {
    /// The proxy's root, without a slash at the end.
    pub url: String,
    /// The root of the OpenAI API, without a slash at the end.
    pub openai: String,
    /// The key that calls need which bring none of their own.
    pub key: Option<String>,
    /// Whether it is another's server, of which nothing is known.
    foreign: bool,
    /// What reached the upstream, if that is known.
    pub journal: Option<Journal>,
    /// Where the client reports what it has seen, if it can wait for that.
    pub seen: Option<Seen>,
    proxy: Option<Proxy>,
    /// The OpenAI server in front of the mock.
    openai_server: Option<Running>,
    _tampering: Option<Tampering>,
    _mock: Option<Mock>,
}

/// What breaks the traffic of a scenario.
#[derive(Debug)]
struct Tampering {
    /// Between client and proxy.
    _client: Layer,
    /// Between proxy and Ollama.
    _ollama: Layer,
    /// A second proxy that admits every request, where it is needed.
    open: Option<Running>,
}

/// A proxy that was started for a scenario.
#[derive(Debug)]
struct Proxy {
    running: Running,
    /// Where its upstream is, whatever its settings say.
    remote: RemoteSettings,
}

/// Why there is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// A service that the machine lacks: a reason to skip on a person's machine.
    #[error("{0}")]
    Service(String),
    /// Something that should have worked.
    #[error("{0}")]
    Broken(String),
}

impl Backend {
    /// What it is, for people.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Mock => "the built-in mock".to_owned(),
            Self::Tampered(_) => "the built-in mock, tampered with".to_owned(),
            Self::Bridge(_) => "the built-in mock behind an OpenAI server".to_owned(),
            Self::Remote(remote) => format!("the remote {}", remote.url()),
            Self::Container(container) => format!("a container of {}", container.image()),
            Self::Standing(standing) => standing.name.clone(),
            Self::Endpoint(endpoint) => format!("the target {}", endpoint.openai),
        }
    }

    /// Whether it can promise this. What depends on the model and the Ollama behind it is asked of them; see
    /// [`Target::lacks`].
    #[must_use]
    pub fn promises(&self, need: &Need) -> bool {
        match (self, need) {
            (Self::Standing(standing), Need::Journal) => standing.journal.is_some(),
            (_, Need::Capability(_) | Need::Ollama(_))
            | (Self::Mock | Self::Tampered(_) | Self::Bridge(_), _)
            | (Self::Remote(_) | Self::Container(_), Need::Native | Need::Proxy)
            // Whether a target has it is asked of the target.
            | (Self::Standing(_) | Self::Endpoint(_), Need::Native) => true,
            _ => false,
        }
    }

    /// Whether every model and every version is there, because they are played.
    #[must_use]
    pub fn is_mock(&self) -> bool {
        matches!(self, Self::Mock | Self::Tampered(_) | Self::Bridge(_))
    }

    /// Why it cannot run a scenario, if it cannot.
    #[must_use]
    pub fn refuses(&self, scenario: &Scenario) -> Option<String> {
        let lacking: Vec<_> =
            scenario.needs().iter().filter(|need| !self.promises(need)).map(ToString::to_string).collect();
        if !lacking.is_empty() {
            return Some(format!("it needs {}, which {} cannot promise", lacking.join(" and "), self.name()));
        }
        if !self.promises(&Need::Journal) && scenario.steps.iter().any(crate::scenario::Step::is_blind) {
            return Some(format!("a step expects only what reached the upstream, which {} does not show", self.name()));
        }
        None
    }

    /// Why the scenario in `file` is expected to fail, if it is.
    #[must_use]
    pub fn exception(&self, file: &str) -> Option<&str> {
        if let Self::Bridge(exceptions) = self { exceptions.reason(file) } else { None }
    }

    /// The id of the container that was started for the run.
    #[must_use]
    pub fn container(&self) -> Option<String> {
        if let Self::Container(container) = self { container.id() } else { None }
    }

    /// Why nothing that was found can be trusted, if what was started for the run has gone.
    pub async fn gone(&self, http: &reqwest::Client) -> Option<String> {
        if let Self::Container(container) = self { container.gone(http).await } else { None }
    }

    /// Stops what was started for the whole run.
    pub async fn stop(&self) {
        if let Self::Container(container) = self {
            container.stop().await;
        }
    }

    /// Starts what the scenario needs.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn target(&self, scenario: &Scenario) -> Result<Target, Missing> {
        match self {
            Self::Mock => mock::target(scenario, None).await,
            Self::Tampered(mutation) => mock::target(scenario, Some(mutation)).await,
            Self::Bridge(_) => Box::pin(bridge::target(scenario)).await,
            Self::Remote(remote) => proxied(scenario.config.as_ref(), remote.settings().clone(), None, None).await,
            Self::Container(container) => {
                proxied(scenario.config.as_ref(), container.settings().await?, None, None).await
            }
            Self::Endpoint(endpoint) => Ok(endpoint.target()),
            Self::Standing(standing) => Ok(Target {
                url: standing.url.clone(),
                openai: standing.openai.clone(),
                key: None,
                foreign: false,
                journal: standing.journal.clone(),
                seen: None,
                proxy: None,
                openai_server: None,
                _tampering: None,
                _mock: None,
            }),
        }
    }
}

impl Target {
    /// Gives the proxy new settings; what is counted and what runs goes on.
    ///
    /// # Errors
    /// They cannot be used, or there is no proxy of ours.
    pub fn reload(&self, settings: &str) -> Result<(), String> {
        let proxy = self.proxy.as_ref().ok_or("there is no proxy whose settings could be reloaded")?;
        let config = settled(Some(settings), &proxy.remote)?;
        proxy.running.reload(config).map_err(|error| format!("reload: {error}"))
    }

    /// Stops what was started for it.
    pub async fn stop(self) {
        if let Some(proxy) = self.proxy {
            proxy.running.stop(std::time::Duration::ZERO).await;
        }
        if let Some(server) = self.openai_server {
            server.stop(std::time::Duration::ZERO).await;
        }
        if let Some(open) = self._tampering.and_then(|tampering| tampering.open) {
            open.stop(std::time::Duration::ZERO).await;
        }
    }
}

/// A proxy on a free port, with a scenario's settings, in front of `remote`.
async fn proxied(
    config: Option<&Spanned<String>>,
    mut remote: RemoteSettings,
    mock: Option<Mock>,
    mutation: Option<&Mutation>,
) -> Result<Target, Missing> {
    let mut layer = None;
    if let (Some(mutation), Some(mock)) = (mutation, &mock) {
        let before = between(mock.addr(), Side::Ollama, mutation).await?;
        remote = RemoteSettings { port: before.addr().port(), ..remote };
        layer = Some(before);
    }
    let config = settled(config.map(|text| &*text.value), &remote);
    let config = config.map_err(Missing::Broken)?;
    let base_path = config.openai.base_path.clone();
    let past = mutation.and_then(|mutation| mutation.past_the_gate(&config));
    let proxy = serve(config).await?;
    let mut addr = proxy.addr();
    let mut tampering = None;
    if let (Some(mutation), Some(ollama)) = (mutation, layer) {
        let open = match past {
            Some(config) => Some(serve(config).await?),
            None => None,
        };
        let side = Side::Client(open.as_ref().map(Running::addr));
        let client = between(addr, side, mutation).await?;
        addr = client.addr();
        tampering = Some(Tampering { _client: client, _ollama: ollama, open });
    }
    let url = format!("http://{addr}");
    Ok(Target {
        openai: format!("{url}{base_path}"),
        url,
        key: None,
        foreign: false,
        journal: mock.as_ref().map(Mock::journal),
        seen: mock.as_ref().map(Mock::seen),
        proxy: Some(Proxy { running: proxy, remote }),
        openai_server: None,
        _tampering: tampering,
        _mock: mock,
    })
}

async fn serve(config: Config) -> Result<Running, Missing> {
    let proxy = farllama::serve(config).await;
    proxy.map_err(|error| Missing::Broken(format!("the proxy cannot start: {}", chain(&error))))
}

async fn between(to: SocketAddr, side: Side, mutation: &Mutation) -> Result<Layer, Missing> {
    let layer = Layer::before(to, side, mutation.clone()).await;
    layer.map_err(|error| Missing::Broken(format!("nothing can be put in between: {error}")))
}

/// Hosts of `[[remotes]]` that stand for the upstream of the scenario end with this, such as `a.ollama.test`.
const UPSTREAM: &str = ".ollama.test";

/// A scenario's settings, but for what is ours to say: a free port, and where the upstream is.
fn settled(text: Option<&str>, remote: &RemoteSettings) -> Result<Config, String> {
    let mut config = match text {
        None => Config::default(),
        Some(text) => Config::from_toml(text).map_err(|error| format!("config: {error}"))?,
    };
    config.local = Local { port: 0, ..Local::default() };
    for entry in config.remotes.iter_mut().filter(|entry| entry.remote.host.ends_with(UPSTREAM)) {
        settle(&mut entry.remote, remote.clone());
    }
    settle(&mut config.remote, remote.clone());
    Ok(config)
}

/// Lets `given` lead to the upstream.
fn settle(given: &mut farllama::config::Remote, remote: RemoteSettings) {
    (given.protocol, given.host, given.port) = (remote.protocol, remote.host, remote.port);
    if !remote.base_path.is_empty() {
        given.base_path = remote.base_path;
    }
    if remote.authorization.is_some() {
        given.authorization = remote.authorization;
    }
    given.headers.extend(remote.headers);
    given.ca_file = remote.ca_file.or(given.ca_file.take());
    given.verify &= remote.verify;
    if remote.kind != farllama::config::Kind::default() {
        given.kind = remote.kind;
    }
    // What the scenario itself says of the way stays, unless the upstream has one of its own.
    let reach = remote.reach;
    if reach.ssh.is_some() || reach.proxy.is_some() || reach.client_cert.is_some() {
        given.reach = reach;
    }
}

/// The settings for an Ollama at `addr`.
fn at(addr: SocketAddr) -> RemoteSettings {
    RemoteSettings { host: addr.ip().to_string(), port: addr.port(), ..RemoteSettings::default() }
}

/// A backend that many scenarios share.
pub type Shared = Arc<Backend>;
