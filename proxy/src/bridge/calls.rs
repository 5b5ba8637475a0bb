//! Calls of tools: pieces of a stream, put together, and whole ones. OpenAI's arguments are text, Ollama's an object.
//! Pure.

use http::StatusCode;
use serde_json::value::RawValue;

use crate::{
    bridge::wire::{DeltaCall, ReplyCall, ReplyFunction},
    error::Error,
    ollama::refusal::Refused,
    openai::request::json::Text,
};

/// The calls of one answer.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Call>);

/// A call, as far as it has come.
#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

impl Call {
    /// Adds a piece of the arguments. A line end in JSON is white space, and would end a line of Ollama's.
    fn push(&mut self, piece: &str) {
        self.arguments.extend(piece.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
    }
}

impl Calls {
    /// Takes a call, or a piece of one.
    pub(super) fn push(&mut self, delta: &DeltaCall<'_>) {
        let id = delta.id.as_deref().unwrap_or_default();
        let name = delta.function.as_ref().and_then(|function| function.name.as_deref()).unwrap_or_default();
        let continues = self.0.iter().rposition(|call| match delta.index {
            Some(_) => call.index == delta.index,
            // Servers without an index send whole calls, or pieces of the last one.
            None => id.is_empty() && name.is_empty(),
        });
        // Some number every call 0 and give each an id of its own.
        let continues = continues.filter(|at| id.is_empty() || self.0[*at].id.is_empty() || self.0[*at].id == id);
        let at = continues.unwrap_or_else(|| {
            self.0.push(Call { index: delta.index, ..Call::default() });
            self.0.len() - 1
        });
        let call = &mut self.0[at];
        if call.id.is_empty() {
            call.id.push_str(id);
        }
        // A name comes whole, once; some repeat it with every piece.
        if call.name.is_empty() {
            call.name.push_str(name);
        }
        if let Some(raw) = delta.function.as_ref().and_then(|function| function.arguments) {
            match serde_json::from_str::<Text<'_>>(raw.get()) {
                Ok(text) => call.push(&text),
                // An object in the place of its text.
                Err(_) if raw.get() != "null" => call.push(raw.get()),
                Err(_) => {}
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The calls as Ollama has them. The last one of an answer that was `cut` at its length may be broken off: it is
    /// left out, as Ollama does.
    ///
    /// # Errors
    /// Fails if the arguments of a call are not an object.
    pub(super) fn finished(&self, cut: bool) -> Result<Vec<ReplyCall<'_>>, Error> {
        let mut calls = Vec::with_capacity(self.0.len());
        for (at, call) in self.0.iter().enumerate() {
            let text = match call.arguments.trim() {
                "" | "null" => "{}",
                text => text,
            };
            let read = serde_json::from_str::<&RawValue>(text).map_err(|error| error.to_string());
            let read = read.and_then(|raw| match raw.get().starts_with('{') {
                true => Ok(raw),
                false => Err("not an object".to_owned()),
            });
            match read {
                Ok(arguments) => {
                    let function = ReplyFunction { index: at, name: &call.name, arguments };
                    calls.push(ReplyCall { id: &call.id, function });
                }
                Err(_) if cut && at + 1 == self.0.len() => {}
                Err(error) => {
                    let message = format!("error parsing tool call: raw='{text}', err={error}");
                    return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, message).into());
                }
            }
        }
        Ok(calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(pieces: &[&str], cut: bool) -> Result<String, String> {
        let mut calls = Calls::default();
        for piece in pieces {
            calls.push(&serde_json::from_str(piece).unwrap());
        }
        calls.finished(cut).map(|calls| serde_json::to_string(&calls).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn pieces_become_calls_however_servers_number_them() {
        let two = r#"[{"id":"a","function":{"index":0,"name":"f","arguments":{"x":1}}},{"id":"b","function":{"index":1,"name":"g","arguments":{}}}]"#;
        for pieces in [
            &[
                r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#,
                r#"{"index":0,"function":{"arguments":"{\"x\""}}"#,
                r#"{"index":0,"function":{"arguments":":1}"}}"#,
                r#"{"index":1,"id":"b","function":{"name":"g","arguments":""}}"#,
            ][..],
            // Every call is number 0, and the id and name come with every piece.
            &[
                r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\""}}"#,
                r#"{"index":0,"id":"a","function":{"name":"f","arguments":":1}"}}"#,
                r#"{"index":0,"id":"b","function":{"name":"g"}}"#,
            ],
            // No numbers.
            &[
                r#"{"id":"a","function":{"name":"f","arguments":"{\"x\""}}"#,
                r#"{"function":{"arguments":":1}"}}"#,
                r#"{"id":"b","function":{"name":"g","arguments":"null"}}"#,
            ],
            // Numbers from 1, interleaved, and an object in the place of text.
            &[
                r#"{"index":1,"id":"a","function":{"name":"f","arguments":"{\"x\":"}}"#,
                r#"{"index":2,"id":"b","function":{"name":"g","arguments":{}}}"#,
                r#"{"index":1,"function":{"arguments":"1}"}}"#,
            ],
        ] {
            assert_eq!(finished(pieces, false).as_deref(), Ok(two), "{pieces:?}");
        }
    }

    #[test]
    fn arguments_over_several_lines_stand_on_one() {
        let pretty = r#"{"id":"a","function":{"name":"f","arguments":"{\n  \"x\": \"a\\nb\"\r\n}"}}"#;
        let one = r#"[{"id":"a","function":{"index":0,"name":"f","arguments":{   "x": "a\nb"  }}}]"#;
        assert_eq!(finished(&[pretty], false).as_deref(), Ok(one));
    }

    #[test]
    fn a_call_that_cannot_be_read_is_an_error_unless_the_answer_was_cut() {
        let piece = r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":"}}"#;
        assert!(finished(&[piece], false).unwrap_err().starts_with("error parsing tool call: raw='{\"x\":', err="));
        assert_eq!(finished(&[piece], true).as_deref(), Ok("[]"));
        assert!(finished(&[r#"{"function":{"name":"f","arguments":"[1]"}}"#], false).is_err());
    }
}
