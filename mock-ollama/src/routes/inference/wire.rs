//! What answers end with and calls look like on the wire.

use crate::version::Feature;
use serde_json::{Map, Value};

use crate::{
    generation::{Done, tool_calls},
    models::{Mode, Model},
    tokens,
    version::Version,
};

/// The numbers of the final object, in Ollama's order. Durations are nanoseconds that follow from the counts.
pub(crate) fn metrics(done: &Done, load: u64, version: &Version) -> Vec<(&'static str, Value)> {
    let (prompt, written) = (done.prompt_tokens as u64, done.tokens as u64);
    let prompt_duration = 9_000_000 + prompt * 41_000;
    let mut duration = written.saturating_sub(1) * 9_871_000;
    if duration == 0 && version.has(Feature::LlamaServer) {
        duration = 1000;
    }
    let numbers = [
        ("total_duration", load + prompt_duration + duration + 1_203_417),
        ("load_duration", load),
        ("prompt_eval_count", prompt),
        ("prompt_eval_duration", prompt_duration),
        ("eval_count", written),
        ("eval_duration", duration),
    ];
    // Go omits what is zero.
    numbers.into_iter().filter(|(_, number)| *number > 0).map(|(key, number)| (key, number.into())).collect()
}

/// Calls as the wire has them.
pub(crate) fn calls(
    calls: &[tool_calls::Call],
    first: usize,
    model: &Model,
    call_seed: u64,
    version: &Version,
) -> Value {
    let calls = calls.iter().zip(first..).map(|(made, nth)| {
        let mut whole = Map::new();
        if version.has(Feature::CallId) {
            whole.insert(
                "id".to_owned(),
                id(model.mode == Mode::Jinja && version.has(Feature::LlamaServer), call_seed, nth).into(),
            );
        }
        let mut function = Map::new();
        if version.has(Feature::CallIndex) {
            function.insert("index".to_owned(), if model.mode == Mode::Harmony { 0 } else { nth }.into());
        }
        function.insert("name".to_owned(), made.name.clone().into());
        function.insert(
            "arguments".to_owned(),
            made.arguments.iter().map(|(key, value)| (key.clone(), as_go(value))).collect(),
        );
        whole.insert("function".to_owned(), function.into());
        Value::from(whole)
    });
    calls.collect()
}

/// A value as Go writes what it has read: every number is a float, and one without a fraction is written without a
/// point.
fn as_go(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() == 0.0 && float.abs() < 9e18 => {
                format!("{float:.0}").parse().map_or_else(|_| value.clone(), Value::Number)
            }
            _ => value.clone(),
        },
        Value::Array(values) => values.iter().map(as_go).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), as_go(value))).collect(),
        _ => value.clone(),
    }
}

/// Ollama's ids are `call_` and 8 characters, llama-server's are 32 characters.
fn id(is_llama: bool, seed: u64, nth: usize) -> String {
    const CHARACTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let (len, among) = if is_llama { (32, 62) } else { (8, 36) };
    let characters = (0..len).map(|at: usize| {
        let roll = tokens::hash(&[seed.to_le_bytes(), (nth as u64).to_le_bytes(), (at as u64).to_le_bytes()].concat());
        char::from(CHARACTERS[usize::try_from(roll >> 20).unwrap_or(0) % among])
    });
    let text: String = characters.collect();
    if is_llama { text } else { format!("call_{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_have_no_point_in_arguments() {
        let value = serde_json::json!({"a": 1.0, "b": [2.5, -3.0, 4, {"c": 1e6}], "d": "1.0"});
        assert_eq!(as_go(&value).to_string(), r#"{"a":1,"b":[2.5,-3,4,{"c":1000000}],"d":"1.0"}"#);
    }

    #[test]
    fn ids_have_the_form_of_their_maker() {
        assert!(id(false, 1, 0).starts_with("call_") && id(false, 1, 0).len() == 13);
        assert_eq!(id(true, 1, 0).len(), 32);
        assert_ne!(id(false, 1, 0), id(false, 1, 1));
        assert_ne!(id(false, 1, 0), id(false, 2, 0));
    }
}
