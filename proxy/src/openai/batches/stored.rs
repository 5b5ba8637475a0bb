//! Batches in the store, where every process finds them: the one that runs a batch holds a lease.

use serde::{Deserialize, Serialize};

use super::wire::{Batch, LineError, Status};
use crate::{
    app::App,
    error::Error,
    gate::Owner,
    store::{Kind, Record, Updated},
};

/// The record of a batch.
#[derive(Deserialize, Serialize)]
pub(super) struct Stored {
    pub(super) batch: Batch,
}

impl Stored {
    pub(super) fn read(record: &Record) -> Result<Self, Error> {
        serde_json::from_slice(&record.body).map_err(|error| Error::Internal {
            message: format!("the stored record '{}' cannot be read: {error}", record.id),
        })
    }

    pub(super) fn record(&self, owner: Owner) -> Result<Record, Error> {
        let body = serde_json::to_vec(self).map_err(|error| Error::Internal { message: error.to_string() })?;
        let id = self.batch.id.clone();
        Ok(Record { kind: Kind::Batch, owner, id, previous: None, names: Vec::new(), body: body.into() })
    }
}

/// Changes the batch of a record unless it has ended; returns it. None: there is no such record any more.
async fn change(app: &App, owner: Owner, id: &str, change: impl Fn(&mut Batch) + Sync) -> Result<Option<Batch>, Error> {
    let changed = |record: &Record| {
        let mut stored = Stored::read(record)?;
        if !stored.batch.status.is_final() {
            change(&mut stored.batch);
        }
        stored.record(owner)
    };
    match app.store.update(Kind::Batch, owner, id, changed).await? {
        Updated::Stored(record) => Ok(Some(Stored::read(&record)?.batch)),
        Updated::Missing | Updated::TooBig => Ok(None),
    }
}

/// The batch of a record. One that has not ended and that no process runs any more has failed.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(super) async fn read(app: &App, record: &Record) -> Result<Batch, Error> {
    let Record { owner, id, .. } = record;
    if let Some(run) = app.batches.get(*owner, id) {
        return Ok(run.now());
    }
    let batch = Stored::read(record)?.batch;
    if batch.status.is_final() || app.store.is_held(Kind::Batch, id).await? {
        return Ok(batch);
    }
    // It may have ended since the record was read: then nothing changes.
    let now = app.now();
    let lost = |batch: &mut Batch| {
        batch.fail(vec![LineError::of_batch("lost", "The proxy that ran this batch has ended.")], now);
    };
    Ok(change(app, *owner, id, lost).await?.unwrap_or(batch))
}

/// Asks the process that runs a batch to cancel it.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(super) async fn cancel_elsewhere(app: &App, record: &Record) -> Result<Batch, Error> {
    let Record { owner, id, .. } = record;
    if app.store.ask_to_end(Kind::Batch, id).await? {
        let now = app.now();
        let cancel = |batch: &mut Batch| {
            if batch.status != Status::Cancelling {
                batch.set(Status::Cancelling, now);
            }
        };
        if let Some(batch) = change(app, *owner, id, cancel).await? {
            return Ok(batch);
        }
    }
    read(app, record).await
}
