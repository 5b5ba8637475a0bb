//! A model: what it can do, its context, its memory, its speed, and whether each API answers with it.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    asker::{Answer, Ask, Asker, Lane, brief},
    fact::{Fact, MORE_TIME, Rate, State},
};
use crate::expect::laws::{self, Laws};

/// How often a stream is tried.
const STREAMS: usize = 3;
/// How many requests run side by side to see whether they do.
const SIDE_BY_SIDE: usize = 4;
/// The laws without which a streamed chat is not whole.
const WHOLE: [&str; 8] =
    ["utf-8", "json", "done-once", "ending", "no-done-after-error", "one-error", "no-finish-when-failed", "finish"];
/// Shorter answers leave no difference between running side by side and one after the other.
const TOO_FAST: Duration = Duration::from_millis(60);

/// What `/api/show` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Card {
    /// Nothing is known of it before Ollama 0.6.4.
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) context: Option<u64>,
    pub(super) num_ctx: Option<u64>,
    /// The digest of its weights.
    pub(super) weights: Option<String>,
}

impl Card {
    /// Whether the model can do something; nothing if that is not known.
    pub(super) fn can(&self, capability: &str) -> Option<bool> {
        Some(self.capabilities.as_ref()?.iter().any(|known| known == capability))
    }

    fn read(show: &Value) -> Self {
        let info = &show["model_info"];
        let family = info["general.architecture"].as_str().unwrap_or_default();
        let words = |list: &Vec<Value>| list.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
        let num_ctx = show["parameters"].as_str().and_then(|text| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix("num_ctx"))?;
            line.trim().parse().ok()
        });
        Self {
            capabilities: show["capabilities"].as_array().map(words),
            context: info[format!("{family}.context_length")].as_u64(),
            num_ctx,
            weights: weights(show),
        }
    }
}

/// The digest of a model's weights: the blob after `FROM` in its Modelfile.
pub(super) fn weights(show: &Value) -> Option<String> {
    let from = show["modelfile"].as_str()?.lines().find_map(|line| line.strip_prefix("FROM "))?;
    let digest = from.rsplit_once("sha256-")?.1.trim();
    (digest.len() == 64).then(|| digest.to_owned())
}

/// The routes of Ollama's API that tools read before they ask a model. Gives what is known of the model. `others` are
/// the names of models with the digests of their weights.
pub(super) async fn native(asker: &Asker, model: &str, others: &[(String, String)], facts: &mut Vec<Fact>) -> Card {
    let root = asker.ask(Ask::get(Lane::Native, "/")).await;
    let is_root = root.is_ok() && root.exchange.body.contains("Ollama is running");
    facts.push(route(root, "native.root", "GET /", is_root));
    let tags = asker.ask(Ask::get(Lane::Native, "/api/tags")).await;
    let is_list = tags.is_ok() && tags.json()["models"].is_array();
    let list = tags.json().clone();
    facts.push(route(tags, "native.tags", "GET /api/tags", is_list));
    let show = asker.ask(Ask::post(Lane::Native, "/api/show", json!({"model": model}))).await;
    let is_card = show.is_ok() && show.json()["details"].is_object();
    let card = Card::read(show.json());
    facts.push(route(show, "native.show", "POST /api/show", is_card));
    let fact = match &card.capabilities {
        Some(list) => Fact::new("model.capabilities", "capabilities", State::Info, list.join(", ")).with(list.clone()),
        None => Fact::unknown("model.capabilities", "capabilities", "not shown (Ollama shows them since 0.6.4)"),
    };
    facts.push(fact);
    let context = card.context.map_or_else(
        || Fact::unknown("context.model", "context of the model", "the server does not say"),
        |context| {
            Fact::new("context.model", "context of the model", State::Info, format!("{context} tokens")).with(context)
        },
    );
    facts.push(context);
    facts.extend(twins(&list, model, &card, others));
    card
}

fn route(answer: Answer, id: &str, title: &str, is_good: bool) -> Fact {
    if is_good {
        return Fact::new(id, title, State::Good, "answered");
    }
    let text = format!("{title} is not answered as Ollama does: {}", answer.words());
    answer.shows(Fact::new(id, title, State::Bad, text).cure("point it at an Ollama, or at farllama in front of one"))
}

