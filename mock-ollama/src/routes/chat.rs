//! `/api/chat` (`ollama-wire` A5).

use crate::version::Feature;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    Call, Refusal, flag,
    inference::{self, Inference, Judged, image_tokens, metrics, refuse_images},
};
use crate::{
    generation::{
        Done,
        reply::{Event, Reply, fold},
    },
    go,
    models::{Capability, Model},
    server::answer::Answer,
    state::Busy,
    timestamps, tokens,
    version::Version,
    words::{self, Question},
};

const REQUEST: go::Request = go::Request {
    name: "ChatRequest",
    fields: &[
        ("model", go::Kind::Text),
        ("messages", go::Kind::Messages),
        ("stream", go::Kind::Bool),
        ("format", go::Kind::Any),
        ("keep_alive", go::Kind::Any),
        ("tools", go::Kind::Tools),
        ("options", go::Kind::Map),
        ("think", go::Kind::Any),
        ("truncate", go::Kind::Bool),
        ("shift", go::Kind::Bool),
        ("logprobs", go::Kind::Bool),
        ("top_logprobs", go::Kind::Int),
        ("_debug_render_only", go::Kind::Bool),
    ],
};

pub(super) fn chat(call: &Call<'_>) -> Result<Answer, Refusal> {
    let fields = call.decode(&REQUEST)?;
    let state = call.state;
    let messages = messages(&fields)?;
    let tools = fields.get("tools").and_then(Value::as_array).cloned().unwrap_or_default();
    let needs: &[Capability] = if tools.is_empty() { &[] } else { &[Capability::Tools] };
    let loaded = |model: &str, reason: &str| {
        let mut reply = line(model, json!({"role": "assistant", "content": ""}), true);
        reply.insert("done_reason".to_owned(), reason.into());
        Answer::json(StatusCode::OK, &reply.into())
    };
    let wanted = match Inference::judge(call, &fields, needs, messages.is_empty(), "chat")? {
        Judged::Unloaded { asked_model } => return Ok(loaded(&asked_model, "unload")),
        Judged::Wanted(wanted) => *wanted,
    };
    if messages.is_empty() {
        wanted.load(call)?;
        return Ok(loaded(&wanted.asked_model, "load"));
    }
    let load = wanted.load(call)?;
    let busy = Busy::new(state, &wanted.model);
    let mut prompt = Prompt { messages: with_modelfile(&wanted.model, messages), tools: &tools };
    if flag(&fields, "_debug_render_only", false) {
        let mut reply = line(&wanted.asked_model, json!({"role": "", "content": ""}), false);
        reply.insert("_debug_info".to_owned(), prompt.debug());
        return Ok(Answer::json(StatusCode::OK, &reply.into()));
    }
    if wanted.truncate {
        prompt.drop_oldest(&wanted.model, wanted.context_length);
    }
    let fitted = match refuse_images(&wanted.model, prompt.images(), &state.version) {
        Some(late) => Err(late),
        None => wanted.fit(&state.version, prompt.tokens(&wanted.model)),
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
    let question = prompt.question(&wanted);
    let (mut task, options) = wanted.task(&state.version, &question, &tools, call.words, prompt_tokens);
    if state.version.has(Feature::CountsUncachedOnly) && state.has_cached(&wanted.model, question.seed) {
        task.prompt_tokens = 0;
    }
    let call_seed = question.seed ^ state.next();
    let writer = LineWriter { wanted, version: state.version.clone(), load, call_seed, calls: 0, _busy: busy };
    Ok(writer.answer(Reply::new(task, options)))
}

/// The messages, roles in lower case.
fn messages(fields: &Map<String, Value>) -> Result<Vec<Message>, Refusal> {
    let messages = fields.get("messages").and_then(Value::as_array).into_iter().flatten();
    messages.map(Message::read).collect()
}

/// A message as the model sees it.
#[derive(Clone, Debug, Default)]
struct Message {
    role: String,
    content: String,
    thinking: String,
    images: usize,
    calls: Vec<Value>,
}

impl Message {
    fn read(value: &Value) -> Result<Self, Refusal> {
        let field = |key: &str| {
            let fields = value.as_object().into_iter().flatten();
            fields.filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value).next_back()
        };
        let text = |key: &str| field(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self {
            role: text("role").to_lowercase(),
            content: text("content"),
            thinking: text("thinking"),
            images: inference::images(field("images"))?,
            calls: field("tool_calls").and_then(Value::as_array).cloned().unwrap_or_default(),
        })
    }

    fn render(&self) -> String {
        let Self { role, content, thinking, images, calls } = self;
        let thinking = if thinking.is_empty() { String::new() } else { format!("<think>{thinking}</think>\n") };
        let marks: String = (0..*images).map(|nth| format!("[img-{nth}]")).collect();
        let calls: String =
            calls.iter().map(|call| format!("<tool_call>\n{}\n</tool_call>", call["function"])).collect();
        format!("<|im_start|>{role}\n{thinking}{marks}{content}{calls}<|im_end|>\n")
    }
}

