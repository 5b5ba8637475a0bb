//! Tools and their calls, both ways: OpenAI's `arguments` are text, Ollama's an object; OpenAI's ids are unique,
//! Ollama's may be absent. Pure.

pub(crate) mod choice;
pub(crate) mod forced;
pub(crate) mod parameters;
pub(crate) mod repair;
pub(crate) mod rescue;

use std::{borrow::Cow, collections::HashSet};

use foldhash::fast::RandomState;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{
    config,
    error::Error,
    ollama::wire::{AskedCall, AskedFunction, ReplyCall},
    openai::{
        request::{
            json::Text,
            options::{raw, raw_text},
            surrogates,
        },
        tools::{
            forced::{Call, Form},
            repair::Repairs,
        },
    },
    receipt::{self, Receipt},
};

/// A tool on offer.
#[derive(Debug, Deserialize)]
pub(crate) struct Tool<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) function: Option<Function<'a>>,
}

impl Tool<'_> {
    /// The name of its function.
    pub(crate) fn name(&self) -> Option<&str> {
        self.function.as_ref().map(|function| &*function.name)
    }
}

/// A function on offer.
#[derive(Debug, Deserialize)]
pub(crate) struct Function<'a> {
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) description: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    pub(crate) parameters: Option<Cow<'a, RawValue>>,
    /// Whether arguments must follow the schema.
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

/// Derived code would copy the text.
fn borrowed<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'a, RawValue>>, D::Error> {
    Ok(Option::<&'a RawValue>::deserialize(deserializer)?.map(Cow::Borrowed))
}

impl<'a> Tool<'a> {
    /// Brings the parameters into a form that Ollama takes; `at` is their place in the request.
    ///
    /// # Errors
    /// Fails if there is no such form.
    pub(crate) fn accept(&mut self, at: impl FnOnce() -> String) -> Result<(), Error> {
        let Some(function) = &mut self.function else { return Ok(()) };
        if let Some(Cow::Borrowed(raw)) = function.parameters {
            function.parameters = Some(parameters::accepted(raw, at)?);
        }
        Ok(())
    }
}

impl<'a> From<Function<'a>> for Tool<'a> {
    fn from(function: Function<'a>) -> Self {
        Self { kind: Text("function".into()), function: Some(function) }
    }
}

/// Returns what calls of `tools` are checked against. Notes that no schema is enforced where one should be and nothing
/// is checked; `field` is how the endpoint calls it.
pub(crate) fn repairs(
    tools: &[Tool<'_>],
    form: &Form,
    settings: &config::Tools,
    field: &str,
    receipt: &mut Receipt,
) -> Repairs {
    let repairs = Repairs::new(tools, settings);
    let strict = |tool: &Tool<'_>| tool.function.as_ref().is_some_and(|function| function.strict == Some(true));
    // A form enforces them.
    if !repairs.checks() && *form == Form::Free && tools.iter().any(strict) {
        receipt.note(field, "not-enforced");
    }
    repairs
}

/// A tool as Ollama takes it.
#[derive(Debug, Serialize)]
pub(crate) struct NativeTool<'a> {
    r#type: &'static str,
    function: NativeFunction<'a>,
}

#[derive(Debug, Serialize)]
struct NativeFunction<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Cow<'a, str>>,
    parameters: Cow<'a, RawValue>,
}

/// `tools` for Ollama. A function without parameters gets an empty object of them: without one, Ollama loses the
/// model's call (recorded: tools/no-parameters).
///
/// # Errors
/// A tool that is no function.
pub(crate) fn offer<'a>(tools: Vec<Tool<'a>>) -> Result<Vec<NativeTool<'a>>, Error> {
    let offer = |(n, tool): (usize, Tool<'a>)| {
        if &*tool.kind != "function" {
            return Err(Error::unsupported(
                format!("tools[{n}].type"),
                format!("Tools of type '{}' cannot be given to Ollama; supported is 'function'.", &*tool.kind),
            ));
        }
        let function = tool.function.ok_or_else(|| Error::missing(format!("tools[{n}].function")))?;
        let parameters = match function.parameters {
            Some(parameters) if parameters.get() != "null" => parameters,
            _ => Cow::Owned(raw_text(r#"{"type":"object","properties":{}}"#)),
        };
        Ok(NativeTool {
            r#type: "function",
            function: NativeFunction {
                name: function.name.0,
                description: function.description.map(|text| text.0),
                parameters,
            },
        })
    };
    tools.into_iter().enumerate().map(offer).collect()
}

/// A call in a request's history.
#[derive(Debug, Deserialize)]
pub(crate) struct PastCall<'a> {
    #[serde(borrow, default)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow, rename = "type", default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) kind: Option<&'a RawValue>,
    /// Of a streamed answer that comes back; the order of the calls says the same.
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) function: PastFunction<'a>,
}