/// Other names for the same weights: they share one runner, also if their templates or settings differ.
fn twins(tags: &Value, model: &str, card: &Card, others: &[(String, String)]) -> Option<Fact> {
    let models = tags["models"].as_array()?;
    let full = if model.contains(':') { model.to_owned() } else { format!("{model}:latest") };
    let digest = models.iter().find(|entry| entry["name"] == full.as_str())?["digest"].as_str()?;
    // Copies have the same digest; what was made of the model has only its weights.
    let copies = models.iter().filter(|entry| entry["digest"] == digest).filter_map(|entry| entry["name"].as_str());
    let made = others.iter().filter(|(_, weights)| card.weights.as_ref() == Some(weights)).map(|(name, _)| &**name);
    let names: BTreeSet<_> = copies.chain(made).filter(|name| *name != full && *name != model).collect();
    let (id, title) = ("trap.twins", "other names of the model's weights");
    Some(if names.is_empty() {
        Fact::new(id, title, State::Good, "none")
    } else {
        let list = names.into_iter().collect::<Vec<_>>().join(", ");
        let text = format!("{list} too: they share one runner, and unloading one unloads all");
        Fact::new(id, title, State::Limited, text).cure("use one name, or count on it when one of them is unloaded")
    })
}

/// The model in `/api/ps`.
pub(super) async fn loaded(asker: &Asker, model: &str) -> Option<Option<Value>> {
    let ps = asker.ask(Ask::get(Lane::Native, "/api/ps")).await;
    let full = if model.contains(':') { model.to_owned() } else { format!("{model}:latest") };
    let list = ps.json()["models"].as_array()?;
    Some(list.iter().find(|entry| entry["name"] == full.as_str()).cloned())
}

/// What the native stream of one answer says about speed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Speed {
    /// From a request to the first token, of a loaded model and a short prompt.
    pub(super) first: Option<Duration>,
    /// Tokens of a prompt in a second.
    pub(super) prompt: Option<f64>,
}

/// Streams natively: loads the model, then measures it.
pub(super) async fn native_stream(asker: &Asker, model: &str, cold: bool, facts: &mut Vec<Fact>) -> Speed {
    if cold {
        let unload = json!({"model": model, "keep_alive": 0});
        asker.ask(Ask::post(Lane::Native, "/api/generate", unload)).await;
    }
    let was_loaded = loaded(asker, model).await.map(|entry| entry.is_some());
    let ask = |prompt: &str, most: u64| {
        let body = json!({
            "model": model, "stream": true, "options": {"num_predict": most, "seed": 7},
            "messages": [{"role": "user", "content": prompt}],
        });
        Ask::post(Lane::Native, "/api/chat", body)
    };
    let first = asker.ask(ask("Say hello.", 8)).await;
    facts.push(load(&first, was_loaded));
    let mut right = usize::from(is_whole(&first));
    let (mut tries, mut last, mut failed) = (1, first, None);
    let prompt =
        format!("{}\nCount from one to thirty in words.", "The quick brown fox jumps over the lazy dog. ".repeat(40));
    while tries < STREAMS && (asker.has_time() || tries == 1) {
        if !is_whole(&last) {
            failed = Some(last);
        }
        // Another beginning, so that no cache of the prompt makes it faster than it is.
        last = asker.ask(ask(&format!("{tries}. {prompt}"), 64)).await;
        right += usize::from(is_whole(&last));
        tries += 1;
    }
    let done = last.events().into_iter().find(|line| line["done"] == true).unwrap_or_default();
    let short = asker.ask(ask("Say hi.", 4)).await;
    if !is_whole(&last) {
        failed = Some(last);
    }
    facts.push(streamed("native.stream", "native stream (/api/chat)", Rate::new(right, tries), failed));
    let mut speed = Speed { first: short.first().filter(|_| is_whole(&short)), prompt: None };
    facts.push(match speed.first {
        Some(first) => {
            Fact::new("speed.first", "time to first token", State::Info, brief(first)).with(first.as_secs_f64())
        }
        None => Fact::unknown("speed.first", "time to first token", "no stream came to its end"),
    });
    let per_second = |count: &str, duration: &str| {
        let (count, nanos) = (done[count].as_f64()?, done[duration].as_f64()?);
        (nanos > 0.0 && count > 0.0).then(|| count / nanos * 1e9)
    };
    speed.prompt = per_second("prompt_eval_count", "prompt_eval_duration");
    for (id, title, rate) in [
        ("speed.prompt", "reading a prompt", speed.prompt),
        ("speed.generation", "writing an answer", per_second("eval_count", "eval_duration")),
    ] {
        facts.push(match rate {
            Some(rate) => Fact::new(id, title, State::Info, format!("{rate:.0} tokens/s")).with(rate.round()),
            None => Fact::unknown(id, title, "the server does not say"),
        });
    }
    speed
}

