//! The remotes: one client and one state for each, and which of them a request is sent to.
//!
//! With one remote, every request shares the same [`Candidates`], and nothing here costs anything.

mod candidates;
mod choice;
mod member;
mod route;
mod state;
mod union;

use std::{
    collections::HashMap,
    fmt::Write as _,
    future::Future,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
pub(crate) use candidates::Candidates;
use choice::View;
use futures_util::future::join_all;
use http::HeaderValue;
pub(crate) use member::Member;
pub(crate) use route::Sent;
use state::Has;
pub(crate) use state::{Counted, Listed, Standing, State};
use tokio::time::Instant;
use union::Union;

use crate::{
    app,
    config::{Config, Health, NamedRemote},
    error::{Dialect, Error},
    gate::Models,
    ollama::name,
    receipt::RemoteLine,
    redact::Redactor,
    routes::{Names, Route, Speaks},
    text,
    upstream::client::Client,
};

/// For how long a model that is on no list is taken to be absent.
const ABSENT: Duration = Duration::from_secs(1);

/// How many models of one remote an error names.
const NAMED: usize = 20;

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
    only: Arc<Candidates>,
    /// The credentials of all of them.
    secrets: Vec<HeaderValue>,
    health: Health,
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
            let mut asleep = entry.remote.clone();
            let checker = match asleep.reach.wake.take() {
                Some(_) => {
                    let checker = Client::of(config, &asleep, via.clone(), redactor.clone())?;
                    Some(Arc::new(checker.sharing(&client)))
                }
                None => None,
            };
            state.grown.belongs_to(&client.remote(), config.context.max);
            Ok(Arc::new(Member {
                name: entry.name.clone(),
                line: Arc::new(RemoteLine::new(&entry.name)),
                client: Arc::new(client),
                checker,
                state,
                priority: entry.priority,
                weight: entry.weight,
                models: entry.models.as_ref().map(|models| Models::new(models)),
                health: config.health.clone(),
                one_of_several: entries.len() > 1,
            }))
        });
        let members: Arc<[Arc<Member>]> = members.collect::<io::Result<Vec<_>>>()?.into();
        let only = Arc::new(match &*members {
            [one] => Candidates::only(one.clone()),
            all => Candidates::of(all.to_vec(), Some(members.clone())),
        });
        Ok(Self { members, only, secrets, health: config.health.clone() })
    }

    /// Whether there are several.
    pub(crate) fn are_several(&self) -> bool {
        self.members.len() > 1
    }

    /// What they speak. One of several that has not answered yet may be an OpenAI server.
    pub(crate) fn speaks(&self) -> Speaks {
        match &*self.members {
            [one] if one.client.bridge().is_on() => Speaks::OpenAi,
            [_] => Speaks::Ollama,
            several if several.iter().any(|member| !member.client.bridge().is_ollama()) => Speaks::Either,
            _ => Speaks::Ollama,
        }
    }

    /// The first one.
    pub(crate) fn first(&self) -> &Arc<Member> {
        &self.members[0]
    }

    /// Every remote, in the order of the settings.
    pub(crate) fn all(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The only one, as what a request may be sent to. Of several, all of them.
    pub(crate) fn only(&self) -> Arc<Candidates> {
        self.only.clone()
    }

    /// The credentials of all of them.
    pub(crate) fn secrets(&self) -> &[HeaderValue] {
        &self.secrets
    }

    /// Every remote, and how it stands. Those that no task watches are asked.
    pub(crate) async fn survey(&self) -> Vec<(&Member, Standing)> {
        if !self.are_several() || self.health.interval.is_zero() {
            join_all(self.members.iter().map(|member| member.check())).await;
        }
        self.members.iter().map(|member| (&**member, member.state.now())).collect()
    }

    /// The list of models of all remotes at `path`, as a remote sends it.
    ///
    /// # Errors
    /// Fails if no remote responds.
    pub(crate) async fn list(&self, path: &'static str) -> Result<Bytes, Error> {
        Union::of(&self.members, path).await.map(|union| union.body())
    }

    /// The first Ollama and no other, for what changes the models of a remote.
    pub(crate) fn managed(&self) -> Arc<Candidates> {
        let ollama = self.members.iter().find(|member| !member.client.bridge().is_on());
        Arc::new(Candidates::of(vec![ollama.unwrap_or(&self.members[0]).clone()], None))
    }

    /// The OpenAI server that has `model`, if no Ollama has it.
    fn only_at_openai(&self, model: &str) -> Option<Arc<Candidates>> {
        let full = name::full(model);
        let mut having = self.members.iter().filter(|member| {
            member.is_for(&full) && member.state.with(|standing| standing.has(&full)) <= Has::Installed
        });
        let first = having.next().filter(|first| first.client.bridge().is_on())?;
        let others = having.all(|member| member.client.bridge().is_on());
        others.then(|| Arc::new(Candidates::of(vec![first.clone()], None)))
    }

    /// The remote called `name`, and no other.
    ///
    /// # Errors
    /// Fails if there is no such remote.
    pub(crate) fn named(&self, name: &HeaderValue) -> Result<Arc<Candidates>, Error> {
        let found = self.members.iter().find(|member| member.name.as_bytes() == name.as_bytes());
        match found {
            Some(_) if !self.are_several() => Ok(self.only()),
            Some(member) => Ok(Arc::new(Candidates::of(vec![member.clone()], None))),
            None => {
                let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
                let known: Vec<_> = self.members.iter().map(|member| &*member.name).collect();
                let message = format!(
                    "unknown remote {:?} in x-farllama-remote: there are {}",
                    text::name(&name),
                    known.join(", ")
                );
                Err(Error::Invalid { message, param: None, code: Some("unknown_remote") })
            }
        }
    }

    /// The remotes for a request that is about no model, the best first.
    pub(crate) fn any(&self) -> Arc<Candidates> {
        let views: Vec<_> = self.members.iter().map(|member| view(member, Has::Installed)).collect();
        Arc::new(self.candidates(&views))
    }

    /// The same, without those that do not speak OpenAI's API, or without those that do, if others are left.
    fn any_of(&self, openai: bool) -> Arc<Candidates> {
        let speaks = |member: &Arc<Member>| member.client.bridge().is_on() == openai;
        if !self.members.iter().any(speaks) {
            return self.any();
        }
        let has = |member| if speaks(member) { Has::Installed } else { Has::No };
        let views: Vec<_> = self.members.iter().map(|member| view(member, has(member))).collect();
        Arc::new(self.candidates(&views))
    }

    fn candidates(&self, views: &[View]) -> Candidates {
        self.in_order(views.iter().enumerate().filter_map(|(at, view)| choice::key(at, *view)).collect())
    }

    fn in_order(&self, mut keys: Vec<choice::Key>) -> Candidates {
        keys.sort_unstable();
        let mut members = Vec::with_capacity(self.members.len());
        members.extend(keys.into_iter().map(|(.., at)| self.members[at].clone()));
        Candidates::of(members, Some(self.members.clone()))
    }

    /// The remotes for a request for `model`, the best first.
    ///
    /// # Errors
    /// Fails if no remote has it. The error lists what the caller may see of their models.
    pub(crate) async fn with(
        &self,
        model: &str,
        dialect: Dialect,
        may_see: impl Fn(&str) -> bool,
    ) -> Result<Arc<Candidates>, Error> {
        let full = name::full(model);
        let (mut found, recent) = self.views(&full);
        // Mostly all lists are recent, and one of them has the model: nothing is asked then.
        if !recent {
            self.look(&full, self.health.models_age).await;
            found = self.views(&full).0;
        }
        if !found.iter().any(|view| view.up && view.has <= Has::Installed) {
            self.look(&full, ABSENT).await;
            found = self.views(&full).0;
        }
        if found.iter().all(|view| view.has == Has::No) {
            // The error says what the remotes have that are not used for this model, too.
            let others = self.members.iter().filter(|member| !member.is_for(&full));
            let looked = others.filter(|member| member.state.with(|standing| self.is_looked_at(standing)));
            join_all(looked.map(|member| member.look(self.health.models_age))).await;
            return Err(self.nowhere(model, dialect, may_see));
        }
        Ok(Arc::new(self.for_model(&found, &full.into())))
    }

    /// The same for a request of `route` for the model with this full name, if all lists of models are recent and one
    /// of them has it, which is mostly so: nothing is asked then.
    pub(crate) fn at_once(&self, route: &Route, full: &Arc<str>) -> Option<Candidates> {
        let row = route.row.filter(|_| self.are_several())?;
        // As `route` does, but for routes that have more to them.
        let names_it = matches!(row.names, Names::Body(_) | Names::Form | Names::Path);
        if !names_it || row.management || row.name == "moderations" || &**full == name::NONE {
            return None;
        }
        let since = self.recent_since();
        let (mut keys, mut is_somewhere) = (Vec::with_capacity(self.members.len()), false);
        for (at, member) in self.members.iter().enumerate() {
            let (view, recent) = self.view_of(member, full, since);
            if !recent {
                return None;
            }
            is_somewhere |= view.up && view.has <= Has::Installed;
            keys.extend(choice::key(at, view));
        }
        is_somewhere.then(|| {
            let complete = keys.len() == self.members.len();
            let others = self
                .members
                .iter()
                .enumerate()
                .filter(|(at, member)| !complete && member.is_for(full) && !keys.iter().any(|key| key.4 == *at));
            let others: Vec<_> = others.map(|(_, member)| member.clone()).collect();
            self.in_order(keys).for_model(full.clone(), others.into_iter())
        })
    }

    fn for_model(&self, views: &[View], full: &Arc<str>) -> Candidates {
        let without = self.members.iter().zip(views).filter(|(_, view)| view.has == Has::No);
        let others = without.map(|(member, _)| member).filter(|member| member.is_for(full)).cloned();
        self.candidates(views).for_model(full.clone(), others)
    }

    /// How the remotes stand towards the model with this full name, and whether all lists of models are recent that it
    /// may be on.
    fn views(&self, full: &str) -> (Vec<View>, bool) {
        let (mut all_recent, since) = (true, self.recent_since());
        let views = self.members.iter().map(|member| {
            let (view, recent) = self.view_of(member, full, since);
            all_recent &= recent;
            view
        });
        (views.collect(), all_recent)
    }

    /// A list that was asked for after this is recent. None: the process is younger.
    fn recent_since(&self) -> Option<Instant> {
        Instant::now().checked_sub(self.health.models_age)
    }

    fn view_of(&self, member: &Member, full: &str, since: Option<Instant>) -> (View, bool) {
        let used = member.is_for(full);
        let (up, has, recent) = member.state.with(|standing| {
            let recent = !used || standing.is_recent(since) || !self.is_looked_at(standing);
            (standing.is_up(), if used { standing.has(full) } else { Has::No }, recent)
        });
        let in_flight = member.state.in_flight();
        (View { up, has, priority: member.priority, weight: member.weight, in_flight }, recent)
    }

    /// Whether requests look at a remote's lists. One that is out of use is looked at by the health check, so that no
    /// request waits for it.
    fn is_looked_at(&self, standing: &Standing) -> bool {
        standing.is_up() || self.health.interval.is_zero()
    }

    /// Reads the lists of the remotes that are used for a model again, unless that was done at most `age` ago.
    async fn look(&self, full: &str, age: Duration) {
        let looked = self
            .members
            .iter()
            .filter(|member| member.is_for(full) && member.state.with(|standing| self.is_looked_at(standing)));
        join_all(looked.map(|member| member.look(age))).await;
    }

    /// The error for a model that no remote has: what each of them has.
    fn nowhere(&self, model: &str, dialect: Dialect, may_see: impl Fn(&str) -> bool) -> Error {
        let model = text::name(model);
        let mut message = match dialect {
            Dialect::Ollama => format!("model '{model}' not found on any remote"),
            _ => format!("The model `{model}` does not exist or you do not have access to it. No remote has it"),
        };
        let named = |listed: Listed| match dialect {
            Dialect::Ollama => listed.name,
            _ => listed.own_name().to_owned(),
        };
        let mut lead = ": ";
        for member in &*self.members {
            let _ = write!(message, "{lead}{}", member.name);
            lead = "; ";
            let models: Vec<_> =
                member.models().into_iter().filter(|listed| may_see(&listed.name)).map(named).collect();
            if !member.is_up() {
                message += " is out of use";
            } else if models.is_empty() {
                message += " has none";
            } else {
                let more = models.len().saturating_sub(NAMED);
                let _ = write!(message, " has {}", models[..models.len() - more].join(", "));
                if more > 0 {
                    let _ = write!(message, " and {more} more");
                }
            }
        }
        Error::NotFound { message, param: Some("model".to_owned()), code: "model_not_found" }
    }

    /// Watches the health of the remotes. Never ends.
    pub(crate) fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        let members = if self.are_several() { self.members.clone() } else { Vec::new().into() };
        let interval = self.health.interval;
        async move {
            join_all(members.iter().map(|member| watch(member, interval))).await;
            std::future::pending::<()>().await;
        }
    }
}

/// Asks one remote again and again, and at once when a request failed there.
async fn watch(member: &Member, interval: Duration) {
    loop {
        member.check().await;
        let suspected = member.state.suspected.notified();
        if interval.is_zero() {
            suspected.await;
        } else {
            // So that several proxies, and several remotes, do not ask at the same moment.
            let _ = tokio::time::timeout(interval.mul_f64(app::jitter()), suspected).await;
        }
    }
}

fn view(member: &Member, has: Has) -> View {
    View {
        up: member.is_up(),
        has,
        priority: member.priority,
        weight: member.weight,
        in_flight: member.state.in_flight(),
    }
}

/// The credentials of a remote.
fn secrets(entry: &NamedRemote) -> impl Iterator<Item = &HeaderValue> {
    entry.remote.authorization.iter().chain(entry.remote.headers.iter().map(|(_, value)| value))
}
