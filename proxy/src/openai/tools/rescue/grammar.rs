//! Reads text that is calls and nothing else, in any of the [`forms`](super::forms); of text that is not whole yet,
//! whether it may become calls. Pure.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{
    Offer,
    forms::{Body, FORMS, Form, Place},
    tail,
};
use crate::openai::tools::{forced::Call, repair::literal};

/// Longest name of a tool in text.
const LONGEST_NAME: usize = 128;

/// Most bytes of blanks between two parts of a call.
const BLANKS: usize = 256;

const NAMES: [&str; 7] = ["name", "tool", "tool_name", "function", "function_name", "action", "func"];
const ARGUMENTS: [&str; 8] =
    ["arguments", "parameters", "input", "args", "params", "action_input", "tool_input", "kwargs"];
const ENVELOPES: [&str; 3] = ["tool_calls", "tool_call", "function_call"];
/// What may stand beside a name and arguments; each says nothing of the call.
const BESIDE: [&str; 5] = ["id", "type", "index", "call_id", "tool_call_id"];

/// What may stand beside calls in a message, with nothing in it.
const EMPTY: [&str; 2] = ["role", "content"];

/// How much of the text there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// More may come.
    Begun,
    /// All of it.
    Whole,
    /// All of it, but closers may be missing at its end. `stopped`: the model ended by itself, so that a text or a
    /// number that is open is whole; otherwise it was cut off somewhere.
    Cut { stopped: bool },
}

/// Why text is no calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It may become calls.
    More,
    /// It never will.
    No,
}

use Stop::{More, No};

/// What was read of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Calls(Vec<Call>),
    /// It may become calls.
    More,
    /// It never will; `after`: there is a whole call in front.
    No {
        after: bool,
    },
}

