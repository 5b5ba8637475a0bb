//! Responses in the background that another process runs, on a store that both share: found by the state that it stores
//! and the lease that it holds, canceled by asking it, and failed once it holds no lease and has stored no response.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::{Instant, sleep, timeout};

use super::{background::LOOK, stored::Stored, stream::Answer};
use crate::{
    app::App,
    error::Error,
    gate::Owner,
    openai::response::sse::{self, Frames},
    store::{Kind, Record},
};

/// How long another process may take to cancel a response.
const PATIENCE: Duration = Duration::from_secs(10);

/// A response, where it is.
pub(super) enum Found {
    /// It has ended.
    Stored(Arc<Record>),
    /// Another process runs it. The record has its state at the last change of its status.
    Elsewhere(Arc<Record>),
}

impl Found {
    pub(super) fn into_record(self) -> Arc<Record> {
        match self {
            Self::Stored(record) | Self::Elsewhere(record) => record,
        }
    }
}

/// Finds a response that this process does not run.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(super) async fn find(app: &App, owner: Owner, id: &str) -> Result<Option<Found>, Error> {
    let stored = async || app.store.get(Kind::Response, owner, id).await;
    if let Some(record) = stored().await? {
        return Ok(Some(Found::Stored(record)));
    }
    if app.store.lease().is_none() {
        return Ok(None);
    }
    let Some(record) = app.store.get(Kind::Background, owner, id).await? else {
        // It may have ended between the two questions.
        return Ok(stored().await?.map(Found::Stored));
    };
    if app.store.is_held(Kind::Background, id).await? {
        return Ok(Some(Found::Elsewhere(record)));
    }
    if let Some(record) = stored().await? {
        return Ok(Some(Found::Stored(record)));
    }
    let failed = Arc::new(failed(&record)?);
    tracing::warn!(target: "farllama", "the process that ran response {id} in the background is gone: the response has failed");
    app.store.put((*failed).clone()).await?;
    app.store.remove(Kind::Background, owner, id).await?;
    Ok(Some(Found::Stored(failed)))
}

/// The record of a response whose process is gone.
fn failed(record: &Record) -> Result<Record, Error> {
    let stored = Stored::read(record)?;
    let mut answer = Answer::restore(&stored)?;
    let message = "the process that ran this response is gone; please send the request again".to_owned();
    answer.abandon(&Error::Internal { message });
    super::stored::record(record.owner, &answer, stored.input)
}

/// Has another process cancel a response, and waits until it has ended.
///
/// # Errors
/// Fails if that process does not do it, or if the store cannot be reached.
pub(super) async fn cancel(app: &App, owner: Owner, id: &str) -> Result<Option<Arc<Record>>, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match find(app, owner, id).await? {
            None => return Ok(None),
            Some(Found::Stored(record)) => return Ok(Some(record)),
            Some(Found::Elsewhere(_)) if Instant::now() < until => {
                app.store.ask_to_end(Kind::Background, id).await?;
                sleep(LOOK / 4).await;
            }
            Some(Found::Elsewhere(_)) => {
                let message = format!("'{id}' runs on another proxy, which has not canceled it yet; please try again");
                return Err(Error::Busy { message });
            }
        }
    }
}

/// The events after the one with the number `after` of a response that another process runs: all of them once it has
/// ended, and heartbeats until then.
pub(super) fn stream(app: &App, owner: Owner, id: String, after: Option<u64>) -> Response {
    let heartbeat = if app.config.heartbeat.every.is_zero() { Duration::MAX } else { app.config.heartbeat.every };
    let waiting = (app.clone(), id, Instant::now());
    let events = stream::unfold(Some(waiting), move |waiting| async move {
        let (app, id, since) = waiting?;
        loop {
            sleep(LOOK).await;
            let looked = timeout(heartbeat.max(LOOK), find(&app, owner, &id)).await;
            let events = match looked {
                Ok(Ok(Some(Found::Stored(record)))) => {
                    Stored::read(&record).and_then(|stored| Answer::restore(&stored))
                }
                // A store that cannot be reached may come back.
                Ok(Ok(Some(Found::Elsewhere(_))) | Err(_)) | Err(_) if since.elapsed() < heartbeat => continue,
                Ok(Ok(Some(Found::Elsewhere(_))) | Err(_)) | Err(_) => {
                    let mut frames = Frames::default();
                    frames.heartbeat();
                    return Some((Ok::<Bytes, Error>(frames.take()), Some((app, id, Instant::now()))));
                }
                Ok(Ok(None)) => Err(Error::unfinished()),
            };
            return Some((events.map(|answer| answer.replay(after).take()), None));
        }
    });
    sse::event_stream(Body::from_stream(events))
}
