//! Files in the store: what describes one, and its content, are two records, so that a list loads no content.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::wire::FileObject;
use crate::{
    app::App,
    config::Config,
    error::Error,
    gate::Owner,
    store::{Kind, Page, Record},
};

/// How many records are looked at in one step of a list.
const STEP: usize = 1000;

/// The error for a file that there is not.
pub(crate) fn missing(id: &str, param: &str) -> Error {
    Error::NotFound {
        message: format!(
            "No such File object: '{id}'. It was never uploaded with this key, was deleted, or has expired."
        ),
        param: Some(param.to_owned()),
        code: "file_not_found",
    }
}

fn read(record: &Record) -> Result<FileObject, Error> {
    serde_json::from_slice(&record.body).map_err(|error| Error::Internal {
        message: format!("the stored record '{}' cannot be read: {error}", record.id),
    })
}

/// Whether files are stored at all.
pub(crate) fn are_stored(config: &Config) -> bool {
    let files = &config.files;
    [files.max_bytes, files.max_count, files.max_bytes_per_key, files.max_count_per_key].iter().all(|most| *most > 0)
}

/// The room that files take which are on their way: how many of each owner, and how many bytes.
#[derive(Debug, Default)]
pub(crate) struct Reserved(Mutex<HashMap<Owner, (usize, usize)>>);

/// Room for one file of `owner`. Dropping it gives the room back: the file is stored, or never will be.
#[derive(Debug)]
pub(crate) struct Room {
    reserved: Arc<Reserved>,
    owner: Owner,
    bytes: usize,
}

impl Reserved {
    fn of(&self, owner: Owner) -> (usize, usize) {
        self.all().get(&owner).copied().unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Owner, (usize, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a file of `bytes`, whether there is any or not.
    fn take(self: &Arc<Self>, owner: Owner, bytes: usize) -> Room {
        let mut all = self.all();
        let (count, sum) = all.entry(owner).or_default();
        (*count, *sum) = (*count + 1, sum.saturating_add(bytes));
        Room { reserved: self.clone(), owner, bytes }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut all = self.reserved.all();
        let Some((count, sum)) = all.get_mut(&self.owner) else { return };
        (*count, *sum) = (*count - 1, sum.saturating_sub(self.bytes));
        if *count == 0 {
            all.remove(&self.owner);
        }
    }
}

/// Reserves room for a file of `bytes`, which is checked before the file is read: uploads at the same time cannot
/// exceed the bounds together. Several proxies on one store do not see each other's reservations.
///
/// # Errors
/// Fails if the owner has too many files already, or too large ones.
pub(crate) async fn reserve(app: &App, owner: Owner, bytes: usize) -> Result<Room, Error> {
    let files = &app.config.files;
    if !are_stored(&app.config) {
        return Err(Error::NotImplemented {
            message: "This proxy stores no files (files.max_bytes is 0). Send the content in the request itself, as \
                      base64 in 'file_data' or a data URL in 'image_url'."
                .to_owned(),
        });
    }
    let most = files.max_bytes_per_key.min(files.max_bytes);
    if bytes > most {
        return Err(Error::Invalid {
            message: format!(
                "The file is too large: {bytes} bytes, but at most {most} are stored (files.max_bytes_per_key)."
            ),
            param: Some("file".to_owned()),
            code: Some("file_too_large"),
        });
    }
    let room = app.uploads.take(owner, bytes);
    let own = all(app, owner).await?;
    let (count, reserved) = app.uploads.of(owner);
    let (count, taken) = (own.len() + count - 1, own.iter().map(|file| file.bytes).sum::<usize>() + reserved - bytes);
    if count >= files.max_count_per_key {
        return Err(full(&format!("There are {count} files already (files.max_count_per_key).")));
    }
    if taken.saturating_add(bytes) > most {
        return Err(full(&format!(
            "There is no room for {bytes} bytes more: {taken} of {most} are taken (files.max_bytes_per_key)."
        )));
    }
    Ok(room)
}

fn full(message: &str) -> Error {
    Error::Invalid {
        message: format!("{message} Delete files that you no longer need (DELETE /v1/files/{{file_id}})."),
        param: Some("file".to_owned()),
        code: Some("file_storage_full"),
    }
}

/// Stores a file in the room that was reserved for it.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(crate) async fn put(app: &App, room: Room, file: &FileObject, content: Bytes) -> Result<(), Error> {
    let owner = room.owner;
    let body = serde_json::to_vec(file).map_err(|error| Error::Internal { message: error.to_string() })?;
    let record = |kind, body| Record { kind, owner, id: file.id.clone(), previous: None, names: Vec::new(), body };
    // The content first: a file that is listed can be read.
    if !app.store.put(record(Kind::FileContent, content)).await? {
        return Err(full("It is larger than what is stored (files.max_bytes)."));
    }
    app.store.put(record(Kind::File, body.into())).await?;
    Ok(())
}

/// The file of that id and its content, if `owner` has it. One that has expired, or whose content was evicted, is
/// deleted.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(crate) async fn get(app: &App, owner: Owner, id: &str) -> Result<Option<(FileObject, Bytes)>, Error> {
    let Some(record) = app.store.get(Kind::File, owner, id).await? else { return Ok(None) };
    let file = read(&record)?;
    let content = app.store.get(Kind::FileContent, owner, id).await?.filter(|_| !file.is_over(app.now()));
    match content {
        Some(content) => Ok(Some((file, content.body.clone()))),
        None => {
            remove(app, owner, id).await?;
            Ok(None)
        }
    }
}

/// All files of `owner`, the oldest first. Those that have expired, or whose content was evicted, are deleted.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(crate) async fn all(app: &App, owner: Owner) -> Result<Vec<FileObject>, Error> {
    let (mut files, mut after) = (Vec::new(), None);
    // Another request may delete the one that the next page begins after.
    while let Some(page) =
        app.store.list(Kind::File, owner, &Page { after: after.take(), limit: STEP, ascending: true }).await?
    {
        after = page.records.last().map(|record| record.id.clone()).filter(|_| page.has_more);
        let ids: Vec<String> = page.records.iter().map(|record| record.id.clone()).collect();
        let present = app.store.present(Kind::FileContent, owner, &ids).await?;
        for (record, present) in page.records.iter().zip(present) {
            let file = read(record)?;
            if present && !file.is_over(app.now()) {
                files.push(file);
            } else if Some(&record.id) != after.as_ref() {
                remove(app, owner, &record.id).await?;
            }
        }
        if after.is_none() {
            break;
        }
    }
    Ok(files)
}

/// Deletes a file; whether `owner` had it.
///
/// # Errors
/// Fails if the store cannot be reached.
pub(crate) async fn remove(app: &App, owner: Owner, id: &str) -> Result<bool, Error> {
    let had = app.store.remove(Kind::File, owner, id).await?;
    app.store.remove(Kind::FileContent, owner, id).await?;
    Ok(had)
}
