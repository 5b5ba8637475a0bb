//! The names of models in a request's body, read as the handler or Ollama will read them. `routes.rs` says where each
//! route has them.
//!
//! Judges nothing. What cannot be read for sure is an error.

use std::{
    borrow::Cow,
    collections::VecDeque,
    convert::Infallible,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use axum::{
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request},
};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};

/// A name, and the field that it is the value of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Name {
    pub(crate) field: &'static str,
    pub(crate) name: Arc<str>,
    /// Where its JSON text stands in the body, quotes included. None in a form.
    pub(crate) span: Option<Range<usize>>,
}

/// Why names cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// It breaks off, is no object, or has something else than a text for a name.
    #[error("the names in this body cannot be read: it is not a JSON object with strings for them")]
    Malformed,
    /// It has no whole form, and no JSON object.
    #[error("the model in this body cannot be read: it is neither a whole form nor a JSON object with a string for it")]
    NoForm,
    /// A field that can bring in any model, under no name.
    #[error("`{0}` can bring in models whatever their names; leave it out")]
    Unnamed(String),
    #[error("a model's name in this body is longer than {MAX_NAME} bytes")]
    TooLong,
}

/// Longer names are no names of models.
const MAX_NAME: usize = 4096;

/// Longer keys are none of the fields, however they are escaped.
const MAX_KEY: usize = 128;

/// How deep Go reads JSON.
const MAX_DEPTH: usize = 10_000;

