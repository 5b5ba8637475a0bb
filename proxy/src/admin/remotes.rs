//! Lists the remotes, and how they stand.

use axum::{Json, extract};
use serde::Serialize;

use super::{State, status::Health};
use crate::upstream::remotes::{Member, Standing};

/// One remote.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shown {
    name: String,
    url: String,
    priority: u32,
    weight: u32,
    #[serde(flatten)]
    health: Health,
    /// Seconds since it came or left; None: it has not responded yet.
    since_s: Option<u64>,
    /// Requests that it has. With one remote they are not counted.
    in_flight: Option<usize>,
    /// The models that it has; None: it does not list them.
    installed: Option<Vec<String>>,
    /// Those in memory.
    loaded: Option<Vec<String>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct List {
    remotes: Vec<Shown>,
}

/// Every remote, in the order of the settings.
pub(crate) async fn list(extract::State(state): extract::State<State>) -> Json<List> {
    Json(List { remotes: state.remotes().await })
}

impl State {
    /// Every remote, in the order of the settings.
    pub(crate) async fn remotes(&self) -> Vec<Shown> {
        let setup = self.control.setup();
        let several = setup.shared.remotes.are_several();
        let shown = |(member, standing): (&Member, Standing)| {
            let names = |list: Option<_>| list.map(|list: std::sync::Arc<[_]>| list.iter().map(name).collect());
            Shown {
                name: member.name.clone(),
                url: member.client.remote(),
                priority: member.priority,
                weight: member.weight,
                since_s: standing.since.map(|since| since.elapsed().as_secs()),
                in_flight: several.then(|| member.state.in_flight()),
                installed: names(standing.installed.clone()),
                loaded: names(standing.loaded.clone()),
                health: Health::standing(&member.client, standing),
            }
        };
        setup.shared.remotes.survey().await.into_iter().map(shown).collect()
    }
}

fn name(listed: &crate::upstream::remotes::Listed) -> String {
    listed.own_name().to_owned()
}
