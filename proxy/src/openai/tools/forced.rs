//! Calls that a model must make, and answers in a form beside tools: Ollama's `format` constrains the model to JSON
//! that is one or the other, and its answer is read back into calls or an answer. Pure.
//!
//! Of `tools` and `format` together Ollama obeys `format` alone (recorded: tools/with-format), so one schema has to say
//! both: `[{"name": …, "arguments": …}, …]` for calls, without the list where one call is wanted, and `{"answer": …}`
//! for an answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::Tool;
use crate::{
    error::Error,
    ollama::wire::Options,
    openai::{
        request::options,
        schema::{self, Impossible},
        tools::choice::Mode,
    },
    receipt::Receipt,
};

/// Most calls of one forced answer: a small model that cannot find the end of its list must not go on until its context
/// is full.
const MOST: usize = 16;

/// How the model's answer must be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// Plain text.
    #[default]
    Free,
    /// Calls of these tools.
    Call(Vec<String>),
    /// Calls of these tools, or an answer.
    CallOrAnswer(Vec<String>),
}

/// What the model has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Calls(Vec<Call>),
    /// The answer itself.
    Answer(String),
}

/// A call that was read out of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// The text of a JSON object, keys in the model's order; only the beginning of one where the answer was cut at its
    /// limit.
    pub(crate) arguments: String,
}

/// One object of an answer in a form.
#[derive(Deserialize)]
struct Spoken<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    answer: Option<&'a RawValue>,
}

