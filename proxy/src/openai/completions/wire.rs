//! The types of OpenAI's legacy completions, as they cross the wire.

use std::borrow::Cow;

use foldhash::quality::RandomState;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use crate::{
    error::Error,
    openai::request::{
        json::{Fields, Text, read},
        options::Native,
        parameters::{Endpoint, settle},
    },
    receipt::Receipt,
    usage::CompletionUsage,
};

/// Most answers to one request. Each is an ask of its own, and Ollama has few slots.
const MOST: usize = 2048;

/// A request, its known fields taken apart.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) model: Text<'a>,
    pub(crate) prompts: Vec<Cow<'a, str>>,
    pub(crate) suffix: Option<Text<'a>>,
    pub(crate) n: usize,
    pub(crate) echo: bool,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// How many alternatives to each token are returned, if log probabilities are.
    pub(crate) logprobs: Option<u8>,
    /// Whether the prompt goes to the model without its template; absent, the setting decides.
    pub(crate) raw: Option<bool>,
    pub(crate) effort: Option<Text<'a>>,
    pub(crate) native: Native<'a>,
}

/// What the answer must know of its request.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) model: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    /// How many answers there are: prompts × n.
    pub(crate) choices: usize,
    /// Answers to each prompt.
    pub(crate) n: usize,
    /// The prompts, if they are to stand in front of their answers.
    pub(crate) echo: Vec<String>,
}

impl Facts {
    /// What stands in front of the answer with that number.
    pub(crate) fn echoed(&self, index: usize) -> &str {
        self.echo.get(index / self.n.max(1)).map_or("", String::as_str)
    }
}

#[derive(Debug, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
    /// Padding against eavesdroppers is optional for a server.
    #[serde(default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    include_obfuscation: Option<bool>,
}

impl<'a> Request<'a> {
    /// Takes a body apart. What it does not know, and what has no effect, is noted in `receipt`.
    ///
    /// # Errors
    /// A field that is missing, of the wrong type, out of range, or that Ollama cannot serve.
    pub(crate) fn read(mut fields: Fields<'a>, receipt: &mut Receipt) -> Result<Self, Error> {
        let mut unknown = Vec::new();
        let ignored = &mut unknown;
        let model = fields.need("model", ignored)?;
        let prompts = prompts(fields.need("prompt", ignored)?)?;
        let native = Native::take(&mut fields, &["max_tokens", "max_completion_tokens"], receipt)?;
        let n = fields.take_raw("n").map_or(Ok(1), |raw| within("n", raw, 1, 128))?;
        if let Some(raw) = fields.take_raw("best_of") {
            let best_of = within("best_of", raw, 0, 20)?;
            if best_of > n {
                return Err(Error::unsupported(
                    "best_of",
                    "Ollama does not rank its choices; 'best_of' may be equal to 'n' or absent.",
                ));
            }
        }
        let echo = fields.take("echo", ignored)?.unwrap_or(false);
        let logprobs = fields.take_raw("logprobs").map(logprobs).transpose()?.flatten();
        if echo && logprobs.is_some() {
            return Err(Error::unsupported(
                "logprobs",
                "Ollama returns no log probabilities for the prompt's tokens; leave out 'logprobs' or 'echo'.",
            ));
        }
        let suffix = fields.take::<Text<'a>>("suffix", ignored)?.filter(|suffix| !suffix.is_empty());
        let raw = fields.take("raw", ignored)?;
        if raw == Some(true) && suffix.is_some() {
            return Err(Error::invalid(
                "raw",
                "A 'suffix' needs the model's template, so 'raw' cannot be true with it.",
            ));
        }
        let stream = fields.take("stream", ignored)?.unwrap_or(false);
        let stream_options: StreamOptions = fields.take("stream_options", ignored)?.unwrap_or_default();
        let effort = fields.take("reasoning_effort", ignored)?;
        if prompts.len() * n > MOST {
            let asked = prompts.len() * n;
            return Err(Error::invalid(
                "n",
                format!("{asked} choices are too many for one request; the maximum is {MOST}."),
            ));
        }
        if n > 1 {
            receipt.emulated("n");
        }
        if echo {
            receipt.emulated("echo");
        }
        settle(Endpoint::Completions, fields, unknown, receipt)?;
        Ok(Self {
            model,
            prompts,
            suffix,
            n,
            echo,
            stream,
            include_usage: stream_options.include_usage.unwrap_or(false),
            logprobs,
            raw,
            effort,
            native,
        })
    }

