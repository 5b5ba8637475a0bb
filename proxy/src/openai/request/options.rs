//! What steers a generation: OpenAI's sampling fields, and Ollama's own options and switches, which an OpenAI body may
//! carry too. Pure.
//!
//! A field that the client did not send is not sent on, so that Modelfile defaults stay in force.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    config::Preset,
    error::Error,
    near::nearest,
    ollama::wire::Options,
    openai::request::json::{Fields, Text, read},
    receipt::Receipt,
};

/// Ollama's options by name, those of old versions too. Whatever else stands in an `options` object is passed on as
/// well.
const NATIVE: [&str; 25] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
    "draft_num_predict",
    "num_keep",
    "num_predict",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_last_n",
    "repeat_penalty",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "tfs_z",
    "penalize_newline",
    "numa",
    "low_vram",
    "f16_kv",
    "use_mlock",
    "vocab_only",
    "logits_all",
];

/// OpenAI's sampling fields that Ollama knows under the same name, with OpenAI's range.
const SAMPLING: [(&str, f64, f64); 4] =
    [("temperature", 0.0, 2.0), ("top_p", 0.0, 1.0), ("frequency_penalty", -2.0, 2.0), ("presence_penalty", -2.0, 2.0)];

/// Every field that steers a generation in an OpenAI body, besides OpenAI's own.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NATIVE.into_iter().chain(["options", "keep_alive", "think", "format", "truncate", "shift"])
}

/// Ollama's own switches beside `options`, as given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Native<'a> {
    pub(crate) options: Options<'a>,
    pub(crate) keep_alive: Option<&'a RawValue>,
    pub(crate) think: Option<&'a RawValue>,
    pub(crate) format: Option<&'a RawValue>,
    pub(crate) truncate: Option<&'a RawValue>,
    pub(crate) shift: Option<&'a RawValue>,
    /// How to think where the request says nothing in any of its fields for that.
    pub(crate) preset_think: Option<&'a RawValue>,
    /// The system message where the request has none.
    pub(crate) preset_system: Option<&'a str>,
}

impl<'a> Native<'a> {
    /// Adds what the request does not say. The context size is left to the policy.
    pub(crate) fn fill(&mut self, preset: &'a Preset) {
        for (name, value) in &preset.options {
            if self.options.get(name).is_none() {
                self.options.set(&**name, Cow::Borrowed(&**value));
            }
        }
        self.keep_alive = self.keep_alive.or(preset.keep_alive.as_deref());
        self.preset_think = preset.think.as_deref();
        self.preset_system = preset.system.as_deref();
    }

    /// Takes all that steers a generation out of `fields`. `limits` are OpenAI's names for the longest answer, the
    /// stronger first.
    ///
    /// What stands at the top level wins over the same option in an `options` object. A name in that object that is no
    /// option of Ollama is passed on, for a newer Ollama may know it, and noted as unknown.
    ///
    /// # Errors
    /// A value of the wrong type or out of OpenAI's range.
    pub(crate) fn take(fields: &mut Fields<'a>, limits: &[&str], receipt: &mut Receipt) -> Result<Self, Error> {
        // An object may have a thousand unknown names, and each is compared with all known ones.
        const COMPARED: usize = 16;
        let known = || NATIVE.into_iter().chain(SAMPLING.map(|(name, ..)| name)).chain(["seed", "stop"]);
        let mut options = Options::default();
        let mut unknown = 0;
        if let Some(given) = fields.take_fields("options")? {
            for (name, value) in given.left() {
                if name == "stop" {
                    if let Some(stops) = stop("options.stop", value)? {
                        options.set(name, stops);
                    }
                } else {
                    if !known().any(|known| known == name) {
                        let path = format!("options.{name}");
                        let near = (unknown < COMPARED).then(|| nearest(&name, known())).flatten();
                        unknown += 1;
                        receipt.unknown(&path, near);
                    }
                    options.set(name, Cow::Borrowed(value));
                }
            }
        }
        for name in NATIVE {
            if let Some(value) = fields.take_raw(name) {
                options.set(name, Cow::Borrowed(value));
            }
        }
        for (name, least, most) in SAMPLING {
            if let Some(value) = fields.take_raw(name) {
                number(name, value, least, most)?;
                options.set(name, Cow::Borrowed(value));
            }
        }
        if let Some(value) = fields.take_raw("seed") {
            read::<i64>("seed", value)?;
            options.set("seed", Cow::Borrowed(value));
        }
        if let Some(stops) = fields.take_raw("stop").map(|value| stop("stop", value)).transpose()?.flatten() {
            options.set("stop", stops);
        }
        // The weaker name first, so that the stronger one overwrites it.
        for name in limits.iter().rev() {
            if let Some(value) = fields.take_raw(name) {
                // Ollama takes 0 for "no limit at all" (recorded: chat/num-predict-0), so it must not get one.
                if read::<i64>(name, value)? < 1 {
                    return Err(Error::Invalid {
                        message: format!(
                            "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {value} instead."
                        ),
                        param: Some((*name).to_owned()),
                        code: Some("integer_below_min_value"),
                    });
                }
                options.set("num_predict", Cow::Borrowed(value));
            }
        }
        Ok(Self {
            options,
            keep_alive: fields.take_raw("keep_alive"),
            think: fields.take_raw("think"),
            format: fields.take_raw("format"),
            truncate: fields.take_raw("truncate"),
            shift: fields.take_raw("shift"),
            ..Self::default()
        })
    }

