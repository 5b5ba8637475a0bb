//! `keep_alive`: seconds or a Go duration.

use std::time::Duration;

use serde_json::Value;

/// How long a model stays loaded; `None` is for ever.
pub(crate) type KeepAlive = Option<Duration>;

/// Reads `keep_alive`: a number of seconds, or a Go duration; negative is for ever.
///
/// # Errors
/// Go's or Ollama's text.
pub(crate) fn keep_alive(value: &Value) -> Result<KeepAlive, String> {
    match value {
        Value::Number(n) => {
            let seconds = n.as_f64().unwrap_or(0.0);
            Ok(if seconds < 0.0 { None } else { Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)) })
        }
        Value::String(text) => duration(text),
        other => Err(format!(
            "Unsupported type: '{}'",
            match other {
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            }
        )),
    }
}

/// A Go duration such as `1h30m` or `300ms`; negative ones are for ever.
fn duration(text: &str) -> Result<KeepAlive, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Some(Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total += number * scale;
        rest = &rest[unit..];
    }
    Ok(if negative { None } else { Some(Duration::try_from_secs_f64(total).unwrap_or(Duration::MAX)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(keep_alive(&"1h30m".into()).unwrap(), Some(Duration::from_secs(5400)));
        assert_eq!(keep_alive(&42.5.into()).unwrap(), Some(Duration::from_millis(42500)));
        assert_eq!(keep_alive(&"-1m".into()).unwrap(), None);
        assert_eq!(keep_alive(&"300".into()).unwrap_err(), "time: missing unit in duration \"300\"");
        assert_eq!(keep_alive(&"1d".into()).unwrap_err(), "time: unknown unit \"d\" in duration \"1d\"");
        assert_eq!(keep_alive(&"soon".into()).unwrap_err(), "time: invalid duration \"soon\"");
        assert_eq!(keep_alive(&true.into()).unwrap_err(), "Unsupported type: 'bool'");
    }
}
