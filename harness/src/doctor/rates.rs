//! How often the model does what agents and programs rely on: tool calls, JSON by a schema, thinking, embeddings,
//! vision.

use serde_json::{Value, json};

use super::{
    asker::{Answer, Ask, Asker, Lane},
    fact::{Fact, MORE_TIME, Rate, State},
    model::Card,
};

/// A red square, PNG.
const RED: &str = "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAJ0lEQVR42u3NsQkAAAjAsP7/tF7hIASyp6lTCQQCgUAgEAgEgi/BAjLD/C5w/SM9AAAAAElFTkSuQmCC";

/// What became of a tool call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// It fits as the model made it.
    AsIs,
    /// farllama repaired it.
    Repaired,
    /// farllama asked for it again.
    Reasked,
}

fn tool(name: &str, what: &str) -> Value {
    json!({"type": "function", "function": {
        "name": name, "description": format!("{what} of a city"), "strict": true,
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"], "additionalProperties": false,
        },
    }})
}

/// Whether the arguments of a call fit the tools above.
fn fits(call: &Value) -> bool {
    let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
    let Ok(Value::Object(arguments)) = serde_json::from_str::<Value>(arguments) else { return false };
    arguments.len() == 2
        && arguments.get("city").is_some_and(|city| city.as_str().is_some_and(|city| !city.is_empty()))
        && arguments.get("days").is_some_and(Value::is_i64)
}

fn calls(answer: &Answer) -> &[Value] {
    answer.json()["choices"][0]["message"]["tool_calls"].as_array().map_or(&[], Vec::as_slice)
}

/// By the receipt of farllama; another server has none.
fn kind(answer: &Answer) -> Call {
    let receipt = answer.outcome.recording.header("x-farllama-receipt").unwrap_or_default();
    let notes = || receipt.split(", ").filter(|note| note.starts_with("tools.") || note.starts_with("tool_calls"));
    if notes().any(|note| note.ends_with("=reasked")) {
        Call::Reasked
    } else if notes().any(|note| !note.ends_with("not-checked") && !note.ends_with("not-enforced")) {
        Call::Repaired
    } else {
        Call::AsIs
    }
}

fn chat(model: &str, seed: usize, more: Value) -> Ask {
    let mut body = json!({"model": model, "seed": seed, "max_tokens": 512});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    Ask::post(Lane::V1, "/chat/completions", body)
}

/// Tries something several times, while there is time; `good` judges. The last answer that was not good shows what is
/// wrong.
async fn tried(
    asker: &Asker,
    (id, title): (&str, &str),
    tries: usize,
    ask: impl Fn(usize) -> Ask,
    mut good: impl FnMut(&Answer) -> bool,
) -> Fact {
    let (mut right, mut made, mut failed) = (0, 0, None);
    for seed in 1..=tries {
        if !asker.has_time() {
            break;
        }
        let answer = asker.ask(ask(seed)).await;
        made += 1;
        if answer.is_ok() && good(&answer) {
            right += 1;
        } else {
            let refused = !answer.is_ok();
            failed = Some(answer);
            // What is refused once is refused always.
            if refused {
                break;
            }
        }
    }
    if made == 0 {
        return Fact::unknown(id, title, "not tried: the time was up").cure(MORE_TIME);
    }
    let rate = Rate::new(right, made);
    let state = match right {
        0 => State::Bad,
        _ if right < made => State::Limited,
        _ => State::Good,
    };
    let mut fact = Fact { rate: Some(rate), ..Fact::new(id, title, state, format!("{rate}")) };
    if failed.is_some() {
        fact = fact.cure("a larger model, or one that was trained for this");
    }
    match failed {
        Some(failed) if !failed.is_ok() => {
            let text = format!("{rate}: refused, {}", failed.words());
            failed.shows(Fact { text, ..fact })
        }
        Some(failed) => failed.shows(fact),
        None => fact,
    }
}

const NO_TOOLS: &str = "the model has no tools";

