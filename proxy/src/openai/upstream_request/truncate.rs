//! `truncation: "auto"`: drops the oldest messages of a prompt that does not fit, so that the receipt can say what is
//! gone. Ollama would cut the prompt without a word.
//!
//! The remote is asked not to cut (`truncate: false`) and refuses; newer versions report how long the prompt and the
//! context are, so that the first guess fits as a rule. Messages of the system stay, and so does the last message,
//! within which the remote cuts if it alone is too long; the results of a call go with the call.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::send::fields;
use crate::{
    error::Error, observe::Recorder, offload, ollama::refusal::Refusal, receipt::Receipt, upstream::client::encode,
};

/// Tokens that are kept free for an answer without a limit of its own, or with a higher one; at most a quarter of the
/// context.
const ANSWER: u64 = 4096;

/// How many messages were dropped, by role.
#[derive(Debug, Default)]
pub(super) struct Dropped(BTreeMap<String, usize>);

impl Dropped {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reports what was dropped.
    pub(super) fn report(&self, recorder: &Recorder) {
        let mut receipt = Receipt::default();
        receipt.note("truncation", format!("dropped:{}", self.0.values().sum::<usize>()));
        for (role, count) in &self.0 {
            receipt.note(&format!("truncation.{role}"), format!("dropped:{count}"));
        }
        recorder.receipt(receipt);
    }
}

/// Drops the oldest messages of `body`, which was refused; adds them to `dropped`. None: there is nothing left to drop.
///
/// # Errors
/// None that a request of the proxy's own can cause.
pub(super) async fn shorten(
    body: Bytes,
    refusal: &Refusal,
    limit: Option<u64>,
    dropped: &mut Dropped,
) -> Result<Option<Bytes>, Error> {
    let counts = match refusal {
        Refusal::ContextLength { counts, .. } => *counts,
        _ => None,
    };
    let shortened = offload::run(body.len(), move || shortened(&body, counts, limit)).await?;
    let Some((body, roles)) = shortened else { return Ok(None) };
    for role in roles {
        *dropped.0.entry(role).or_default() += 1;
    }
    Ok(Some(body))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn internal(error: impl ToString) -> Error {
    Error::Internal { message: error.to_string() }
}

/// The body with fewer messages, and the roles of those that are gone.
fn shortened(
    body: &[u8],
    counts: Option<(u64, u64)>,
    limit: Option<u64>,
) -> Result<Option<(Bytes, Vec<String>)>, Error> {
    #[derive(Deserialize)]
    struct Role<'a> {
        #[serde(borrow)]
        role: Cow<'a, str>,
    }
    let mut top = fields(std::str::from_utf8(body).map_err(internal)?)?;
    let Some(raw) = top.get("messages").map(|raw| raw.get().to_owned()) else { return Ok(None) };
    let messages: Vec<&RawValue> = serde_json::from_str(&raw).map_err(internal)?;
    let roles: Vec<String> = messages
        .iter()
        .map(|message| {
            let read: Role<'_> = serde_json::from_str(message.get()).map_err(internal)?;
            Ok::<_, Error>(read.role.into_owned())
        })
        .collect::<Result<_, _>>()?;
    let sizes: Vec<usize> = messages.iter().map(|message| message.get().len()).collect();
    let gone = gone(&roles, &sizes, body.len(), counts, limit);
    if gone.is_empty() {
        return Ok(None);
    }
    let left: Vec<&RawValue> =
        messages.iter().enumerate().filter(|(n, _)| !gone.contains(n)).map(|(_, message)| *message).collect();
    top.set("messages", Cow::Owned(to_raw_value(&left).map_err(internal)?));
    Ok(Some((encode(&top)?, gone.into_iter().map(|n| roles[n].clone()).collect())))
}

/// Which messages are dropped: as many of the oldest as must be for the rest to fit, by the remote's counts; half of
/// them where it has none.
fn gone(roles: &[String], sizes: &[usize], whole: usize, counts: Option<(u64, u64)>, limit: Option<u64>) -> Vec<usize> {
    // A message with what belongs to it: the results of its calls.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (n, role) in roles.iter().enumerate() {
        match groups.last_mut() {
            _ if role == "system" => {}
            Some(last) if role == "tool" => last.push(n),
            _ => groups.push(vec![n]),
        }
    }
    groups.pop();
    let mut gone = Vec::new();
    let mut bytes: u64 = 0;
    let wanted = counts.map(|(prompt, context)| {
        let free = limit.unwrap_or(ANSWER).min(ANSWER).min(context / 4);
        let beyond = prompt.saturating_sub(context.saturating_sub(free)).max(1);
        // As many bytes as those tokens are on the average, rounded up.
        beyond.saturating_mul(whole as u64).div_ceil(prompt.max(1))
    });
    let half = groups.len().div_ceil(2);
    for (n, group) in groups.into_iter().enumerate() {
        if wanted.map_or(n >= half, |wanted| bytes >= wanted) {
            break;
        }
        bytes += group.iter().map(|n| sizes[*n] as u64).sum::<u64>();
        gone.extend(group);
    }
    gone
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shorten(messages: &Value, counts: Option<(u64, u64)>) -> Option<(Value, Vec<String>)> {
        let body = json!({"model": "m", "messages": messages, "truncate": false}).to_string();
        let (body, roles) = shortened(body.as_bytes(), counts, Some(10)).unwrap()?;
        Some((serde_json::from_slice(&body).unwrap(), roles))
    }

    #[test]
    fn the_oldest_messages_go_and_the_rest_fits() {
        let message = |role: &str, size: usize| json!({"role": role, "content": "x".repeat(size)});
        let messages = json!([
            message("system", 100),
            message("user", 1000),
            message("assistant", 1000),
            message("tool", 1000),
            message("user", 1000),
        ]);
        // About 4,200 bytes in 1,050 tokens.
        let (body, roles) = shorten(&messages, Some((1050, 900))).unwrap();
        assert_eq!((roles, body["messages"].as_array().unwrap().len()), (vec!["user".to_owned()], 4));
        assert_eq!((&body["truncate"], &body["model"]), (&json!(false), &json!("m")));
        let (body, roles) = shorten(&messages, Some((1050, 500))).unwrap();
        assert_eq!(roles, ["user", "assistant", "tool"], "a result goes with its call");
        let left: Vec<_> = body["messages"].as_array().unwrap().iter().map(|message| message["role"].clone()).collect();
        assert_eq!(left, ["system", "user"]);
        assert_eq!(shorten(&body["messages"], Some((1050, 500))), None, "the last message stays");
    }

    #[test]
    fn without_counts_half_of_the_messages_go() {
        let messages: Vec<Value> = (0..5).map(|n| json!({"role": "user", "content": n.to_string()})).collect();
        let (body, roles) = shorten(&json!(messages), None).unwrap();
        assert_eq!((roles.len(), &body["messages"][0]["content"]), (2, &json!("2")));
    }
}
