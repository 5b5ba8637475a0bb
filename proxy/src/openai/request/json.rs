//! Request bodies: read whole within a bound, taken apart field by field, every failure with the path of the field that
//! is to blame.
//!
//! A field that no code takes is not lost: it is left over in [`Fields`], and what is left over is recorded.

use std::{borrow::Cow, cell::Cell, collections::HashMap, fmt, ops::Deref};

use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use foldhash::quality::RandomState;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed},
};
use serde_json::{Value, value::RawValue};

use crate::{
    app::App,
    buffered::{Counted, Lease},
    config::Limits,
    error::Error,
    offload,
    openai::request::{encoding, surrogates},
    whole_body,
};

/// The whole body of a request. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Json {
    body: Bytes,
    /// The maximum number of names in one object (`limits.fields`); 0: unlimited.
    max_fields: usize,
}

impl FromRequest<App> for Json {
    type Rejection = Error;

    /// The content type is not asked for: clients send JSON under many names, and Ollama does not look either.
    async fn from_request(request: Request, app: &App) -> Result<Self, Error> {
        let limit = app.config.limits.body;
        let max_fields = app.config.limits.fields;
        let (parts, body) = request.into_parts();
        let mut lease = app.buffered.lease();
        let read = match parts.extensions.get::<Counted>() {
            Some(Counted) => whole_body::read(body, limit).await,
            None => whole_body::read_leased(body, limit, &mut lease).await,
        };
        match read {
            Ok(mut body) => {
                let headers = parts.headers;
                // A form holds files, whose bytes are not ours to change.
                let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes().trim_ascii_start());
                let form = kind.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/"));
                if headers.contains_key(CONTENT_ENCODING) {
                    // Text grows to many times its compressed size.
                    body = offload::run(body.len().saturating_mul(20), move || encoding::decode(&headers, body, limit))
                        .await?;
                    lease.add(body.len());
                }
                if !form {
                    body = offload::run(body.len(), move || surrogates::mend(body)).await;
                }
                Ok(Self { body: lease.hold(body), max_fields })
            }
            Err(failed) => Err(failed.into_error(limit)),
        }
    }
}

impl Json {
    /// JSON that did not come from a connection. Its lone surrogates are replaced here, as those of all others, so that
    /// nothing that reads or repeats a part of it meets one.
    pub(crate) fn new(body: impl Into<Bytes>, limits: &Limits) -> Self {
        Self { body: surrogates::mend(body.into()), max_fields: limits.fields }
    }

    /// A body under the default limits.
    #[cfg(test)]
    pub(crate) fn of_test(body: Vec<u8>) -> Self {
        Self::new(body, &Limits::default())
    }

    /// Another body under the same limits.
    pub(crate) fn with_body(&self, body: impl Into<Bytes>) -> Self {
        Self { body: surrogates::mend(body.into()), max_fields: self.max_fields }
    }

    /// The same body, which `lease` is bound to.
    pub(crate) fn held(self, lease: Lease) -> Self {
        Self { body: lease.hold(self.body), ..self }
    }

    /// The bytes, decompressed.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// The maximum number of names in one object, or of parts in a form; 0: unlimited.
    pub(crate) fn max_fields(&self) -> usize {
        self.max_fields
    }

    /// The body's top level, which must be an object.
    pub(crate) fn fields(&self) -> Result<Fields<'_>, Error> {
        let text = std::str::from_utf8(&self.body)
            .map_err(|error| malformed(format!("the request body is not UTF-8 at byte {}", error.valid_up_to())))?;
        if text.trim_ascii().is_empty() {
            return Err(malformed("the request body is empty; it must be a JSON object".to_owned()));
        }
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let seed = FieldsSeed { max: self.max_fields, exceeded: &Cell::new(false) };
        seed.deserialize(&mut deserializer).and_then(|fields| deserializer.end().map(|()| fields)).map_err(|error| {
            match seed.exceeded.get() {
                true => too_many_fields(None, self.max_fields),
                false => malformed(format!("the request body is not a JSON object: {error}")),
            }
        })
    }
}

fn malformed(message: String) -> Error {
    Error::Invalid { message, param: None, code: None }
}

