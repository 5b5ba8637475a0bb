//! `/api/embed` and the older `/api/embeddings` (`ollama-wire` A7). Vectors are sums of one direction per word: texts
//! that share words are near.

use crate::version::Feature;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    Call, Refusal, flag,
    inference::{context_length, keep_alive},
    name,
    options::options,
    text,
};
use crate::{
    go,
    models::{Architecture, Capability, Model},
    server::answer::Answer,
    state::Busy,
    tokens::{Token, tokens},
};

const EMBED: go::Request = go::Request {
    name: "EmbedRequest",
    fields: &[
        ("model", go::Kind::Text),
        ("input", go::Kind::Any),
        ("truncate", go::Kind::Bool),
        ("dimensions", go::Kind::Int),
        ("keep_alive", go::Kind::Any),
        ("options", go::Kind::Map),
    ],
};

const EMBEDDINGS: go::Request = go::Request {
    name: "EmbeddingRequest",
    fields: &[
        ("model", go::Kind::Text),
        ("prompt", go::Kind::Text),
        ("keep_alive", go::Kind::Any),
        ("options", go::Kind::Map),
    ],
};

pub(super) fn embed(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&EMBED)?;
    let inputs = inputs(fields.get("input"))?;
    let asked = text(&fields, "model");
    if asked.is_empty() {
        return Err(Refusal::not_found("model '' not found"));
    }
    let loaded = Loaded::new(call, &fields, asked)?;
    if inputs.is_empty() {
        return Ok(Answer::json(StatusCode::OK, &json!({"model": asked, "embeddings": []})));
    }
    loaded.refuse_chat_model(call)?;
    let truncates = flag(&fields, "truncate", true);
    let mut vectors = Vec::new();
    let mut count = 0;
    for input in &inputs {
        let tokens = loaded.tokens(input, truncates)?;
        count += tokens.len() + loaded.frame();
        let mut vector = vector(&loaded.model, &tokens);
        if call.state.version.has(Feature::Dimensions)
            && let Some(wanted) =
                fields.get("dimensions").and_then(Value::as_u64).and_then(|wanted| usize::try_from(wanted).ok())
            && (1..vector.len()).contains(&wanted)
        {
            vector.truncate(wanted);
            normalize(&mut vector);
        }
        vectors.push(format!("[{}]", vector.iter().map(|number| float32(*number)).collect::<Vec<_>>().join(",")));
    }
    let duration = loaded.load + 9_000_000 + count as u64 * 41_000;
    Ok(Answer::json_text(
        StatusCode::OK,
        format!(
            "{{\"model\":{},\"embeddings\":[{}],\"total_duration\":{duration},\"load_duration\":{},\"prompt_eval_count\":{count}}}",
            go::encode(&asked.into()),
            vectors.join(","),
            loaded.load
        ),
    ))
}

pub(super) fn embeddings(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&EMBEDDINGS)?;
    let asked = text(&fields, "model");
    if asked.is_empty() {
        return Err(Refusal::bad_request("model is required"));
    }
    let loaded = Loaded::new(call, &fields, asked)?;
    let prompt = text(&fields, "prompt");
    if prompt.is_empty() {
        return Ok(Answer::json(StatusCode::OK, &json!({"embedding": []})));
    }
    loaded.refuse_chat_model(call)?;
    let vector: Vec<f64> = vector(&loaded.model, &loaded.tokens(prompt, true)?).into_iter().map(f64::from).collect();
    Ok(Answer::json(StatusCode::OK, &json!({"embedding": vector})))
}

/// One text or a list of them; an empty text alone is none.
fn inputs(value: Option<&Value>) -> Result<Vec<&str>, Refusal> {
    let wrong = || Refusal::bad_request("invalid input type");
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_str().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

/// A model that is loaded for embedding.
struct Loaded {
    model: Model,
    context_length: usize,
    load: u64,
    _busy: Busy,
}

impl Loaded {
    fn new(call: &Call<'_>, fields: &Map<String, Value>, asked: &str) -> Result<Self, Refusal> {
        let missing = || Refusal::not_found(format!("model {asked:?} not found, try pulling it first"));
        let model = call.state.model(&name(asked)?).ok_or_else(missing)?;
        let options = options(&model.parameters, fields.get("options"))
            .map_err(|text| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text))?;
        let context_length = context_length(call, &model, &options);
        let cold = super::load(call, &model, context_length, keep_alive(fields)?)?;
        let load = if cold { 514_701_010 } else { 1_288_550 };
        Ok(Self { _busy: Busy::new(call.state, &model), model, context_length, load })
    }

    /// llama-server does not embed with a model that is for text; older runners did.
    fn refuse_chat_model(&self, call: &Call<'_>) -> Result<(), Refusal> {
        if self.model.can(Capability::Embedding) || !call.state.version.has(Feature::LlamaServer) {
            return Ok(());
        }
        let text = "This server does not support embeddings. Start it with `--embeddings`";
        Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text))
    }

    /// Tokens that an encoder puts around a text.
    fn frame(&self) -> usize {
        if self.model.card.architecture == Architecture::Bert { 2 } else { 0 }
    }

    fn tokens(&self, text: &str, truncates: bool) -> Result<Vec<Token>, Refusal> {
        let mut tokens: Vec<Token> = tokens(text).collect();
        let room = self.context_length.saturating_sub(self.frame());
        if tokens.len() > room {
            if !truncates {
                return Err(Refusal::bad_request("the input length exceeds the context length"));
            }
            if room == 0 {
                return Err(Refusal::bad_request("input after truncation exceeds maximum context length"));
            }
            tokens.truncate(room);
        }
        Ok(tokens)
    }
}

/// A unit vector for a text.
fn vector(model: &Model, tokens: &[Token]) -> Vec<f32> {
    let mut sum = vec![0.0_f32; model.card.embedding_length as usize];
    let frame = Token(model.name.full().into_bytes());
    for token in tokens.iter().chain([&frame]) {
        let mut roll = token.id() + 1;
        for number in &mut sum {
            // xorshift: cheap, and the same everywhere.
            roll ^= roll << 13;
            roll ^= roll >> 7;
            roll ^= roll << 17;
            *number += f32::from(i16::from_le_bytes([roll.to_le_bytes()[3], roll.to_le_bytes()[4]])) / 32768.0;
        }
    }
    normalize(&mut sum);
    sum
}

fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|number| *number /= length);
    }
}

/// The shortest text of a float, as Go writes it.
fn float32(number: f32) -> String {
    if number != 0.0 && number.abs() < 1e-6 { format!("{number:e}") } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<f32> {
        let model: Model = "m=embedding".parse().unwrap();
        vector(&model, &tokens(text).collect::<Vec<_>>())
    }

    fn near(one: &[f32], other: &[f32]) -> f32 {
        one.iter().zip(other).map(|(one, other)| one * other).sum()
    }

    #[test]
    fn vectors_have_unit_length_and_are_near_where_texts_are_alike() {
        let (cat, cats, rock) = (of("the cat sat on the mat"), of("a cat sat on the mat"), of("granite"));
        assert!((near(&cat, &cat) - 1.0).abs() < 1e-5);
        assert!(near(&cat, &cats) > near(&cat, &rock));
        assert!(near(&cat, &cats) < 0.999);
    }

    #[test]
    fn floats_are_written_as_go_does() {
        assert_eq!(
            (float32(-0.034_475_867), float32(0.000_012), float32(3e-8)),
            ("-0.034475867".into(), "0.000012".into(), "3e-8".into())
        );
    }
}
