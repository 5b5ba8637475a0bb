//! `/api/generate` (`ollama-wire` A6).

use crate::version::Feature;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    Call, Refusal, flag,
    inference::{self, Format, Inference, Judged, image_tokens, metrics, refuse_images},
    text,
};
use crate::{
    generation::reply::{Event, Reply, fold},
    go,
    models::Capability,
    server::answer::Answer,
    state::Busy,
    timestamps, tokens,
    version::Version,
    words::{self, Question},
};

const REQUEST: go::Request = go::Request {
    name: "GenerateRequest",
    fields: &[
        ("model", go::Kind::Text),
        ("prompt", go::Kind::Text),
        ("suffix", go::Kind::Text),
        ("system", go::Kind::Text),
        ("template", go::Kind::Text),
        ("context", go::Kind::Ints),
        ("stream", go::Kind::Bool),
        ("raw", go::Kind::Bool),
        ("format", go::Kind::Any),
        ("keep_alive", go::Kind::Any),
        ("images", go::Kind::Texts),
        ("options", go::Kind::Map),
        ("think", go::Kind::Any),
        ("truncate", go::Kind::Bool),
        ("shift", go::Kind::Bool),
        ("logprobs", go::Kind::Bool),
        ("top_logprobs", go::Kind::Int),
        ("_debug_render_only", go::Kind::Bool),
    ],
};

pub(super) fn generate(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&REQUEST)?;
    let state = call.state;
    let images = inference::images(fields.get("images"))?;
    let (asked, suffix) = (text(&fields, "prompt"), text(&fields, "suffix"));
    let needs: &[Capability] = if suffix.is_empty() { &[] } else { &[Capability::Insert] };
    let loaded = |model: &str, reason: &str| {
        let mut reply = line(model, "", "", true);
        reply.insert("done_reason".to_owned(), reason.into());
        Answer::json(StatusCode::OK, &reply.into())
    };
    let wanted = match Inference::judge(call, &fields, needs, asked.is_empty(), "generate")? {
        Judged::Unloaded { asked_model } => return Ok(loaded(&asked_model, "unload")),
        Judged::Wanted(wanted) => *wanted,
    };
    let is_raw = flag(&fields, "raw", false);
    let context = fields.get("context").and_then(Value::as_array).cloned().unwrap_or_default();
    let has_frame = !text(&fields, "template").is_empty() || !text(&fields, "system").is_empty() || !context.is_empty();
    if is_raw && has_frame {
        return Err(Refusal::bad_request("raw mode does not support template, system, or context"));
    }
    if asked.is_empty() {
        wanted.load(call)?;
        return Ok(loaded(&wanted.asked_model, "load"));
    }
    let load = wanted.load(call)?;
    let busy = Busy::new(state, &wanted.model);
    let prompt = render(&wanted, &fields, is_raw)?;
    if flag(&fields, "_debug_render_only", false) {
        let mut reply = line(&wanted.asked_model, "", "", false);
        reply.insert("_debug_info".to_owned(), json!({"rendered_template": prompt}));
        return Ok(Answer::json(StatusCode::OK, &reply.into()));
    }
    let seen = if images > 0 && !state.version.has(Feature::LlamaServer) { format!("[img-0]{prompt}") } else { prompt };
    let fitted = match refuse_images(&wanted.model, images, &state.version) {
        Some(late) => Err(late),
        None => wanted.fit(&state.version, tokens::count(&seen) + context.len() + image_tokens(&wanted.model, images)),
    };
    let prompt_tokens = match fitted {
        Ok(tokens) => tokens,
        Err(late) => {
            if let Some(error) = late.runner_error {
                state.runner_wrote(&wanted.model, error);
            }
            return Ok(late.answer(wanted.stream));
        }
    };
    let seed = wanted.options.seed.map(|seed| seed.to_string()).unwrap_or_default();
    let seed = words::seed(&[&wanted.model.name.full(), &seen, suffix, &seed, &wanted.options.sampling]);
    let question = Question { model: &wanted.model, text: asked, tool_result: None, images, seed };
    let insertion = (!suffix.is_empty() && wanted.format == Format::Text).then(|| question.insertion());
    let words = call.words.or(insertion.as_deref());
    let (mut task, mut options) = wanted.task(&state.version, &question, &[], words, prompt_tokens);
    if state.version.has(Feature::CountsUncachedOnly) && state.has_cached(&wanted.model, question.seed) {
        task.prompt_tokens = 0;
    }
    options.sends_silent_events = true;
    let ids =
        (!is_raw).then(|| context.into_iter().chain(tokens::tokens(&seen).map(|token| token.id().into())).collect());
    let writer = LineWriter { wanted, version: state.version.clone(), load, context: ids, _busy: busy };
    Ok(writer.answer(Reply::new(task, options)))
}

