//! Log probabilities: invented, but the same for the same token, negative, and with the token itself as the likeliest.

use serde_json::{Map, Value, json};

use crate::tokens::{Token, hash};

const OTHERS: [&str; 20] = [
    " the", " a", " and", " of", " to", " in", " is", " it", " that", " for", " on", " with", " as", " was", " at",
    " by", " be", " this", " from", " or",
];

/// The entry of a token, or of several that make one character: the first one's probability and alternatives, all of
/// their text (recorded: 0.33.0-rc2 `logprobs-raw/unicode`). `nth` is the first one's place; where the text may end,
/// its end is an alternative, without bytes.
pub(crate) fn of(tokens: &[Token], nth: usize, alternatives: usize, may_end: bool) -> Value {
    let (first, bytes) = (&tokens[0].0, tokens.iter().flat_map(|token| token.0.clone()).collect::<Vec<u8>>());
    let roll = hash(&[first.as_slice(), &nth.to_le_bytes()].concat());
    let logprob = -f64::from(u16::try_from(roll % 3000).unwrap_or(0) + 1) / 1024.0;
    let mut whole = entry(&bytes, logprob);
    if alternatives > 0 {
        // Half a character is shown as a replacement character, bytes included.
        let own = String::from_utf8_lossy(first).into_owned();
        let end = may_end.then_some("").into_iter();
        let others = end.chain(OTHERS).filter(|other| other.as_bytes() != first).zip(1_u8..);
        let others = others.map(|(other, rank)| entry(other.as_bytes(), logprob - f64::from(rank) * 0.75).into());
        let own = Value::from(entry(own.as_bytes(), logprob));
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
        let value = of(&[Token(b" the".to_vec())], 1, 3, false);
        assert_eq!(value["top_logprobs"][0]["logprob"], value["logprob"]);
        assert_eq!(value["top_logprobs"].as_array().unwrap().len(), 3);
        assert!(value["logprob"].as_f64().unwrap() < 0.0);
        assert!(of(&[Token(b"x".to_vec())], 1, 0, false).get("top_logprobs").is_none());
    }

    #[test]
    fn the_halves_of_a_character_are_one_entry_and_the_end_has_no_bytes() {
        let halves = [Token("🌍".as_bytes()[..2].to_vec()), Token("🌍".as_bytes()[2..].to_vec())];
        let value = of(&halves, 1, 3, true);
        assert_eq!((&value["token"], value["bytes"].as_array().unwrap().len()), (&json!("🌍"), 4));
        assert_eq!(
            value["top_logprobs"][0],
            json!({"token": "\u{fffd}", "logprob": value["logprob"], "bytes": [239, 191, 189]})
        );
        let end = &value["top_logprobs"][1];
        assert!(end["token"] == "" && end.get("bytes").is_none(), "{end}");
    }
}
