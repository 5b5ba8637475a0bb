//! What a compaction item stands for: the messages of the user and of the system verbatim, and the model's summary of
//! everything. Pure.
//!
//! The summary alone would lose what the model thought unimportant, and a whole copy would save nothing. So the
//! messages, whose exact text matters most and of which there is little, are carried unchanged, the newest first up to
//! a bound; calls, their results, thoughts and answers are carried by the summary. What does not fit the bound is in
//! the receipt.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::Error,
    openai::{
        request::json::Text,
        responses::{input::kind, items},
    },
    receipt::Receipt,
    sealed::Key,
};

/// Maximum size of the messages that are carried verbatim, as JSON: about 16,000 tokens of text.
const MOST: usize = 64 << 10;

/// What the client carries for this proxy, as it is sealed.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Compacted {
    /// Items of type `message`, the oldest first.
    pub(super) messages: Vec<Box<RawValue>>,
    pub(super) summary: String,
}

impl Compacted {
    /// Opens what a client has carried. None: it was not sealed with `key`, or was changed.
    pub(super) fn open(key: Option<&Key>, carried: &str) -> Option<Self> {
        serde_json::from_str(&key?.open(carried)?).ok()
    }

    /// As the client carries it.
    ///
    /// # Errors
    /// Fails if there is no randomness.
    pub(super) fn seal(&self, key: &Key) -> Result<String, Error> {
        let text = serde_json::to_string(self).map_err(|error| Error::Internal { message: error.to_string() })?;
        key.seal(&text)
    }
}

/// The messages of `items` that are carried verbatim: those of the user and of the system, and those that an earlier
/// compaction carries.
///
/// # Errors
/// None that items which were understood can cause.
pub(super) fn messages<'i>(
    items: impl Iterator<Item = &'i RawValue>,
    key: Option<&Key>,
    receipt: &mut Receipt,
) -> Result<Vec<Box<RawValue>>, Error> {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow, default)]
        role: Option<Text<'a>>,
        #[serde(borrow, default)]
        encrypted_content: Option<Text<'a>>,
    }
    let mut found = Vec::new();
    for item in items {
        let kind = kind(item, "input")?;
        if !matches!(&*kind, "message" | "compaction" | "compaction_summary") {
            continue;
        }
        let fields: Fields<'_> =
            serde_json::from_str(item.get()).map_err(|error| Error::Internal { message: error.to_string() })?;
        if let Some(carried) = fields.encrypted_content {
            found.extend(Compacted::open(key, &carried).into_iter().flat_map(|compacted| compacted.messages));
        } else if fields.role.as_deref().is_some_and(|role| role != "assistant") {
            found.push(item.to_owned());
        }
    }
    let mut room = MOST;
    let first = found.iter().rposition(|item| {
        let fits = item.get().len() <= room;
        room = room.saturating_sub(item.get().len());
        !fits
    });
    if let Some(last) = first {
        receipt.note("compaction.messages", format!("summarized:{}", last + 1));
        found.drain(..=last);
    }
    Ok(found)
}

/// What the model is asked for after the conversation.
pub(super) const WISH: &str = "Summarize our conversation so far, so that another assistant can continue it from your summary alone: what was asked for, \
    what was decided and done, what is known and still needed (names, numbers, paths, code verbatim), and what comes next. \
    Write nothing but the summary.";

/// What a summary begins with where a model reads it.
pub(super) const HEADING: &str = "This is a summary of our conversation so far:\n\n";

/// The id of a compaction item.
pub(super) fn id(random: &str) -> String {
    format!("{}{random}", items::prefix("compaction"))
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn raw(json: &serde_json::Value) -> Box<RawValue> {
        to_raw_value(json).unwrap()
    }

    #[test]
    fn messages_are_carried_verbatim_again_and_again_the_newest_first() {
        let key = Key::of(b"secret").unwrap();
        let user = |text: &str| raw(&json!({"role": "user", "content": text}));
        let first = Compacted { messages: vec![user("one")], summary: "so far".to_owned() };
        let carried = raw(&json!({"type": "compaction", "encrypted_content": first.seal(&key).unwrap()}));
        let items = [
            carried,
            raw(&json!({"role": "assistant", "content": "answer"})),
            raw(&json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"})),
            raw(&json!({"type": "message", "role": "developer", "content": "rule"})),
            user("two"),
        ];
        let mut receipt = Receipt::default();
        let kept = messages(items.iter().map(|item| &**item), Some(&key), &mut receipt).unwrap();
        let texts: Vec<_> = kept.iter().map(|item| item.get()).collect();
        assert!(texts.len() == 3 && texts[0].contains("one") && texts[1].contains("rule") && texts[2].contains("two"));
        assert!(receipt.is_empty());
        let long = user(&"x".repeat(MOST));
        let items = [user("old"), long, user("new")];
        let kept = messages(items.iter().map(|item| &**item), Some(&key), &mut receipt).unwrap();
        assert!(kept.len() == 1 && kept[0].get().contains("new"), "{kept:?}");
        assert_eq!(receipt.to_string(), "compaction.messages=summarized:2");
    }
}
