//! Records on the server: what `memory.rs` does, by `records.lua`.

use std::sync::Arc;

use bytes::Bytes;

use super::{Redis, Unreachable, milliseconds};
use crate::{
    error::Error,
    gate::Owner,
    store::{Bounds, Kind, Listed, Page, Record, Updated},
};

/// A record as the script returns it: id, previous, names, body, version.
type Row = (String, String, Vec<u8>, Vec<u8>, String);

/// How often an update is tried again because another came between.
const ATTEMPTS: usize = 32;

fn record(kind: Kind, owner: Owner, (id, previous, names, body, _): Row) -> Record {
    Record {
        kind,
        owner,
        id,
        previous: Some(previous).filter(|previous| !previous.is_empty()),
        names: serde_json::from_slice(&names).unwrap_or_default(),
        body: Bytes::from(body),
    }
}

/// A version that no other change has.
fn version() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// One operation of the script.
struct Call<'a> {
    redis: &'a Redis,
    kind: Kind,
    owner: Owner,
    bounds: &'a Bounds,
}

impl Call<'_> {
    async fn run<T: redis::FromRedisValue>(&self, what: &str, args: &[&[u8]]) -> Result<T, Unreachable> {
        let Self { redis, kind, owner, bounds } = self;
        redis.may_try()?;
        let ttl = if bounds.ttl.is_zero() { 0 } else { milliseconds(bounds.ttl) };
        let call = |_| async move {
            let mut invocation = redis.records.prepare_invoke();
            invocation.key(redis.key(format_args!("{}:", kind.name())));
            invocation.arg(what).arg(owner.to_string()).arg(bounds.count).arg(bounds.bytes).arg(ttl);
            for arg in args {
                invocation.arg(*arg);
            }
            invocation.invoke_async(&mut redis.connection()).await
        };
        redis.call(call, true).await
    }

    fn record(&self, row: Row) -> Arc<Record> {
        Arc::new(record(self.kind, self.owner, row))
    }

    async fn get(&self, id: &str) -> Result<Option<Row>, Unreachable> {
        let found: Vec<Row> = self.run("get", &[id.as_bytes()]).await?;
        Ok(found.into_iter().next())
    }
}

impl Redis {
    fn records<'a>(&'a self, kind: Kind, owner: Owner, bounds: &'a Bounds) -> Call<'a> {
        Call { redis: self, kind, owner, bounds }
    }

    pub(in crate::store) async fn put(&self, record: &Record, bounds: &Bounds) -> Result<bool, Unreachable> {
        let size = record.size();
        if size > bounds.bytes || bounds.count == 0 {
            return Ok(false);
        }
        let names = serde_json::to_vec(&record.names).unwrap_or_default();
        let previous = record.previous.as_deref().unwrap_or_default();
        let (size, version) = (size.to_string(), version());
        let args =
            [record.id.as_bytes(), previous.as_bytes(), &names, &record.body, size.as_bytes(), version.as_bytes()];
        let () = self.records(record.kind, record.owner, bounds).run("put", &args).await?;
        Ok(true)
    }

    pub(in crate::store) async fn get(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
        bounds: &Bounds,
    ) -> Result<Option<Arc<Record>>, Unreachable> {
        let call = self.records(kind, owner, bounds);
        Ok(call.get(id).await?.map(|row| call.record(row)))
    }

    pub(in crate::store) async fn chain(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
        bounds: &Bounds,
    ) -> Result<Result<Vec<Arc<Record>>, String>, Unreachable> {
        // No record has an empty id, by which the script says that none is missing.
        if id.is_empty() {
            return Ok(Err(String::new()));
        }
        let call = self.records(kind, owner, bounds);
        let (missing, rows): (String, Vec<Row>) = call.run("chain", &[id.as_bytes()]).await?;
        if !missing.is_empty() {
            return Ok(Err(missing));
        }
        Ok(Ok(rows.into_iter().rev().map(|row| call.record(row)).collect()))
    }

    pub(in crate::store) async fn find(
        &self,
        kind: Kind,
        owner: Owner,
        names: &[String],
        bounds: &Bounds,
    ) -> Result<Vec<Option<Arc<Record>>>, Unreachable> {
        let call = self.records(kind, owner, bounds);
        // A few at a time: each may be a large record, and many names are of the same one.
        let mut found = Vec::new();
        for some in names.chunks(64) {
            let args: Vec<&[u8]> = some.iter().map(String::as_bytes).collect();
            let rows: Vec<Option<Row>> = call.run("find", &args).await?;
            found.extend(rows.into_iter().map(|row| row.map(|row| call.record(row))));
        }
        Ok(found)
    }

