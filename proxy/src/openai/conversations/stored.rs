//! A conversation as it is stored: one record with its items, which are found by their ids. Pure.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    error::Error,
    gate::Owner,
    openai::{
        request::{
            json::{Fields, read},
            metadata::checked,
        },
        responses::{
            input::{self, kind},
            items,
            stored::{StoredItem, unreadable},
        },
    },
    receipt::Receipt,
    sealed::Key,
    store::{Kind, Record},
};

/// Maximum number of items that one request adds, as OpenAI has it.
const MOST_ADDED: usize = 20;

/// The body of a record.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Stored {
    created_at: u64,
    #[serde(default)]
    metadata: Map<String, Value>,
    items: Vec<StoredItem>,
}

impl Stored {
    pub(crate) fn new(created_at: u64, metadata: Map<String, Value>) -> Self {
        Self { created_at, metadata, items: Vec::new() }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Fails if the record was made by a version of this program that this one does not understand.
    pub(crate) fn read(record: &Record) -> Result<Self, Error> {
        serde_json::from_slice(&record.body).map_err(|error| unreadable(&record.id, &error))
    }

    pub(crate) fn record(&self, owner: Owner, id: &str) -> Result<Record, Error> {
        Ok(Record {
            kind: Kind::Conversation,
            owner,
            id: id.to_owned(),
            previous: None,
            names: self.items.iter().map(|item| item.id.clone()).collect(),
            body: Bytes::from(serde_json::to_vec(self).map_err(internal)?),
        })
    }

    /// The object that clients see.
    pub(crate) fn object(&self, id: &str) -> Value {
        json!({"id": id, "object": "conversation", "created_at": self.created_at, "metadata": self.metadata})
    }

    #[cfg(test)]
    pub(crate) fn items(&self) -> &[StoredItem] {
        &self.items
    }

    pub(crate) fn into_items(self) -> Vec<StoredItem> {
        self.items
    }

    pub(crate) fn set_metadata(&mut self, metadata: Map<String, Value>) {
        self.metadata = metadata;
    }

    /// Appends items; returns them as they are stored. One that is there already, such as one that a client sends again
    /// or refers to, is not added twice; another with the id of one that is there gets an id of its own, made of
    /// `random`.
    ///
    /// # Errors
    /// None that items which were understood can cause.
    pub(crate) fn add(&mut self, items: Vec<StoredItem>, random: &str) -> Result<Vec<StoredItem>, Error> {
        let mut added = Vec::with_capacity(items.len());
        // Both may be many.
        let new: HashSet<&str> = items.iter().map(|item| &*item.id).collect();
        let known = self.items.iter().enumerate().filter(|(_, there)| new.contains(&*there.id));
        let mut places: HashMap<String, usize> = known.map(|(at, there)| (there.id.clone(), at)).collect();
        for (n, mut item) in items.into_iter().enumerate() {
            if let Some(there) = places.get(&item.id).map(|at| &self.items[*at]) {
                let value = |item: &StoredItem| serde_json::from_str::<Value>(item.json.get());
                let mut own = value(&item).map_err(internal)?;
                if value(there).map_err(internal)? == own {
                    added.push(there.clone());
                    continue;
                }
                let id = format!("{}{random}n{n:02x}", items::prefix(&kind(&item.json, "items")?));
                own["id"] = id.clone().into();
                item = StoredItem { id, json: to_raw_value(&own).map_err(internal)? };
            }
            places.insert(item.id.clone(), self.items.len());
            added.push(item.clone());
            self.items.push(item);
        }
        Ok(added)
    }

    /// Deletes an item; whether it was there.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        let before = self.items.len();
        self.items.retain(|item| item.id != id);
        self.items.len() < before
    }

