//! The scenario language as a JSON Schema, for editors that complete and check YAML as it is written.
//!
//! It is looser than [`super::load`]: it knows shapes and names, not paths, variables or what a matcher takes.

use serde_json::{Value, json};

use crate::{
    expect::{laws::LAWS, matcher},
    mutants::MUTANTS,
    scenario::{Ask, Capability, IdCall, JsonCall},
};

/// The schema; `scenarios/schema.json` holds it.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scenario of farllama-check",
        "type": "object",
        "required": ["title", "steps"],
        "additionalProperties": false,
        "properties": {
            "title": text("A sentence that a user understands; reports show it."),
            "tags": {
                "description": "Names to select by (--tag), and mutants that the scenario notices.",
                "type": "array",
                "items": { "anyOf": [{ "enum": tags() }, { "type": "string" }] },
            },
            "needs": {
                "description": "What not every backend has.",
                "type": "array",
                "items": { "anyOf": [
                    { "enum": needs() },
                    { "type": "string", "pattern": "^ollama *>=" },
                ] },
            },
            "no_laws": {
                "description": "Laws that its streams are not checked against.",
                "type": "array",
                "items": { "enum": LAWS.iter().map(|law| law.name).chain(["all"]).collect::<Vec<_>>() },
            },
            "mock": object(&[
                ("version", text("The Ollama version that is played.")),
                ("from", text("The first version that the scenario is about.")),
                ("before", text("The first version that it is no longer about.")),
                ("context_length", whole("As OLLAMA_CONTEXT_LENGTH.")),
            ]),
            "upstream": { "description": "What Ollama answers instead of its faithful answers.", "type": "array" },
            "config": text("Settings of the proxy, as the text of its TOML file."),
            "vars": { "description": "Name → value, { env: NAME } or { file: PATH }.", "type": "object" },
            "matrix": {
                "description": "Name → values: run once for each combination.",
                "type": "object",
                "additionalProperties": { "type": "array", "minItems": 1 },
            },
            "client": { "$ref": "#/$defs/client" },
            "setup": steps("Steps that make ready."),
            "steps": steps("The first that fails ends the scenario."),
            "teardown": steps("Steps that tidy up, whatever happened."),
        },
        "$defs": {
            "step": step(),
            "part": object(&part()),
            "call": call(),
            "client": object(&[
                ("key", json!({ "description": "The key that is sent; false for none.", "type": ["string", "boolean"] })),
                ("header", text("The header that holds it, if not authorization.")),
                ("retries", json!({ "description": "`default`, or how often.", "type": ["string", "integer"] })),
            ]),
            "wire": wire(),
            "time": time(),
            "events": events(),
            "checks": { "description": "JSONPath → matcher.", "type": "object", "additionalProperties": { "$ref": "#/$defs/matcher" } },
            "headers": { "description": "Header → matcher.", "type": "object", "additionalProperties": { "$ref": "#/$defs/matcher" } },
            "ask": ask(),
            "matcher": {
                "description": "A plain value, or a mapping of matchers, all of which must hold.",
                "anyOf": [
                    { "type": ["null", "boolean", "number", "string", "array"] },
                    { "type": "object", "minProperties": 1, "propertyNames": { "enum": matcher::NAMES } },
                ],
            },
        },
    })
}

fn needs() -> Vec<&'static str> {
    let capabilities = Capability::ALL.map(|(_, name)| name);
    ["script", "journal", "proxy", "native"].into_iter().chain(capabilities).collect()
}

fn tags() -> Vec<String> {
    let mutants = MUTANTS.iter().map(|mutant| format!("mutant:{}", mutant.name));
    ["quick", "conformance", "farllama", "version"].map(str::to_owned).into_iter().chain(mutants).collect()
}

fn text(about: &str) -> Value {
    json!({ "description": about, "type": "string" })
}

/// A whole number, or a variable that stands for one.
fn whole(about: &str) -> Value {
    json!({ "description": about, "type": "integer", "minimum": 0 })
}

fn steps(about: &str) -> Value {
    json!({ "description": about, "type": "array", "items": { "$ref": "#/$defs/step" } })
}

