//! The receipt: what became of the parts of a request that were not simply passed on. Pure.
//!
//! It goes out as the header `x-farllama-receipt: tool_choice=emulated, service_tier=no-effect`; what becomes known
//! after the headers left is a comment of the stream (`: receipt num_ctx=raised:16384`); and the log always has it.

use std::{borrow::Cow, fmt, sync::Arc};

use http::HeaderValue;

use crate::{config::Config, error::Error};

/// Most lines of one receipt. A header has its bounds, and a body may hold any number of odd names.
const MOST: usize = 48;

/// Most characters of a name: that of a keyword deep in a schema.
const NAME: usize = 96;

const NO_EFFECT: &str = "no-effect";

const UNKNOWN: &str = "unknown";

/// A keyword of a schema that Ollama leaves out.
const NOT_ENFORCED: &str = "not-enforced";

/// Maximum number of hints. A body may hold any number of misspelled names.
const HINTS: usize = 4;

/// Lines `name=what`, each once, in the order in which they became known.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Receipt {
    lines: Vec<Line>,
    /// How many of them the client has got.
    sent: usize,
    /// Names of unknown fields, each with the known name that is probably meant.
    meant: Vec<(String, String)>,
    calls: Calls,
}

/// A line of a receipt.
#[derive(Clone, Debug, PartialEq)]
enum Line {
    Note(String, Cow<'static, str>),
    /// The remote that responded.
    Remote(Arc<RemoteLine>),
}

impl Line {
    fn is(&self, name: &str, what: &str) -> bool {
        matches!(self, Self::Note(known, said) if known == name && said == what)
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Note(name, what) => [name, "=", what].into_iter().for_each(|part| out.push_str(part)),
            Self::Remote(line) => out.push_str(&line.text),
        }
    }
}

/// The line that names a remote, written once for all requests.
#[derive(Debug, PartialEq)]
pub(crate) struct RemoteLine {
    text: String,
    /// None: a header cannot hold the name.
    header: Option<HeaderValue>,
}

impl RemoteLine {
    /// For the remote called `name`.
    pub(crate) fn new(name: &str) -> Self {
        let text = format!("remote={name}");
        let header = HeaderValue::try_from(&text).ok();
        Self { text, header }
    }
}

/// What became of a model's calls, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// It fits the schema of its tool as the model made it.
    Fits,
    /// It fits after a repair.
    Repaired,
    /// It does not fit.
    Misfit,
    /// There is no tool of its name.
    Unknown,
    /// It was written as text; it is counted as one of the others as well.
    Rescued,
    /// The model was asked for it again; the new one is counted as one of the others as well.
    Reasked,
}

impl Call {
    /// All kinds, each with its name in metrics.
    pub(crate) const NAMED: [(Self, &str); 6] = [
        (Self::Fits, "fits"),
        (Self::Repaired, "repaired"),
        (Self::Misfit, "misfit"),
        (Self::Unknown, "unknown_tool"),
        (Self::Rescued, "rescued"),
        (Self::Reasked, "reasked"),
    ];
}

/// How many calls of an exchange there were of each kind. Calls that were not checked are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls([u32; 6]);

impl Receipt {
    /// Adds `name=what`, unless it is there.
    pub(crate) fn note(&mut self, name: &str, what: impl Into<Cow<'static, str>>) {
        let (name, what) = (tidy(name), what.into());
        if self.lines.iter().any(|line| line.is(&name, &what)) {
            return;
        }
        match self.lines.len() {
            MOST.. => {}
            n if n == MOST - 1 => self.lines.push(Line::Note("and-more".to_owned(), NO_EFFECT.into())),
            _ => self.lines.push(Line::Note(name, what)),
        }
    }

    /// Adds the line of the remote that responded, unless it is there.
    pub(crate) fn remote(&mut self, line: &Arc<RemoteLine>) {
        let is_there = self.lines.iter().any(|known| matches!(known, Line::Remote(known) if known.text == line.text));
        if !is_there && self.lines.len() < MOST {
            self.lines.push(Line::Remote(line.clone()));
        }
    }

