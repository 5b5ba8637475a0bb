//! The remotes that one request may be sent to, in the order in which they are tried.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::{Counted, Member, state::Has, union::Union};
use crate::{
    error::Error,
    observe::Recorder,
    ollama::{refusal::Refusal, version::Version},
    openai::upstream_request::context::Grown,
    redact::Redactor,
    upstream::client::{self, Client, Missed, Upstream},
};

/// The remotes that one request may be sent to, the best first. What the request was sent to stays its remote, unless
/// that fails before the first byte of its response: then the next one is tried.
pub(crate) struct Candidates {
    /// Never empty. Behind those that are tried come those that do not have the model, as far as is known.
    members: Vec<Arc<Member>>,
    /// How many of them are tried.
    tried: usize,
    /// Which of them it is sent to.
    at: AtomicUsize,
    /// Every remote, if lists of models are those of all. None: the remote is the only one, or was named.
    all: Option<Arc<[Arc<Member>]>>,
    /// Whether there are several remotes, of which this is a choice: then requests are counted, and failures noted.
    chosen: bool,
    /// Whether all of them failed before the first byte of a response.
    exhausted: AtomicBool,
    /// The full name of the model that they were chosen for. None: there is none, or no other remote may take their
    /// place.
    model: Option<Arc<str>>,
    /// Whether one of them did not have the model, against its list.
    outdated: AtomicBool,
    /// Where the remote that responds is noted.
    recorder: Option<Recorder>,
}

impl Candidates {
    /// The only remote.
    pub(super) fn only(member: Arc<Member>) -> Self {
        Self { chosen: false, ..Self::of(vec![member], None) }
    }

    /// Some of several. `members` must not be empty.
    pub(super) fn of(members: Vec<Arc<Member>>, all: Option<Arc<[Arc<Member>]>>) -> Self {
        Self {
            tried: members.len(),
            members,
            at: AtomicUsize::new(0),
            all,
            chosen: true,
            exhausted: AtomicBool::new(false),
            model: None,
            outdated: AtomicBool::new(false),
            recorder: None,
        }
    }

    /// The same, chosen for the model with this full name. `others` do not have it, as far as is known.
    pub(super) fn for_model(mut self, full: Arc<str>, others: impl Iterator<Item = Arc<Member>>) -> Self {
        self.members.extend(others);
        Self { model: Some(full), ..self }
    }

    /// Notes the remote that responds on the receipt of the exchange of `recorder`.
    pub(crate) fn record(&mut self, recorder: &Recorder) {
        self.recorder = Some(recorder.clone());
    }

    /// The same choice over other clients of the same remotes.
    fn over(&self, members: Vec<Arc<Member>>) -> Self {
        Self {
            tried: self.tried,
            at: AtomicUsize::new(self.at.load(Ordering::Relaxed)),
            chosen: self.chosen,
            model: self.model.clone(),
            outdated: AtomicBool::new(self.outdated.load(Ordering::Relaxed)),
            recorder: self.recorder.clone(),
            ..Self::of(members, self.all.clone())
        }
    }

    /// Whether there are several remotes.
    pub(crate) fn is_choice(&self) -> bool {
        self.chosen
    }

    /// Whether it is chosen from all remotes: no remote was named.
    pub(crate) fn is_choice_of_all(&self) -> bool {
        self.chosen && self.all.is_some()
    }

    /// The remote that the request is sent to.
    pub(crate) fn current(&self) -> &Arc<Member> {
        self.position().1
    }

    /// The same remotes, where requests carry one more header in place of the caller's.
    pub(crate) fn with_header(&self, name: &HeaderName, value: &HeaderValue) -> Arc<Self> {
        Arc::new(self.over(self.members.iter().map(|member| Arc::new(member.with_header(name, value))).collect()))
    }

    /// The same, and its place among the candidates.
    pub(crate) fn position(&self) -> (usize, &Arc<Member>) {
        let at = self.at.load(Ordering::Relaxed);
        (at, &self.members[at])
    }

