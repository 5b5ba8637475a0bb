//! A response as it is stored: the object that the client saw, what it was asked, and what replaying its events takes
//! besides. Pure.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    error::Error,
    gate::Owner,
    json_writer,
    openai::{
        conversations,
        responses::{include::Include, stream::Answer, wire::Item},
    },
    store::{Kind, Record},
};

/// The body of a record.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    /// The hex digits that its ids are made of.
    pub(super) random: String,
    /// Whether reasoning is repeated in `encrypted_content`.
    #[serde(default)]
    pub(super) sealed: bool,
    pub(super) response: Box<RawValue>,
    /// What was asked, without what went before.
    pub(super) input: Vec<StoredItem>,
}

/// One item, with the id that is in it.
#[derive(Clone, Debug)]
pub(crate) struct StoredItem {
    pub(crate) id: String,
    pub(crate) json: Box<RawValue>,
}

impl StoredItem {
    /// An item that has its id.
    ///
    /// # Errors
    /// Fails if it has none.
    pub(crate) fn of(json: Box<RawValue>) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
        }
        let id = serde_json::from_str::<Named<'_>>(json.get())?.id.into_owned();
        Ok(Self { id, json })
    }
}

impl Serialize for StoredItem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::of(Box::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The record of a response.
///
/// # Errors
/// None that a response can cause.
pub(crate) fn record(owner: Owner, answer: &Answer, input: Vec<StoredItem>) -> Result<Record, Error> {
    record_of(owner, answer, to_raw_value(&answer.response()).map_err(internal)?, input)
}

/// A record of the items of a response alone, for a connection that remembers them: the object cannot be fetched there.
///
/// # Errors
/// As [`record`].
pub(super) fn items(owner: Owner, answer: &Answer, input: Vec<StoredItem>) -> Result<Record, Error> {
    #[derive(Serialize)]
    struct Object<'a> {
        output: &'a [Item],
    }
    let object = Object { output: answer.output() };
    record_of(owner, answer, to_raw_value(&object).map_err(internal)?, input)
}

fn record_of(owner: Owner, answer: &Answer, response: Box<RawValue>, input: Vec<StoredItem>) -> Result<Record, Error> {
    /// [`Stored`], as it is written.
    #[derive(Serialize)]
    struct Written<'a> {
        random: &'a str,
        sealed: bool,
        response: Box<RawValue>,
        input: Vec<Box<RawValue>>,
    }
    let (mut names, input): (Vec<_>, Vec<_>) = input.into_iter().map(|item| (item.id, item.json)).unzip();
    names.extend(answer.output().iter().map(|item| item.id.clone()));
    let size = input.iter().map(|item| item.get().len() + 1).sum::<usize>() + response.get().len() + 256;
    let body = Written { random: answer.random(), sealed: answer.facts().sealed, response, input };
    let body = json_writer::to_vec(&body, size).map_err(|error| Error::Internal { message: error.to_string() })?;
    Ok(Record {
        kind: Kind::Response,
        owner,
        id: answer.id().to_owned(),
        previous: answer.facts().echo.previous_response_id.clone(),
        names,
        // Of its own size: it may stay for long, on a connection that is idle.
        body: body.into_boxed_slice().into(),
    })
}

/// What was answered, item by item.
///
/// # Errors
/// None that a response can cause.
pub(super) fn outputs(answer: &Answer) -> Result<Vec<StoredItem>, Error> {
    let item = |item| StoredItem::of(to_raw_value(item).map_err(internal)?).map_err(internal);
    answer.output().iter().map(item).collect()
}