    /// What the answer must know.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            model: self.model.to_string(),
            stream: self.stream,
            include_usage: self.include_usage,
            choices: self.prompts.len() * self.n,
            n: self.n,
            echo: if self.echo { self.prompts.iter().map(ToString::to_string).collect() } else { Vec::new() },
        }
    }
}

fn within(name: &str, raw: &RawValue, least: u16, most: u16) -> Result<usize, Error> {
    let n: i64 = read(name, raw)?;
    let code = match n {
        n if n < i64::from(least) => "integer_below_min_value",
        n if n > i64::from(most) => "integer_above_max_value",
        n => return Ok(usize::try_from(n).unwrap_or_default()),
    };
    Err(Error::Invalid {
        message: format!("Invalid '{name}': expected an integer from {least} to {most}, but got {n} instead."),
        param: Some(name.to_owned()),
        code: Some(code),
    })
}

/// A number here; chat's `true` and `false`, which some clients send, mean none and no alternatives.
fn logprobs(raw: &RawValue) -> Result<Option<u8>, Error> {
    match raw.get() {
        "false" => Ok(None),
        "true" => Ok(Some(0)),
        _ => Ok(u8::try_from(within("logprobs", raw, 0, 5)?).ok()),
    }
}

/// The texts of a `prompt`: one, or a list of them.
fn prompts(raw: &RawValue) -> Result<Vec<Cow<'_, str>>, Error> {
    if raw.get().starts_with('"') {
        return Ok(vec![given("prompt", read::<Text<'_>>("prompt", raw)?)?]);
    }
    if !raw.get().starts_with('[') {
        return Err(Error::Invalid {
            message: "Invalid type for 'prompt': expected a string or an array of strings.".to_owned(),
            param: Some("prompt".to_owned()),
            code: Some("invalid_type"),
        });
    }
    let items: Vec<&RawValue> = read("prompt", raw)?;
    if items.is_empty() {
        return Err(Error::Invalid {
            message: "Invalid 'prompt': empty array. Expected an array with minimum length 1, but got an empty array instead."
                .to_owned(),
            param: Some("prompt".to_owned()),
            code: Some("empty_array"),
        });
    }
    if items.iter().all(|item| item.get().starts_with(|c: char| c == '[' || c == '-' || c.is_ascii_digit())) {
        return Err(Error::unsupported(
            "prompt",
            "Arrays of tokens cannot be completed: Ollama takes texts, and the ids of another model's tokenizer mean nothing to its models. \
             Send the text itself.",
        ));
    }
    items
        .into_iter()
        .enumerate()
        .map(|(n, item)| {
            let at = format!("prompt[{n}]");
            let text = read::<Text<'_>>(&at, item)?;
            given(&at, text)
        })
        .collect()
}

/// A text that is not empty: for an empty one Ollama loads the model and writes nothing.
fn given<'a>(at: &str, text: Text<'a>) -> Result<Cow<'a, str>, Error> {
    if text.is_empty() {
        return Err(Error::invalid(
            at,
            format!("Invalid '{at}': Ollama completes no empty prompt; give it a text to begin with."),
        ));
    }
    Ok(text.0)
}

/// A whole answer, or one event of a streamed one.
#[derive(Debug, Serialize)]
pub(crate) struct Completion<'a, U: Serialize> {
    pub(crate) id: &'a str,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: &'a str,
    pub(crate) system_fingerprint: &'static str,
    pub(crate) choices: Vec<Choice<'a>>,
    /// In a stream: absent where usage was not asked for, else null until the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<U>,
}

/// The usage of a chunk.
pub(crate) type ChunkUsage = Option<CompletionUsage>;

/// One answer, or a piece of it.
#[derive(Debug, Serialize)]
pub(crate) struct Choice<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) index: usize,
    pub(crate) logprobs: Option<Logprobs<'a>>,
    pub(crate) finish_reason: Option<&'static str>,
    /// Thinking, for which this API has no place of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning_content: Option<Cow<'a, str>>,
}

/// Probabilities in their legacy shape: four lists of the same length.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Logprobs<'a> {
    pub(crate) tokens: Vec<Cow<'a, str>>,
    pub(crate) token_logprobs: Vec<&'a RawValue>,
    pub(crate) top_logprobs: Vec<Alternatives<'a>>,
    /// Where each token begins, in characters from the beginning of the text.
    pub(crate) text_offset: Vec<u64>,
}

/// Tokens with their probabilities, an object; a name stands once.
#[derive(Debug, Default)]
pub(crate) struct Alternatives<'a>(pub(crate) IndexMap<Cow<'a, str>, &'a RawValue, RandomState>);

impl Serialize for Alternatives<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, logprob) in &self.0 {
            map.serialize_entry(token, logprob)?;
        }
        map.end()
    }
}