fn object(fields: &[(&str, Value)]) -> Value {
    let properties: serde_json::Map<String, Value> =
        fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn matcher_of(about: &str) -> Value {
    json!({ "description": about, "$ref": "#/$defs/matcher" })
}

fn checks_of(about: &str) -> Value {
    json!({ "description": about, "$ref": "#/$defs/checks" })
}

/// The keys of a call with what is expected of it.
fn part() -> Vec<(&'static str, Value)> {
    vec![
        ("name", text("What it is about, for reports.")),
        ("call", json!({ "$ref": "#/$defs/call" })),
        ("times", whole("How often the call is made, all at once.")),
        ("client", json!({ "$ref": "#/$defs/client" })),
        ("expect", checks_of("What the client understood.")),
        ("events", json!({ "$ref": "#/$defs/events" })),
        ("model", checks_of("What the client understood, for what depends on the model's wisdom.")),
        ("wire", json!({ "$ref": "#/$defs/wire" })),
        ("time", json!({ "$ref": "#/$defs/time" })),
    ]
}

fn step() -> Value {
    let mut fields = part();
    let parts = json!({ "description": "Calls that begin together.", "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/part" } });
    let answers = json!({
        "description": "Status → how many, or count, expect, events and wire of each.",
        "type": "object",
        "patternProperties": { "^[1-5][0-9][0-9]$": { "anyOf": [
            { "type": "integer" },
            object(&[
                ("count", matcher_of("How many.")),
                ("expect", checks_of("Of each.")),
                ("events", json!({ "$ref": "#/$defs/events" })),
                ("wire", json!({ "$ref": "#/$defs/wire" })),
            ]),
        ] } },
        "additionalProperties": false,
    });
    let sent = json!({
        "description": "What reached Ollama: the first request, or a list of all.",
        "anyOf": [{ "$ref": "#/$defs/ask" }, { "type": "array", "items": { "$ref": "#/$defs/ask" } }],
    });
    let capture = json!({ "description": "Name → JSONPath, for later steps.", "type": "object", "additionalProperties": { "type": "string" } });
    fields.extend([
        ("parallel", parts),
        ("include", text("A file of steps that are done in this one's place.")),
        ("reload", text("Settings that the proxy has from now on.")),
        ("repeat", object(&[("times", whole("How often.")), ("pass", whole("How often `model` must hold."))])),
        ("within", text("How long it may be tried again, such as 5s.")),
        ("answers", answers),
        ("sent", sent),
        ("capture", capture),
    ]);
    let mut step = object(&fields);
    step["anyOf"] = json!([{ "required": ["call"] }, { "required": ["parallel"] }, { "required": ["reload"] }, { "required": ["include"] }]);
    step
}

fn call() -> Value {
    let request = json!({ "description": "The request as it goes out.", "type": "object" });
    let mut fields: Vec<(&str, Value)> = JsonCall::ALL.map(|(_, name, _)| (name, request.clone())).to_vec();
    fields.extend(IdCall::ALL.map(|(_, name, what)| (name, text(what))));
    let file = |more: &[(&str, Value)], required: &[&str]| {
        let own = [
            ("model", text("Its id.")),
            ("base64", text("The file.")),
            ("filename", text("Its extension says what kind of file it is.")),
        ];
        let mut file = object(&[&own[..], more].concat());
        file["required"] = required.into();
        file
    };
    let hearing = [("prompt", text("A hint.")), ("temperature", json!({ "type": "number" }))];
    let translation = file(&hearing, &["model", "base64", "filename"]);
    let transcription = [&hearing[..], &[("language", text("What is spoken."))]].concat();
    let many = ("n", whole("How many images are made."));
    let edit = [("prompt", text("What is to become of it.")), ("size", text("Such as 512x512.")), many.clone()];
    fields.extend([
        ("transcriptions", file(&transcription, &["model", "base64", "filename"])),
        ("translations", translation),
        ("image_edits", file(&edit, &["model", "prompt", "base64", "filename"])),
        ("image_variations", file(&[many], &["base64", "filename"])),
    ]);
    let mut http = object(&[
        ("method", text("GET, or POST where there is a body.")),
        ("path", text("With its query.")),
        ("headers", json!({ "type": "object", "additionalProperties": { "type": "string" } })),
        ("body", json!({ "description": "A text is sent verbatim, anything else as JSON." })),
        ("form", json!({ "description": "multipart/form-data.", "type": "array", "items": form() })),
        ("cut_after", whole("Hang up when so many bytes of the body are sent.")),
        ("leave_after", whole("Hang up after so many lines or events.")),
    ]);
    http["required"] = json!(["path"]);
    fields.push(("http", http));
    let mut one = object(&fields);
    (one["minProperties"], one["maxProperties"]) = (1.into(), 1.into());
    json!({ "anyOf": [{ "enum": ["models"] }, one] })
}

fn form() -> Value {
    let fields = ["name", "value", "base64", "filename", "content_type"];
    let mut field = object(&fields.map(|name| (name, json!({ "type": "string" }))));
    field["required"] = json!(["name"]);
    field
}