/// The prompt as the model sees it.
fn render(wanted: &Inference, fields: &Map<String, Value>, is_raw: bool) -> Result<String, Refusal> {
    let (prompt, suffix) = (text(fields, "prompt"), text(fields, "suffix"));
    if is_raw {
        return Ok(prompt.to_owned());
    }
    if !suffix.is_empty() {
        return Ok(format!("<fim_prefix>{prompt}<fim_suffix>{suffix}<fim_middle>"));
    }
    let system = match text(fields, "system") {
        "" => &wanted.model.system,
        system => system,
    };
    match text(fields, "template") {
        "" => {
            let system =
                if system.is_empty() { String::new() } else { format!("<|im_start|>system\n{system}<|im_end|>\n") };
            Ok(format!("{system}<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"))
        }
        template => fill(template, &[(".Prompt", prompt), (".System", system), (".Suffix", suffix)]),
    }
}

/// A Go template of plain fields; other actions write nothing.
fn fill(template: &str, fields: &[(&str, &str)]) -> Result<String, Refusal> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let unclosed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "template: :1: unclosed action");
        let (action, after) = after.split_once("}}").ok_or_else(unclosed)?;
        out += before;
        let action = action.trim_matches(|c: char| c == '-' || c.is_whitespace());
        out += fields.iter().find(|(name, _)| *name == action).map_or("", |(_, value)| value);
        rest = after;
    }
    Ok(out + rest)
}

fn line(model: &str, response: &str, thinking: &str, done: bool) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("model".to_owned(), model.into());
    line.insert("created_at".to_owned(), timestamps::now().into());
    line.insert("response".to_owned(), response.into());
    if !thinking.is_empty() {
        line.insert("thinking".to_owned(), thinking.into());
    }
    line.insert("done".to_owned(), done.into());
    line
}

/// Writes events as lines.
struct LineWriter {
    wanted: Inference,
    version: Version,
    load: u64,
    /// Ids of the tokens so far; none in raw mode.
    context: Option<Vec<Value>>,
    _busy: Busy,
}

impl LineWriter {
    fn answer(mut self, events: Reply) -> Answer {
        if self.wanted.stream {
            return Answer::lines(events.map(move |event| self.line(&event)));
        }
        Answer::json(StatusCode::OK, &self.line(&fold(events)))
    }

    fn line(&mut self, event: &Event) -> Value {
        if let Some(context) = &mut self.context {
            context.extend(tokens::tokens(&event.content).map(|token| Value::from(token.id())));
        }
        let mut line = line(&self.wanted.asked_model, &event.content, &event.thinking, event.done.is_some());
        if let Some(done) = &event.done {
            line.insert("done_reason".to_owned(), done.reason.into());
            if let Some(context) = self.context.take() {
                line.insert("context".to_owned(), context.into());
            }
            line.extend(
                metrics(done, self.load, &self.version).into_iter().map(|(key, value)| (key.to_owned(), value)),
            );
        }
        if !event.logprobs.is_empty() {
            line.insert("logprobs".to_owned(), event.logprobs.clone().into());
        }
        line.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_or_refused() {
        assert_eq!(
            fill("Q: {{ .Prompt }} {{- .System}}A:", &[(".Prompt", "hi"), (".System", "s")]).unwrap(),
            "Q: hi sA:"
        );
        assert!(fill("{{ .Prompt", &[]).unwrap_err().text.contains("unclosed action"));
    }
}
