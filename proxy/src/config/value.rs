//! How the value of a setting is read, whichever source gives it, and how it is shown.

use std::{path::PathBuf, str::FromStr, time::Duration};

use http::{HeaderName, HeaderValue, header};

use super::{Fail, Hosted, Kind, LogFormat, LogLevel, Overflow, Protocol, Repair};
use crate::upstream::passthrough::HOP_BY_HOP;

/// A value as a source gives it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<String>),
    Table(Vec<(String, String)>),
}

/// How a setting's value looks in a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    Value(String),
    /// There is none.
    Nothing,
    /// There is one, which must not be shown.
    Masked,
}

pub(super) fn text(value: Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("expected a string, got {}", kind(&other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "a string",
        Value::Integer(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A whole number of the type that is wanted, called `what`.
fn whole<T: TryFrom<i64> + FromStr>(value: Value, what: &str, expected: &str) -> Result<T, String> {
    match value {
        Value::Integer(n) => T::try_from(n).map_err(|_| format!("invalid {what} {n}: expected {expected}")),
        Value::Text(text) => text.trim().parse().map_err(|_| format!("invalid {what} {text:?}: expected {expected}")),
        other => Err(format!("expected {expected}, got {}", kind(&other))),
    }
}

pub(super) fn port(value: Value) -> Result<u16, String> {
    whole(value, "port", "a number from 0 to 65535")
}

/// A whole number of things.
pub(super) fn number(value: Value) -> Result<usize, String> {
    whole(value, "number", "a whole number, 0 or more")
}

/// A number of tokens.
pub(super) fn count(value: Value) -> Result<u64, String> {
    whole(value, "number of tokens", "a whole number such as 16384")
}

pub(super) fn boolean(value: Value) -> Result<bool, String> {
    match value {
        Value::Boolean(on) => Ok(on),
        Value::Text(text) => match &*text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("invalid value {other:?}: expected true or false")),
        },
        other => Err(format!("expected true or false, got {}", kind(&other))),
    }
}

/// A value that is one of a few words.
pub(super) trait Word: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

impl Word for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("http", Self::Http), ("https", Self::Https)];
}

impl Word for Kind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("ollama", Self::Ollama), ("openai", Self::OpenAi), ("auto", Self::Auto)];
}

impl Word for Overflow {
    const WORDS: &'static [(&'static str, Self)] = &[("refuse", Self::Refuse), ("truncate", Self::Truncate)];
}

impl Word for Hosted {
    const WORDS: &'static [(&'static str, Self)] = &[("skip", Self::Skip), ("refuse", Self::Refuse)];
}

impl Word for Repair {
    const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("off", Self::Off)];
}

impl Word for Fail {
    const WORDS: &'static [(&'static str, Self)] = &[("open", Self::Open), ("closed", Self::Closed)];
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

pub(super) fn word<T: Word>(value: Value) -> Result<T, String> {
    let text = text(value)?;
    T::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<_> = T::WORDS.iter().map(|(word, _)| *word).collect();
        format!("invalid value {text:?}: expected {}", any_of(&words))
    })
}

/// `a, b or c`.
fn any_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

pub(super) fn shown_word(value: impl Word) -> Shown {
    quoted(value.word())
}

/// The units, for error texts.
const DURATIONS: &str = "a number with a unit (ms, s, m, h or d), such as \"10s\", \"500ms\" or \"2m\"";
const SIZES: &str = "bytes, or a number with a unit (KiB, MiB or GiB), such as \"256MiB\"";

pub(super) fn duration(value: Value) -> Result<Duration, String> {
    let text = match value {
        Value::Text(text) => text,
        Value::Integer(0) => return Ok(Duration::ZERO),
        Value::Integer(n) => return Err(format!("{n} has no unit: write \"{n}s\" or \"{n}ms\"")),
        other => return Err(format!("expected {DURATIONS}, got {}", kind(&other))),
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text} has no unit: write \"{text}s\" or \"{text}ms\""));
    }
    humantime::parse_duration(&text).map_err(|_| format!("invalid duration {text:?}: expected {DURATIONS}"))
}

/// A duration above zero.
pub(super) fn lasting(value: Value) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err(format!("invalid duration 0: expected {DURATIONS}, and more than zero")),
        lasting => Ok(lasting),
    }
}

pub(super) fn bytes(value: Value) -> Result<usize, String> {
    let text = match value {
        Value::Integer(n) => return usize::try_from(n).map_err(|_| format!("invalid size {n}: expected {SIZES}")),
        Value::Text(text) => text,
        other => return Err(format!("expected {SIZES}, got {}", kind(&other))),
    };
    let invalid = |near: &str| format!("invalid size {text:?}: expected {SIZES}{near}");
    let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let n: usize = digits.trim().parse().map_err(|_| invalid(""))?;
    let shift = match text.trim()[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "kib" | "k" => 10,
        "mib" | "m" => 20,
        "gib" | "g" => 30,
        // Powers of ten or of two? Both are in use, so neither is guessed.
        unit @ ("kb" | "mb" | "gb") => {
            return Err(invalid(&format!(". Did you mean \"{n}{}iB\"?", unit[..1].to_uppercase())));
        }
        _ => return Err(invalid("")),
    };
    n.checked_shl(shift).filter(|bytes| bytes >> shift == n).ok_or_else(|| invalid(""))
}