impl<'a> From<PastFunction<'a>> for PastCall<'a> {
    fn from(function: PastFunction<'a>) -> Self {
        Self { id: None, kind: None, index: None, function }
    }
}

/// The function of a [`PastCall`].
#[derive(Debug, Deserialize)]
pub(crate) struct PastFunction<'a> {
    #[serde(borrow)]
    pub(crate) name: Text<'a>,
    /// Text that holds an object; some clients send the object itself.
    #[serde(borrow, default)]
    pub(crate) arguments: Option<&'a RawValue>,
}

/// Calls of one assistant message, for Ollama. `at` is their place, such as `messages[1].tool_calls`.
pub(crate) fn history<'a>(
    calls: Vec<PastCall<'a>>,
    at: impl Fn() -> String,
    receipt: &mut Receipt,
) -> Vec<AskedCall<'a>> {
    let call = |(n, call): (usize, PastCall<'a>)| {
        let arguments = arguments(call.function.arguments, || format!("{}[{n}].function.arguments", at()), receipt);
        AskedCall {
            id: call.id.map(|id| id.0),
            function: AskedFunction { index: n, name: call.function.name.0, arguments },
        }
    };
    calls.into_iter().enumerate().map(call).collect()
}

/// Arguments of a call in a request's history: text that holds an object, or the object itself.
///
/// A model sometimes writes something else, or is cut off in the middle. The client sends that back on every turn, and
/// Ollama takes objects only, so it goes on as `{"malformed": …}`: the conversation continues, and the model sees what
/// it wrote.
pub(crate) fn arguments<'a>(
    raw: Option<&'a RawValue>,
    at: impl FnOnce() -> String,
    receipt: &mut Receipt,
) -> Cow<'a, RawValue> {
    let Some(raw) = raw else { return Cow::Owned(raw_text("{}")) };
    if raw.get().starts_with('{') {
        return Cow::Borrowed(raw);
    }
    let given: Value = match serde_json::from_str::<Text<'a>>(raw.get()) {
        Ok(text) => {
            let text = text.trim();
            // What a model that calls without arguments leaves behind.
            if text.is_empty() || text == "null" {
                return Cow::Owned(raw_text("{}"));
            }
            if text.starts_with('{')
                && let Ok(object) = RawValue::from_string(surrogates::mend_text(text.to_owned()))
            {
                return Cow::Owned(object);
            }
            text.into()
        }
        Err(_) => serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().into()),
    };
    receipt.note(&at(), "malformed");
    Cow::Owned(self::raw(&json!({ "malformed": given })))
}

/// A call in an answer.
#[derive(Debug, Serialize)]
pub(crate) struct ToolCall<'a> {
    /// The place in a streamed answer; the unstreamed one has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<usize>,
    pub(crate) id: String,
    pub(crate) r#type: &'static str,
    pub(crate) function: CalledFunction<'a>,
}

/// The function of a [`ToolCall`].
#[derive(Debug, Serialize)]
pub(crate) struct CalledFunction<'a> {
    pub(crate) name: Cow<'a, str>,
    /// The text of a JSON object, keys in the model's order.
    pub(crate) arguments: Cow<'a, str>,
}

/// Ollama drops a call that it cannot read, without a word (recorded: tools/garbled-whole); all that is left is that
/// the model wrote something.
pub(crate) fn lost(receipt: &mut Receipt) {
    receipt.note("tool_calls", "lost");
}

/// Notes calls that were written as text.
pub(crate) fn rescued(calls: &[Call], receipt: &mut Receipt) {
    if !calls.is_empty() {
        receipt.note("tool_calls", "rescued");
        calls.iter().for_each(|_| receipt.count(receipt::Call::Rescued));
    }
}