/// The items of a response or a conversation, in order.
///
/// # Errors
/// As [`Stored::read`].
pub(crate) fn items_of(record: &Record) -> Result<Vec<StoredItem>, Error> {
    match record.kind {
        Kind::Conversation => Ok(conversations::stored::Stored::read(record)?.into_items()),
        _ => Stored::read(record)?.into_items(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn internal(error: serde_json::Error) -> Error {
    Error::Internal { message: error.to_string() }
}

impl Stored {
    /// Reads a record.
    ///
    /// # Errors
    /// Fails if the record was made by a version of this program that this one does not understand.
    pub(crate) fn read(record: &Record) -> Result<Self, Error> {
        serde_json::from_slice(&record.body).map_err(|error| unreadable(&record.id, &error))
    }

    /// What was answered.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn output(&self) -> Result<Vec<StoredItem>, Error> {
        #[derive(Deserialize)]
        struct Object {
            output: Vec<StoredItem>,
        }
        let object: Object =
            serde_json::from_str(self.response.get()).map_err(|error| unreadable("response", &error))?;
        Ok(object.output)
    }

    /// The same, with what `include` asks for.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn showing(mut self, include: &Include) -> Result<Self, Error> {
        if !include.sealed || self.sealed {
            return Ok(self);
        }
        // The stream of its events seals the thoughts, too.
        self.sealed = true;
        let output = self.output()?.into_iter().map(|item| include.shown(item)).collect::<Vec<_>>();
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(self.response.get()).map_err(|error| unreadable("response", &error))?;
        object.insert("output".to_owned(), serde_json::to_value(output).map_err(internal)?);
        self.response = to_raw_value(&object).map_err(internal)?;
        Ok(self)
    }

    /// Whether it was made in the background.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn background(&self) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            background: bool,
        }
        let object: Object =
            serde_json::from_str(self.response.get()).map_err(|error| unreadable("response", &error))?;
        Ok(object.background)
    }

    /// What was asked and answered, in order.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn into_items(self) -> Result<Vec<StoredItem>, Error> {
        let output = self.output()?;
        let mut items = self.input;
        items.extend(output);
        Ok(items)
    }
}

pub(crate) fn unreadable(id: &str, error: &serde_json::Error) -> Error {
    Error::Internal { message: format!("the stored record '{id}' cannot be read: {error}") }
}

/// The records that a request names, once they are fetched.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// The responses that it goes on from, the oldest first; or the id of the one that is missing.
    pub(super) chain: Option<Result<Vec<Arc<Record>>, String>>,
    /// The conversation that it is part of, if there is one of that id.
    pub(super) conversation: Option<Arc<Record>>,
    /// The newest response or conversation that has an item, by the item's id.
    pub(super) items: HashMap<String, Option<Arc<Record>>>,
}

impl Fetched {
    /// Roughly how many bytes translating the request has to read.
    pub(crate) fn size(&self) -> usize {
        let chain = self.chain.iter().flatten().flatten();
        chain.chain(self.items.values().flatten()).chain(&self.conversation).map(|record| record.body.len()).sum()
    }

    /// The referenced items that were found, by id.
    ///
    /// # Errors
    /// As [`Stored::read`].
    pub(crate) fn found(&self) -> Result<HashMap<&str, Box<RawValue>>, Error> {
        // Items of one response are referenced together: each response is read once.
        let mut records: HashMap<&str, (&Record, HashSet<&str>)> = HashMap::new();
        for (id, record) in &self.items {
            if let Some(record) = record {
                records.entry(&record.id).or_insert_with(|| (record, HashSet::new())).1.insert(id);
            }
        }
        let mut found = HashMap::new();
        for (record, wanted) in records.into_values() {
            for item in items_of(record)? {
                if let Some(id) = wanted.get(&*item.id) {
                    found.entry(*id).or_insert(item.json);
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::{openai::responses::request::tests::facts, vectors::stamp};

    /// A response with `n` items.
    pub(crate) fn response_of(n: usize) -> Record {
        let answer = Answer::new(stamp("resp_"), facts(&json!({"model": "m"})));
        let item = |n| StoredItem {
            id: format!("item_{n}"),
            json: RawValue::from_string(json!({"id": format!("item_{n}"), "n": n}).to_string()).unwrap(),
        };
        record(Owner::default(), &answer, (0..n).map(item).collect()).unwrap()
    }

    #[test]
    fn a_record_has_the_items_of_its_response_by_their_ids() {
        let record = Arc::new(response_of(3));
        assert_eq!(record.names, ["item_0", "item_1", "item_2"]);
        let items = ["item_2", "item_0", "gone"].map(|id| (id.to_owned(), (id != "gone").then(|| record.clone())));
        let fetched = Fetched { items: items.into_iter().collect(), ..Fetched::default() };
        let found = fetched.found().unwrap();
        assert_eq!((found.len(), found["item_2"].get()), (2, r#"{"id":"item_2","n":2}"#));
        assert!(fetched.size() == 2 * record.body.len());
    }

    #[test]
    fn a_record_of_another_program_is_an_error_and_no_panic() {
        let record = Record { body: Bytes::from_static(b"{\"random\": 1}"), ..response_of(0) };
        assert!(matches!(Stored::read(&record), Err(Error::Internal { .. })));
    }
}
