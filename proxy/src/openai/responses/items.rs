//! Items as they are kept and listed: each with an id, and with the keys that strict clients want. Pure.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use crate::{
    error::Error,
    openai::{
        paging::Paging,
        responses::{input::kind, stored::StoredItem},
    },
    store::Record,
};

/// What was asked, as it is kept. `random` are hex digits that belong to this response alone.
///
/// # Errors
/// None that items which were understood can cause.
pub(crate) fn asked(input: &[Cow<'_, RawValue>], random: &str) -> Result<Vec<StoredItem>, Error> {
    Ok(asked_within(input, random, usize::MAX)?.unwrap_or_default().items)
}

/// What was asked, as it is stored.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) items: Vec<StoredItem>,
    /// Roughly how many bytes of memory they take.
    pub(crate) size: usize,
}

/// As [`asked`]; None if the record of the items would be larger than `most` bytes.
///
/// # Errors
/// As [`asked`].
pub(crate) fn asked_within(input: &[Cow<'_, RawValue>], random: &str, most: usize) -> Result<Option<Asked>, Error> {
    /// What an item takes besides its texts.
    const EACH: usize = size_of::<StoredItem>();
    let item = |(n, raw): (usize, &Cow<'_, RawValue>)| {
        let kind = kind(raw, "input")?.into_owned();
        // It was understood, so that only its depth can be wrong.
        let mut item: Map<String, Value> = serde_json::from_str(raw.get())
            .map_err(|_| Error::invalid(format!("input[{n}]"), "The item is nested too deeply to be stored."))?;
        let given = item.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
        let id = given.map_or_else(|| format!("{}{random}i{n:02x}", prefix(&kind)), ToOwned::to_owned);
        item.insert("id".to_owned(), id.clone().into());
        item.insert("type".to_owned(), kind.clone().into());
        if !matches!(&*kind, "reasoning" | "compaction" | "custom_tool_call" | "custom_tool_call_output") {
            item.entry("status").or_insert_with(|| "completed".into());
        }
        if kind == "message" {
            let answer = item.get("role").and_then(Value::as_str) == Some("assistant");
            let content = item.remove("content").unwrap_or_default();
            item.insert("content".to_owned(), parts(content, answer));
        }
        Ok::<_, Error>(StoredItem { id, json: to_raw_value(&item).map_err(internal)? })
    };
    let mut asked = Asked::default();
    let mut stored = 0_usize;
    for item in input.iter().enumerate().map(item) {
        let item = item?;
        let size = item.id.len() + item.json.get().len();
        asked.size += size + EACH;
        stored += size + Record::NAME;
        if stored > most {
            return Ok(None);
        }
        asked.items.push(item);
    }
    Ok(Some(asked))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn internal(error: serde_json::Error) -> Error {
    Error::Internal { message: error.to_string() }
}

/// What the id of an item of this type begins with.
pub(crate) fn prefix(kind: &str) -> &'static str {
    match kind {
        "message" => "msg_",
        "reasoning" => "rs_",
        "function_call" => "fc_",
        "function_call_output" => "fco_",
        "custom_tool_call" => "ctc_",
        "custom_tool_call_output" => "ctco_",
        "compaction" => "cmp_",
        _ => "item_",
    }
}

/// A content as a list of parts.
fn parts(content: Value, answer: bool) -> Value {
    let kind = if answer { "output_text" } else { "input_text" };
    let mut parts = match content {
        Value::Array(parts) => parts,
        Value::Null => Vec::new(),
        text => vec![json!({"type": kind, "text": text})],
    };
    for part in parts.iter_mut().filter_map(Value::as_object_mut) {
        match part.get("type").and_then(Value::as_str) {
            Some("output_text") => {
                for key in ["annotations", "logprobs"] {
                    part.entry(key).or_insert_with(|| json!([]));
                }
            }
            Some("input_image") => {
                part.entry("detail").or_insert_with(|| "auto".into());
            }
            _ => {}
        }
    }
    parts.into()
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Page<'a> {
    object: &'static str,
    data: Vec<&'a RawValue>,
    /// Empty of an empty page: OpenAI's types have no null here.
    first_id: &'a str,
    last_id: &'a str,
    has_more: bool,
}

/// The page of `items` that `paging` asks for; the items are in the order in which they were given.
///
/// # Errors
/// Fails if `after` is none of them.
pub(crate) fn page<'a>(items: &[&'a StoredItem], paging: &Paging) -> Result<Page<'a>, Error> {
    let mut items = items.to_vec();
    if !paging.ascending {
        items.reverse();
    }
    if let Some(after) = &paging.after {
        let at = items
            .iter()
            .position(|item| item.id == *after)
            .ok_or_else(|| Error::invalid("after", format!("Item with id '{after}' not found in this list.")))?;
        items.drain(..=at);
    }
    let has_more = items.len() > paging.limit;
    items.truncate(paging.limit);
    Ok(Page {
        object: "list",
        first_id: items.first().map_or("", |item| &*item.id),
        last_id: items.last().map_or("", |item| &*item.id),
        data: items.iter().map(|item| &*item.json).collect(),
        has_more,
    })
}