/// Tool calls: one, two at once, the answer after a result; and how many fit as the model made them.
pub(super) async fn tools(asker: &Asker, model: &str, card: &Card, tries: usize, facts: &mut Vec<Fact>) {
    let titles = [
        ("tools.one", "a tool call"),
        ("tools.two", "two calls at once"),
        ("tools.result", "an answer after a tool's result"),
        ("tools.fits", "calls that fit as the model made them"),
    ];
    if card.can("tools") == Some(false) {
        facts.extend(titles.map(|(id, title)| {
            Fact::new(id, title, State::Bad, NO_TOOLS).cure("choose a model whose capabilities have tools (--model)")
        }));
        return;
    }
    let (weather, time) = (tool("get_weather", "the weather"), tool("get_time", "the local time"));
    let mut kinds = Vec::new();
    let one = tried(
        asker,
        titles[0],
        tries,
        |seed| {
            let text = "Call get_weather for the city Oslo and 3 days.";
            chat(model, seed, json!({"tools": [&weather], "messages": [{"role": "user", "content": text}]}))
                .expecting(json!({"$.choices[0].message.tool_calls": {"length": 1}}))
        },
        |answer| {
            let good = matches!(calls(answer), [call] if call["function"]["name"] == "get_weather" && fits(call));
            if good {
                kinds.push(kind(answer));
            }
            good
        },
    )
    .await;
    let made = one.rate.map_or(0, |rate| rate.tries);
    facts.push(one);
    let two = tried(
        asker,
        titles[1],
        tries,
        |seed| {
            let text = "Call get_weather for the city Oslo and get_time for the city Rome, both now, each for 3 days.";
            chat(model, seed, json!({"tools": [&weather, &time], "messages": [{"role": "user", "content": text}]}))
                .expecting(json!({"$.choices[0].message.tool_calls": {"length": 2}}))
        },
        |answer| {
            let calls = calls(answer);
            let has = |name: &str| calls.iter().any(|call| call["function"]["name"] == name && fits(call));
            calls.len() == 2 && has("get_weather") && has("get_time")
        },
    )
    .await;
    facts.push(two);
    let result = tried(
        asker,
        titles[2],
        tries,
        |seed| {
            let function = json!({"name": "get_weather", "arguments": "{\"city\":\"Oslo\",\"days\":3}"});
            chat(
                model,
                seed,
                json!({"tools": [&weather], "messages": [
                    {"role": "user", "content": "How warm is it in Oslo?"},
                    {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]},
                    {"role": "tool", "tool_call_id": "call_1", "content": "11 degrees"},
                ]}),
            ).expecting(json!({"$.choices[0].message.content": {"matches": "11"}}))
        },
        |answer| {
            let text = answer.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default();
            calls(answer).is_empty() && text.contains("11")
        },
    )
    .await;
    facts.push(result);
    let (id, title) = titles[3];
    let count = |kind: Call| kinds.iter().filter(|known| **known == kind).count();
    let (as_is, repaired, reasked) = (count(Call::AsIs), count(Call::Repaired), count(Call::Reasked));
    facts.push(if made == 0 {
        Fact::unknown(id, title, "not tried: the time was up").cure(MORE_TIME)
    } else {
        let rate = Rate::new(as_is, made);
        let text = format!("{rate}; {repaired} more after a repair, {reasked} more after asking again");
        let state = match as_is {
            0 => State::Bad,
            _ if as_is < made => State::Limited,
            _ => State::Good,
        };
        let value = json!({"tries": made, "as_is": as_is, "repaired": repaired, "reasked": reasked});
        Fact { rate: Some(rate), ..Fact::new(id, title, state, text).with(value) }
    });
}