fn is_whole(answer: &Answer) -> bool {
    answer.is_ok() && answer.is_complete() && answer.events().last().is_some_and(|line| line["done"] == true)
}

/// How long the first answer took if the model was not loaded.
fn load(first: &Answer, was_loaded: Option<bool>) -> Fact {
    let (id, title) = ("load", "cold start");
    match (was_loaded, first.first().filter(|_| first.is_ok())) {
        (Some(true), _) => Fact::unknown(id, title, "the model was loaded already (--cold unloads it first)"),
        (None, _) => Fact::unknown(id, title, "the server does not show what is loaded"),
        (_, None) => Fact::unknown(id, title, format!("the model did not answer: {}", first.words())),
        (Some(false), Some(time)) => {
            let done = first.events().into_iter().find(|line| line["done"] == true).unwrap_or_default();
            let loading = done["load_duration"].as_f64().map(|nanos| format!(" (loading: {:.1} s)", nanos / 1e9));
            let text = format!("first token {} after the request{}", brief(time), loading.unwrap_or_default());
            let state = if time > Duration::from_secs(5) { State::Limited } else { State::Good };
            let fact = Fact::new(id, title, state, text).with(time.as_secs_f64());
            if state == State::Limited {
                fact.cure("OLLAMA_KEEP_ALIVE=-1 on the remote keeps the model loaded; a faster disk or a smaller model loads sooner")
            } else {
                fact
            }
        }
    }
}

/// Streams that came whole, of those that were tried.
fn streamed(id: &str, title: &str, rate: Rate, failed: Option<Answer>) -> Fact {
    let state = if rate.right == rate.tries { State::Good } else { State::Bad };
    let fact = Fact { rate: Some(rate), ..Fact::new(id, title, state, format!("{rate} came whole")) };
    let Some(failed) = failed else { return fact };
    let text = format!("{}; one of the others: {}", fact.text, failed.words());
    // Some came whole: it works with limits, unless a tool says otherwise.
    let state = if rate.right == 0 { State::Bad } else { State::Limited };
    let cure = match (failed.outcome.timed_out, failed.status()) {
        (true, _) => "a smaller model answers sooner; --timeout lets the doctor wait longer",
        (false, Some(status)) if !(200..300).contains(&status) => {
            "look at the log of the remote: it refuses the request"
        }
        (false, None) => "look at what stands between: the connection ended without a response",
        _ => "look at the logs of the remote and of every gateway before it: one of them ends streams early",
    };
    failed.shows(Fact { text, state, ..fact }.cure(cure))
}