/// Reads `text`, whose beginning stands at `place` in the answer.
pub(super) fn read(text: &str, extent: Extent, place: Place, offer: &Offer) -> Read {
    let mut parser = Parser { text, at: 0, extent, offer };
    let mut calls = Vec::new();
    loop {
        if parser.blanks().is_err() {
            return Read::No { after: !calls.is_empty() };
        }
        if parser.rest().is_empty() {
            return match (extent, calls.is_empty()) {
                (Extent::Begun, _) => Read::More,
                (_, true) => Read::No { after: false },
                (_, false) => Read::Calls(calls),
            };
        }
        match parser.form(place, calls.is_empty()) {
            Ok(more) => calls.extend(more),
            Err(More) if extent == Extent::Begun => return Read::More,
            Err(_) => return Read::No { after: !calls.is_empty() },
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    extent: Extent,
    offer: &'a Offer,
}

type Got<T> = Result<T, Stop>;

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// What it means that the text ends here.
    fn end(&self) -> Stop {
        if self.extent == Extent::Begun { More } else { No }
    }

    /// Skips blanks.
    fn blanks(&mut self) -> Got<()> {
        let rest = self.rest();
        let blanks = rest.len() - rest.trim_start().len();
        self.at += blanks;
        if blanks > BLANKS { Err(No) } else { Ok(()) }
    }

    fn literal(&mut self, literal: &str) -> Got<()> {
        let rest = self.rest();
        if rest.starts_with(literal) {
            self.at += literal.len();
            return Ok(());
        }
        Err(if literal.starts_with(rest) { self.end() } else { No })
    }

    /// The end of a part, which may be missing or broken off at the end of a text that was cut.
    fn closer(&mut self, literal: &str) -> Got<()> {
        if matches!(self.extent, Extent::Cut { .. }) && literal.starts_with(self.rest()) {
            self.at = self.text.len();
            return Ok(());
        }
        self.literal(literal)
    }

    /// The first of `parses` that reads the text from here; the text may become any of them.
    fn any<T, I>(
        &mut self,
        items: impl IntoIterator<Item = I>,
        mut parse: impl FnMut(&mut Self, I) -> Got<T>,
    ) -> Got<T> {
        let (start, mut stop) = (self.at, No);
        for item in items {
            self.at = start;
            match parse(self, item) {
                Ok(read) => return Ok(read),
                Err(More) => stop = More,
                Err(No) => {}
            }
        }
        self.at = start;
        Err(stop)
    }

    /// One call, or several, in one of the forms that may stand here.
    fn form(&mut self, place: Place, first: bool) -> Got<Vec<Call>> {
        // What follows a call may be in any form that stands alone.
        let allowed = |form: &&Form| form.place <= if first { place } else { place.max(Place::Line) };
        let opened =
            FORMS.iter().filter(allowed).flat_map(|form| form.open.iter().map(move |open| (form, open.as_str())));
        self.any(opened, |parser, (form, open)| parser.opened(form, open))
    }

    fn opened(&mut self, form: &Form, open: &str) -> Got<Vec<Call>> {
        self.literal(open)?;
        self.blanks()?;
        let body = |parser: &mut Self| parser.any(&form.body, |parser, body| parser.body(*body, !open.is_empty()));
        let mut calls = body(self)?;
        loop {
            let after = self.at;
            self.blanks()?;
            if self.rest().starts_with([',', ';']) {
                self.at += 1;
                self.blanks()?;
                calls.extend(body(self)?);
                continue;
            }
            if form.close.is_empty() {
                return Ok(calls);
            }
            match self.any(&form.close, |parser, close| parser.closer(close)) {
                Ok(()) => return Ok(calls),
                Err(More) => return Err(More),
                Err(No) => {}
            }
            // Another call within the same marks. Without one, the mark at the end may be missing.
            match body(self) {
                Ok(more) => calls.extend(more),
                Err(More) => return Err(More),
                Err(No) if form.lenient => {
                    self.at = after;
                    return Ok(calls);
                }
                Err(No) => return Err(No),
            }
        }
    }

    fn body(&mut self, body: Body, marked: bool) -> Got<Vec<Call>> {
        match body {
            Body::Json => self.json(marked),
            Body::Python => self.python(),
            Body::Function => self.function(),
            Body::Invoke => self.invoke(),
            Body::Keys => self.keys(),
            Body::NameJson => self.name_json(),
            Body::Deepseek => self.deepseek(),
            Body::Kimi => self.kimi(),
            Body::Action => self.action(),
            Body::Gemma => self.gemma(),
        }
    }

    /// The name of a tool, up to one of the characters in `ends`, which stay.
    fn name(&mut self, ends: &[char]) -> Got<&'a str> {
        let rest = self.rest();
        let end = rest.find(ends);
        let begun = rest[..end.unwrap_or(rest.len())].trim_end();
        if begun.contains(|c: char| !c.is_alphanumeric() && !"_.-:/\"'".contains(c)) {
            return Err(No);
        }
        match end {
            Some(end) if end <= LONGEST_NAME => {
                self.at += end;
                if self.offer.resolve(begun).is_some() { Ok(begun) } else { Err(No) }
            }
            None if rest.len() <= LONGEST_NAME && self.offer.may_become(begun) => Err(self.end()),
            _ => Err(No),
        }
    }

    /// The call of a tool that was named.
    fn call(&self, name: &str, arguments: &Value) -> Got<Call> {
        let name = self.offer.resolve(name).ok_or(No)?;
        let arguments = arguments.as_object().and_then(|arguments| serde_json::to_string(arguments).ok()).ok_or(No)?;
        Ok(Call { name: name.to_owned(), arguments })
    }

    /// A call whose arguments have no types: each is text until the schema says what it is.
    fn untyped(&self, name: &str, arguments: Map<String, Value>) -> Got<Vec<Call>> {
        let mut call = self.call(name, &arguments.into())?;
        self.offer.read_types(&mut call);
        Ok(vec![call])
    }

    /// The text of a JSON value, or of one as Python writes it.
    fn value(&mut self) -> Got<Cow<'a, str>> {
        let rest = self.rest();
        if !rest.starts_with(['{', '[']) {
            return Err(if rest.is_empty() { self.end() } else { No });
        }
        match tail::end(rest) {
            tail::End::At(end) => {
                self.at += end;
                Ok(Cow::Borrowed(&rest[..end]))
            }
            tail::End::Never => Err(No),
            tail::End::Open => match self.extent {
                Extent::Begun => Err(More),
                Extent::Whole => Err(No),
                Extent::Cut { stopped } => {
                    let completed = tail::complete(rest, stopped).ok_or(No)?;
                    self.at = self.text.len();
                    Ok(Cow::Owned(completed))
                }
            },
        }
    }

    fn json(&mut self, marked: bool) -> Got<Vec<Call>> {
        if !self.may_be_call(self.rest()) {
            return Err(No);
        }
        let text = self.value()?;
        let value = parsed(&text).ok_or(No)?;
        let mut calls = Vec::new();
        if self.calls(&value, marked, &mut calls) && !calls.is_empty() { Ok(calls) } else { Err(No) }
    }

    /// Adds the calls that a JSON value is; whether it is nothing else.
    fn calls(&self, value: &Value, marked: bool, calls: &mut Vec<Call>) -> bool {
        let object = match value {
            Value::Array(several) => return several.iter().all(|value| self.calls(value, marked, calls)),
            Value::Object(object) => object,
            _ => return false,
        };
        let beside = |name: &String, value: &Value| {
            BESIDE.contains(&name.as_str()) && !value.is_object() && !value.is_array()
                || matches!(name.as_str(), "content" | "role")
                    && matches!(value.as_str(), None | Some("" | "assistant"))
        };
        let rest: Vec<_> = object.iter().filter(|(name, value)| !beside(name, value)).collect();
        if let [(name, inner)] = rest[..]
            && (ENVELOPES.contains(&name.as_str()) || name == "function")
            && (inner.is_object() || inner.is_array())
        {
            return self.calls(inner, marked, calls);
        }
        let named = rest.iter().filter(|(name, value)| NAMES.contains(&name.as_str()) && value.is_string());
        let given: Vec<_> = rest.iter().filter(|(name, _)| ARGUMENTS.contains(&name.as_str())).collect();
        let Some(name) = named.clone().next().and_then(|(_, name)| name.as_str()) else { return false };
        if named.count() != 1 || given.len() > 1 || rest.len() != 1 + given.len() {
            return false;
        }
        let arguments = match given.first().map(|(_, arguments)| *arguments) {
            Some(Value::Object(arguments)) => arguments.clone(),
            Some(Value::Null) => Map::new(),
            Some(Value::String(text)) if text.trim().is_empty() => Map::new(),
            Some(Value::String(text)) => match parsed(text.trim()) {
                Some(Value::Object(arguments)) => arguments,
                _ => return false,
            },
            // A name alone is a call only between the marks of one.
            None if marked => Map::new(),
            _ => return false,
        };
        match self.call(name, &arguments.into()) {
            Ok(call) => {
                calls.push(call);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether JSON that begins like `text` may become a call: its first names are those of one, and so is the tool's.
    fn may_be_call(&self, text: &str) -> bool {
        let text = text.trim_start();
        if let Some(list) = text.strip_prefix('[') {
            let list = list.trim_start();
            return list.is_empty() || list.starts_with('{') && self.may_be_call(list);
        }
        let Some(mut rest) = text.strip_prefix('{').map(str::trim_start) else { return text.is_empty() };
        let known = || NAMES.iter().chain(&ARGUMENTS).chain(&ENVELOPES).chain(&BESIDE).chain(&EMPTY);
        loop {
            let key = match quoted(rest) {
                Quoted::Whole(key, after) => {
                    rest = after.trim_start();
                    key
                }
                Quoted::Begun(begun) => return known().any(|key| key.starts_with(begun)),
                Quoted::Not => return rest.is_empty(),
            };
            if !known().any(|known| *known == key) {
                return false;
            }
            let Some(value) = rest.strip_prefix(':').map(str::trim_start) else { return rest.is_empty() };
            match key {
                key if ENVELOPES.contains(&key) || key == "function" && value.starts_with('{') => {
                    return self.may_be_call(value);
                }
                key if NAMES.contains(&key) => match quoted(value) {
                    Quoted::Whole(name, _) => return self.offer.resolve(name).is_some(),
                    Quoted::Begun(begun) => return self.offer.may_become(begun),
                    Quoted::Not => return value.is_empty(),
                },
                _ => {}
            }
            // The name may follow.
            let after = match value.chars().next() {
                Some('{' | '[') => match tail::end(value) {
                    tail::End::At(end) => &value[end..],
                    tail::End::Open => return true,
                    tail::End::Never => return false,
                },
                Some('"' | '\'') => match quoted(value) {
                    Quoted::Whole(_, after) => after,
                    _ => return true,
                },
                _ => value.find([',', '}']).map_or("", |end| &value[end..]),
            };
            match after.trim_start().strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None => return after.trim_start().is_empty(),
            }
        }
    }

    /// `get_weather(city="Oslo")`, or a list of such calls.
    fn python(&mut self) -> Got<Vec<Call>> {
        let list = self.literal("[");
        if list == Err(More) {
            return Err(More);
        }
        let mut calls = Vec::new();
        loop {
            self.blanks()?;
            let printed = self.literal("print(");
            if printed == Err(More) && !self.rest().is_empty() {
                return Err(More);
            }
            let name = self.name(&['('])?;
            if name.contains(['"', '\'']) {
                return Err(No);
            }
            let rest = self.rest();
            let inner = match tail::end(rest) {
                tail::End::At(end) => {
                    self.at += end;
                    Cow::Borrowed(&rest[1..end - 1])
                }
                tail::End::Open => match self.extent {
                    Extent::Cut { stopped: true } => {
                        let completed = tail::complete(rest, true).ok_or(No)?;
                        self.at = self.text.len();
                        Cow::Owned(completed[1..completed.len() - 1].to_owned())
                    }
                    _ => return Err(self.end()),
                },
                tail::End::Never => return Err(No),
            };
            let mut given = literal::given(&inner).ok_or(No)?;
            match (&given.placed[..], self.offer.only_property(name)) {
                ([], _) => {}
                ([value], Some(property)) if given.named.is_empty() => {
                    given.named.insert(property, value.clone());
                }
                _ => return Err(No),
            }
            calls.push(self.call(name, &given.named.into())?);
            if printed.is_ok() {
                self.closer(")")?;
            }
            if list.is_err() {
                return Ok(calls);
            }
            self.blanks()?;
            match self.literal(",") {
                Ok(()) => {}
                Err(_) => {
                    self.closer("]")?;
                    return Ok(calls);
                }
            }
        }
    }

    /// Text up to the first of `ends`; which of them it was.
    fn until(&mut self, ends: &[&str]) -> Got<(&'a str, usize)> {
        let rest = self.rest();
        let found = ends.iter().enumerate().filter_map(|(n, end)| Some((rest.find(end)?, n))).min();
        match (found, self.extent) {
            (Some((at, n)), _) => {
                self.at += at + ends[n].len();
                Ok((&rest[..at], n))
            }
            (None, Extent::Begun) => Err(More),
            (None, Extent::Cut { stopped: true }) => {
                // The mark may be broken off in its middle.
                let whole = ends.iter().filter_map(|end| broken_off(rest, end)).min().unwrap_or(rest.len());
                self.at = self.text.len();
                Ok((&rest[..whole], usize::MAX))
            }
            (None, _) => Err(No),
        }
    }

    /// `<function=get_weather><parameter=city>Oslo</parameter></function>`, or JSON within.
    fn function(&mut self) -> Got<Vec<Call>> {
        self.literal("<function=")?;
        let name = self.name(&['>', '\n'])?.trim_matches(['"', '\'']);
        self.literal(">")?;
        let mut arguments = Map::new();
        loop {
            self.blanks()?;
            if self.rest().starts_with('{') && arguments.is_empty() {
                let text = self.value()?;
                let call = self.call(name, &parsed(&text).ok_or(No)?)?;
                self.blanks()?;
                self.closer("</function>")?;
                return Ok(vec![call]);
            }
            match self.literal("<parameter=") {
                Ok(()) => {
                    let (key, _) = self.until(&[">"])?;
                    let (value, _) = self.until(&["</parameter>"])?;
                    put(&mut arguments, key, value)?;
                }
                Err(More) => return Err(More),
                Err(No) => {
                    self.closer("</function>")?;
                    return self.untyped(name, arguments);
                }
            }
        }
    }

    /// `<invoke name="get_weather"><parameter name="city">Oslo</parameter></invoke>`.
    fn invoke(&mut self) -> Got<Vec<Call>> {
        self.literal("<invoke name=\"")?;
        let name = self.name(&['"'])?;
        self.literal("\">")?;
        let mut arguments = Map::new();
        loop {
            self.blanks()?;
            match self.literal("<parameter name=\"") {
                Ok(()) => {
                    let (key, _) = self.until(&["\">"])?;
                    let (value, _) = self.until(&["</parameter>"])?;
                    put(&mut arguments, key, value)?;
                }
                Err(More) => return Err(More),
                Err(No) => {
                    self.closer("</invoke>")?;
                    return self.untyped(name, arguments);
                }
            }
        }
    }

    /// A name, then `<arg_key>city</arg_key><arg_value>Oslo</arg_value>`.
    fn keys(&mut self) -> Got<Vec<Call>> {
        let name = self.name(&['\n', '<'])?;
        let mut arguments = Map::new();
        loop {
            self.blanks()?;
            match self.literal("<arg_key>") {
                Ok(()) => {
                    let (key, _) = self.until(&["</arg_key>"])?;
                    self.blanks()?;
                    self.literal("<arg_value>")?;
                    let (value, _) = self.until(&["</arg_value>"])?;
                    put(&mut arguments, key, value)?;
                }
                Err(More) => return Err(More),
                Err(No) if arguments.is_empty() && !self.rest().starts_with("</") => return Err(No),
                Err(No) => return self.untyped(name, arguments),
            }
        }
    }

    /// `get_weather[ARGS]{"city": "Oslo"}`, with or without the mark.
    fn name_json(&mut self) -> Got<Vec<Call>> {
        let name = self.name(&['[', '{', '\n', ' '])?;
        self.blanks()?;
        match self.literal("[CALL_ID]") {
            Ok(()) => drop(self.until(&["[ARGS]"])?),
            Err(More) => return Err(More),
            Err(No) => match self.literal("[ARGS]") {
                Err(More) => return Err(More),
                Ok(()) | Err(No) => {}
            },
        }
        self.blanks()?;
        if self.rest().starts_with('[') {
            return Err(No);
        }
        let text = self.value()?;
        Ok(vec![self.call(name, &parsed(&text).ok_or(No)?)?])
    }

    /// `<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather`, then JSON in a code block; newer models write the name
    /// first.
    fn deepseek(&mut self) -> Got<Vec<Call>> {
        self.literal("<｜tool▁call▁begin｜>")?;
        match self.literal("function<｜tool▁sep｜>") {
            Err(More) => return Err(More),
            Ok(()) | Err(No) => {}
        }
        let name = self.name(&['\n', '<'])?;
        match self.literal("<｜tool▁sep｜>") {
            Err(More) => return Err(More),
            Ok(()) | Err(No) => {}
        }
        self.blanks()?;
        let fenced = self.literal("```json");
        if fenced == Err(More) {
            return Err(More);
        }
        self.blanks()?;
        let text = self.value()?;
        let call = self.call(name, &parsed(&text).ok_or(No)?)?;
        self.blanks()?;
        if fenced.is_ok() {
            self.closer("```")?;
            self.blanks()?;
        }
        self.closer("<｜tool▁call▁end｜>")?;
        Ok(vec![call])
    }

    /// `<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Oslo"}<|tool_call_end|>`.
    fn kimi(&mut self) -> Got<Vec<Call>> {
        self.literal("<|tool_call_begin|>")?;
        let name = self.name(&[':', '<'])?;
        let (number, _) = self.until(&["<|tool_call_argument_begin|>"])?;
        if number.len() > 8 {
            return Err(No);
        }
        self.blanks()?;
        let text = self.value()?;
        let call = self.call(name, &parsed(&text).ok_or(No)?)?;
        self.blanks()?;
        self.closer("<|tool_call_end|>")?;
        Ok(vec![call])
    }

    /// `call:get_weather{city:<|"|>Oslo<|"|>}`: names without quotes, texts between marks.
    fn gemma(&mut self) -> Got<Vec<Call>> {
        const QUOTE: &str = "<|\"|>";
        self.literal("call:")?;
        let name = self.name(&['{'])?;
        let (mut json, mut depth, mut key) = (String::new(), 0, true);
        loop {
            let rest = self.rest();
            if rest.starts_with(QUOTE) || QUOTE.starts_with(rest) {
                self.literal(QUOTE)?;
                let (text, _) = self.until(&[QUOTE])?;
                json.push_str(&Value::from(text).to_string());
                continue;
            }
            let Some(c) = rest.chars().next() else { return Err(self.end()) };
            if key && (c.is_alphabetic() || c == '_') {
                let end = rest.find(':').ok_or(self.end())?;
                json.push_str(&Value::from(&rest[..end]).to_string());
                (self.at, key) = (self.at + end, false);
                continue;
            }
            self.at += c.len_utf8();
            json.push(c);
            match c {
                '{' => (depth, key) = (depth + 1, true),
                '[' => (depth, key) = (depth + 1, false),
                '}' | ']' => depth -= 1,
                // Of an object or of a list: only the former has names, which are followed by a colon.
                ',' => key = rest[1..].split([',', '}', ']', '<']).next().is_some_and(|next| next.contains(':')),
                _ => {}
            }
            if depth == 0 {
                return Ok(vec![self.call(name, &parsed(&json).ok_or(No)?)?]);
            }
        }
    }

    /// The rest of `Action: get_weather`, then `Action Input: {"city": "Oslo"}`.
    fn action(&mut self) -> Got<Vec<Call>> {
        let name = self.name(&['\n'])?;
        self.blanks()?;
        self.literal("Action Input:")?;
        self.blanks()?;
        let text = self.value()?;
        Ok(vec![self.call(name, &parsed(&text).ok_or(No)?)?])
    }
}

/// Adds a value between marks; the line ends beside the marks are part of them.
fn put(arguments: &mut Map<String, Value>, key: &str, value: &str) -> Got<()> {
    let value = value.strip_prefix('\n').unwrap_or(value);
    let value = value.strip_suffix('\n').unwrap_or(value);
    let key = key.trim().trim_matches(['"', '\'']);
    match arguments.insert(key.to_owned(), value.into()) {
        None if !key.is_empty() => Ok(()),
        _ => Err(No),
    }
}

/// Where `mark` begins if `text` ends with a part of it.
fn broken_off(text: &str, mark: &str) -> Option<usize> {
    (1..mark.len())
        .filter(|len| mark.is_char_boundary(*len))
        .rev()
        .find_map(|len| Some(text.strip_suffix(&mark[..len])?.len()))
}

/// JSON, or a value as Python writes it; one that loses no digit of its numbers.
fn parsed(text: &str) -> Option<Value> {
    let value = serde_json::from_str(text).ok().or_else(|| literal::read(text))?;
    crate::openai::tools::repair::arguments::keeps_numbers(text).then_some(value)
}

/// A string at the beginning of a text.
enum Quoted<'a> {
    /// What is in it, and what follows it.
    Whole(&'a str, &'a str),
    /// What there is of it.
    Begun(&'a str),
    Not,
}

fn quoted(text: &str) -> Quoted<'_> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return Quoted::Not };
    match text[1..].find(quote) {
        Some(end) => Quoted::Whole(&text[1..=end], &text[end + 2..]),
        None => Quoted::Begun(&text[1..]),
    }
}