/// Modelfile messages come first, and its system message where the request has none.
fn with_modelfile(model: &Model, messages: Vec<Message>) -> Vec<Message> {
    let own = model.messages.iter().filter_map(|message| Message::read(message).ok());
    let mut all: Vec<Message> = own.chain(messages).collect();
    if !model.system.is_empty() && all.first().is_none_or(|first| first.role != "system") {
        all.insert(0, Message { role: "system".to_owned(), content: model.system.clone(), ..Message::default() });
    }
    all
}

struct Prompt<'a> {
    messages: Vec<Message>,
    tools: &'a [Value],
}

impl Prompt<'_> {
    fn render(&self) -> String {
        let mut text = String::new();
        if !self.tools.is_empty() {
            let tools: Vec<String> = self.tools.iter().map(ToString::to_string).collect();
            text += &format!("<|im_start|>system\nTools:\n{}<|im_end|>\n", tools.join("\n"));
        }
        text.extend(self.messages.iter().map(Message::render));
        text + "<|im_start|>assistant\n"
    }

    fn debug(&self) -> Value {
        let mut info = json!({"rendered_template": self.render()});
        if self.images() > 0 {
            info["image_count"] = self.images().into();
        }
        info
    }

    fn images(&self) -> usize {
        self.messages.iter().map(|message| message.images).sum()
    }

    fn tokens(&self, model: &Model) -> usize {
        tokens::count(&self.render()) + image_tokens(model, self.images())
    }

    /// The oldest messages that are not the system's go until the prompt fits; the last one stays.
    fn drop_oldest(&mut self, model: &Model, context_length: usize) {
        while self.tokens(model) > context_length {
            let last = self.messages.len() - 1;
            let Some(oldest) = self.messages[..last].iter().position(|message| message.role != "system") else { break };
            self.messages.remove(oldest);
        }
    }

    fn question<'a>(&'a self, wanted: &'a Inference) -> Question<'a> {
        let last_user = self.messages.iter().rposition(|message| message.role == "user");
        let asked = last_user.and_then(|at| self.messages.get(at)).or(self.messages.last());
        let after = &self.messages[last_user.map_or(0, |at| at + 1)..];
        let tool_result =
            after.iter().rev().find(|message| message.role == "tool").map(|message| message.content.as_str());
        let seed = wanted.options.seed.map(|seed| seed.to_string()).unwrap_or_default();
        Question {
            model: &wanted.model,
            text: asked.map_or("", |message| &message.content),
            tool_result,
            images: asked.map_or(0, |message| message.images),
            seed: words::seed(&[&wanted.model.name.full(), &self.render(), &seed, &wanted.options.sampling]),
        }
    }
}

fn line(model: &str, message: Value, done: bool) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("model".to_owned(), model.into());
    line.insert("created_at".to_owned(), timestamps::now().into());
    line.insert("message".to_owned(), message);
    line.insert("done".to_owned(), done.into());
    line
}

/// Writes events as lines.
struct LineWriter {
    wanted: Inference,
    version: Version,
    load: u64,
    call_seed: u64,
    /// Calls so far.
    calls: usize,
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
        let mut message = json!({"role": "assistant", "content": event.content});
        if !event.thinking.is_empty() {
            message["thinking"] = event.thinking.clone().into();
        }
        if !event.calls.is_empty() {
            message["tool_calls"] =
                inference::calls(&event.calls, self.calls, &self.wanted.model, self.call_seed, &self.version);
            self.calls += event.calls.len();
        }
        let mut line = line(&self.wanted.asked_model, message, event.done.is_some());
        if let Some(Done { reason, .. }) = event.done {
            line.insert("done_reason".to_owned(), reason.into());
        }
        if !event.logprobs.is_empty() {
            line.insert("logprobs".to_owned(), event.logprobs.clone().into());
        }
        if let Some(done) = &event.done {
            line.extend(
                metrics(done, self.load, &self.version).into_iter().map(|(key, value)| (key.to_owned(), value)),
            );
        }
        line.into()
    }
}