pub(super) fn by_model(value: Value) -> Result<Vec<(String, Overflow)>, String> {
    let pairs = match value {
        Value::Table(pairs) => pairs,
        // One model a line; its name holds colons itself.
        Value::Text(text) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (model, word) = line
                    .rsplit_once(':')
                    .ok_or_else(|| format!("invalid line {line:?}: expected one such as \"llama3.2: truncate\""))?;
                Ok((model.trim().to_owned(), word.trim().to_owned()))
            })
            .collect::<Result<_, String>>()?,
        other => {
            return Err(format!("expected a table such as {{ \"llama3.2\" = \"truncate\" }}, got {}", kind(&other)));
        }
    };
    pairs.into_iter().map(|(model, word)| Ok((model, self::word(Value::Text(word))?))).collect()
}

pub(super) fn list(value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(list) => Ok(list),
        Value::Text(text) => {
            Ok(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
        }
        other => Err(format!("expected a list of strings, got {}", kind(&other))),
    }
}

/// Whether a proxy sets the header itself, or it frames a message. Credentials for a further proxy are the one
/// hop-by-hop header to be set.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 4] = [header::HOST, header::CONTENT_LENGTH, header::TRAILER, header::VIA];
    OURS.contains(name) || HOP_BY_HOP.contains(name) && *name != header::PROXY_AUTHORIZATION
}

pub(super) fn headers(value: Value) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let pairs = match value {
        Value::Table(pairs) => pairs,
        // One header a line, as HTTP writes them.
        Value::Text(text) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                // The text may be a secret, and is not shown.
                let (name, value) =
                    line.split_once(':').ok_or("expected one header per line, such as \"X-Team: ours\"")?;
                Ok((name.trim().to_owned(), value.trim().to_owned()))
            })
            .collect::<Result<_, String>>()?,
        other => return Err(format!("expected a table of names and values, got {}", kind(&other))),
    };
    let header = |(name, value): (String, String)| {
        let known: HeaderName = name.parse().map_err(|_| format!("invalid header name {name:?}"))?;
        if is_ours(&known) {
            return Err(format!("the header {name:?} is set by the proxy itself"));
        }
        Ok((
            known,
            secret_header(&value)
                .map_err(|()| format!("the value of {name:?} has characters that are not allowed in a header"))?,
        ))
    };
    pairs.into_iter().map(header).collect()
}

/// The header that a caller's key is in.
pub(super) fn key_header(value: Value) -> Result<HeaderName, String> {
    let name = text(value)?;
    let header = name.parse().map_err(|_| format!("invalid header name {name:?}"))?;
    if is_ours(&header) {
        return Err(format!("invalid header {name:?}: HTTP itself uses it, so it cannot hold a key"));
    }
    Ok(header)
}

/// A header's value that no log shows.
pub(super) fn secret_header(value: &str) -> Result<HeaderValue, ()> {
    let mut value = HeaderValue::from_str(value).map_err(|_| ())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A path that others are put under: empty, or with a slash in front and none at the end.
pub(super) fn base_path(text: &str) -> Result<String, String> {
    let path = text.trim_matches('/');
    let fine =
        path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'{' | b'}' | b'"' | b'\\'));
    if !fine {
        return Err(format!("invalid path {text:?}: expected one such as \"/prefix\""));
    }
    Ok(if path.is_empty() { String::new() } else { format!("/{path}") })
}

pub(super) fn quoted(text: &str) -> Shown {
    Shown::Value(toml::Value::from(text).to_string())
}

pub(super) fn file(value: Value) -> Result<Option<PathBuf>, String> {
    text(value).map(|path| Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty()))
}

pub(super) fn shown_file(path: Option<&PathBuf>) -> Shown {
    path.map_or(Shown::Nothing, |path| quoted(&path.to_string_lossy()))
}

pub(super) fn shown_bytes(bytes: usize) -> Shown {
    match bytes {
        0 => Shown::Value("0".to_owned()),
        bytes if bytes.is_multiple_of(1 << 20) => quoted(&format!("{}MiB", bytes >> 20)),
        bytes if bytes.is_multiple_of(1 << 10) => quoted(&format!("{}KiB", bytes >> 10)),
        bytes => Shown::Value(bytes.to_string()),
    }
}

pub(super) fn shown_duration(duration: Duration) -> Shown {
    Shown::Value(format!("\"{}\"", humantime::format_duration(duration)))
}