    /// Settles what the client leaves open, for an answer that a program goes by: the same for the same question, and
    /// not cut off by a limit in the Modelfile.
    pub(crate) fn be_exact(&mut self) {
        for (name, value) in [("temperature", 0), ("num_predict", -1)] {
            if self.options.get(name).is_none() {
                self.options.set(name, Cow::Owned(raw(&value)));
            }
        }
    }
}

/// The longest answer that is wanted, in tokens.
pub(crate) fn limit(options: &Options<'_>) -> Option<u64> {
    options.get("num_predict").and_then(|raw| raw.get().parse().ok())
}

/// The seeds of several answers to the same question: with the same one they would be the same answer.
pub(crate) struct Seeds {
    first: Option<Box<RawValue>>,
    last: Option<i64>,
}

impl Seeds {
    /// Those that follow the seed in `options`, if there is one.
    pub(crate) fn of(options: &Options<'_>) -> Self {
        let first = options.get("seed").map(RawValue::to_owned);
        Self { last: None, first }
    }

    /// Sets the first one again.
    pub(crate) fn first(&mut self, options: &mut Options<'_>) {
        self.last = self.first.as_ref().and_then(|seed| seed.get().parse().ok());
        if let Some(seed) = &self.first {
            options.set("seed", Cow::Owned(seed.clone()));
        }
    }

    /// Sets the next one; returns whether there is one.
    pub(crate) fn next(&mut self, options: &mut Options<'_>) -> bool {
        let Some(last) = &mut self.last else { return false };
        *last = last.wrapping_add(1);
        options.set("seed", Cow::Owned(raw(last)));
        true
    }
}

/// A value of ours as it crosses the wire.
///
/// # Panics
/// Panics on a value that is not JSON, such as a map whose keys are not strings. No request can cause that; it would be
/// answered with 500.
pub(crate) fn raw(value: &(impl Serialize + ?Sized)) -> Box<RawValue> {
    to_raw_value(value).unwrap_or_else(|error| panic!("a value of ours is not JSON: {error}"))
}

/// JSON text of ours as it crosses the wire.
///
/// # Panics
/// As [`raw`].
pub(crate) fn raw_text(json: impl Into<String>) -> Box<RawValue> {
    RawValue::from_string(json.into()).unwrap_or_else(|error| panic!("a text of ours is not JSON: {error}"))
}

fn number(name: &str, raw: &RawValue, least: f64, most: f64) -> Result<(), Error> {
    let value: f64 = read(name, raw)?;
    let (word, code, bound) = if value < least {
        ("below minimum", "decimal_below_min_value", format!(">= {least}"))
    } else if value > most {
        ("above maximum", "decimal_above_max_value", format!("<= {most}"))
    } else {
        return Ok(());
    };
    Err(Error::Invalid {
        message: format!("Invalid '{name}': decimal {word} value. Expected a value {bound}, but got {raw} instead."),
        param: Some(name.to_owned()),
        code: Some(code),
    })
}

/// A list of stop strings for Ollama, which answers 500 to a bare string. `None`: nothing that could stop anything. An
/// empty list would switch off the stop strings of the Modelfile (ollama/ollama#3629), and an empty string ends every
/// answer.
fn stop<'a>(param: &str, raw: &'a RawValue) -> Result<Option<Cow<'a, RawValue>>, Error> {
    let bare = raw.get().starts_with('"');
    let mut stops = if bare { vec![read::<Text<'a>>(param, raw)?] } else { read::<Vec<Text<'a>>>(param, raw)? };
    let given = stops.len();
    if param == "stop" && given > 4 {
        return Err(Error::Invalid {
            message: format!(
                "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length {given} instead."
            ),
            param: Some(param.to_owned()),
            code: Some("array_above_max_length"),
        });
    }
    stops.retain(|stop| !stop.is_empty());
    match stops.len() {
        0 => Ok(None),
        n if n == given && !bare => Ok(Some(Cow::Borrowed(raw))),
        _ => {
            let stops: Vec<&str> = stops.iter().map(|stop| &**stop).collect();
            Ok(Some(Cow::Owned(self::raw(&stops))))
        }
    }
}

/// The stop strings among the options.
pub(crate) fn stops(options: &Options<'_>) -> Vec<String> {
    options.get("stop").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// What a client wants to see of the model's thinking.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Reasoning<'a> {
    #[serde(borrow, default)]
    pub(crate) effort: Option<Text<'a>>,
    /// Whether and how it is shown is the client's side of the matter: all of it is sent.
    #[serde(borrow, default)]
    pub(crate) summary: Option<&'a RawValue>,
}

/// `think` for a reasoning effort. Values and order: Ollama's own table for its compatible layer.
pub(crate) fn think(effort: &str, param: &str) -> Result<Box<RawValue>, Error> {
    let think = match effort {
        "none" => "false",
        "minimal" | "low" => "\"low\"",
        "medium" => "\"medium\"",
        "high" => "\"high\"",
        "xhigh" | "max" => "\"max\"",
        other => {
            return Err(Error::invalid(
                param,
                format!(
                    "Invalid value: '{other}'. Supported values are: 'none', 'minimal', 'low', 'medium', 'high', 'xhigh', and 'max'."
                ),
            ));
        }
    };
    Ok(raw_text(think))
}
