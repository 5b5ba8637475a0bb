//! The lists of models of all remotes as one.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Method, Response, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Member, state::Listed};
use crate::{error::Error, receipt::Receipt};

/// A list under the name `models`, as `GET /api/tags` and `GET /api/ps` have it.
#[derive(Deserialize)]
struct List {
    models: Vec<Box<RawValue>>,
}

/// The models of all remotes, each once.
pub(crate) struct Union {
    /// Each model as the first remote that has it describes it.
    models: Vec<(Listed, Box<RawValue>)>,
    /// The names of the remotes that have it.
    places: Vec<Vec<String>>,
}

impl Union {
    /// Asks every remote that is in use, or all of them if none is.
    ///
    /// # Errors
    /// Fails if no remote responds, as the first one does.
    pub(crate) async fn of(all: &Arc<[Arc<Member>]>, path: &'static str) -> Result<Self, Error> {
        let up = |member: &&Arc<Member>| member.is_up();
        let mut asked: Vec<_> = all.iter().filter(up).collect();
        if asked.is_empty() {
            asked = all.iter().collect();
        }
        // The first one to have a model describes it.
        asked.sort_by_key(|member| member.priority);
        let lists = join_all(asked.iter().map(|member| list(member, path))).await;
        let mut union = Self { models: Vec::new(), places: Vec::new() };
        let (mut failed, mut any) = (None, false);
        for (member, list) in asked.iter().zip(lists) {
            match list {
                Ok(models) => {
                    any = true;
                    union.add(&member.name, models);
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        match failed {
            Some(error) if !any => Err(error),
            _ => Ok(union),
        }
    }

    fn add(&mut self, remote: &str, models: Vec<(Listed, Box<RawValue>)>) {
        for (listed, model) in models {
            match self.models.iter().position(|(known, _)| known.full == listed.full) {
                Some(at) => self.places[at].push(remote.to_owned()),
                None => {
                    self.models.push((listed, model));
                    self.places.push(vec![remote.to_owned()]);
                }
            }
        }
    }

    /// The list, as a remote sends it.
    pub(crate) fn body(&self) -> Bytes {
        let models: Vec<&str> = self.models.iter().map(|(_, model)| model.get()).collect();
        format!("{{\"models\":[{}]}}", models.join(",")).into()
    }

    /// A response to `method`, with the remotes that have each model that the caller may see.
    pub(crate) fn response(&self, method: &Method, may_see: impl Fn(&str) -> bool) -> Response<Body> {
        let mut receipt = Receipt::default();
        for ((listed, _), remotes) in self.models.iter().zip(&self.places) {
            if may_see(&listed.name) {
                receipt.note(&listed.name, remotes.join("+"));
            }
        }
        let body = self.body();
        let length = body.len();
        let body = if *method == Method::HEAD { Body::empty() } else { Body::from(body) };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(header::CONTENT_LENGTH, length.into());
        let receipt = receipt.take_unsent().and_then(|receipt| HeaderValue::try_from(receipt).ok());
        headers.extend(receipt.map(|receipt| (crate::app::RECEIPT, receipt)));
        response
    }
}

/// The remotes that have each model, as their lists were last seen: `gpu+big`.
pub(super) fn places(all: &[Arc<Member>]) -> Vec<(String, String)> {
    let mut places: Vec<(Listed, String)> = Vec::new();
    for member in all {
        for listed in member.models() {
            match places.iter_mut().find(|(known, _)| known.full == listed.full) {
                Some((_, remotes)) => {
                    remotes.push('+');
                    remotes.push_str(&member.name);
                }
                None => places.push((listed, member.name.clone())),
            }
        }
    }
    places.into_iter().map(|(listed, remotes)| (listed.own_name().to_owned(), remotes)).collect()
}

/// The models of one remote, without those that it is not used for.
async fn list(member: &Arc<Member>, path: &'static str) -> Result<Vec<(Listed, Box<RawValue>)>, Error> {
    // Where one remote is asleep, the others have the list.
    let client = member.client.without_waking();
    let reply = match tokio::time::timeout(member.health.timeout, client.call(Method::GET, path, None)).await {
        Ok(reply) => reply.inspect_err(|error| member.failed(error))?,
        Err(_) => {
            let error = member.silent(path);
            member.failed(&error);
            return Err(error);
        }
    };
    let list: List = member.client.read(path, &reply)?;
    member.responded();
    let models = list.models.into_iter().filter_map(|model| {
        let listed: Listed = serde_json::from_str(model.get()).ok()?;
        Some((listed, model))
    });
    let models: Vec<_> = models.collect();
    let names = models.iter().map(|(listed, _)| listed.clone()).collect();
    match path {
        "/api/tags" => member.state.learn_installed(Some(names)),
        _ => member.state.learn_loaded(names),
    }
    Ok(models.into_iter().filter(|(listed, _)| member.is_for(&listed.full)).collect())
}