/// The error for an object, or a form, with more than `max` names.
pub(crate) fn too_many_fields(param: Option<&str>, max: usize) -> Error {
    let place = param.map_or_else(|| "request body".to_owned(), |param| format!("'{param}'"));
    Error::Invalid {
        message: format!(
            "Invalid {place}: too many fields. Expected at most {max}; raise limits.fields in the settings of farllama."
        ),
        param: param.map(str::to_owned),
        code: Some("object_above_max_properties"),
    }
}

/// The top level of a body: names with their raw values, in order. Of a name that stands twice, the last value counts,
/// as in Go.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    /// A field that was taken leaves its place empty, so that taking moves nothing.
    list: Vec<(Cow<'a, str>, Option<&'a RawValue>)>,
    /// Where each name is, if there are more than [`FEW`]: most bodies have few, which are found sooner without hashing
    /// a name.
    index: HashMap<Cow<'a, str>, usize, RandomState>,
    /// A bit for each name, see [`bit`]: most names that are asked for are absent, and one test shows it.
    bits: u64,
    /// How many were not taken yet.
    left: usize,
    /// The maximum number of names of this object and of those inside it; 0: unlimited.
    max: usize,
}

/// One of 64 bits, by the ends of a name and its length.
fn bit(name: &str) -> u64 {
    let ends = [name.as_bytes().first(), name.as_bytes().last()].map(|byte| byte.map_or(0, |byte| usize::from(*byte)));
    1 << ((ends[0] + 4 * ends[1] + 16 * name.len()) % 64)
}

/// Up to this number of names, looking at all of them is cheaper than an index.
const FEW: usize = 16;

impl<'a> Fields<'a> {
    fn find(&self, name: &str) -> Option<usize> {
        if self.left == 0 || self.bits & bit(name) == 0 {
            return None;
        }
        match self.list.len() {
            ..=FEW => self.list.iter().position(|(known, _)| *known == name),
            _ => self.index.get(name).copied(),
        }
    }

    /// Adds a field, in the place of an earlier one of its name.
    fn put(&mut self, name: Cow<'a, str>, raw: &'a RawValue) {
        if let Some(at) = self.find(&name) {
            self.list[at].1 = Some(raw);
            return;
        }
        self.left += 1;
        self.bits |= bit(&name);
        match self.list.len() {
            ..FEW => {}
            FEW => {
                let known = self.list.iter().enumerate().map(|(at, (known, _))| (known.clone(), at));
                self.index = known.chain([(name.clone(), FEW)]).collect();
            }
            at => {
                self.index.insert(name.clone(), at);
            }
        }
        self.list.push((name, Some(raw)));
    }

    /// Whether all fields were taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes field `name` out. `null` counts as absent: clients send it for what they do not set.
    pub(crate) fn take<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        ignored: &mut Vec<String>,
    ) -> Result<Option<T>, Error> {
        self.take_raw(name).map(|raw| parse(name, raw, ignored)).transpose()
    }

    /// Field `name` as it stands, which stays where it is.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let raw = self.list[self.find(name)?].1?;
        (raw.get() != "null").then_some(raw)
    }

    /// Takes field `name` out as it stands.
    pub(crate) fn take_raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.find(name)?;
        let raw = self.list[at].1.take()?;
        self.left -= 1;
        (raw.get() != "null").then_some(raw)
    }

    /// Takes field `name` out, an object, which is taken apart under the same limit.
    ///
    /// # Errors
    /// Fails if the field is not an object or has too many fields.
    pub(crate) fn take_fields(&mut self, name: &str) -> Result<Option<Self>, Error> {
        let Some(raw) = self.take_raw(name) else { return Ok(None) };
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        let seed = FieldsSeed { max: self.max, exceeded: &Cell::new(false) };
        match seed.deserialize(&mut deserializer) {
            Ok(fields) => Ok(Some(fields)),
            Err(_) if seed.exceeded.get() => Err(too_many_fields(Some(name), self.max)),
            Err(_) => read(name, raw).map(Some),
        }
    }

    /// Takes field `name` out, which must be there.
    pub(crate) fn need<T: Deserialize<'a>>(&mut self, name: &str, ignored: &mut Vec<String>) -> Result<T, Error> {
        self.take(name, ignored)?.ok_or_else(|| Error::missing(name))
    }

    /// The fields that were not taken, without nulls.
    pub(crate) fn left(self) -> impl Iterator<Item = (Cow<'a, str>, &'a RawValue)> {
        let fields = self.list.into_iter().filter_map(|(name, raw)| Some((name, raw?)));
        fields.filter(|(_, raw)| raw.get() != "null")
    }
}