impl Form {
    /// The form for a model that is offered `tools`. Its answer is free unless it must make a call, or is to answer in
    /// a format beside tools.
    pub(crate) fn of(tools: &[Tool<'_>], choice: Mode, formatted: bool) -> Self {
        let names = || {
            let functions = tools.iter().filter_map(|tool| tool.function.as_ref());
            functions.map(|function| function.name.to_string()).collect()
        };
        match choice {
            _ if tools.is_empty() => Self::Free,
            Mode::Required => Self::Call(names()),
            Mode::Auto | Mode::None if formatted => Self::CallOrAnswer(names()),
            Mode::Auto | Mode::None => Self::Free,
        }
    }

    /// Takes the stop strings out of `options` where the answer has a form: one that occurs in a call or in our
    /// wrapping would cut the JSON in two. smolagents sends some with every forced call. Returns those that an answer
    /// is cut at later; `field` is their place.
    pub(crate) fn take_stops(&self, options: &mut Options<'_>, receipt: &mut Receipt) -> Vec<String> {
        if *self == Self::Free || options.get("stop").is_none() {
            return Vec::new();
        }
        let stops = options::stops(options);
        options.remove("stop");
        receipt.note("stop", if matches!(self, Self::Call(_)) { "not-sent" } else { "emulated" });
        stops
    }

    /// Reads the whole answer of a model that is held to this form. `None`: it was cut off before it meant anything.
    /// `format` is the field that asks for a format.
    ///
    /// # Errors
    /// Fails if there is no call where one must be made.
    pub(crate) fn said(
        &self,
        text: &str,
        done_reason: Option<&str>,
        format: &str,
        receipt: &mut Receipt,
    ) -> Result<Option<Said>, Error> {
        let said = match (self.read(text), self) {
            (Some(said), _) => said,
            // OpenAI gives what there is of a call or an answer that was cut at its limit.
            (None, _) if done_reason == Some("length") => return Ok(self.piece(text)),
            (None, Self::Free | Self::CallOrAnswer(_)) => {
                receipt.note(format, "not-obeyed");
                match self.piece(text) {
                    Some(Said::Answer(answer)) => Said::Answer(answer),
                    _ => Said::Answer(text.to_owned()),
                }
            }
            (None, Self::Call(_)) => {
                return Err(Error::unsupported(
                    "tool_choice",
                    "The model made no call, though 'tool_choice' asks for one and its answer was constrained to one by 'format': \
                     this model, or this version of Ollama, does not obey 'format'. Use tool_choice 'auto', or another model.",
                ));
            }
        };
        let Said::Calls(mut calls) = said else { return Ok(Some(said)) };
        // A small model that cannot find the end of its list repeats itself.
        let before = calls.len();
        let mut seen: Vec<Call> = Vec::with_capacity(before);
        calls.retain(|call| {
            let new = !seen.contains(call);
            seen.extend(new.then(|| call.clone()));
            new
        });
        if calls.len() < before {
            receipt.note("tool_calls", "repeated");
        }
        Ok(Some(Said::Calls(calls)))
    }

    /// The names of the tools, and whether an answer is allowed. `None`: anything is.
    fn allowed(&self) -> Option<(&[String], bool)> {
        match self {
            Self::Free => None,
            Self::Call(names) => Some((names, false)),
            Self::CallOrAnswer(names) => Some((names, true)),
        }
    }

    /// Reads a whole answer. `None`: it is neither calls of tools that may be called nor an answer.
    pub(crate) fn read(&self, text: &str) -> Option<Said> {
        let Some((names, answers)) = self.allowed() else { return Some(Said::Answer(text.to_owned())) };
        if text.trim_ascii_start().starts_with('[') {
            let spoken: Vec<Spoken<'_>> = serde_json::from_str(text).ok()?;
            let calls: Vec<Call> = spoken.iter().map(|one| call(one, names)).collect::<Option<_>>()?;
            return (!calls.is_empty()).then_some(Said::Calls(calls));
        }
        let spoken: Spoken<'_> = serde_json::from_str(text).ok()?;
        match (&spoken.name, spoken.answer) {
            (None, Some(answer)) if answers => Some(Said::Answer(answer.get().to_owned())),
            // What begins as an answer is one, whatever follows: the client may have it already.
            (Some(_), Some(answer)) if answers && answer_in(text).is_some() => {
                Some(Said::Answer(answer.get().to_owned()))
            }
            _ => call(&spoken, names).map(|call| Said::Calls(vec![call])),
        }
    }

    /// The answer in a text beside calls that the model has made of its own; calls in the text do not count then.
    pub(crate) fn answer_beside_calls(&self, text: &str) -> Option<String> {
        answer_in(text)?;
        match self.piece(text)? {
            Said::Answer(answer) => Some(answer),
            Said::Calls(_) => None,
        }
    }

    /// Reads an answer that was cut off: the calls that are whole, and what there is of the last one, or what there is
    /// of an answer.
    fn piece(&self, text: &str) -> Option<Said> {
        let (names, answers) = self.allowed()?;
        if answers && let Some(answer) = answer_in(text) {
            let mut value = ValueScan::default();
            return Some(Said::Answer(answer[..value.go_on(answer)].to_owned()));
        }
        let text = text.trim_ascii_start();
        let mut rest = text.strip_prefix('[').unwrap_or(text);
        let mut calls = Vec::new();
        while let Some((spoken, after)) = first::<Spoken<'_>>(rest) {
            calls.push(call(&spoken, names)?);
            rest = after.trim_ascii_start().strip_prefix(',').unwrap_or_default();
        }
        calls.extend(cut_call(rest, names));
        (!calls.is_empty()).then_some(Said::Calls(calls))
    }
}

/// A call, if it is one of a tool that may be called.
fn call(spoken: &Spoken<'_>, names: &[String]) -> Option<Call> {
    let arguments = spoken.arguments.filter(|arguments| arguments.get().starts_with('{'))?;
    let name = names.iter().find(|known| spoken.name.as_deref() == Some(known))?;
    Some(Call { name: name.clone(), arguments: arguments.get().to_owned() })
}

