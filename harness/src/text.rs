//! Text for people: shortened values, durations, error chains.

use std::time::Duration;

/// How much of a body's beginning stands in reports.
const BEGINNING: usize = 3 << 10;
/// And of its end, where a stream reports its outcome.
const ENDING: usize = 1 << 10;

/// The beginning of a text, and how much is left out.
#[must_use]
pub fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    format!("{}… ({} bytes more)", &text[..end], text.len() - end)
}

/// The beginning and the end of a body.
#[must_use]
pub fn abridge(text: &str) -> String {
    let (beginning, ending) =
        (text.floor_char_boundary(BEGINNING), text.ceil_char_boundary(text.len().saturating_sub(ENDING)));
    if beginning >= ending {
        return text.to_owned();
    }
    format!("{}\n… ({} bytes left out) …\n{}", &text[..beginning], ending - beginning, &text[ending..])
}

/// A duration as people read it: `850 ms`, `2.3 s`.
#[must_use]
pub fn duration(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}

/// An error with all that caused it; libraries hide the useful part below.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        cause = error.source();
    }
    text
}

/// The nearest of the known names, as the end of a message: `; did you mean "x"?`, or nothing if none is near.
#[must_use]
pub fn suggestion<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

/// The nearest of the known names, if one is near: another case, a letter or two, the beginning of a long name.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let distance = |known: &str| {
        let beginning = lower.len() >= 3 && (known.starts_with(&lower) || lower.starts_with(known) && known.len() >= 4);
        let distance = strsim::damerau_levenshtein(&lower, known);
        if beginning { distance.min(1) } else { distance }
    };
    let most = if lower.chars().count() <= 3 { 1 } else { 2 };
    let near = known.into_iter().map(|known| (distance(known), known)).filter(|(far, _)| *far <= most);
    near.min_by_key(|(far, _)| *far).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let known = ["expect", "type", "completions", "model", "models", "temperature"];
        for (typo, meant) in [
            ("expct", "expect"),
            ("typ", "type"),
            ("completion", "completions"),
            ("modl", "model"),
            ("Temprature", "temperature"),
        ] {
            assert_eq!(nearest(typo, known), Some(meant), "{typo}");
        }
        assert_eq!(nearest("banana", known), None);
        assert_eq!(suggestion("expct", known), "; did you mean `expect`?");
    }

    #[test]
    fn a_long_body_is_shown_by_its_two_ends() {
        let text = format!("a{}z", "ö".repeat(5000));
        let short = abridge(&text);
        assert!(short.starts_with('a') && short.ends_with('z') && short.contains("bytes left out"), "{short}");
        assert_eq!(abridge("short"), "short");
    }
}