/// Reads [`Fields`] up to a number of names, and says whether it was that number which made it fail.
#[derive(Clone, Copy)]
struct FieldsSeed<'s> {
    /// 0: unlimited.
    max: usize,
    exceeded: &'s Cell<bool>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        FieldsSeed { max: 0, exceeded: &Cell::new(false) }.deserialize(deserializer)
    }
}

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_> {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields<'de>, D::Error> {
        struct Visitor<'s>(FieldsSeed<'s>);
        impl<'de> de::Visitor<'de> for Visitor<'_> {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let Self(FieldsSeed { max, exceeded }) = self;
                let mut fields = Fields { list: Vec::with_capacity(8), max, ..Fields::default() };
                while let Some(Text(name)) = map.next_key()? {
                    fields.put(name, map.next_value()?);
                    if max > 0 && fields.list.len() > max {
                        exceeded.set(true);
                        return Err(de::Error::custom("too many fields"));
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Visitor(self))
    }
}

/// Reads `raw`, the value of `name`; notes the paths of what the type does not know.
pub(crate) fn parse<'a, T: Deserialize<'a>>(
    name: &str,
    raw: &'a RawValue,
    ignored: &mut Vec<String>,
) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let mut unknown: Vec<(String, String)> = Vec::new();
    let mut note = |path: serde_ignored::Path<'_>| unknown.push((pointer(&path), join(name, &path.to_string())));
    let read =
        serde_ignored::deserialize(&mut deserializer, &mut note).map_err(|_| blame(name, || failure::<T>(raw)))?;
    if !unknown.is_empty() {
        // Read once more, for the rare request that has such fields: an empty one asks for nothing.
        let whole: Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let asks = |pointer: &str| whole.pointer(pointer).is_none_or(|value| !is_empty(value));
        ignored.extend(unknown.into_iter().filter(|(pointer, _)| asks(pointer)).map(|(_, path)| path));
    }
    Ok(read)
}

/// Whether a field that is not known asks for nothing: an answer that comes back has all keys that it had.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}/{index}", pointer(parent)),
        Path::Map { parent, key } => format!("{}/{}", pointer(parent), key.replace('~', "~0").replace('/', "~1")),
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => pointer(parent),
    }
}

/// Reads a raw value that stands at `param`.
pub(crate) fn read<'a, T: Deserialize<'a>>(param: &str, raw: &'a RawValue) -> Result<T, Error> {
    serde_json::from_str(raw.get()).map_err(|_| blame(param, || failure::<T>(raw)))
}

/// Reads once more, now with the path of the failure: only those who fail pay for it.
fn failure<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<(String, String)> {
    let mut deserializer = serde_json::Deserializer::from_str(raw.get());
    let error = serde_path_to_error::deserialize::<_, T>(&mut deserializer).err()?;
    let path = error.path().to_string();
    // Line and column would be those of the part, not of the body.
    let reported = error.into_inner().to_string();
    let reported = reported.rfind(" at line ").map_or(&*reported, |at| &reported[..at]).to_owned();
    Some((path, reported))
}

fn blame(name: &str, failure: impl FnOnce() -> Option<(String, String)>) -> Error {
    let (path, reported) = failure().unwrap_or_default();
    let path = join(name, &path);
    let missing = reported.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match missing {
        Some(field) => Error::missing(join(&path, field)),
        None => Error::Invalid {
            message: format!("Invalid type for '{path}': {reported}."),
            param: Some(path),
            code: Some("invalid_type"),
        },
    }
}

/// `messages` and `[0].content` → `messages[0].content`.
fn join(name: &str, path: &str) -> String {
    // One library writes `.` for the root, the other numbers elements as `.0.`.
    let mut out = name.to_owned();
    for part in path.split('.').filter(|part| !part.is_empty() && *part != "?") {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            out.push('[');
            out.push_str(part);
            out.push(']');
        } else {
            if !out.is_empty() && !part.starts_with('[') {
                out.push('.');
            }
            out.push_str(part);
        }
    }
    out
}

/// A string, borrowed where it has no escapes. A lone surrogate, as JavaScript clients send when they cut an emoji in
/// two, becomes U+FFFD, as in Go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'a> Text<'a> {
    /// The string that `raw` is. None: it is something else. As its parser reads it, but into a buffer of the right
    /// size, which does not grow while it is read.
    pub(crate) fn of(raw: &'a RawValue) -> Option<Self> {
        let text = raw.get().strip_prefix('"')?.strip_suffix('"')?;
        Some(Self(match memchr::memchr(b'\\', text.as_bytes()) {
            None => Cow::Borrowed(text),
            Some(_) => Cow::Owned(unescaped(text)?),
        }))
    }
}

