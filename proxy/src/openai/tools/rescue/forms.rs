//! The forms in which models write calls as text: the rows of `forms.toml`.

use std::sync::LazyLock;

use serde::Deserialize;

/// A way to write calls.
#[derive(Debug, Deserialize)]
pub(super) struct Form {
    #[cfg_attr(not(test), expect(dead_code, reason = "for people, and for tests"))]
    pub(super) name: String,
    #[expect(dead_code, reason = "for people")]
    family: String,
    #[expect(dead_code, reason = "for people")]
    source: String,
    /// Where it may begin.
    pub(super) place: Place,
    /// Marks that it may begin with; empty where it has none of its own.
    #[serde(default = "unmarked")]
    pub(super) open: Vec<String>,
    /// Marks that it may end with.
    #[serde(default)]
    pub(super) close: Vec<String>,
    /// Whether the mark at its end may be missing.
    #[serde(default)]
    pub(super) lenient: bool,
    /// What its body begins with, where it has no mark of its own.
    #[serde(default)]
    mark: Option<String>,
    pub(super) body: Vec<Body>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for people, and for tests"))]
    pub(super) example: String,
}

fn unmarked() -> Vec<String> {
    vec![String::new()]
}

/// Where a call may begin, the freest last.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Place {
    Anywhere,
    /// At the beginning of a line.
    Line,
    /// At the beginning of the answer.
    Answer,
}

/// What stands between the marks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Body {
    Json,
    Python,
    Function,
    Invoke,
    Keys,
    NameJson,
    Deepseek,
    Kimi,
    Action,
    Gemma,
}

#[derive(Debug, Deserialize)]
struct File {
    cues: Vec<String>,
    form: Vec<Form>,
}

static FILE: LazyLock<File> = LazyLock::new(|| {
    toml::from_str(include_str!("forms.toml")).unwrap_or_else(|_| File { cues: Vec::new(), form: Vec::new() })
});

pub(super) static FORMS: LazyLock<&[Form]> = LazyLock::new(|| &FILE.form);

/// First bytes of what may begin in the middle of a line, and at its beginning.
pub(super) static STARTS: LazyLock<Starts> = LazyLock::new(|| {
    let mut starts = Starts { anywhere: [false; 256], line: [false; 256] };
    for form in *FORMS {
        let bodies = form.body.iter().flat_map(|body| match body {
            Body::Json => &b"{["[..],
            _ => &[],
        });
        let marks = form.open.iter().chain(&form.mark).filter_map(|mark| mark.as_bytes().first());
        let bodies = bodies.filter(|_| form.open.iter().any(String::is_empty));
        for first in marks.chain(bodies) {
            match form.place {
                Place::Anywhere => starts.anywhere[usize::from(*first)] = true,
                Place::Line => starts.line[usize::from(*first)] = true,
                Place::Answer => {}
            }
        }
    }
    starts
});

/// See [`STARTS`].
pub(super) struct Starts {
    pub(super) anywhere: [bool; 256],
    pub(super) line: [bool; 256],
}

/// Whether text in front of a call makes it an example.
pub(super) fn introduces_an_example(text: &str) -> bool {
    let paragraph = text.trim_end().rsplit("\n\n").next().unwrap_or_default().to_lowercase();
    FILE.cues.iter().any(|cue| paragraph.contains(cue.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_its_forms_have_names_of_their_own() {
        let names: std::collections::HashSet<_> = FORMS.iter().map(|form| &form.name).collect();
        assert!(FORMS.len() > 10 && names.len() == FORMS.len() && !FILE.cues.is_empty());
        toml::from_str::<File>(include_str!("forms.toml")).unwrap();
    }
}