/// Reads the names of a JSON body while it comes: the values of some fields of the first JSON value, which must be an
/// object. As in Go, the case of a key makes no difference, null changes nothing, and what follows the first value is
/// not looked at.
#[derive(Debug)]
pub(crate) struct Scan {
    fields: &'static [&'static str],
    /// Keys that stand for a whole definition of a model: anything but null and what is empty is refused.
    unnamed: &'static [&'static str],
    /// Lists in a form have brackets after their name.
    form: bool,
    state: State,
    /// Open objects and lists, as their closing brackets.
    open: Vec<u8>,
    /// The bytes of a key or a value, its quotes included.
    text: Vec<u8>,
    /// Where `text` began.
    start: usize,
    /// How many bytes were read.
    read: usize,
    found: Vec<Name>,
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// The first byte.
    Start,
    /// A key, or the end of the object where `end` may come.
    BeforeKey {
        end: bool,
    },
    Key,
    Escape(Text),
    Colon(Field),
    Value(Field),
    /// The string of a name.
    Name(&'static str),
    /// A string that does not matter.
    Skip,
    /// A number or a word of a field.
    Word(Field),
    /// Inside an object or a list that does not matter.
    Inside,
    /// The first byte of an object or a list that must be empty.
    Empty(&'static str),
    AfterValue,
    Closed,
}

/// The string that an escape is in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Text {
    Key,
    Name(&'static str),
    Skip,
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Name(&'static str),
    Unnamed(&'static str),
    Other,
}

impl Scan {
    pub(crate) fn new(fields: &'static [&'static str]) -> Self {
        Self {
            fields,
            // Names in a language of its own.
            unnamed: &["modelfile"],
            form: false,
            state: State::Start,
            open: Vec::new(),
            text: Vec::new(),
            start: 0,
            read: 0,
            found: Vec::new(),
        }
    }

    /// For a body that defines a model: `files` and `adapters` bring weights, which have no names.
    pub(crate) fn of_definition(fields: &'static [&'static str]) -> Self {
        Self { unnamed: &["modelfile", "files", "adapters"], ..Self::new(fields) }
    }

    /// For a JSON body that has a form's names.
    fn of_form(fields: &'static [&'static str]) -> Self {
        Self { form: true, ..Self::new(fields) }
    }

    /// The names so far, in the order in which they stand.
    pub(crate) fn found(&self) -> &[Name] {
        &self.found
    }

    /// Whether the object has ended: no further name can come.
    pub(crate) fn closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The body has ended. An empty body has no names.
    ///
    /// # Errors
    /// Fails if the object has not ended.
    pub(crate) fn end(&self) -> Result<(), Unreadable> {
        match self.state {
            State::Start | State::Closed => Ok(()),
            _ => Err(Unreadable::Malformed),
        }
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    /// Fails where no names can be read for sure.
    pub(crate) fn push(&mut self, part: &[u8]) -> Result<(), Unreadable> {
        let mut at = 0;
        while at < part.len() && self.state != State::Closed {
            at += self.skip(&part[at..])?;
            if let Some(byte) = part.get(at) {
                self.byte(*byte, self.read + at)?;
                at += 1;
            }
        }
        self.read += part.len();
        Ok(())
    }

    /// Reads the next bytes that do not change the state, and returns how many they are.
    fn skip(&mut self, rest: &[u8]) -> Result<usize, Unreadable> {
        let of_string = || memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        Ok(match self.state {
            State::Skip => {
                // Escaped bytes end no string.
                let mut at = 0;
                while let Some(next) = memchr::memchr2(b'"', b'\\', &rest[at..]) {
                    at += next;
                    if rest[at] == b'"' || at + 1 == rest.len() {
                        return Ok(at);
                    }
                    at += 2;
                }
                rest.len()
            }
            State::Key | State::Name(_) => {
                let run = of_string();
                // As `keep` does with each.
                let room = (MAX_NAME + 1).saturating_sub(self.text.len());
                self.text.extend_from_slice(&rest[..run.min(room)]);
                if matches!(self.state, State::Name(_)) && self.text.len() > MAX_NAME {
                    return Err(Unreadable::TooLong);
                }
                run
            }
            State::Inside => {
                rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']')).unwrap_or(rest.len())
            }
            _ => 0,
        })
    }

    #[expect(clippy::match_same_arms, reason = "the arms stand in the order of the grammar")]
    fn byte(&mut self, byte: u8, at: usize) -> Result<(), Unreadable> {
        let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.state = match (self.state, byte) {
            (State::Start | State::BeforeKey { .. } | State::Colon(_) | State::Value(_), _) if space => return Ok(()),
            (State::AfterValue | State::Empty(_), _) if space => return Ok(()),
            (State::Start, b'{') => State::BeforeKey { end: true },
            (State::BeforeKey { .. }, b'"') => {
                self.begin(byte, at);
                State::Key
            }
            (State::BeforeKey { end: true }, b'}') => State::Closed,
            (State::Key, b'\\') => self.escape(byte, Text::Key),
            (State::Key, b'"') => {
                self.keep(byte);
                State::Colon(self.field()?)
            }
            (State::Key, _) => {
                self.keep(byte);
                State::Key
            }
            (State::Escape(text), _) => {
                self.keep(byte);
                match text {
                    Text::Key => State::Key,
                    Text::Name(field) => State::Name(field),
                    Text::Skip => State::Skip,
                }
            }
            (State::Colon(field), b':') => State::Value(field),
            (State::Value(Field::Name(field)), b'"') => {
                self.begin(byte, at);
                State::Name(field)
            }
            (State::Value(Field::Name(_)), b'{' | b'[') => return Err(Unreadable::Malformed),
            (State::Value(Field::Unnamed(key)), b'{' | b'[') => {
                self.open(byte)?;
                State::Empty(key)
            }
            (State::Value(Field::Unnamed(key)), b'"') => return Err(Unreadable::Unnamed(key.to_owned())),
            (State::Empty(_), b'}' | b']') => self.close(byte)?,
            (State::Empty(key), _) => return Err(Unreadable::Unnamed(key.to_owned())),
            (State::Value(Field::Other), b'"') => State::Skip,
            (State::Value(Field::Other) | State::Inside, b'{' | b'[') => {
                self.open(byte)?;
                State::Inside
            }
            (State::Value(_), b',' | b'}' | b']' | b':') => return Err(Unreadable::Malformed),
            (State::Value(field), _) => {
                self.begin(byte, at);
                State::Word(field)
            }
            (State::Name(field), b'\\') => self.escape(byte, Text::Name(field)),
            (State::Name(field), b'"') => {
                self.keep(byte);
                self.name(field, at + 1)?;
                State::AfterValue
            }
            (State::Name(field), _) => {
                self.keep(byte);
                if self.text.len() > MAX_NAME {
                    return Err(Unreadable::TooLong);
                }
                State::Name(field)
            }
            (State::Skip, b'\\') => State::Escape(Text::Skip),
            (State::Skip, b'"') if self.open.is_empty() => State::AfterValue,
            (State::Skip, b'"') => State::Inside,
            (State::Skip, _) => State::Skip,
            (State::Inside, b'"') => State::Skip,
            (State::Inside, b'}' | b']') => self.close(byte)?,
            (State::Inside, _) => State::Inside,
            (State::Word(field), b',' | b'}') => {
                self.word(field)?;
                after(byte)
            }
            (State::Word(field), _) if space => {
                self.word(field)?;
                State::AfterValue
            }
            (State::Word(field), _) => {
                self.keep(byte);
                State::Word(field)
            }
            (State::AfterValue, b',' | b'}') => after(byte),
            _ => return Err(Unreadable::Malformed),
        };
        Ok(())
    }

    fn begin(&mut self, byte: u8, at: usize) {
        self.text.clear();
        self.text.push(byte);
        self.start = at;
    }

    fn keep(&mut self, byte: u8) {
        // What is longer is no field and no name.
        if self.text.len() <= MAX_NAME {
            self.text.push(byte);
        }
    }

    fn escape(&mut self, byte: u8, text: Text) -> State {
        self.keep(byte);
        State::Escape(text)
    }

    fn open(&mut self, byte: u8) -> Result<(), Unreadable> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Unreadable::Malformed);
        }
        self.open.push(if byte == b'{' { b'}' } else { b']' });
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<State, Unreadable> {
        if self.open.pop() != Some(byte) {
            return Err(Unreadable::Malformed);
        }
        Ok(if self.open.is_empty() { State::AfterValue } else { State::Inside })
    }

    /// What the key in `text` is.
    fn field(&self) -> Result<Field, Unreadable> {
        if self.text.len() > MAX_KEY {
            return Ok(Field::Other);
        }
        // Most keys are plain.
        let plain = self.text.get(1..self.text.len().saturating_sub(1)).and_then(|key| str::from_utf8(key).ok());
        let plain = plain.filter(|key| key.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\'));
        let key = match plain {
            Some(key) => Cow::Borrowed(key),
            None => {
                let key: String = serde_json::from_slice(&self.text).map_err(|_| Unreadable::Malformed)?;
                Cow::Owned(folded(&key))
            }
        };
        let key = if self.form { in_a_form(&key) } else { &key };
        let of = |list: &'static [&'static str]| list.iter().find(|known| known.eq_ignore_ascii_case(key));
        Ok(match (of(self.fields), of(self.unnamed)) {
            (Some(field), _) => Field::Name(field),
            (None, Some(key)) => Field::Unnamed(key),
            (None, None) => Field::Other,
        })
    }

    fn name(&mut self, field: &'static str, end: usize) -> Result<(), Unreadable> {
        let name: String = serde_json::from_slice(&self.text).map_err(|_| Unreadable::Malformed)?;
        self.found.push(Name { field, name: name.into(), span: Some(self.start..end) });
        Ok(())
    }

    fn word(&self, field: Field) -> Result<(), Unreadable> {
        match field {
            Field::Other => Ok(()),
            _ if self.text == b"null" => Ok(()),
            Field::Name(_) => Err(Unreadable::Malformed),
            Field::Unnamed(key) => Err(Unreadable::Unnamed(key.to_owned())),
        }
    }
}