/// What there is of a call that was cut off: its name, and the beginning of its arguments.
fn cut_call(text: &str, names: &[String]) -> Option<Call> {
    let (name, rest) = first::<Cow<'_, str>>(after_key(text.trim_ascii_start().strip_prefix('{')?, "name")?)?;
    let name = names.iter().find(|known| **known == *name)?;
    let arguments = after_key(rest.trim_ascii_start().strip_prefix(',')?, "arguments")?;
    arguments.starts_with('{').then(|| Call { name: name.clone(), arguments: arguments.to_owned() })
}

/// What follows `{"answer":` at the beginning of `text`.
fn answer_in(text: &str) -> Option<&str> {
    after_key(text.trim_ascii_start().strip_prefix('{')?, "answer")
}

/// What a model whose output has a set form says, as it comes. An answer goes out as it comes, without its wrapping; a
/// call waits until it is whole, because it is repaired and checked before it goes out, and may be a repetition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Speech {
    text: String,
    answer: Progress,
    /// How many bytes of the answer are out.
    sent: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum Progress {
    /// There is too little text to know whether it is an answer.
    #[default]
    Unknown,
    /// It is none, or it must be whole.
    Whole,
    /// It is an answer, whose value begins here in the text.
    Value(usize, ValueScan),
}

impl Speech {
    /// The text of a model whose output has the form `form`. An answer that is cut at `stops` waits until it is whole.
    pub(crate) fn new(form: &Form, stops: &[String]) -> Self {
        let streams = matches!(form, Form::CallOrAnswer(_)) && stops.is_empty();
        let answer = if streams { Progress::Unknown } else { Progress::Whole };
        Self { answer, ..Self::default() }
    }

    /// Adds text; returns what of the answer may go out now.
    pub(crate) fn push(&mut self, text: &str) -> &str {
        self.text.push_str(text);
        if let Progress::Unknown = self.answer {
            match answer_in(&self.text) {
                Some("") => {}
                Some(answer) => self.answer = Progress::Value(self.text.len() - answer.len(), ValueScan::default()),
                None if may_begin_an_answer(&self.text) => {}
                None => self.answer = Progress::Whole,
            }
        }
        let Progress::Value(start, scan) = &mut self.answer else { return "" };
        let from = *start + self.sent;
        self.sent = scan.go_on(&self.text[*start..]);
        &self.text[from..*start + self.sent]
    }

    /// Reads the whole text, as [`Form::said`]; of an answer what is not out yet.
    ///
    /// # Errors
    /// As [`Form::said`].
    pub(crate) fn end(
        &self,
        form: &Form,
        done_reason: Option<&str>,
        format: &str,
        receipt: &mut Receipt,
    ) -> Result<Option<Said>, Error> {
        Ok(form.said(&self.text, done_reason, format, receipt)?.map(|said| self.rest(said)))
    }

    /// Reads the whole text where the model has made calls of its own, as [`Form::answer_beside_calls`]; what of the
    /// answer is not out yet.
    pub(crate) fn end_beside_calls(&self, form: &Form) -> Option<Said> {
        form.answer_beside_calls(&self.text).map(|answer| self.rest(Said::Answer(answer)))
    }

    fn rest(&self, said: Said) -> Said {
        match said {
            Said::Answer(answer) => Said::Answer(answer.get(self.sent..).unwrap_or_default().to_owned()),
            calls @ Said::Calls(_) => calls,
        }
    }
}

/// Whether `text` is the beginning of `{"answer":`, with any space in between.
fn may_begin_an_answer(text: &str) -> bool {
    const LONGEST: usize = 256;
    let mut expected = "{\"answer\":".chars();
    text.len() <= LONGEST
        && text
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .all(|c| expected.next().is_none_or(|expected| expected == c))
}

/// Looks for the end of a JSON value in a text that grows.
#[derive(Clone, Copy, Debug, Default)]
struct ValueScan {
    /// How much of the text is of the value.
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    over: bool,
}

impl ValueScan {
    /// Goes on in `text`, which has grown; returns how much of it is of the value, which is at its beginning.
    fn go_on(&mut self, text: &str) -> usize {
        while let Some(byte) = text.as_bytes().get(self.at).filter(|_| !self.over) {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => {
                    self.in_string = !self.in_string;
                    self.over = !self.in_string && self.depth == 0;
                }
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                // The end of what is around the value.
                b'}' | b']' | b',' | b' ' | b'\t' | b'\n' | b'\r' if self.depth == 0 => {
                    self.over = true;
                    break;
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    self.over = self.depth == 0;
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at
    }
}

/// What follows `"key":` at the beginning of `text`.
fn after_key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let rest = text.trim_ascii_start().strip_prefix('"')?.strip_prefix(key)?.strip_prefix('"')?;
    Some(rest.trim_ascii_start().strip_prefix(':')?.trim_ascii_start())
}

/// The JSON value at the beginning of `text`, and what follows it.
fn first<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, &'a str)> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<T>();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// Cuts an answer at the first of `stops` that occurs in it, as Ollama would have.
pub(crate) fn cut_at(answer: &mut String, stops: &[String]) {
    if let Some(at) = stops.iter().filter_map(|stop| answer.find(&**stop)).min() {
        answer.truncate(at);
    }
}

/// `format` that allows at most `most` calls of `tools`, and `answer` if there is one. What cannot be enforced of
/// the tools' schemas is noted in `receipt`.
///
/// # Errors
/// None that readable schemas can cause.
pub(crate) fn format(
    tools: &[Tool<'_>],
    answer: Option<&RawValue>,
    most: usize,
    receipt: &mut Receipt,
) -> Result<Box<RawValue>, Error> {
    let mut definitions = serde_json::Map::new();
    let mut calls = Vec::with_capacity(tools.len());
    for (n, function) in tools.iter().filter_map(|tool| tool.function.as_ref()).enumerate() {
        let mut parameters = schema(function.parameters.as_deref())?;
        if let Value::Object(parameters) = &mut parameters
            && !["type", "$ref", "anyOf", "oneOf", "allOf"].iter().any(|key| parameters.contains_key(*key))
        {
            parameters.insert("type".to_owned(), "object".into());
        }
        // A tool's schema is a description first: what the grammar cannot say is left to the model.
        let strict = function.strict == Some(true);
        schema::rewrite(&mut parameters, "tools[].parameters", Impossible::Dropped, strict, receipt)?;
        let arguments = placed(parameters, &format!("tool{n}"), &mut definitions);
        calls.push(form(&[("name", json!({ "const": &*function.name })), ("arguments", arguments)]));
    }
    let mut forms = match (most, answer) {
        (..=1, _) => calls,
        _ => {
            let items = if calls.len() == 1 { calls.remove(0) } else { json!({ "anyOf": calls }) };
            vec![json!({"type": "array", "items": items, "minItems": 1, "maxItems": most.min(MOST)})]
        }
    };
    if let Some(answer) = answer {
        let answer = placed(schema(Some(answer))?, "answer", &mut definitions);
        forms.push(form(&[("answer", answer)]));
    }
    let mut root = if forms.len() == 1 { forms.remove(0) } else { json!({ "anyOf": forms }) };
    if !definitions.is_empty() {
        root["$defs"] = definitions.into();
    }
    Ok(options::raw(&root))
}

fn schema(raw: Option<&RawValue>) -> Result<Value, Error> {
    let raw = raw.map_or("null", RawValue::get);
    let value: Value = serde_json::from_str(raw).map_err(|_| Error::invalid("tools", schema::TOO_DEEP))?;
    // A function without parameters has an empty object of them.
    Ok(if value.is_null() { json!({"type": "object", "properties": {}}) } else { value })
}

/// An object of exactly these keys, in this order.
fn form(keys: &[(&str, Value)]) -> Value {
    let properties: serde_json::Map<_, _> = keys.iter().map(|(key, part)| ((*key).to_owned(), part.clone())).collect();
    let required: Vec<&str> = keys.iter().map(|(key, _)| *key).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// A schema where it stands in a bigger one. References start at the root, so one that has any moves to `$defs` under
/// `name`.
fn placed(mut schema: Value, name: &str, definitions: &mut serde_json::Map<String, Value>) -> Value {
    if !refers(&mut schema, &format!("#/$defs/{name}")) {
        return schema;
    }
    definitions.insert(name.to_owned(), schema);
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// Makes references start at `root`; whether there were any.
fn refers(schema: &mut Value, root: &str) -> bool {
    match schema {
        Value::Object(map) => {
            let mut found = false;
            for (key, part) in map {
                match part {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("{root}{}", &target[1..]);
                        found = true;
                    }
                    part => found |= refers(part, root),
                }
            }
            found
        }
        Value::Array(parts) => {
            let mut found = false;
            for part in parts {
                found |= refers(part, root);
            }
            found
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(json: &str) -> Vec<Tool<'_>> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn references_of_each_schema_still_lead_to_their_own_definitions() {
        let both = tools(
            r##"[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"$defs":{"A":{"type":"string"}}}}},
                {"type":"function","function":{"name":"g","parameters":{"type":"object","properties":{"a":{"$ref":"#"}}}}}]"##,
        );
        let format: Value =
            serde_json::from_str(format(&both, None, 2, &mut Receipt::default()).unwrap().get()).unwrap();
        let arguments =
            |n: usize| format["items"]["anyOf"][n]["properties"]["arguments"]["$ref"].as_str().unwrap()[1..].to_owned();
        assert_eq!(format.pointer(&arguments(0)).unwrap()["properties"]["a"]["$ref"], "#/$defs/tool0/$defs/A");
        assert_eq!(format.pointer("/$defs/tool0/$defs/A").unwrap()["type"], "string");
        assert_eq!(format.pointer(&arguments(1)).unwrap()["properties"]["a"]["$ref"], "#/$defs/tool1");
    }

    #[test]
    fn one_tool_without_parameters_is_an_empty_object_of_arguments() {
        let one = tools(r#"[{"type":"function","function":{"name":"f"}}]"#);
        let expected = json!({"type": "object", "properties": {"name": {"const": "f"}, "arguments": {"type": "object", "properties": {}}},
            "required": ["name", "arguments"], "additionalProperties": false});
        let format = |most| format(&one, None, most, &mut Receipt::default()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(format(1).get()).unwrap(), expected);
        let several = json!({"type": "array", "items": expected, "minItems": 1, "maxItems": MOST});
        assert_eq!(serde_json::from_str::<Value>(format(usize::MAX).get()).unwrap(), several);
    }

    fn calls(calls: &[(&str, &str)]) -> Said {
        let call =
            |(name, arguments): &(&str, &str)| Call { name: (*name).to_owned(), arguments: (*arguments).to_owned() };
        Said::Calls(calls.iter().map(call).collect())
    }

    #[test]
    fn only_a_call_of_a_tool_that_may_be_called_is_one() {
        let call = Form::Call(vec!["f".to_owned()]);
        let read = calls(&[("f", r#"{"b": 1.0,"a":2}"#)]);
        assert_eq!(call.read(r#" {"name":"f", "arguments":{"b": 1.0,"a":2}}"#), Some(read));
        let two = calls(&[("f", "{}"), ("f", r#"{"a":1}"#)]);
        assert_eq!(call.read(r#" [{"name":"f", "arguments":{}}, {"name":"f","arguments":{"a":1}} ]"#), Some(two));
        for text in [
            r#"{"name":"g","arguments":{}}"#,
            r#"{"name":"f","arguments":"x"}"#,
            r#"{"name":"f","argu"#,
            r#"[{"name":"f","arguments":{}},{"name":"g","arguments":{}}]"#,
            "f",
            "[]",
            r#"{"answer":1}"#,
        ] {
            assert_eq!(call.read(text), None, "{text}");
        }
        let either = Form::CallOrAnswer(vec!["f".to_owned()]);
        assert_eq!(either.read(r#"{"answer":{"b":1,"a":2}}"#), Some(Said::Answer(r#"{"b":1,"a":2}"#.to_owned())));
    }

    #[test]
    fn an_answer_that_was_cut_is_given_as_far_as_it_goes_without_the_wrapping() {
        let form = Form::CallOrAnswer(vec!["f".to_owned()]);
        let said = |text: &str| form.said(text, Some("length"), "response_format", &mut Receipt::default()).unwrap();
        let answer = |text: &str| Some(Said::Answer(text.to_owned()));
        assert_eq!(said(r#" { "answer" : {"city":"Os"#), answer(r#"{"city":"Os"#));
        assert_eq!(said(r#"{"answer": {"city":"Oslo"}"#), answer(r#"{"city":"Oslo"}"#));
        assert_eq!(said(r#"{"name":"f","arguments":{"city":"Os"#), Some(calls(&[("f", r#"{"city":"Os"#)])));
        let two = r#"[{"name":"f","arguments":{}},{"name":"f","arguments":{"a"#;
        assert_eq!(said(two), Some(calls(&[("f", "{}"), ("f", r#"{"a"#)])));
        for text in
            ["", "{", r#"{"ans"#, r#"[{"name":"f"#, r#"{"name":"f","arguments":"#, r#"{"name":"g","arguments":{"#]
        {
            assert_eq!(said(text), None, "{text}");
        }
        // A stop string of the Modelfile may cut it too.
        let mut receipt = Receipt::default();
        let stopped = form.said(r#"{"answer":{"city":""#, Some("stop"), "response_format", &mut receipt).unwrap();
        assert_eq!((stopped, &*receipt.to_string()), (answer(r#"{"city":""#), "response_format=not-obeyed"));
    }

    #[test]
    fn an_answer_goes_out_as_it_comes_without_its_wrapping() {
        let form = Form::CallOrAnswer(vec!["f".to_owned()]);
        let call = r#"{"name":"f","arguments":{"answer":1}}"#;
        for (text, answer) in [
            (r#" { "answer" : {"city":"Os}lo\"", "n": [1, {}]} } "#, r#"{"city":"Os}lo\"", "n": [1, {}]}"#),
            (r#"{"answer":"a\\"}"#, r#""a\\""#),
            (r#"{"answer":-1.5e3}"#, "-1.5e3"),
            (r#"{"answer": true , "name": "f", "arguments": {}}"#, "true"),
            (r#"{"answer":{"city":"Os"#, r#"{"city":"Os"#),
            (r#"{"answer": 1.5.2}"#, "1.5.2"),
            (r#"{"answer":{}} and more"#, "{}"),
            (call, ""),
            (r#"{"answers":{}}"#, ""),
            ("plain words", ""),
        ] {
            for size in 1..4 {
                let mut speech = Speech::new(&form, &[]);
                let chars: Vec<char> = text.chars().collect();
                let mut sent = String::new();
                for piece in chars.chunks(size) {
                    sent.push_str(speech.push(&piece.iter().collect::<String>()));
                }
                assert_eq!(sent, answer, "{text}");
                let end = speech.end(&form, Some("stop"), "response_format", &mut Receipt::default()).unwrap();
                let whole = form.said(text, Some("stop"), "response_format", &mut Receipt::default()).unwrap();
                match (whole, end) {
                    (Some(Said::Answer(whole)), Some(Said::Answer(rest))) => assert_eq!(sent + &rest, whole, "{text}"),
                    (whole, end) => assert_eq!(whole, end, "{text}"),
                }
                let mut waiting = Speech::new(&form, &["x".to_owned()]);
                assert_eq!(waiting.push(text), "", "what may be cut waits");
            }
        }
    }

    #[test]
    fn a_call_that_is_repeated_counts_once() {
        let form = Form::Call(vec!["f".to_owned()]);
        let mut receipt = Receipt::default();
        let text = r#"[{"name":"f","arguments":{}},{"name":"f","arguments":{"a":1}},{"name":"f","arguments":{}}]"#;
        let said = form.said(text, Some("stop"), "response_format", &mut receipt).unwrap();
        assert_eq!(said, Some(calls(&[("f", "{}"), ("f", r#"{"a":1}"#)])));
        assert_eq!(receipt.to_string(), "tool_calls=repeated");
    }

    #[test]
    fn an_answer_is_cut_at_the_first_stop_string() {
        let cut = |stops: &[&str]| {
            let mut answer = r#"{"city":"Oslo"}"#.to_owned();
            cut_at(&mut answer, &stops.iter().map(ToString::to_string).collect::<Vec<_>>());
            answer
        };
        assert_eq!(cut(&["lo", "Os"]), r#"{"city":""#);
        assert_eq!(cut(&["x"]), r#"{"city":"Oslo"}"#);
    }
}