/// The context in force, the memory, and how long the model stays.
pub(super) async fn memory(asker: &Asker, model: &str, card: &Card, grows_to: u64, facts: &mut Vec<Fact>) {
    let entry = loaded(asker, model).await.flatten();
    let context = entry.as_ref().and_then(|entry| entry["context_length"].as_u64());
    let context = context.map(|context| (context, "as /api/ps says"));
    let context = context.or(card.num_ctx.map(|context| (context, "as num_ctx of the model says")));
    for (id, title) in [("context.native", "context in force"), ("context.v1", "context in force on /v1")] {
        let fact = match context {
            None => Fact::unknown(id, title, "not shown (/api/ps has it since Ollama 0.10.0)"),
            Some((context, how)) => {
                let most = card.context.unwrap_or(context);
                let mut text = format!("{context} tokens of context, {how}; the model has {most}");
                let mut context = context;
                // farllama asks for a larger one if a prompt of /v1 needs it.
                if id == "context.v1" && context < grows_to.min(most) {
                    context = grows_to.min(most);
                    text += &format!("; farllama lets it grow up to {context} (context.max)");
                }
                let fact = Fact::new(id, title, State::Info, text).with(context);
                if context < most.min(16384) {
                    Fact { state: State::Limited, ..fact }.cure(
                        "OLLAMA_CONTEXT_LENGTH on the remote; for /v1, context.max in farllama's settings lets it grow",
                    )
                } else {
                    fact
                }
            }
        };
        facts.push(fact);
    }
    let Some(entry) = entry else {
        facts.push(Fact::unknown("memory", "memory", "the model is not listed as loaded (/api/ps)"));
        return;
    };
    let (size, gpu) = (entry["size"].as_f64().unwrap_or(0.0), entry["size_vram"].as_f64().unwrap_or(0.0));
    let share = if size > 0.0 { gpu / size * 100.0 } else { 0.0 };
    let text = format!("{:.1} GB, {share:.0} % of it on the GPU", size / 1e9);
    let fact = Fact::new("memory", "memory", State::Info, text).with(share.round());
    facts.push(if gpu > 0.0 && share < 99.0 {
        Fact { state: State::Limited, ..fact }
            .cure("a part is computed by the CPU, much slower: a smaller context or quantization, or OLLAMA_KV_CACHE_TYPE=q8_0")
    } else {
        fact
    });
    if let Some(expires) = entry["expires_at"].as_str() {
        // Ollama writes the year 2318 or later for "never".
        let never = expires.get(..4).and_then(|year| year.parse::<u32>().ok()).is_some_and(|year| year > 2200);
        let text =
            if never { "for ever".to_owned() } else { format!("until {}", expires.get(..19).unwrap_or(expires)) };
        facts.push(Fact::new("keep_alive", "stays loaded", State::Info, text));
    }
}