    pub(in crate::store) async fn present(
        &self,
        kind: Kind,
        owner: Owner,
        ids: &[String],
        bounds: &Bounds,
    ) -> Result<Vec<bool>, Unreachable> {
        let args: Vec<&[u8]> = ids.iter().map(String::as_bytes).collect();
        let present: Vec<u8> = self.records(kind, owner, bounds).run("present", &args).await?;
        Ok(present.into_iter().map(|count| count > 0).collect())
    }

    pub(in crate::store) async fn list(
        &self,
        kind: Kind,
        owner: Owner,
        page: &Page,
        bounds: &Bounds,
    ) -> Result<Option<Listed>, Unreachable> {
        if page.after.as_deref() == Some("") {
            return Ok(None);
        }
        let call = self.records(kind, owner, bounds);
        let limit = page.limit.saturating_add(1).to_string();
        let after = page.after.as_deref().unwrap_or_default();
        let ascending: &[u8] = if page.ascending { b"1" } else { b"0" };
        let found: Vec<Vec<Row>> = call.run("list", &[after.as_bytes(), limit.as_bytes(), ascending]).await?;
        Ok(found.into_iter().next().map(|rows| {
            let has_more = rows.len() > page.limit;
            Listed { records: rows.into_iter().take(page.limit).map(|row| call.record(row)).collect(), has_more }
        }))
    }

    pub(in crate::store) async fn update(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
        bounds: &Bounds,
        mut change: impl FnMut(&Record) -> Result<Record, Error>,
    ) -> Result<Updated, Error> {
        let call = self.records(kind, owner, bounds);
        for _ in 0..ATTEMPTS {
            let Some(row) = call.get(id).await? else { return Ok(Updated::Missing) };
            let old = row.4.clone();
            let new = Record { kind, owner, id: id.to_owned(), ..change(&record(kind, owner, row))? };
            let size = new.size();
            if size > bounds.bytes || bounds.count == 0 {
                return Ok(Updated::TooBig);
            }
            let names = serde_json::to_vec(&new.names).unwrap_or_default();
            let previous = new.previous.as_deref().unwrap_or_default();
            let (size, version) = (size.to_string(), version());
            let args = [
                id.as_bytes(),
                previous.as_bytes(),
                &names,
                &new.body,
                size.as_bytes(),
                version.as_bytes(),
                old.as_bytes(),
            ];
            match call.run::<i64>("swap", &args).await? {
                -1 => return Ok(Updated::Missing),
                0 => {}
                _ => return Ok(Updated::Stored(Arc::new(new))),
            }
        }
        Err(Error::Busy { message: format!("'{id}' is being changed by many requests at the same time") })
    }

    pub(in crate::store) async fn remove(
        &self,
        kind: Kind,
        owner: Owner,
        id: &str,
        bounds: &Bounds,
    ) -> Result<bool, Unreachable> {
        let removed: i64 = self.records(kind, owner, bounds).run("remove", &[id.as_bytes()]).await?;
        Ok(removed == 1)
    }
}

