//! The remotes that one request may be sent to, in the order in which they are tried.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

use super::Member;
use crate::{
    error::Error,
    ollama::version::Version,
    openai::upstream_request::context::Grown,
    redact::Redactor,
    upstream::client::{Client, Upstream},
};

/// The remotes that one request may be sent to, the best first. What the request has been sent to stays its remote.
pub(crate) struct Candidates {
    /// Never empty.
    members: Vec<Arc<Member>>,
    /// Which of them it is sent to.
    at: AtomicUsize,
}

impl Candidates {
    /// `members` must not be empty.
    pub(super) fn new(members: Vec<Arc<Member>>) -> Self {
        Self { members, at: AtomicUsize::new(0) }
    }

    /// The remote that the request is sent to.
    pub(crate) fn current(&self) -> &Arc<Member> {
        &self.members[self.at.load(Ordering::Relaxed).min(self.members.len() - 1)]
    }

    /// The same remotes, where requests carry one more header in place of the caller's.
    pub(crate) fn with_header(&self, name: &HeaderName, value: &HeaderValue) -> Arc<Self> {
        let members = self.members.iter().map(|member| Arc::new(member.with_header(name, value))).collect();
        Arc::new(Self { members, at: AtomicUsize::new(self.at.load(Ordering::Relaxed)) })
    }

    /// The client of that remote.
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
        self.client().call(method, path, ask).await
    }

    /// As [`Client::open`].
    ///
    /// # Errors
    /// As [`Client::open`].
    pub(crate) async fn open(&self, method: Method, path: &'static str, ask: Option<Bytes>) -> Result<Upstream, Error> {
        self.client().open(method, path, ask).await
    }

    /// As [`Client::read`].
    ///
    /// # Errors
    /// As [`Client::read`].
    pub(crate) fn read<'a, T: Deserialize<'a>>(&self, path: &str, reply: &'a [u8]) -> Result<T, Error> {
        self.client().read(path, reply)
    }

    /// As [`Client::version`].
    ///
    /// # Errors
    /// As [`Client::version`].
    pub(crate) async fn version(&self) -> Result<Version, Error> {
        self.client().version().await
    }
}