/// Numbers the calls of one answer from 0 in order of arrival, and gives each an id of its own.
#[derive(Clone, Debug)]
pub(crate) struct Numbering {
    random: String,
    count: usize,
    ids: HashSet<String, RandomState>,
}

impl Numbering {
    /// `random` are hex digits that belong to this answer alone.
    pub(crate) fn new(random: &str) -> Self {
        Self { random: random.to_owned(), count: 0, ids: HashSet::default() }
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The next call: its index, and its own id where the model gave one that no other call has.
    pub(crate) fn next<'a>(&mut self, call: ReplyCall<'a>) -> (usize, ToolCall<'a>) {
        let arguments = Cow::Borrowed(call.function.arguments.map_or("{}", RawValue::get));
        self.number(call.id, CalledFunction { name: call.function.name, arguments })
    }

    /// A call that was read out of an answer in a form.
    pub(crate) fn read(&mut self, Call { name, arguments }: Call) -> (usize, ToolCall<'static>) {
        self.number(None, CalledFunction { name: Cow::Owned(name), arguments: Cow::Owned(arguments) })
    }

    fn number<'a>(&mut self, id: Option<Cow<'_, str>>, function: CalledFunction<'a>) -> (usize, ToolCall<'a>) {
        let index = self.count;
        self.count += 1;
        let own = id.filter(|id| !id.is_empty() && !self.ids.contains(&**id));
        let invented = || {
            let digits = &self.random[..self.random.len().min(20)];
            ["call_", digits, itoa::Buffer::new().format(index)].concat()
        };
        let id = own.map_or_else(invented, Cow::into_owned);
        self.ids.insert(id.clone());
        (index, ToolCall { index: None, id, r#type: "function", function })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_the_history_become_objects_and_keep_their_key_order() {
        let calls = r#"[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"b\": 1.0, \"a\": 2}"}},
            {"function":{"name":"g","arguments":""}},{"function":{"name":"h","arguments":{"z":1}}},{"function":{"name":"i"}}]"#;
        let calls = history(
            serde_json::from_str(calls).unwrap(),
            || "messages[1].tool_calls".to_owned(),
            &mut Receipt::default(),
        );
        let arguments: Vec<_> = calls.iter().map(|call| call.function.arguments.get()).collect();
        assert_eq!(arguments, [r#"{"b": 1.0, "a": 2}"#, "{}", r#"{"z":1}"#, "{}"]);
    }

    #[test]
    fn arguments_that_are_no_object_do_not_end_the_conversation() {
        for (arguments, expected) in [
            (r#""[1]""#, r#"{"malformed":"[1]"}"#),
            (r#""{\"city\": ""#, r#"{"malformed":"{\"city\":"}"#),
            (r#""not json""#, r#"{"malformed":"not json"}"#),
            (r#""{\"a\":1} x""#, r#"{"malformed":"{\"a\":1} x"}"#),
            (r#""{\"a\":\"\\ud83d\"""#, r#"{"malformed":"{\"a\":\"\\ud83d\""}"#),
            ("5", r#"{"malformed":5}"#),
            ("[1]", r#"{"malformed":[1]}"#),
        ] {
            let calls = format!(r#"[{{"function":{{"name":"f","arguments":{arguments}}}}}]"#);
            let mut receipt = Receipt::default();
            let calls =
                history(serde_json::from_str(&calls).unwrap(), || "messages[1].tool_calls".to_owned(), &mut receipt);
            assert_eq!(calls[0].function.arguments.get(), expected);
            assert_eq!(receipt.to_string(), "messages[].tool_calls[].function.arguments=malformed");
        }
    }

    #[test]
    fn every_call_of_an_answer_has_an_id_of_its_own() {
        let mut numbering = Numbering::new("0123456789abcdef0123456789abcdef");
        let mut next = |json: &str| {
            let (index, call) = numbering.next(serde_json::from_str(json).unwrap());
            (index, call.id)
        };
        assert_eq!(next(r#"{"id":"call_x","function":{"name":"f"}}"#), (0, "call_x".to_owned()));
        let (index, id) = next(r#"{"id":"call_x","function":{"name":"f","index":0}}"#);
        assert!(index == 1 && id != "call_x");
        assert_ne!(next(r#"{"function":{"name":"f"}}"#).1, id);
    }
}
