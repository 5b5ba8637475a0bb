//! Log probabilities: invented, but the same for the same token, negative, and with the token itself as the likeliest.

use serde_json::{Map, Value, json};

use crate::tokens::{Token, hash};

const OTHERS: [&str; 20] = [
    " the", " a", " and", " of", " to", " in", " is", " it", " that", " for", " on", " with", " as", " was", " at",
    " by", " be", " this", " from", " or",
];

/// The entry of the `nth` token.
pub(crate) fn of(token: &Token, nth: usize, alternatives: usize) -> Value {
    let roll = hash(&[token.0.as_slice(), &nth.to_le_bytes()].concat());
    let logprob = -f64::from(u16::try_from(roll % 3000).unwrap_or(0) + 1) / 1024.0;
    let mut whole = entry(&token.0, logprob);
    if alternatives > 0 {
        let own = Value::from(entry(&token.0, logprob));
        let others = OTHERS.iter().filter(|other| other.as_bytes() != token.0).zip(1_u8..);
        let others = others.map(|(other, rank)| entry(other.as_bytes(), logprob - f64::from(rank) * 0.75).into());
        whole.insert("top_logprobs".to_owned(), std::iter::once(own).chain(others).take(alternatives).collect());
    }
    whole.into()
}

fn entry(bytes: &[u8], logprob: f64) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("token".to_owned(), String::from_utf8_lossy(bytes).into_owned().into());
    entry.insert("logprob".to_owned(), json!(logprob));
    if !bytes.is_empty() {
        entry.insert("bytes".to_owned(), bytes.to_vec().into());
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_itself_is_the_likeliest() {
        let value = of(&Token(b" the".to_vec()), 1, 3);
        assert_eq!(value["top_logprobs"][0]["logprob"], value["logprob"]);
        assert_eq!(value["top_logprobs"].as_array().unwrap().len(), 3);
        assert!(value["logprob"].as_f64().unwrap() < 0.0);
        assert!(of(&Token(b"x".to_vec()), 1, 0).get("top_logprobs").is_none());
    }
}