/// JSON by a schema, and thinking on and off.
pub(super) async fn answers(asker: &Asker, model: &str, card: &Card, tries: usize, facts: &mut Vec<Fact>) {
    let schema = json!({
        "type": "object", "properties": {"city": {"type": "string"}, "inhabitants": {"type": "integer"}},
        "required": ["city", "inhabitants"], "additionalProperties": false,
    });
    let fact = tried(
        asker,
        ("schema", "JSON by a schema"),
        tries,
        |seed| {
            let format =
                json!({"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema": &schema}});
            let text = "Describe the city Oslo.";
            chat(model, seed, json!({"response_format": format, "messages": [{"role": "user", "content": text}]})).expecting(json!({"$.choices[0].message.content": {"json": {"$.city": {"type": "string"}, "$.inhabitants": {"type": "number"}}}}))
        },
        |answer| {
            let text = answer.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default();
            serde_json::from_str::<Value>(text)
                .is_ok_and(|value| value["city"].is_string() && value["inhabitants"].is_i64())
        },
    )
    .await;
    facts.push(fact);
    for (id, title, effort, wanted) in
        [("thinking.on", "thinking on", "low", true), ("thinking.off", "thinking off", "none", false)]
    {
        if card.can("thinking") != Some(true) {
            let why = if card.capabilities.is_some() {
                "the model does not think"
            } else {
                "it is not known whether the model thinks"
            };
            facts.push(Fact::unknown(id, title, why));
            continue;
        }
        let fact = tried(
            asker,
            (id, title),
            tries.min(2),
            |seed| chat(model, seed, json!({"reasoning_effort": effort, "messages": [{"role": "user", "content": "What is 17 times 3?"}]})),
            |answer| {
                let message = &answer.json()["choices"][0]["message"];
                let thought = ["reasoning", "reasoning_content"].iter().any(|name| {
                    message[*name].as_str().is_some_and(|text| !text.trim().is_empty())
                });
                thought == wanted
            },
        )
        .await;
        facts.push(fact);
    }
}

/// Embeddings of the model that makes them: dimensions and norm.
pub(super) async fn embeddings(asker: &Asker, model: Option<&str>, facts: &mut Vec<Fact>) {
    let (id, title) = ("embeddings", "embeddings");
    let cure = "ollama pull nomic-embed-text on the remote, or name the model with --embedding-model";
    let Some(model) = model else {
        facts.push(Fact::new(id, title, State::Bad, "no model for embeddings is there").cure(cure));
        return;
    };
    let body = json!({"model": model, "input": ["a lighthouse", "a kettle"], "encoding_format": "float"});
    let answer = asker.ask(Ask::post(Lane::V1, "/embeddings", body)).await;
    let vectors: Vec<Vec<f64>> = answer.json()["data"]
        .as_array()
        .map(|data| {
            let vector =
                |one: &Value| one["embedding"].as_array().map(|list| list.iter().filter_map(Value::as_f64).collect());
            data.iter().filter_map(vector).collect()
        })
        .unwrap_or_default();
    let [first, second] = &vectors[..] else {
        let text = format!("{model} makes none: {}", answer.words());
        facts.push(answer.shows(Fact::new(id, title, State::Bad, text).cure(cure)));
        return;
    };
    let norm = first.iter().map(|part| part * part).sum::<f64>().sqrt();
    let text = format!("{model}: {} dimensions, norm {norm:.2}", first.len());
    let value = json!({"dimensions": first.len(), "norm": (norm * 1000.0).round() / 1000.0});
    let fact = Fact::new(id, title, State::Good, text).with(value);
    facts.push(if first == second {
        Fact { state: State::Bad, text: format!("{model} gives different texts the same vector"), ..fact }
    } else {
        fact
    });
}

/// Whether a model that can see sees.
pub(super) async fn vision(asker: &Asker, model: &str, card: &Card, facts: &mut Vec<Fact>) {
    let (id, title) = ("vision", "images");
    if card.can("vision") != Some(true) {
        let why = if card.capabilities.is_some() {
            "the model does not see"
        } else {
            "it is not known whether the model sees"
        };
        facts.push(Fact::unknown(id, title, why));
        return;
    }
    let fact = tried(
        asker,
        (id, title),
        1,
        |seed| {
            chat(
                model,
                seed,
                json!({"messages": [{"role": "user", "content": [
                    {"type": "text", "text": "What color is this image? Answer with one word."},
                    {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{RED}")}},
                ]}]}),
            )
        },
        |answer| {
            answer.json()["choices"][0]["message"]["content"]
                .as_str()
                .is_some_and(|text| text.to_lowercase().contains("red"))
        },
    )
    .await;
    facts.push(Fact { text: format!("a red image is called red: {}", fact.text), ..fact });
}