/// The list of models, plain and streamed chats, responses and messages.
pub(super) async fn openai(asker: &Asker, model: &str, is_foreign: bool, facts: &mut Vec<Fact>) {
    let models = asker.ask(Ask::get(Lane::V1, "/models")).await;
    let is_list = models.is_ok() && models.json()["data"].is_array();
    facts.push(if is_list {
        let count = models.json()["data"].as_array().map_or(0, Vec::len);
        Fact::new("v1.models", "GET /v1/models", State::Good, format!("{count} models")).with(count)
    } else {
        let text = format!("GET /v1/models fails: {}", models.words());
        models.shows(Fact::new("v1.models", "GET /v1/models", State::Bad, text))
    });
    let body = |stream: bool| {
        json!({
            "model": model, "max_tokens": 48, "stream": stream,
            "messages": [{"role": "user", "content": "Count from one to ten in words."}],
        })
    };
    let chat = asker.ask(Ask::post(Lane::V1, "/chat/completions", body(false))).await;
    let message = &chat.json()["choices"][0]["message"];
    let is_good = chat.is_ok() && message.is_object() && chat.json()["choices"][0]["finish_reason"].is_string();
    facts.push(if is_good {
        Fact::new("chat", "chat", State::Good, "answered")
    } else {
        let text = format!("POST /v1/chat/completions fails: {}", chat.words());
        chat.shows(Fact::new("chat", "chat", State::Bad, text))
    });
    let laws = if is_foreign { Laws::default().portable() } else { Laws::default() };
    // The laws that a stream breaks: those without which it is not whole, and others. All count behind farllama, which
    // keeps them.
    let breach = |answer: &Answer| {
        let broken = laws::breaches(&answer.outcome.recording.body(), &laws);
        let broken = broken.into_iter().filter(|breach| breach.law != "one-piece");
        let (fatal, odd): (Vec<_>, Vec<_>) = broken.partition(|breach| !is_foreign || WHOLE.contains(&breach.law));
        let first = |list: Vec<laws::Breach>| {
            list.into_iter().next().map(|breach| format!("law {}: {}", breach.law, breach.actual))
        };
        (first(fatal), first(odd))
    };
    let (mut right, mut tries, mut failed, mut differs) = (0, 0, None, None);
    while tries < STREAMS && (asker.has_time() || tries == 0) {
        let answer = asker.ask(Ask::post(Lane::V1, "/chat/completions", body(true))).await;
        let has_error = answer.events().iter().any(|event| !event["error"].is_null());
        tries += 1;
        let (fatal, odd) = breach(&answer);
        if answer.is_ok() && answer.is_complete() && !has_error && fatal.is_none() && !answer.events().is_empty() {
            right += 1;
            differs = differs.or_else(|| odd.map(|odd| (answer, odd)));
        } else {
            failed = Some((answer, fatal));
        }
    }
    let why = failed.as_ref().and_then(|(_, fatal)| fatal.clone());
    let fact = streamed("chat.stream", "streamed chat", Rate::new(right, tries), failed.map(|(answer, _)| answer));
    facts.push(match (why, differs) {
        (Some(why), _) => Fact { text: format!("{}, {why}", fact.text), ..fact },
        (None, Some((answer, odd))) if fact.state == State::Good => {
            let text = format!("{}, but not as OpenAI writes them ({odd})", fact.text);
            let cure = "most clients accept it; `farllama-check laws` lists what a stream should be like";
            answer.shows(Fact { state: State::Limited, text, ..fact }.cure(cure))
        }
        (None, _) => fact,
    });
    let response = json!({"model": model, "max_output_tokens": 48, "stream": true, "input": "Say hello."});
    let message = json!({
        "model": model, "max_tokens": 48, "stream": true, "messages": [{"role": "user", "content": "Say hello."}],
    });
    for (id, title, path, body, ends) in [
        (
            "responses.stream",
            "streamed response",
            "/responses",
            response,
            ["response.completed", "response.incomplete"],
        ),
        ("messages.stream", "streamed message (Anthropic)", "/messages", message, ["message_stop", "message_stop"]),
    ] {
        let ask = Ask::post(Lane::V1, path, body).header("anthropic-version", "2023-06-01");
        let answer = asker.ask(ask).await;
        let ended = answer.events().last().is_some_and(|event| ends.iter().any(|end| event["type"] == *end));
        facts.push(if answer.is_ok() && ended && answer.is_complete() {
            Fact::new(id, title, State::Good, "came whole")
        } else {
            let what = answer.words();
            let text = if answer.status() == Some(404) {
                format!("the server has no /v1{path} ({what})")
            } else {
                format!("it does not end as it must: {what}")
            };
            answer.shows(Fact::new(id, title, State::Bad, text))
        });
    }
}

/// A streamed chat of at most `most` tokens, over Ollama's API or OpenAI's.
fn streaming(lane: Lane, model: &str, most: u64, seed: usize, text: &str) -> Ask {
    let messages = json!([{"role": "user", "content": text}]);
    if lane == Lane::V1 {
        let body = json!({"model": model, "stream": true, "max_tokens": most, "seed": seed, "messages": messages});
        return Ask::post(lane, "/chat/completions", body);
    }
    let options = json!({"num_predict": most, "seed": seed});
    Ask::post(lane, "/api/chat", json!({"model": model, "stream": true, "options": options, "messages": messages}))
}