#[cfg(test)]
#[path = "../../../tests/support/redis.rs"]
mod server;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{server::RedisServer, *};
    use crate::config::{Secret, Store};

    const KIND: Kind = Kind::Response;

    const BOUNDS: Bounds = Bounds { count: 1000, bytes: 64 << 20, ttl: Duration::from_secs(24 * 60 * 60) };

    fn sized(owner: Owner, id: &str, size: usize) -> Record {
        let names = vec![format!("item_{id}"), "all".to_owned()];
        Record { kind: KIND, owner, id: id.to_owned(), previous: None, names, body: Bytes::from(vec![b'\xff'; size]) }
    }

    fn redis(server: &RedisServer, prefix: &str) -> Redis {
        let settings = Store {
            url: Secret(server.url()),
            prefix: prefix.to_owned(),
            timeout: Duration::from_secs(20),
            ..Store::default()
        };
        Redis::new(&settings).unwrap()
    }

    #[tokio::test]
    async fn records_on_the_server_are_listed_found_changed_and_bounded_as_in_memory() {
        let Some(server) = RedisServer::start() else { return };
        let (ann, bob) = (Owner::of_key(b"ann"), Owner::of_key(b"bob"));
        let store = redis(&server, "a:");
        for id in ["a", "b", "c", "d", "e"] {
            assert!(store.put(&sized(ann, id, 1), &BOUNDS).await.unwrap());
        }
        store.get(KIND, ann, "b", &BOUNDS).await.unwrap().unwrap();
        store.put(&sized(ann, "a", 9), &BOUNDS).await.unwrap();
        assert!(store.remove(KIND, ann, "d", &BOUNDS).await.unwrap());
        assert!(!store.remove(KIND, bob, "a", &BOUNDS).await.unwrap());
        for (after, limit, ascending, expected) in [
            (None, 2, true, Some(("ab", true))),
            (Some("b"), 2, true, Some(("ce", false))),
            (None, 3, false, Some(("ecb", true))),
            (Some("b"), 3, false, Some(("a", false))),
            (Some("e"), 3, true, Some(("", false))),
            (Some("d"), 3, true, None),
        ] {
            let page = Page { after: after.map(ToOwned::to_owned), limit, ascending };
            let listed = store.list(KIND, ann, &page, &BOUNDS).await.unwrap();
            let ids = listed
                .map(|listed| (listed.records.iter().map(|record| &*record.id).collect::<String>(), listed.has_more));
            assert_eq!(ids, expected.map(|(ids, more)| (ids.to_owned(), more)), "{after:?} {limit} {ascending}");
        }
        assert_eq!(store.chain(KIND, ann, "", &BOUNDS).await.unwrap().unwrap_err(), "");
        assert_eq!(*store.get(KIND, ann, "a", &BOUNDS).await.unwrap().unwrap(), sized(ann, "a", 9));
        let names = ["item_c", "gone", "all"].map(ToOwned::to_owned);
        let found = store.find(KIND, ann, &names, &BOUNDS).await.unwrap();
        let ids: Vec<_> = found.iter().map(|found| found.as_ref().map(|record| &*record.id)).collect();
        assert_eq!(ids, [Some("c"), None, Some("e")]);
        assert!(store.find(KIND, bob, &names, &BOUNDS).await.unwrap().iter().all(Option::is_none));
        // Changes that come at the same time all count.
        let append = |record: &Record| {
            Ok(Record {
                body: [&record.body[..], b"+"].concat().into(),
                names: vec!["new".to_owned()],
                ..record.clone()
            })
        };
        let changes = (0..8).map(|_| store.update(KIND, ann, "b", &BOUNDS, append));
        for changed in futures_util::future::join_all(changes).await {
            assert!(matches!(changed.unwrap(), Updated::Stored(_)));
        }
        let found = store.find(KIND, ann, &["new".to_owned(), "item_b".to_owned()], &BOUNDS).await.unwrap();
        assert_eq!((found[0].as_ref().unwrap().body.len(), found[1].is_none()), (9, true));
        assert_eq!(store.update(KIND, bob, "b", &BOUNDS, append).await.unwrap(), Updated::Missing);
    }

    #[tokio::test]
    async fn one_owner_never_evicts_the_records_of_another_on_the_server() {
        let Some(server) = RedisServer::start() else { return };
        let (ann, bob) = (Owner::of_key(b"ann"), Owner::of_key(b"bob"));
        for (nth, bounds) in
            [Bounds { count: 5, ..BOUNDS }, Bounds { bytes: 5 * sized(bob, "b10", 2000).size(), ..BOUNDS }]
                .into_iter()
                .enumerate()
        {
            let store = redis(&server, &format!("{nth}:"));
            for id in ["a1", "a2"] {
                store.put(&sized(ann, id, 2000), &bounds).await.unwrap();
            }
            for n in 0..100 {
                assert!(store.put(&sized(bob, &format!("b{n}"), 2000), &bounds).await.unwrap());
            }
            let mut there = Vec::new();
            for (owner, id) in [(ann, "a1"), (ann, "a2"), (bob, "b99"), (bob, "b90")] {
                there.push(store.get(KIND, owner, id, &bounds).await.unwrap().is_some());
            }
            assert_eq!(there, [true, true, true, false]);
            assert!(!store.put(&sized(ann, "huge", bounds.bytes + 1), &bounds).await.unwrap());
        }
    }

    #[tokio::test]
    async fn a_record_on_the_server_that_is_not_used_for_too_long_is_gone() {
        let Some(server) = RedisServer::start() else { return };
        let (store, owner) = (redis(&server, "a:"), Owner::default());
        let bounds = Bounds { ttl: Duration::from_secs(2), ..BOUNDS };
        store.put(&sized(owner, "a", 1), &bounds).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(store.get(KIND, owner, "a", &bounds).await.unwrap().is_some());
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(store.get(KIND, owner, "a", &bounds).await.unwrap().is_some(), "each use counts anew");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert!(store.get(KIND, owner, "a", &bounds).await.unwrap().is_none());
    }
}