/// After a value of the object.
fn after(byte: u8) -> State {
    if byte == b',' { State::BeforeKey { end: false } } else { State::Closed }
}

/// Returns the name in a whole `body`, the value of the only one of `fields`, if a look at the beginning shows it: it
/// is the first value, and nothing behind it can be another value of that field. None: a [`Scan`] has to read the body.
///
/// Most clients of Ollama write the model first. What follows is not checked to be JSON.
pub(crate) fn first_name(body: &[u8], fields: &'static [&'static str]) -> Option<Name> {
    let [field] = fields else { return None };
    let behind = |text: &mut &[u8], token: &[u8]| {
        *text = text.trim_ascii_start().strip_prefix(token)?;
        Some(())
    };
    let mut rest = body;
    behind(&mut rest, b"{")?;
    behind(&mut rest, b"\"")?;
    rest = rest.strip_prefix(field.as_bytes())?;
    behind(&mut rest, b"\"")?;
    behind(&mut rest, b":")?;
    behind(&mut rest, b"\"")?;
    let length = memchr::memchr2(b'"', b'\\', rest).filter(|length| *length < MAX_NAME - 1)?;
    let (name, rest) = rest.split_at(length);
    // Other bytes are for the parser to judge.
    if rest[0] != b'"' || !name.iter().all(|byte| matches!(byte, b' '..=b'~')) || may_have_key(&rest[1..], field) {
        return None;
    }
    // A body that breaks off has no names.
    body.trim_ascii_end().strip_suffix(b"}")?;
    let start = body.len() - rest.len() - name.len() - 1;
    let name = str::from_utf8(name).ok()?.into();
    Some(Name { field, name, span: Some(start..body.len() - rest.len() + 1) })
}