fn wire() -> Value {
    object(&[
        ("status", matcher_of("Default: 2xx.")),
        ("content_type", matcher_of("With its parameters.")),
        ("headers", json!({ "$ref": "#/$defs/headers" })),
        ("done", json!({ "description": "data: [DONE], once and last.", "type": "boolean" })),
        ("whole", json!({ "description": "Each event or line came in one piece.", "type": "boolean" })),
        ("frames", matcher_of("How many events or lines.")),
        ("attempts", matcher_of("How often the client asked.")),
        ("text", matcher_of("The body as text.")),
        ("end", matcher_of("complete, cut or left; default: complete.")),
        ("body", checks_of("The body's JSON, or the array of its events or lines.")),
    ])
}

fn time() -> Value {
    let times = ["head", "first", "first_token", "gap_p50", "gap_p95", "total"];
    let mut fields: Vec<_> = times.map(|name| (name, matcher_of("In milliseconds from the request."))).to_vec();
    let live = json!({ "description": "The first piece came before Ollama had ended its answer.", "type": "boolean" });
    fields.push(("live", live));
    object(&fields)
}

fn events() -> Value {
    let pick = [
        ("type", matcher_of("Which: the `type` within its JSON.")),
        ("event", matcher_of("Which: the name on its `event:` line.")),
        ("where", checks_of("Which: what holds of its JSON.")),
    ];
    let mut next = object(&pick);
    next["minProperties"] = 1.into();
    let order = json!({
        "description": "These come one after the other, with anything in between.",
        "type": "array",
        "minItems": 2,
        "items": { "anyOf": [{ "type": "string" }, next] },
    });
    let mut some = pick.to_vec();
    some.extend([
        ("at", json!({ "description": "Which one of them.", "anyOf": [{ "enum": ["first", "last"] }, { "type": "integer" }] })),
        ("count", matcher_of("How many; default: at least one.")),
        ("expect", checks_of("What each of them, or the one, holds.")),
    ]);
    let mut some = object(&some);
    some["minProperties"] = 1.into();
    let mut in_order = object(&[("in_order", order)]);
    in_order["required"] = json!(["in_order"]);
    let entry = json!({ "anyOf": [some, in_order] });
    json!({ "description": "Single events of a stream; all of this must hold.", "type": "array", "minItems": 1, "items": entry })
}

fn ask() -> Value {
    let fields = Ask::WORDS.map(|word| match word {
        "headers" => (word, json!({ "$ref": "#/$defs/headers" })),
        _ => (word, json!({ "$ref": "#/$defs/matcher" })),
    });
    let mut ask = object(&fields);
    ask["description"] = "One request; also JSONPath → matcher on its body.".into();
    ask["patternProperties"] = json!({ "^\\$": { "$ref": "#/$defs/matcher" } });
    ask
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::{check::load, expect::schema::Schema};

    fn library() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("scenarios")
    }

    #[test]
    fn the_schema_in_the_repository_is_current() {
        let path = library().join("schema.json");
        let text = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
        if std::env::var_os("FARLLAMA_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(there == text, "scenarios/schema.json is out of date; FARLLAMA_BLESS=1 writes it anew");
    }

    #[test]
    fn every_scenario_of_the_library_is_as_the_schema_has_it() {
        let schema = Schema::read(&schema()).unwrap();
        let files = load::find(&[library()]).unwrap();
        assert!(files.len() > 100, "{}", files.len());
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let document: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(schema.breach(&document), None, "{}", file.display());
        }
    }

    #[test]
    fn what_the_reader_refuses_by_its_shape_the_schema_refuses_too() {
        let schema = Schema::read(&schema()).unwrap();
        for (text, at) in [
            ("title: a\nstep: []\nsteps: []\n", "/: Additional properties are not allowed ('step'"),
            ("steps: []\n", "/: \"title\" is a required property"),
            ("title: a\nsteps: [{ call: nothing, wire: { status: 200 } }]\n", "/steps/0/call: "),
            ("title: a\nsteps: [{ call: { modal: x } }]\n", "/steps/0/call: "),
            ("title: a\nsteps: [{ call: models, expect: { $.a: { equal: 1 } } }]\n", "/steps/0/expect/$.a: "),
            ("title: a\nsteps: [{ call: models, wire: { done: yes, dune: 1 } }]\n", "/steps/0/wire: "),
            ("title: a\nsteps: [{ call: models, sent: { verb: GET } }]\n", "/steps/0/sent: "),
            ("title: a\nsteps: [{ call: models, events: [{ typ: a }] }]\n", "/steps/0/events/0: "),
            ("title: a\nsteps: [{ call: models, events: [{ in_order: [a] }] }]\n", "/steps/0/events/0: "),
        ] {
            let document: Value = serde_saphyr::from_str(text).unwrap();
            let reported = schema.breach(&document).unwrap_or_default();
            assert!(reported.starts_with(at), "{text}: {reported}");
        }
    }
}
