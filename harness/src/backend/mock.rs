//! The default backend: a mock of its own for each scenario, in process, on a free port.

use mock_ollama::{Mock, Options};

use super::{Missing, Target, at, proxied};
use crate::{mutants::Mutation, scenario::Scenario};

pub(super) async fn target(scenario: &Scenario, mutation: Option<&Mutation>) -> Result<Target, Missing> {
    let mock = start(scenario).await?;
    let remote = at(mock.addr());
    proxied(scenario.config.as_ref(), remote, Some(mock), mutation).await
}

/// Starts a mock as the scenario describes it.
pub(super) async fn start(scenario: &Scenario) -> Result<Mock, Missing> {
    let broken = |error: &dyn std::fmt::Display| Missing::Broken(format!("the mock cannot start: {error}"));
    let mut options = Options::default();
    if let Some(settings) = &scenario.mock {
        if let Some(version) = &settings.version {
            options.version = version.value.parse().map_err(|error| broken(&error))?;
        }
        options.context_length = settings.context_length.or(options.context_length);
    }
    let script = scenario.upstream.clone().unwrap_or_default();
    Mock::start_with(options, script).await.map_err(|error| broken(&error))
}