/// Whether `text` may have `key` in it as a key, whatever its spelling: it would end with the key's last letter, in
/// either case, and a quote, or have an escaped character. The last letter must be none that others fold into.
fn may_have_key(text: &[u8], key: &str) -> bool {
    const LANES: usize = 32;
    let Some(last) = key.bytes().last().filter(|last| last.is_ascii_lowercase() && !matches!(last, b's' | b'k')) else {
        return true;
    };
    let found = |byte: u8, next: u8| {
        let [end, quote, backslash, u] =
            [byte | 0x20 == last, next == b'"', byte == b'\\', next == b'u'].map(|is| if is { u8::MAX } else { 0 });
        end & quote | backslash & u
    };
    // Without a branch, and with a result for each lane, so that the compiler looks at many bytes at once.
    let behind = text.get(1..).unwrap_or_default();
    let (blocks, next_blocks) = (text.as_chunks::<LANES>().0, behind.as_chunks::<LANES>().0);
    let mut lanes = [0; LANES];
    for (block, next) in blocks.iter().zip(next_blocks) {
        for lane in 0..LANES {
            lanes[lane] |= found(block[lane], next[lane]);
        }
    }
    let rest = blocks.len().min(next_blocks.len()) * LANES;
    let rest = text[rest..].iter().zip(&behind[rest.min(behind.len())..]);
    let rest = rest.map(|(byte, next)| found(*byte, *next)).fold(0, |all, one| all | one);
    lanes.iter().fold(rest, |all, one| all | one) != 0
}

/// Whether the headers say that a body is a form, as `openai/audio` distinguishes it from JSON.
fn form_type(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(header::CONTENT_TYPE).filter(|kind| {
        let kind = kind.to_str().unwrap_or_default().trim_start().to_ascii_lowercase();
        kind.starts_with("multipart/form-data")
    })
}

/// The values of `model` in a whole body, as [`FormScan`] reads them.
///
/// # Errors
/// As [`FormScan::push`] and [`FormScan::end`].
pub(crate) fn in_form(body: Bytes, headers: &HeaderMap) -> Result<Vec<Name>, Unreadable> {
    let mut scan = FormScan::new(headers);
    scan.push(body)?;
    scan.end()?;
    Ok(scan.found_after(0))
}

/// Reads the values of `model` while a body comes: in a form, where the headers say that it is one, or in JSON with a
/// form's names.
pub(crate) enum FormScan {
    Json(Scan),
    Form(FormParts),
}

impl FormScan {
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        match form_type(headers) {
            Some(kind) => Self::Form(FormParts::new(kind.clone())),
            None => Self::Json(Scan::of_form(&["model"])),
        }
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    /// Fails if the body is neither a form nor a JSON object, is broken, or has a name that is too long.
    pub(crate) fn push(&mut self, part: Bytes) -> Result<(), Unreadable> {
        match self {
            Self::Json(scan) => scan.push(&part).map_err(|_| Unreadable::NoForm),
            Self::Form(form) => form.push(part),
        }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// Fails if the form or the object has not.
    pub(crate) fn end(&mut self) -> Result<(), Unreadable> {
        match self {
            Self::Json(scan) => scan.end().map_err(|_| Unreadable::NoForm),
            Self::Form(form) => form.end(),
        }
    }

    /// The names that were found after the first `known`.
    pub(crate) fn found_after(&self, known: usize) -> Vec<Name> {
        match self {
            Self::Json(scan) => scan.found().get(known..).unwrap_or_default().to_vec(),
            Self::Form(form) => form.arrived().found.get(known..).unwrap_or_default().to_vec(),
        }
    }
}

/// A form that is read while it comes, by the parser that the handler uses too: another one might see other parts.
pub(crate) struct FormParts {
    arrived: Arc<Mutex<Arrived>>,
    /// None once the form has ended.
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = Result<(), Unreadable>> + Send>>;

/// What has come of a form, and what was found in it.
#[derive(Default)]
struct Arrived {
    parts: VecDeque<Bytes>,
    over: bool,
    found: Vec<Name>,
    /// Bytes since the parser last went on: before the first boundary, and in a part's headers, it searches all of them
    /// again each time.
    stuck: usize,
}

/// Maximum size of what comes before the first boundary, and of a part's headers.
const MAX_STUCK: usize = 64 << 10;

impl FormParts {
    fn new(kind: HeaderValue) -> Self {
        let arrived = Arc::default();
        Self { reading: Some(Box::pin(read_form(kind, Arc::clone(&arrived)))), arrived }
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        lock(&self.arrived)
    }