    /// Whether it has a line that depends on the request or the response, other than on which remote responded.
    pub(crate) fn has_notes(&self) -> bool {
        self.lines.iter().any(|line| matches!(line, Line::Note(..)))
    }

    /// All lines.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match &*self.lines {
            [Line::Remote(line)] => Cow::Borrowed(&line.text),
            lines => Cow::Owned(written(lines)),
        }
    }

    /// Counts a call.
    pub(crate) fn count(&mut self, call: Call) {
        self.calls.0[call as usize] += 1;
    }

    /// How many calls there were of one kind.
    pub(crate) fn counted(&self, call: Call) -> u32 {
        self.calls.0[call as usize]
    }

    /// The field is understood, but nothing comes of it.
    pub(crate) fn no_effect(&mut self, name: &str) {
        self.note(name, NO_EFFECT);
    }

    /// Neither OpenAI nor Ollama has such a field; `near` is the known name that is probably meant.
    pub(crate) fn unknown(&mut self, name: &str, near: Option<&str>) {
        self.note(name, UNKNOWN);
        if let Some(near) = near
            && self.meant.len() < HINTS
        {
            self.meant.push((tidy(name), near.to_owned()));
        }
    }

    /// What the caller probably got wrong.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = |(name, near): &(String, String)| format!("unknown field `{name}`: did you mean `{near}`?");
        (!self.meant.is_empty()).then(|| self.meant.iter().map(hint).collect::<Vec<_>>().join(" "))
    }

    /// Ollama cannot do what the field asks for; we bring it about.
    pub(crate) fn emulated(&mut self, name: &str) {
        self.note(name, "emulated");
    }

    /// Adds the lines of another.
    pub(crate) fn add(&mut self, other: Self) {
        for line in other.lines {
            match line {
                Line::Note(name, what) => self.note(&name, what),
                Line::Remote(line) => self.remote(&line),
            }
        }
        for (count, more) in self.calls.0.iter_mut().zip(other.calls.0) {
            *count += more;
        }
        let room = HINTS - self.meant.len();
        self.meant.extend(other.meant.into_iter().take(room));
    }

    /// The lines that the client has not got yet, which from now on count as sent.
    pub(crate) fn take_unsent(&mut self) -> Option<String> {
        let new = self.lines.get(self.sent..).filter(|new| !new.is_empty()).map(written);
        self.sent = self.lines.len();
        new
    }

    /// As [`Receipt::take_unsent`], as a header. None, too, if a header cannot hold the lines.
    pub(crate) fn take_header(&mut self) -> Option<HeaderValue> {
        if let [Line::Remote(line)] = self.lines.get(self.sent..).unwrap_or_default() {
            self.sent = self.lines.len();
            return line.header.clone();
        }
        HeaderValue::try_from(self.take_unsent()?).ok()
    }

    /// Enforces `openai.strict`.
    ///
    /// # Errors
    /// Fails if a field is unknown or has no effect, and the settings are strict.
    pub(crate) fn enforce_strict(&self, config: &Config) -> Result<(), Error> {
        if !config.openai.strict {
            return Ok(());
        }
        let refused = self.lines.iter().find_map(|line| match line {
            Line::Note(name, what) if [NO_EFFECT, UNKNOWN, NOT_ENFORCED].contains(&&**what) => Some((name, what)),
            _ => None,
        });
        let Some((name, what)) = refused else { return Ok(()) };
        let (message, code) = if what == UNKNOWN {
            let near = self.meant.iter().find(|(unknown, _)| unknown == name);
            let near = near.map_or(String::new(), |(_, near)| format!(" Did you mean '{near}'?"));
            (format!("Unknown parameter: '{name}'.{near}"), "unknown_parameter")
        } else {
            let why = if what == NO_EFFECT { "has no effect on Ollama" } else { "is not enforced by Ollama" };
            let message = format!("Unsupported parameter: '{name}' {why}, and openai.strict is set.");
            (message, "unsupported_parameter")
        };
        Err(Error::Invalid { message, param: Some(name.clone()), code: Some(code) })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(&self.lines))
    }
}

