//! The remotes: one client and one state for each, and which of them a request is sent to.
//!
//! With one remote, every request shares the same [`Candidates`], and nothing here costs anything.

mod candidates;
mod state;

use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
};

pub(crate) use candidates::Candidates;
use http::{HeaderName, HeaderValue};
pub(crate) use state::State;

use crate::{
    config::{Config, NamedRemote},
    redact::Redactor,
    upstream::client::Client,
};

/// One remote.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client: Arc<Client>,
    /// What is known of it. Outlives a reload.
    pub(crate) state: Arc<State>,
}

/// For the log: `gpu (http://gpu-box:11434)`.
impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.client.remote())
    }
}

/// What is known of remotes, by their names and URLs. Outlives a reload.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<HashMap<(String, String), Arc<State>>>);

impl Known {
    /// The states of the remotes with these names and URLs. Those of all others are forgotten.
    fn take(&self, remotes: impl Iterator<Item = (String, String)>) -> Vec<Arc<State>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<_> = remotes.map(|key| (known.get(&key).cloned().unwrap_or_default(), key)).collect();
        known.clear();
        known.extend(taken.iter().map(|(state, key)| (key.clone(), state.clone())));
        taken.into_iter().map(|(state, _)| state).collect()
    }
}

/// Every remote, in the order of the settings.
pub(crate) struct Remotes {
    members: Arc<[Arc<Member>]>,
    /// What all requests share where there is one remote.
    alone: Arc<Candidates>,
    /// The credentials of all of them.
    secrets: Vec<HeaderValue>,
}

impl Member {
    /// The same remote, where requests carry one more header.
    fn with_header(&self, name: &HeaderName, value: &HeaderValue) -> Self {
        let client = Arc::new(self.client.with_header(name.clone(), value));
        Self { name: self.name.clone(), client, state: self.state.clone() }
    }
}

impl Remotes {
    /// # Errors
    /// Fails if a host is not a host name, or TLS cannot be set up.
    pub(crate) fn new(config: &Config, via: &HeaderValue, known: &Known) -> io::Result<Self> {
        let entries = config.every_remote();
        let states = known.take(entries.iter().map(|entry| (entry.name.clone(), entry.remote.url())));
        let secrets: Vec<HeaderValue> = entries.iter().flat_map(secrets).cloned().collect();
        // A text of one remote may come to a caller together with texts of another.
        let redactor = Redactor::new(secrets.iter().cloned());
        let members = entries.iter().zip(states).map(|(entry, state)| {
            let client = Client::of(config, &entry.remote, via.clone(), redactor.clone())?;
            state.grown.belongs_to(&client.remote(), config.context.max);
            Ok(Arc::new(Member { name: entry.name.clone(), client: Arc::new(client), state }))
        });
        let members: Arc<[Arc<Member>]> = members.collect::<io::Result<Vec<_>>>()?.into();
        let alone = Arc::new(Candidates::new(vec![members[0].clone()]));
        Ok(Self { members, alone, secrets })
    }

    /// The first one.
    pub(crate) fn first(&self) -> &Arc<Member> {
        &self.members[0]
    }

    /// Every remote, in the order of the settings.
    pub(crate) fn all(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The first one, as what a request may be sent to.
    pub(crate) fn only(&self) -> Arc<Candidates> {
        self.alone.clone()
    }

    /// The credentials of all of them.
    pub(crate) fn secrets(&self) -> &[HeaderValue] {
        &self.secrets
    }
}

/// The credentials of a remote.
fn secrets(entry: &NamedRemote) -> impl Iterator<Item = &HeaderValue> {
    entry.remote.authorization.iter().chain(entry.remote.headers.iter().map(|(_, value)| value))
}