    fn push(&mut self, part: Bytes) -> Result<(), Unreadable> {
        let mut arrived = self.arrived();
        arrived.stuck += part.len();
        arrived.parts.push_back(part);
        drop(arrived);
        self.read()?;
        let stuck = self.arrived().stuck;
        if self.reading.is_some() && stuck > MAX_STUCK { Err(Unreadable::NoForm) } else { Ok(()) }
    }

    fn end(&mut self) -> Result<(), Unreadable> {
        self.arrived().over = true;
        self.read()?;
        if self.reading.is_none() { Ok(()) } else { Err(Unreadable::NoForm) }
    }

    /// Reads what has come. The parser waits for nothing else, so it need not be woken.
    fn read(&mut self) -> Result<(), Unreadable> {
        let Some(reading) = &mut self.reading else {
            // What follows the form is no part of it.
            self.arrived().parts.clear();
            return Ok(());
        };
        match reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(()),
            Poll::Ready(outcome) => {
                self.reading = None;
                outcome
            }
        }
    }
}

fn lock(arrived: &Mutex<Arrived>) -> MutexGuard<'_, Arrived> {
    arrived.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_form(kind: HeaderValue, arrived: Arc<Mutex<Arrived>>) -> Result<(), Unreadable> {
    let source = arrived.clone();
    let parts = stream::poll_fn(move |_| {
        let mut arrived = lock(&source);
        match arrived.parts.pop_front() {
            Some(part) => Poll::Ready(Some(Ok::<_, Infallible>(part))),
            None if arrived.over => Poll::Ready(None),
            None => Poll::Pending,
        }
    });
    let mut request = Request::new(Body::from_stream(parts));
    request.headers_mut().insert(header::CONTENT_TYPE, kind);
    // The reader of the body bounds it.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| Unreadable::NoForm)?;
    while let Some(mut part) = form.next_field().await.map_err(|_| Unreadable::NoForm)? {
        let named = in_a_form(part.name().unwrap_or_default()) == "model";
        let mut name = Vec::new();
        lock(&arrived).stuck = 0;
        while let Some(piece) = part.chunk().await.map_err(|_| Unreadable::NoForm)? {
            lock(&arrived).stuck = 0;
            if named {
                name.extend_from_slice(&piece);
                if name.len() > MAX_NAME {
                    return Err(Unreadable::TooLong);
                }
            }
        }
        if named {
            // As the handler reads it: UTF-8, whatever charset the part claims.
            let name = String::from_utf8(name).map_err(|_| Unreadable::NoForm)?;
            lock(&arrived).found.push(Name { field: "model", name: name.into(), span: None });
        }
    }
    Ok(())
}

/// Lists in a form have brackets after their name.
fn in_a_form(name: &str) -> &str {
    name.trim_end_matches("[]")
}

/// As Go folds the keys of JSON: two letters beyond ASCII fold into it.
fn folded(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn form(kind: &str, body: impl Into<Vec<u8>>) -> Option<Vec<String>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
        let found = in_form(Bytes::from(body.into()), &headers).ok()?;
        Some(found.into_iter().map(|name| name.name.to_string()).collect())
    }

    fn scanned(body: &[u8], step: usize) -> Result<Vec<Name>, Unreadable> {
        let mut scan = Scan::of_definition(&["model", "name"]);
        body.chunks(step).try_for_each(|part| scan.push(part))?;
        scan.end().map(|()| scan.found)
    }

