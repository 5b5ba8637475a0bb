//! How the value of a setting is read, whichever source gives it, and how it is shown.

use std::{path::PathBuf, str::FromStr, time::Duration};

use http::{HeaderName, HeaderValue, header};

use super::{Hosted, Overflow};

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
        other => Err(format!("expected a text, got {}", kind(&other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Text(_) => "a text",
        Value::Integer(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::List(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A whole number of the type that is wanted; `wrong` says what another value is not.
fn whole<T: TryFrom<i64> + FromStr>(value: Value, expected: &str, wrong: &str) -> Result<T, String> {
    match value {
        Value::Integer(n) => T::try_from(n).map_err(|_| format!("{n} {wrong}")),
        Value::Text(text) => text.trim().parse().map_err(|_| format!("{text:?} {wrong}")),
        other => Err(format!("expected {expected}, got {}", kind(&other))),
    }
}

pub(super) fn port(value: Value) -> Result<u16, String> {
    whole(value, "a port number", "is no port; expected a number from 0 to 65535")
}

/// A whole number of things.
pub(super) fn number(value: Value) -> Result<usize, String> {
    whole(value, "a whole number", "is no count; expected a whole number from 0")
}

pub(super) fn boolean(value: Value) -> Result<bool, String> {
    match value {
        Value::Boolean(on) => Ok(on),
        Value::Text(text) => match &*text {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => Err(format!("{other:?} is neither true nor false")),
        },
        other => Err(format!("expected true or false, got {}", kind(&other))),
    }
}

pub(super) fn hosted(word: &str) -> Result<Hosted, String> {
    match word {
        "skip" => Ok(Hosted::Skip),
        "refuse" => Ok(Hosted::Refuse),
        other => Err(format!("{other:?} is neither \"skip\" nor \"refuse\"")),
    }
}

pub(super) fn duration(value: Value) -> Result<Duration, String> {
    let text = match value {
        Value::Text(text) => text,
        Value::Integer(0) => return Ok(Duration::ZERO),
        Value::Integer(n) => return Err(format!("{n} has no unit; write \"{n}s\" or \"{n}ms\"")),
        other => return Err(format!("expected a duration such as \"10s\", got {}", kind(&other))),
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(&text)
        .map_err(|error| format!("{text:?} is no duration such as \"10s\", \"500ms\" or \"2m\": {error}"))
}

/// A duration above zero, or what is `wrong` with none.
pub(super) fn lasting(value: Value, wrong: &str) -> Result<Duration, String> {
    match duration(value)? {
        Duration::ZERO => Err(wrong.to_owned()),
        lasting => Ok(lasting),
    }
}

pub(super) fn bytes(value: Value) -> Result<usize, String> {
    let wrong =
        |given: &dyn std::fmt::Display| format!("{given} is no size; expected bytes, or a text such as \"256MiB\"");
    match value {
        Value::Integer(n) => usize::try_from(n).map_err(|_| wrong(&n)),
        Value::Text(text) => {
            let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let shift = match text.trim()[digits.len()..].to_ascii_lowercase().as_str() {
                "" | "b" => 0,
                "kib" | "k" => 10,
                "mib" | "m" => 20,
                "gib" | "g" => 30,
                _ => return Err(wrong(&format!("{text:?}"))),
            };
            let n: usize = digits.trim().parse().map_err(|_| wrong(&format!("{text:?}")))?;
            n.checked_shl(shift).filter(|bytes| bytes >> shift == n).ok_or_else(|| wrong(&format!("{text:?}")))
        }
        other => Err(format!("expected a size, got {}", kind(&other))),
    }
}

/// A number of tokens.
pub(super) fn count(value: Value) -> Result<u64, String> {
    whole(value, "a number of tokens", "is no number of tokens, such as 16384")
}

pub(super) fn overflow(word: &str) -> Result<Overflow, String> {
    match word {
        "refuse" => Ok(Overflow::Refuse),
        "truncate" => Ok(Overflow::Truncate),
        other => Err(format!("{other:?} is neither \"refuse\" nor \"truncate\"")),
    }
}

pub(super) fn overflow_word(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::Refuse => "refuse",
        Overflow::Truncate => "truncate",
    }
}

pub(super) fn by_model(value: Value) -> Result<Vec<(String, Overflow)>, String> {
    let pairs = match value {
        Value::Table(pairs) => pairs,
        // One model a line; its name holds colons itself.
        Value::Text(text) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (model, word) =
                    line.rsplit_once(':').ok_or_else(|| format!("{line:?} is not such as \"llama3.2: truncate\""))?;
                Ok((model.trim().to_owned(), word.trim().to_owned()))
            })
            .collect::<Result<_, String>>()?,
        other => return Err(format!("expected a table of models and words, got {}", kind(&other))),
    };
    pairs.into_iter().map(|(model, word)| Ok((model, overflow(&word)?))).collect()
}

pub(super) fn list(value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::List(list) => Ok(list),
        Value::Text(text) => {
            Ok(text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect())
        }
        other => Err(format!("expected a list of texts, got {}", kind(&other))),
    }
}

/// Headers that a proxy sets itself, or that frame a message.
const OURS: [HeaderName; 10] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::VIA,
];

pub(super) fn headers(value: Value) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let pairs = match value {
        Value::Table(pairs) => pairs,
        // One header a line, as HTTP writes them.
        Value::Text(text) => text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                // The text may be a secret, and is not shown.
                let (name, value) = line.split_once(':').ok_or("expected a header a line, such as \"X-Team: ours\"")?;
                Ok((name.trim().to_owned(), value.trim().to_owned()))
            })
            .collect::<Result<_, String>>()?,
        other => return Err(format!("expected a table of names and values, got {}", kind(&other))),
    };
    let header = |(name, value): (String, String)| {
        let known: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
        if OURS.contains(&known) {
            return Err(format!("the header {name:?} is set by the proxy itself"));
        }
        Ok((
            known,
            secret_header(&value)
                .map_err(|()| format!("the value of {name:?} holds characters that a header cannot"))?,
        ))
    };
    pairs.into_iter().map(header).collect()
}

/// The header that a caller's key is in.
pub(super) fn key_header(value: Value) -> Result<HeaderName, String> {
    let name = text(value)?;
    let header = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
    if OURS.contains(&header) {
        return Err(format!("{name:?} cannot hold a key: HTTP itself needs it"));
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
        return Err(format!("{text:?} is no path such as \"/prefix\""));
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