    /// Goes on to the remote after the one at `from`, which failed. Returns whether there is one. Of several requests
    /// that failed there, one goes on for all.
    pub(crate) fn advance(&self, from: usize) -> bool {
        if from + 1 >= self.tried {
            return self.at.load(Ordering::Relaxed) > from;
        }
        let moved = self.at.compare_exchange(from, from + 1, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            tracing::info!(
                target: "farllama",
                "a request failed on remote {} and goes to {}",
                self.members[from],
                self.members[from + 1]
            );
        }
        true
    }

    /// Whether they were chosen by their lists of models, so that a response may show that one of these is outdated.
    pub(crate) fn are_for_a_model(&self) -> bool {
        self.model.is_some()
    }

    /// Goes on from the remote at `from`, which does not have the model against its list. Lists are read again for
    /// that, once for each request. Returns whether another remote has it.
    pub(crate) async fn advance_past_outdated(&self, from: usize) -> bool {
        /// Lists that were read a moment ago are not read again.
        const RECENT: Duration = Duration::from_secs(1);
        let Some(model) = &self.model else { return false };
        self.members[from].state.forget_lists();
        if self.outdated.swap(true, Ordering::Relaxed) {
            return self.at.load(Ordering::Relaxed) > from;
        }
        let up = self.members.iter().filter(|member| member.is_up());
        join_all(up.map(|member| member.look(RECENT))).await;
        // What was prepared for an Ollama is not sent to an OpenAI server, and the other way around.
        let openai = |at: usize| self.members[at].client.bridge().is_on();
        let has = |at: usize| self.members[at].state.with(|standing| standing.has(model)) != Has::No;
        let fits = |at: &usize| openai(*at) == openai(from) && has(*at);
        let Some(next) = (from + 1..self.members.len()).find(fits) else { return false };
        let moved = self.at.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            tracing::info!(
                target: "farllama",
                "remote {} no longer has the model {model:?}, and a request goes to {}",
                self.members[from],
                self.members[next]
            );
        }
        true
    }

    /// Notes on the receipt which remote responded.
    pub(crate) fn responded(&self, member: &Member) {
        if let Some(recorder) = &self.recorder {
            recorder.remote(&member.line);
        }
    }

    /// The remote that the request is sent to, as the only one.
    pub(crate) fn pinned(&self) -> Arc<Self> {
        let recorder = self.recorder.clone();
        Arc::new(Self { recorder, ..Self::of(vec![self.current().clone()], self.all.clone()) })
    }

    /// Whether there is another candidate.
    pub(crate) fn has_next(&self) -> bool {
        self.position().0 + 1 < self.tried
    }

    /// Whether all candidates failed before the first byte of a response.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Notes that all candidates failed before the first byte of a response.
    pub(crate) fn exhaust(&self) {
        self.exhausted.store(true, Ordering::Relaxed);
    }

    /// The candidates in their order, in groups that speak the same API: Ollamas that follow each other together, each
    /// OpenAI server alone.
    pub(crate) fn by_kind(self: &Arc<Self>) -> Vec<Arc<Self>> {
        if self.tried == 1 {
            return vec![self.clone()];
        }
        let openai = |member: &Arc<Member>| member.client.bridge().is_on();
        let groups = self.members[..self.tried].chunk_by(|a, b| !openai(a) && !openai(b));
        let group = |group: &[Arc<Member>]| Self {
            model: self.model.clone(),
            recorder: self.recorder.clone(),
            ..Self::of(group.to_vec(), self.all.clone())
        };
        groups.map(|members| Arc::new(group(members))).collect()
    }

    /// Waits for `asked`, which is sent to the current remote alone, and notes how that went.
    ///
    /// # Errors
    /// The failure.
    pub(crate) async fn watched<T>(
        &self,
        asked: impl Future<Output = Result<T, Error>>,
    ) -> Result<(T, Option<Counted>), Error> {
        if !self.chosen {
            return asked.await.map(|answer| (answer, None));
        }
        let member = self.current();
        let counted = member.enter();
        match asked.await {
            Ok(answer) => {
                member.responded();
                self.responded(member);
                Ok((answer, Some(counted)))
            }
            Err(error) => {
                let missed = Missed::of(error);
                member.missed(&missed);
                self.exhausted.store(missed.again, Ordering::Relaxed);
                Err(missed.error)
            }
        }
    }

    /// Every candidate.
    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// The client of the remote that the request is sent to.
    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.current().client
    }

    /// How far the contexts of that remote's models have grown.
    pub(crate) fn grown(&self) -> &Grown {
        &self.current().state.grown
    }

    /// Masks the credentials of all remotes.
    pub(crate) fn redactor(&self) -> &Redactor {
        self.client().redactor()
    }

    /// As [`Client::call`].
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn call(&self, method: Method, path: &'static str, ask: Option<Bytes>) -> Result<Bytes, Error> {
        if !self.chosen {
            return self.client().call(method, path, ask).await;
        }
        Box::pin(async { client::whole(self.open_any(method, path, ask).await?).await }).await
    }

    /// Asks for the list of models: that of all remotes.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn tags(&self) -> Result<Bytes, Error> {
        match &self.all {
            None => self.call(Method::GET, "/api/tags", None).await,
            Some(all) => Box::pin(async { Union::of(all, "/api/tags").await.map(|union| union.body()) }).await,
        }
    }

    /// Asks for the list of models in memory: that of all remotes, or of the one that was chosen for a model.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn loaded(&self) -> Result<Bytes, Error> {
        match &self.all {
            Some(all) if self.model.is_none() => {
                Box::pin(async { Union::of(all, "/api/ps").await.map(|union| union.body()) }).await
            }
            _ => self.call(Method::GET, "/api/ps", None).await,
        }
    }

    /// The remotes that have each model: `gpu+big`. None: there is one remote.
    pub(crate) fn places(&self) -> Option<Vec<(String, String)>> {
        self.all.as_ref().map(|all| super::union::places(all))
    }

    /// As [`Client::open`].
    ///
    /// # Errors
    /// As [`Client::open`].
    pub(crate) async fn open(&self, method: Method, path: &'static str, ask: Option<Bytes>) -> Result<Upstream, Error> {
        if !self.chosen {
            return self.client().open(method, path, ask).await;
        }
        Box::pin(self.open_any(method, path, ask)).await
    }

    /// Asks one candidate after the other until one responds that has the model.
    async fn open_any(&self, method: Method, path: &'static str, ask: Option<Bytes>) -> Result<Upstream, Error> {
        let mut first = None;
        loop {
            let (at, member) = self.position();
            let counted = member.enter();
            let missed = match member.client.try_open(method.clone(), path, ask.clone()).await {
                Ok(mut upstream) => {
                    member.responded();
                    self.responded(member);
                    upstream.count(counted);
                    return Ok(upstream);
                }
                Err(missed) => *missed,
            };
            drop(counted);
            member.missed(&missed);
            let Missed { error, again, .. } = missed;
            if matches!(&error, Error::Refused(refused) if refused.refusal == Refusal::NoModel)
                && Box::pin(self.advance_past_outdated(at)).await
            {
                continue;
            }
            if !again || !self.advance(at) {
                if matches!(error, Error::Refused(_)) {
                    self.responded(member);
                }
                self.exhausted.store(again, Ordering::Relaxed);
                // The best remote's reason says most.
                return Err(first.unwrap_or(error));
            }
            first.get_or_insert(error);
        }
    }

    /// As [`Client::read`].
    ///
    /// # Errors
    /// As [`Client::read`].
    pub(crate) fn read<'a, T: Deserialize<'a>>(&self, path: &str, reply: &'a [u8]) -> Result<T, Error> {
        self.client().read(path, reply)
    }

    /// As [`Client::version`], of the remote that the request is sent to.
    ///
    /// # Errors
    /// As [`Client::version`].
    pub(crate) async fn version(&self) -> Result<Version, Error> {
        if !self.chosen {
            return self.client().version().await;
        }
        Box::pin(async {
            let mut first = None;
            loop {
                let (at, member) = self.position();
                match member.client.version().await {
                    Ok(version) => return Ok(version),
                    Err(error) if self.advance(at) => {
                        first.get_or_insert(error);
                    }
                    Err(error) => {
                        self.exhausted.store(true, Ordering::Relaxed);
                        return Err(first.unwrap_or(error));
                    }
                }
            }
        })
        .await
    }
}