    /// Checks that a model can be given `added` after the items that are there, so that a later request does not fail
    /// because of them.
    ///
    /// # Errors
    /// Fails if it cannot, and names the item.
    pub(crate) fn check(
        &self,
        added: &[Cow<'_, RawValue>],
        key: Option<&Key>,
        receipt: &mut Receipt,
    ) -> Result<(), Error> {
        let mut conversation = input::Conversation::new(None).opening_with(key);
        for item in &self.items {
            conversation.add(&item.json, "conversation", &mut Receipt::default())?;
        }
        for (n, item) in added.iter().enumerate() {
            conversation.add(item, &format!("items[{n}]"), receipt)?;
        }
        Ok(())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn internal(error: serde_json::Error) -> Error {
    Error::Internal { message: error.to_string() }
}

/// Takes `metadata` out of a body; none is empty.
///
/// # Errors
/// Fails if it is not an object of texts.
pub(crate) fn metadata(fields: &mut Fields<'_>) -> Result<Map<String, Value>, Error> {
    fields.take_raw("metadata").map_or_else(|| Ok(Map::new()), |raw| checked(read("metadata", raw)?))
}

/// Takes `items` out of a body.
///
/// # Errors
/// Fails if they are not a list, or too many at a time.
pub(crate) fn added<'a>(fields: &mut Fields<'a>) -> Result<Option<Vec<Cow<'a, RawValue>>>, Error> {
    let Some(raw) = fields.take_raw("items") else { return Ok(None) };
    let items: Vec<&'a RawValue> = read("items", raw)?;
    if items.len() > MOST_ADDED {
        return Err(Error::Invalid {
            message: format!(
                "Invalid 'items': array too long. Expected an array with maximum length {MOST_ADDED}, but got an array with length {} instead.",
                items.len()
            ),
            param: Some("items".to_owned()),
            code: Some("array_above_max_length"),
        });
    }
    Ok(Some(items.into_iter().map(Cow::Borrowed).collect()))
}

/// Notes the fields that were not taken.
pub(crate) fn note_rest(fields: Fields<'_>, receipt: &mut Receipt) {
    fields.left().for_each(|(name, _)| receipt.unknown(&name, None));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(json: &Value) -> StoredItem {
        StoredItem::of(to_raw_value(json).unwrap()).unwrap()
    }

    #[test]
    fn an_item_is_there_once_and_another_of_its_id_gets_its_own() {
        let first = item(&json!({"id": "msg_1", "type": "message", "role": "user", "content": "a"}));
        let mut stored = Stored::new(1, Map::new());
        assert_eq!(stored.add(vec![first.clone()], "r").unwrap()[0].id, "msg_1");
        assert_eq!(stored.add(vec![first], "r").unwrap()[0].id, "msg_1", "sent again");
        assert_eq!(stored.items().len(), 1);
        let other = item(&json!({"id": "msg_1", "type": "message", "role": "user", "content": "b"}));
        assert_eq!(stored.add(vec![other], "r").unwrap()[0].id, "msg_rn00");
        let record = stored.record(Owner::default(), "conv_1").unwrap();
        assert_eq!(record.names, ["msg_1", "msg_rn00"]);
        let mut read = Stored::read(&record).unwrap();
        assert!(read.items()[1].json.get().contains(r#""id":"msg_rn00""#));
        assert!(read.remove("msg_1") && !read.remove("msg_1") && read.items().len() == 1);
    }

    #[test]
    fn adding_to_a_long_conversation_takes_linear_time() {
        let items = |from: usize| -> Vec<_> {
            let made = |n| item(&json!({"id": format!("msg_{n}"), "type": "message", "role": "user", "content": "a"}));
            (from..from + 50_000).map(made).collect()
        };
        let mut stored = Stored::new(1, Map::new());
        let begun = std::time::Instant::now();
        stored.add(items(0), "r").unwrap();
        assert_eq!(stored.add(items(25_000), "r").unwrap().len(), 50_000);
        assert_eq!(stored.items().len(), 75_000);
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    #[test]
    fn an_output_needs_its_call_in_the_conversation() {
        let mut stored = Stored::new(1, Map::new());
        let output = to_raw_value(&json!({"type": "function_call_output", "call_id": "c", "output": "x"})).unwrap();
        let check = |stored: &Stored| stored.check(&[Cow::Borrowed(&*output)], None, &mut Receipt::default());
        assert!(check(&stored).is_err());
        let call = json!({"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
        stored.add(vec![item(&call)], "r").unwrap();
        check(&stored).unwrap();
    }
}
