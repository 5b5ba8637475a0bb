//! `include` of the requests that read items back: of a stored response, of what it was asked, and of a conversation.
//! Pure.

use serde_json::{Value, value::to_raw_value};

use super::{request::check_include, stored::StoredItem};
use crate::{error::Error, receipt::Receipt, sealed};

/// What a client wants to see of items besides what is always there.
#[derive(Debug, Default)]
pub(crate) struct Include {
    /// Thoughts as the text that a client can carry.
    pub(crate) sealed: bool,
}

impl Include {
    /// Reads the query. Everything that is stored of an item is always shown; the receipt says of what it may not be
    /// there.
    ///
    /// # Errors
    /// Fails on a name that OpenAI's API does not have.
    pub(crate) fn read(query: &[(String, String)], receipt: &mut Receipt) -> Result<Self, Error> {
        let values = query.iter().filter(|(name, _)| matches!(&**name, "include" | "include[]"));
        let values: Vec<&str> = values.map(|(_, value)| &**value).collect();
        check_include(values.iter().copied())?;
        for value in &values {
            if !matches!(
                *value,
                "reasoning.encrypted_content"
                    | "message.input_image.image_url"
                    | "computer_call_output.output.image_url"
            ) {
                receipt.note(&format!("include.{value}"), "as-stored");
            }
        }
        Ok(Self { sealed: values.contains(&"reasoning.encrypted_content") })
    }

    /// The item as it is shown.
    pub(crate) fn shown(&self, item: StoredItem) -> StoredItem {
        if !self.sealed {
            return item;
        }
        let Ok(mut value) = serde_json::from_str::<Value>(item.json.get()) else { return item };
        let lacks = value["type"] == "reasoning" && value["encrypted_content"].as_str().is_none_or(str::is_empty);
        let parts = value["summary"].as_array().into_iter().flatten();
        let thought: String = parts.filter_map(|part| part["text"].as_str()).collect();
        if !lacks || thought.is_empty() {
            return item;
        }
        value["encrypted_content"] = sealed::seal(&thought).into();
        match to_raw_value(&value) {
            Ok(json) => StoredItem { json, ..item },
            Err(_) => item,
        }
    }
}