fn written(lines: &[Line]) -> String {
    let mut text = String::with_capacity(64);
    for line in lines {
        if !text.is_empty() {
            text.push_str(", ");
        }
        line.write(&mut text);
    }
    text
}

/// A name as a header can hold it: `messages[12].name` and `messages[13].name` are one, and odd characters become `_`.
fn tidy(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if inside && c.is_ascii_digit() => continue,
            _ => {}
        }
        name.push(if c.is_ascii_graphic() && !matches!(c, ',' | '=' | '"') { c } else { '_' });
    }
    name.truncate(NAME);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_once_and_is_told_once() {
        let mut receipt = Receipt::default();
        receipt.no_effect("messages[0].name");
        receipt.no_effect("messages[7].name");
        receipt.emulated("tool_choice");
        assert_eq!(receipt.take_unsent().unwrap(), "messages[].name=no-effect, tool_choice=emulated");
        receipt.note("num_ctx", "raised:8192");
        assert_eq!(receipt.take_unsent().unwrap(), "num_ctx=raised:8192");
        assert_eq!(receipt.take_unsent(), None);
    }

    #[test]
    fn the_remote_stands_among_the_lines_once() {
        let line = Arc::new(RemoteLine::new("gpu"));
        let mut receipt = Receipt::default();
        receipt.remote(&line);
        assert!(!receipt.has_notes() && receipt.text() == "remote=gpu");
        assert_eq!(receipt.take_header().unwrap(), "remote=gpu");
        receipt.remote(&Arc::new(RemoteLine::new("gpu")));
        assert_eq!(receipt.take_header(), None);
        receipt.note("model", "alias:m");
        receipt.remote(&Arc::new(RemoteLine::new("cpu")));
        assert_eq!(receipt.take_header().unwrap(), "model=alias:m, remote=cpu");
        let mut sum = Receipt::default();
        sum.add(receipt);
        assert_eq!(sum.to_string(), "remote=gpu, model=alias:m, remote=cpu");
    }

    #[test]
    fn whatever_a_field_is_called_the_receipt_is_a_short_header() {
        let mut receipt = Receipt::default();
        for n in 0..1000 {
            receipt.no_effect(&format!("x{n}\r\nset-cookie: é={}", "y".repeat(200)));
        }
        let text = receipt.take_unsent().unwrap();
        assert!(text.len() < 8000 && text.ends_with("and-more=no-effect"));
        assert!(http::HeaderValue::from_str(&text).is_ok() && text.is_ascii());
    }

    #[test]
    fn a_strict_proxy_names_the_field_that_has_no_effect() {
        let mut receipt = Receipt::default();
        receipt.emulated("n");
        let (lenient, mut strict) = (Config::default(), Config::default());
        strict.openai.strict = true;
        assert!(receipt.enforce_strict(&strict).is_ok());
        receipt.no_effect("user");
        assert!(receipt.enforce_strict(&lenient).is_ok());
        let error = receipt.enforce_strict(&strict).unwrap_err();
        assert_eq!((error.row().code, error.param()), (Some("unsupported_parameter"), Some("user")));
    }

    #[test]
    fn an_unknown_field_is_distinguished_and_the_known_one_is_suggested() {
        let mut receipt = Receipt::default();
        receipt.unknown("temprature", Some("temperature"));
        receipt.unknown("zzz", None);
        assert_eq!(receipt.to_string(), "temprature=unknown, zzz=unknown");
        assert_eq!(receipt.hint().unwrap(), "unknown field `temprature`: did you mean `temperature`?");
        let mut sum = Receipt::default();
        sum.add(receipt);
        assert!(sum.hint().is_some());
        let mut strict = Config::default();
        assert!(sum.enforce_strict(&strict).is_ok());
        strict.openai.strict = true;
        let error = sum.enforce_strict(&strict).unwrap_err();
        assert_eq!(error.to_string(), "Unknown parameter: 'temprature'. Did you mean 'temperature'?");
        assert_eq!((error.row().code, error.param()), (Some("unknown_parameter"), Some("temprature")));
    }
}
