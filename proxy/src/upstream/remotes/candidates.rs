//! The remotes that one request may be sent to, in the order in which they are tried.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::{Counted, Member, union::Union};
use crate::{
    error::Error,
    ollama::version::Version,
    openai::upstream_request::context::Grown,
    redact::Redactor,
    upstream::client::{self, Client, Missed, Upstream},
};

/// The remotes that one request may be sent to, the best first. What the request was sent to stays its remote, unless that fails before the
/// first byte of its response: then the next one is tried.
pub(crate) struct Candidates {
    /// Never empty.
    members: Vec<Arc<Member>>,
    /// Which of them it is sent to.
    at: AtomicUsize,
    /// Every remote, if lists of models are those of all. None: the remote is the only one, or was named.
    all: Option<Arc<[Arc<Member>]>>,
    /// Whether there are several remotes, of which this is a choice: then requests are counted, and failures noted.
    chosen: bool,
    /// Whether all of them failed before the first byte of a response.
    exhausted: AtomicBool,
}

impl Candidates {
    /// The only remote.
    pub(super) fn only(member: Arc<Member>) -> Self {
        Self {
            members: vec![member],
            at: AtomicUsize::new(0),
            all: None,
            chosen: false,
            exhausted: AtomicBool::new(false),
        }
    }

    /// Some of several. `members` must not be empty.
    pub(super) fn of(members: Vec<Arc<Member>>, all: Option<Arc<[Arc<Member>]>>) -> Self {
        Self { members, at: AtomicUsize::new(0), all, chosen: true, exhausted: AtomicBool::new(false) }
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
        let members = self.members.iter().map(|member| Arc::new(member.with_header(name, value))).collect();
        let at = AtomicUsize::new(self.at.load(Ordering::Relaxed));
        Arc::new(Self { members, at, all: self.all.clone(), chosen: self.chosen, exhausted: AtomicBool::new(false) })
    }

    /// The same, and its place among the candidates.
    pub(crate) fn position(&self) -> (usize, &Arc<Member>) {
        let at = self.at.load(Ordering::Relaxed);
        (at, &self.members[at])
    }

    /// Goes on to the remote after the one at `from`, which failed. Returns whether there is one. Of several requests that failed there, one
    /// goes on for all.
    pub(crate) fn advance(&self, from: usize) -> bool {
        if from + 1 >= self.members.len() {
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

    /// The remote that the request is sent to, as the only one.
    pub(crate) fn pinned(&self) -> Arc<Self> {
        Arc::new(Self::of(vec![self.current().clone()], self.all.clone()))
    }

    /// Whether there is another candidate.
    pub(crate) fn has_next(&self) -> bool {
        self.position().0 + 1 < self.members.len()
    }

    /// Whether all candidates failed before the first byte of a response.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Notes that all candidates failed before the first byte of a response.
    pub(crate) fn exhaust(&self) {
        self.exhausted.store(true, Ordering::Relaxed);
    }

    /// The candidates in their order, in groups that speak the same API: Ollamas that follow each other together, each OpenAI server alone.
    pub(crate) fn by_kind(self: &Arc<Self>) -> Vec<Arc<Self>> {
        if let [_] = &*self.members {
            return vec![self.clone()];
        }
        let openai = |member: &Arc<Member>| member.client.bridge().is_on();
        let groups = self.members.chunk_by(|a, b| !openai(a) && !openai(b));
        groups.map(|group| Arc::new(Self::of(group.to_vec(), self.all.clone()))).collect()
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

    /// Asks one candidate after the other until one responds.
    async fn open_any(&self, method: Method, path: &'static str, ask: Option<Bytes>) -> Result<Upstream, Error> {
        let mut first = None;
        loop {
            let (at, member) = self.position();
            let counted = member.enter();
            let missed = match member.client.try_open(method.clone(), path, ask.clone()).await {
                Ok(mut upstream) => {
                    member.responded();
                    upstream.count(counted);
                    return Ok(upstream);
                }
                Err(missed) => *missed,
            };
            drop(counted);
            member.missed(&missed);
            let Missed { error, again, .. } = missed;
            if !again || !self.advance(at) {
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