    fn form_headers() -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=x"))])
    }

    /// The names in a form that comes in parts of `step` bytes.
    fn in_steps(body: &[u8], step: usize) -> Result<Vec<Name>, Unreadable> {
        let mut scan = FormScan::new(&form_headers());
        body.chunks(step).try_for_each(|part| scan.push(Bytes::copy_from_slice(part)))?;
        scan.end().map(|()| scan.found_after(0))
    }

    #[test]
    fn a_name_at_the_beginning_is_the_one_that_a_scan_finds() {
        let long = "text \\\"quoted\\\" and more, ".repeat(20);
        for rest in ["", r#","stream":false"#, &format!(r#","prompt":"{long}""#)] {
            let body = format!(" {{ \"model\" : \"a:b\"{rest} }}\n");
            let mut scan = Scan::new(&["model"]);
            scan.push(body.as_bytes()).unwrap();
            let first = first_name(body.as_bytes(), &["model"]).unwrap();
            assert_eq!(scan.found(), [first], "{body}");
        }
    }

    #[test]
    fn a_body_that_may_have_another_name_is_scanned() {
        let long = "x".repeat(300);
        for key in ["model", "MODEL", "mode\\u006c", "\\u006dodel"] {
            for pad in [0, 1, 100, 127, 128, 129, 255, 256, 300] {
                let body = format!(r#"{{"model":"a","p":"{}","{key}":"b"}}"#, &long[..pad]);
                assert_eq!(first_name(body.as_bytes(), &["model"]), None, "{body}");
            }
        }
        for body in [
            "",
            "{",
            r#"{"model":"a""#,
            r#"{"model":"a"#,
            r#"{"model":"\u0061"}"#,
            r#"{"model":"é"}"#,
            r#"{"model":1}"#,
            r#"{"Model":"a"}"#,
            r#"{"messages":[],"model":"a"}"#,
            r#"["model","a"]"#,
        ] {
            assert_eq!(first_name(body.as_bytes(), &["model"]), None, "{body}");
        }
        assert_eq!(first_name(br#"{"model":"a"}"#, &["model", "name"]), None);
        let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(MAX_NAME));
        assert_eq!(first_name(long.as_bytes(), &["model"]), None);
    }

    #[test]
    fn a_name_in_a_form_is_found_as_soon_as_it_is_there() {
        let mut scan = FormScan::new(&form_headers());
        let part = |name: &str| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        scan.push((part("model") + "m\r\n" + &part("file")).into()).unwrap();
        assert_eq!(scan.found_after(0).iter().map(|found| &*found.name).collect::<Vec<_>>(), ["m"]);
        for _ in 0..100 {
            scan.push(vec![b'a'; 10_000].into()).unwrap();
        }
        assert_eq!(scan.end(), Err(Unreadable::NoForm), "it breaks off");
    }

    #[test]
    fn what_would_be_searched_again_and_again_is_bounded() {
        let long = vec![b'a'; 100_000];
        assert_eq!(in_steps(&long, 1000), Err(Unreadable::NoForm), "before the first boundary");
        let headers = [b"--x\r\nContent-Disposition: form-data; name=\"a\"; x=\"".as_slice(), &long].concat();
        assert_eq!(in_steps(&headers, 1000), Err(Unreadable::NoForm), "the headers of a part");
        let name = [b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n".as_slice(), &long].concat();
        assert_eq!(in_steps(&name, 1000), Err(Unreadable::TooLong));
    }

    #[test]
    fn every_model_of_a_form_is_found() {
        let kind = "multipart/form-data; boundary=x";
        let part = |name: &str, value: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = [&*part("file", "model"), &part("model", "m"), &part("model[]", "n"), "--x--\r\n"].concat();
        assert_eq!(form(kind, body.clone()).unwrap(), ["m", "n"]);
        assert_eq!(form("Multipart/Form-Data; boundary=x", body.clone()).unwrap(), ["m", "n"]);
        assert_eq!(form(kind, part("model", "m")), None, "it is broken off");
        assert_eq!(form("multipart/form-data", body.clone()), None, "it has no boundary");
        assert_eq!(form("application/json", r#"{"model":"m","model[]":"n"}"#).unwrap(), ["m", "n"]);
        assert_eq!(form("text/plain", body), None);
    }

    #[test]
    fn a_part_of_a_form_is_read_as_utf8_whatever_it_claims() {
        let kind = "multipart/form-data; boundary=x";
        let part = |value: &[u8]| {
            let head = b"--x\r\nContent-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=utf-16le\r\n\r\n";
            [&head[..], value, b"\r\n--x--\r\n"].concat()
        };
        assert_eq!(form(kind, part(b"secret:8b")).unwrap(), ["secret:8b"]);
        assert_eq!(form(kind, part(b"s\xff")), None);
    }

    #[test]
    fn a_name_has_its_place() {
        let body = br#" {"a":[{"model":"no"},"\"}"], "model" : "m\u006d" , "x":{}}tail"#;
        for step in [1, 2, 7, body.len()] {
            let found = scanned(body, step).unwrap();
            assert_eq!(found.len(), 1, "{step}");
            assert_eq!(&*found[0].name, "mm");
            assert_eq!(&body[found[0].span.clone().unwrap()], br#""m\u006d""#);
        }
    }

    #[test]
    fn what_brings_in_models_without_names_is_refused_unless_it_is_empty() {
        let mut chat = Scan::new(&["model"]);
        assert_eq!(chat.push(br#"{"files":["a"]}"#), Ok(()), "only a definition has weights in it");
        for (body, fits) in [
            (r#"{"model":"m","files":{}}"#, true),
            (r#"{"model":"m","files": { } ,"adapters":null}"#, true),
            (r#"{"model":"m","files":{"a":"sha256:1"}}"#, false),
            (r#"{"model":"m","Adapters":{"a":"sha256:1"}}"#, false),
            (r#"{"model":"m","modelfile":"FROM x"}"#, false),
            (r#"{"model":"m","options":{"files":{"a":1}}}"#, true),
        ] {
            assert_eq!(scanned(body.as_bytes(), 5).is_ok(), fits, "{body}");
        }
    }

    /// Any JSON, with keys that matter among others.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let key = prop_oneof![Just("model".to_owned()), Just("Name".to_owned()), ".{0,4}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..4).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_body_is_read_as_a_parser_reads_it_however_it_is_cut(value in json(), step in 1usize..9, pretty: bool) {
            let body = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let found = scanned(body.as_bytes(), step);
            let fields = value.as_object().map(|object| {
                object.iter().filter(|(key, _)| matches!(&*folded(key), "model" | "name")).map(|(_, value)| value).collect::<Vec<_>>()
            });
            match fields {
                Some(fields) if fields.iter().all(|value| value.is_null() || value.is_string()) => {
                    let names: Vec<&str> = fields.into_iter().filter_map(Value::as_str).collect();
                    let found = found.unwrap();
                    prop_assert_eq!(found.iter().map(|name| &*name.name).collect::<Vec<_>>(), names);
                    for name in &found {
                        let text = &body[name.span.clone().unwrap()];
                        prop_assert_eq!(serde_json::from_str::<String>(text).unwrap(), &*name.name);
                    }
                }
                _ => prop_assert!(found.is_err()),
            }
        }

        #[test]
        fn a_form_is_read_in_the_same_way_however_it_is_cut(
            parts in prop::collection::vec((prop_oneof![Just("model"), Just("model[]"), Just("file")], "[a-z\r\n-]{0,12}(--x)?"), 0..5),
            end in prop_oneof![Just("--x--\r\n"), Just("--x--\r\ntail"), Just("--x"), Just("")],
            step in 1usize..40,
        ) {
            let part = |(name, value): &(&str, String)| {
                format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
            };
            let body = parts.iter().map(part).collect::<String>() + end;
            prop_assert_eq!(in_steps(body.as_bytes(), step), in_form(body.into(), &form_headers()));
        }

        #[test]
        fn nothing_that_is_broken_off_is_read(value in json(), cut: prop::sample::Index) {
            let body = serde_json::json!({"x": value}).to_string();
            let cut = 1 + cut.index(body.len() - 1);
            prop_assert!(scanned(&body.as_bytes()[..cut], 3).is_err());
        }

        #[test]
        fn whatever_comes_ends(body in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..9) {
            let _ = scanned(&body, step);
        }
    }
}
