//! Warnings about scenarios that can be run, but probably do not say what is meant: misspelled request fields, texts
//! that look like booleans.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use crate::{
    scenario::{Call, Place, loaded::Loaded},
    text::nearest,
};

/// OpenAI's request fields, as the documentation lists them.
const PAGE: &str = include_str!(env!("FARLLAMA_CHECK_PARAMETERS"));

/// Fields that servers take beside OpenAI's.
const EXTENSIONS: [&str; 30] = [
    "options",
    "keep_alive",
    "think",
    "num_ctx",
    "top_k",
    "min_p",
    "top_a",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "repetition_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "tfs_z",
    "grammar",
    "json_schema",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "chat_template_kwargs",
    "ignore_eos",
    "cache_prompt",
    "n_predict",
    "min_tokens",
    "best_of",
    "use_beam_search",
    "length_penalty",
    "reasoning",
];

/// Fields that are booleans.
const BOOLEANS: [&str; 8] =
    ["stream", "store", "logprobs", "echo", "parallel_tool_calls", "background", "include_usage", "strict"];

/// Endpoint → the names of its fields.
static FIELDS: LazyLock<BTreeMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut endpoint = "";
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            endpoint = heading.trim();
        } else if let Some(name) = line.strip_prefix("| `").and_then(|row| row.split('`').next()) {
            fields.entry(endpoint).or_default().push(name);
        }
    }
    fields
});

/// What is probably a mistake, one line each: `file:line:column: …`.
#[must_use]
pub fn of(scenarios: &[Loaded]) -> Vec<String> {
    let mut warnings = Vec::new();
    for loaded in scenarios {
        for step in loaded.scenario.all_steps() {
            let file = step.from.as_deref().unwrap_or(&loaded.file);
            for part in &step.parts {
                let at = Place::from(&part.call);
                for warning in of_call(&part.call.value) {
                    let reported = format!("{file}:{}:{}: {warning}", at.line, at.column);
                    // A matrix has the same step several times.
                    if !warnings.contains(&reported) {
                        warnings.push(reported);
                    }
                }
            }
        }
    }
    warnings
}

fn of_call(call: &Call) -> Vec<String> {
    // A raw call may be wrong on purpose.
    let Call::Json(call, request) = call else { return Vec::new() };
    let endpoint = call.endpoint();
    let (Some(request), Some(known)) = (request.as_object(), FIELDS.get(endpoint)) else { return Vec::new() };
    let mut warnings = Vec::new();
    for (name, value) in request {
        let is_known = known.contains(&&**name) || EXTENSIONS.contains(&&**name) || name.contains("${");
        if !is_known {
            let near = nearest(name, known.iter().copied());
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            warnings.push(format!("`{name}` is not a request field of {endpoint}{near}"));
        }
        if let Value::String(text) = value
            && BOOLEANS.contains(&&**name)
            && ["yes", "no", "on", "off", "true", "false", "True", "False"].contains(&&**text)
        {
            warnings.push(format!("`{name}: {text}` is a text: YAML's booleans are true and false here"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{library, load::read};

    fn warnings(call: &str) -> Vec<String> {
        let text = format!("title: a\nsteps:\n  - call: {call}\n    wire: {{ status: 200 }}\n");
        of(&[Loaded::new("x.yaml".to_owned(), read("x.yaml", &text).unwrap())])
    }

    #[test]
    fn a_misspelled_request_field_is_warned_about() {
        assert_eq!(
            warnings("{ chat: { model: m, messages: [], temprature: 3 } }"),
            [
                "x.yaml:3:11: `temprature` is not a request field of POST /v1/chat/completions; did you mean `temperature`?"
            ]
        );
        assert_eq!(warnings("{ embeddings: { model: m, inputs: a } }").len(), 1);
        assert_eq!(warnings("{ chat: { model: m, messages: [], temperature: 3, top_k: 1 } }"), Vec::<String>::new());
        assert_eq!(warnings("{ http: { path: /v1/chat/completions, body: { temprature: 3 } } }"), Vec::<String>::new());
    }

    #[test]
    fn a_text_that_looks_like_a_boolean_is_warned_about() {
        let reported = warnings("{ chat: { model: m, messages: [], stream: yes } }");
        assert_eq!(reported, ["x.yaml:3:11: `stream: yes` is a text: YAML's booleans are true and false here"]);
    }

    #[test]
    fn the_library_has_no_warnings() {
        let all = library::scenarios(None).unwrap();
        assert_eq!(of(&all), Vec::<String>::new());
        assert!(FIELDS.len() >= 6, "{:?}", FIELDS.keys());
    }
}