/// What the streams of a server that is not Ollama show about its speed.
pub(super) async fn foreign_speed(asker: &Asker, model: &str, facts: &mut Vec<Fact>) -> Speed {
    if !asker.has_time() {
        for (id, title) in [("speed.first", "time to first event"), ("speed.generation", "writing an answer")] {
            facts.push(Fact::unknown(id, title, "not tried: the time was up").cure(MORE_TIME));
        }
        return Speed::default();
    }
    let answer = asker.ask(streaming(Lane::V1, model, 64, 7, "Count from one to thirty in words.")).await;
    let short = asker.ask(streaming(Lane::V1, model, 4, 7, "Say hi.")).await;
    let first = short.first().filter(|_| short.is_ok() && short.is_complete());
    facts.push(match first {
        Some(first) => {
            Fact::new("speed.first", "time to first event", State::Info, brief(first)).with(first.as_secs_f64())
        }
        None => Fact::unknown("speed.first", "time to first event", "no stream came to its end"),
    });
    // An event has a token, at most servers.
    let written = answer.events().iter().filter(|event| event["choices"][0]["delta"].is_object()).count();
    let time = answer.last().zip(answer.first()).map(|(last, first)| last.saturating_sub(first).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a rough estimate")]
    let rate = time.filter(|time| *time > 0.0 && written > 1).map(|time| (written - 1) as f64 / time);
    facts.push(match rate {
        Some(rate) => {
            let text = format!("about {rate:.0} tokens/s, by the events of a stream");
            Fact::new("speed.generation", "writing an answer", State::Info, text).with(rate.round())
        }
        None => Fact::unknown("speed.generation", "writing an answer", "no stream had several events"),
    });
    Speed { first, prompt: None }
}

/// Whether requests run side by side, and whether a client that leaves frees the model.
pub(super) async fn concurrency(asker: &Asker, model: &str, lane: Lane, speed: Speed, facts: &mut Vec<Fact>) {
    let story = |most: u64, nth: usize| {
        streaming(lane, model, most, nth, &format!("{nth}. Write a story about a lighthouse in 40 words."))
    };
    if !asker.has_time() {
        for (id, title) in [("parallel", "requests side by side"), ("hang-up", "a client that leaves")] {
            facts.push(Fact::unknown(id, title, "not tried: the time was up").cure(MORE_TIME));
        }
        return;
    }
    let all = join_all((0..SIDE_BY_SIDE).map(|nth| asker.ask(story(40, nth)))).await;
    let spans: Vec<_> = all.iter().filter_map(|answer| Some((answer.first()?, answer.last()?))).collect();
    let longest = spans.iter().map(|(_, last)| *last).max().unwrap_or_default();
    let (id, title) = ("parallel", "requests side by side");
    facts.push(if spans.len() < SIDE_BY_SIDE {
        let words = all.iter().find(|answer| answer.first().is_none()).map(Answer::words).unwrap_or_default();
        Fact::unknown(id, title, format!("not all of {SIDE_BY_SIDE} were answered: {words}"))
    } else if longest < TOO_FAST {
        Fact::unknown(id, title, format!("{SIDE_BY_SIDE} answers within {}: too fast to measure", brief(longest)))
    } else {
        let at_once = |time: Duration| spans.iter().filter(|(first, last)| *first <= time && time <= *last).count();
        let most = spans.iter().map(|(first, _)| at_once(*first)).max().unwrap_or(1);
        let text = match most {
            1 => format!("{SIDE_BY_SIDE} at once run one after the other"),
            _ => format!("{most} of {SIDE_BY_SIDE} at once ran side by side"),
        };
        let fact = Fact::new(id, title, State::Info, text).with(most);
        let cure = if lane == Lane::V1 {
            "more slots, if its memory allows (llama.cpp: -np)"
        } else {
            "OLLAMA_NUM_PARALLEL on the remote, if its memory allows"
        };
        if most == 1 { fact.cure(cure) } else { fact }
    });
    let left = asker.ask(story(4000, 90).leaving_after(3)).await;
    let next = asker.ask(streaming(lane, model, 2, 7, "Say hi.")).await;
    let (id, title) = ("hang-up", "a client that leaves");
    facts.push(match (next.first(), speed.first) {
        (Some(after), Some(usual)) if left.is_ok() && next.is_ok() => {
            let waited = after.saturating_sub(usual);
            let text = format!("the model is free again after {} (another request's first token took {})", brief(waited), brief(after));
            let state = if waited > Duration::from_secs(2) { State::Limited } else { State::Good };
            let fact = Fact::new(id, title, state, text).with(waited.as_secs_f64());
            if state == State::Limited {
                fact.cure("the remote goes on for a client that has left: upgrade it, or let the gateway pass the end of connections on")
            } else {
                fact
            }
        }
        _ => Fact::unknown(id, title, format!("no stream to leave: {}", left.words())),
    });
}