impl Text<'_> {
    /// A copy of what serde_json calls bytes: UTF-8, but for lone surrogates.
    pub(crate) fn from_wtf8<E>(text: &[u8]) -> Result<Self, E> {
        Ok(Text(Cow::Owned(mend(text))))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E: de::Error>(self, text: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Text(match std::str::from_utf8(text) {
                    Ok(text) => Cow::Borrowed(text),
                    Err(_) => Cow::Owned(mend(text)),
                }))
            }

            fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<Self::Value, E> {
                Text::from_wtf8(text)
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        // As bytes, serde_json hands lone surrogates over in WTF-8 instead of refusing them.
        deserializer.deserialize_bytes(Visitor)
    }
}

/// What stands between the quotes of a JSON string, without its escapes. None: one of them is none of JSON's.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let (c, length) = match *rest.as_bytes().get(at + 1)? {
            c @ (b'"' | b'\\' | b'/') => (char::from(c), 2),
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            b'u' => match (unit(rest, at)?, unit(rest, at + 6)) {
                (high @ 0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                    (char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))?, 12)
                }
                // A lone surrogate is none.
                (unit, _) => (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
            },
            _ => return None,
        };
        out.push(c);
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    Some(out)
}

/// The number of the escape at `at`, such as `\ud83d`.
fn unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// UTF-8 with U+FFFD, once, for each lone surrogate (three bytes `ED A0..BF xx` in WTF-8).
fn mend(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        match std::str::from_utf8(rest) {
            Ok(good) => {
                out.push_str(good);
                return out;
            }
            Err(error) => {
                let (good, bad) = rest.split_at(error.valid_up_to());
                out.push_str(&String::from_utf8_lossy(good));
                out.push('\u{fffd}');
                let surrogate = matches!(bad, [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..]);
                let skip = if surrogate { 3 } else { error.error_len().unwrap_or(bad.len()) };
                rest = &bad[skip..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Item<'a> {
        #[serde(borrow)]
        text: Text<'a>,
        #[serde(borrow, default)]
        schema: Option<&'a RawValue>,
    }

    fn json(text: &str) -> Json {
        Json::new(text.as_bytes().to_vec(), &Limits::default())
    }

    proptest! {
        #[test]
        fn a_string_is_read_as_a_parser_reads_it(
            parts in prop::collection::vec(
                prop_oneof![
                    "[ -!#-\\[\\]-~é😀]{0,9}",
                    prop::sample::select(vec![
                        r#"\""#, r"\\", r"\/", r"\b", r"\f", r"\n", r"\r", r"\t", r"\u0041", r"\u00e9", r"\ud83d\ude00", r"\ud83d",
                        r"\ude00", r"\uD83D\uD83D", r"\ud83dx", r"\u0000",
                    ]).prop_map(str::to_owned),
                ],
                0..9,
            ),
        ) {
            let text = format!("\"{}\"", parts.concat());
            let raw: &RawValue = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(Text::of(raw), serde_json::from_str(&text).ok(), "{}", text);
        }
    }

    #[test]
    fn only_a_string_is_a_text() {
        for other in ["null", "5", "[]", "{}", "true"] {
            assert_eq!(Text::of(serde_json::from_str(other).unwrap()), None);
        }
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_path() {
        let body = json(r#"{"items":[{"text":"a"},{"text":5}]}"#);
        let error = body.fields().unwrap().need::<Vec<Item<'_>>>("items", &mut Vec::new()).unwrap_err();
        assert_eq!(error.param(), Some("items[1].text"));
        assert_eq!(error.row().code, Some("invalid_type"));
    }

    #[test]
    fn a_missing_field_is_reported_with_its_path() {
        let body = json(r#"{"items":[{}]}"#);
        let error = body.fields().unwrap().need::<Vec<Item<'_>>>("items", &mut Vec::new()).unwrap_err();
        assert_eq!((error.param(), error.row().code), (Some("items[0].text"), Some("missing_required_parameter")));
    }

    #[test]
    fn what_a_type_does_not_know_is_noted_with_its_path() {
        let body = json(
            r#"{"items":[{"text":"a","cache_control":{"type":"x"},"schema":{"b":1.0,"a":2}}],"extra":1,"none":null}"#,
        );
        let mut ignored = Vec::new();
        let mut fields = body.fields().unwrap();
        let items: Vec<Item<'_>> = fields.need("items", &mut ignored).unwrap();
        assert_eq!(items[0].schema.unwrap().get(), r#"{"b":1.0,"a":2}"#);
        assert_eq!(ignored, ["items[0].cache_control"]);
        assert_eq!(fields.left().map(|(name, _)| name.into_owned()).collect::<Vec<_>>(), ["extra"]);
    }

    #[test]
    fn an_unknown_field_that_asks_for_nothing_is_not_noted_at_any_depth() {
        for (value, noted) in [
            ("null", false),
            ("false", false),
            ("[ ]", false),
            ("{}", false),
            ("\"\"", false),
            ("0", true),
            ("[0]", true),
        ] {
            let body = json(&format!(r#"{{"items":[{{"text":"a"}},{{"text":"b","a/b~":{value}}}]}}"#));
            let mut ignored = Vec::new();
            let _: Vec<Item<'_>> = body.fields().unwrap().need("items", &mut ignored).unwrap();
            assert_eq!(!ignored.is_empty(), noted, "{value}");
        }
    }

    #[test]
    fn a_lone_surrogate_becomes_one_replacement_character() {
        let body = json(r#"{"items":[{"text":"a\ud83d b"},{"text":"\ud83d\ude00 \udc00x"}]}"#);
        let items: Vec<Item<'_>> = body.fields().unwrap().need("items", &mut Vec::new()).unwrap();
        assert_eq!((&*items[0].text, &*items[1].text), ("a\u{fffd} b", "😀 \u{fffd}x"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_a_lone_surrogate_or_a_panic(text in "\\PC{0,20}|(\\\\u[dD][89a-fA-F][0-9a-f]{2}|x){0,6}") {
            let body = json(&format!(r#"{{"text":"{text}"}}"#));
            if let Ok(mut fields) = body.fields() {
                let _ = fields.need::<Text<'_>>("text", &mut Vec::new());
            }
        }
    }

    #[test]
    fn of_a_name_that_stands_twice_the_last_value_counts() {
        let body = json(r#"{"a":1,"a":2}"#);
        assert_eq!(body.fields().unwrap().need::<u8>("a", &mut Vec::new()).unwrap(), 2);
    }

    #[test]
    fn an_object_with_too_many_fields_is_refused_by_its_name() {
        let object = |n: usize| {
            let fields: Vec<String> = (0..n).map(|n| format!(r#""k{n}":{n}"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        let limits = |fields| Limits { fields, ..Limits::default() };
        let refused = |body: &str, max: usize| {
            let json = Json::new(body.as_bytes().to_vec(), &limits(max));
            let mut fields = json.fields()?;
            fields.take_fields("options").map(|fields| fields.map_or(0, |fields| fields.left().count()))
        };
        let error = refused(&object(11), 10).unwrap_err();
        assert_eq!((error.row().code, error.param()), (Some("object_above_max_properties"), None));
        assert!(error.to_string().contains("at most 10; raise limits.fields"), "{error}");
        let options = |n| format!(r#"{{"options":{}}}"#, object(n));
        assert_eq!(refused(&options(11), 10).unwrap_err().param(), Some("options"));
        assert_eq!(refused(&options(10), 10).unwrap(), 10);
        // A name that stands again is no further name.
        assert!(refused(&format!("{{{}\"a\":1}}", r#""a":1,"#.repeat(50)), 10).is_ok());
        // Unlimited, and fast: a search for each name would take minutes.
        assert_eq!(refused(&options(200_000), 0).unwrap(), 200_000);
        assert_eq!(refused(r#"{"options":[]}"#, 10).unwrap_err().row().code, Some("invalid_type"));
    }

    #[test]
    fn broken_json_is_reported_with_line_and_column() {
        let error = json("{\"model\": \"m\",\n oops}").fields().unwrap_err();
        assert!(error.to_string().contains("line 2 column 2"), "{error}");
        assert!(json("[]").fields().unwrap_err().to_string().contains("JSON object"));
        assert!(json("{} x").fields().is_err());
        assert!(json("  ").fields().unwrap_err().to_string().contains("empty"));
    }
}
