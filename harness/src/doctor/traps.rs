//! Known traps of servers: each a small probe with its cure.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    asker::{Answer, Ask, Asker, Lane, brief},
    fact::{Fact, MORE_TIME, State},
    model::{Card, Speed, loaded},
};
use crate::backend::numbers;

/// How many long prompts precede the short one.
const LONG_PROMPTS: usize = 16;
/// Tokens of a long prompt, about.
const LONG: usize = 1500;
/// Tokens of the prompt whose client leaves.
const CANCELED: usize = 3300;
/// How long all long prompts may take to be read.
const BUDGET: Duration = Duration::from_secs(12);
/// What more than this is worth a note.
const NOTABLE: Duration = Duration::from_millis(500);
/// How many requests ask for a model that is not loaded, and how many run on one that is.
const QUEUED: usize = 8;
/// The largest context whose overflow is tried.
const OVERFLOW: u64 = 4096;

/// A prompt of about so many tokens, which begins with `nth` so that no cache knows it.
fn prompt(nth: usize, tokens: usize) -> String {
    format!("Number {nth}. {}", "one two three four five six seven eight nine ten ".repeat(tokens / 10))
}

fn generate(model: &str, prompt: &str, most: u64) -> Value {
    json!({
        "model": model, "stream": true, "options": {"num_predict": most}, "messages": [{"role": "user", "content": prompt}],
    })
}

/// Whether so many tokens can be read within the budget.
#[expect(clippy::cast_precision_loss, reason = "a rough estimate")]
fn affordable(speed: Speed, tokens: usize) -> Result<(), String> {
    let Some(rate) = speed.prompt else { return Ok(()) };
    let needed = Duration::from_secs_f64(tokens as f64 / rate.max(1.0));
    if needed <= BUDGET {
        return Ok(());
    }
    Err(format!("not tried: {tokens} tokens of prompts take {} here", brief(needed)))
}

/// llama-server copies idle slots to memory when a new request begins, so that a short request waits.
pub(super) async fn prompt_cache(asker: &Asker, model: &str, version: &str, speed: Speed) -> Fact {
    let (id, title) = ("trap.prompt-cache", "a short request after long prompts");
    if numbers(version) < numbers("0.30.0") {
        return Fact::unknown(id, title, "not tried: Ollama before 0.30.0 does not run llama-server");
    }
    let Some(usual) = speed.first else { return Fact::unknown(id, title, "not tried: no stream came to its end") };
    if let Err(why) = affordable(speed, LONG_PROMPTS * LONG) {
        return Fact::unknown(id, title, why);
    }
    if !asker.has_time() {
        return Fact::unknown(id, title, "not tried: the time was up").cure(MORE_TIME);
    }
    let long = (0..LONG_PROMPTS)
        .map(|nth| asker.ask(Ask::post(Lane::Native, "/api/chat", generate(model, &prompt(nth, LONG), 1))));
    join_all(long).await;
    let answer = asker.ask(Ask::post(Lane::Native, "/api/chat", generate(model, "Say hi.", 2))).await;
    let Some(first) = answer.first() else { return Fact::unknown(id, title, answer.words()) };
    let text = format!("first token after {} (usually {})", brief(first), brief(usual));
    let fact = Fact::new(id, title, State::Good, text).with(first.as_secs_f64());
    if first > usual * 5 && first > usual + NOTABLE {
        return Fact { state: State::Limited, ..fact }.cure(
            "LLAMA_ARG_CACHE_RAM=0 in the environment of Ollama: llama-server then does not copy idle slots to memory",
        );
    }
    fact
}

/// A prompt whose client has left is still read to its end.
pub(super) async fn canceled_prompt(asker: &Asker, model: &str, speed: Speed) -> Fact {
    let (id, title) = ("trap.canceled-prompt", "a long prompt whose client leaves");
    let Some(usual) = speed.first else { return Fact::unknown(id, title, "not tried: no stream came to its end") };
    if let Err(why) = affordable(speed, CANCELED) {
        return Fact::unknown(id, title, why);
    }
    if !asker.has_time() {
        return Fact::unknown(id, title, "not tried: the time was up").cure(MORE_TIME);
    }
    let ask = Ask::post(Lane::Native, "/api/chat", generate(model, &prompt(77, CANCELED), 2));
    // Long enough to begin, too short to end.
    let _ = tokio::time::timeout((usual * 2).max(Duration::from_millis(60)), asker.ask(ask)).await;
    let answer = asker.ask(Ask::post(Lane::Native, "/api/chat", generate(model, "Say hi.", 2))).await;
    let Some(first) = answer.first() else { return Fact::unknown(id, title, answer.words()) };
    let waited = first.saturating_sub(usual);
    let text = format!("another request waits {} longer", brief(waited));
    let fact = Fact::new(id, title, State::Good, text).with(waited.as_secs_f64());
    if waited > NOTABLE {
        return Fact { state: State::Limited, ..fact }
            .cure("a prompt that has begun is read to its end: shorter prompts, or OLLAMA_NUM_PARALLEL above 1");
    }
    fact
}

/// A prompt that does not fit is cut without a word.
pub(super) async fn overflow(asker: &Asker, model: &str, card: &Card, context: Option<u64>, speed: Speed) -> Fact {
    let (id, title) = ("trap.cut", "a prompt that does not fit");
    let Some(context) = context else {
        return Fact::unknown(id, title, "not tried: the context in force is not known");
    };
    if context > OVERFLOW {
        return Fact::unknown(id, title, format!("not tried: it takes more than {context} tokens"));
    }
    if card.context.is_some_and(|most| most < 512) {
        return Fact::unknown(id, title, "not tried: the model's context is very small");
    }
    let tokens = usize::try_from(context).unwrap_or(0) * 3 / 2;
    if let Err(why) = affordable(speed, tokens) {
        return Fact::unknown(id, title, why);
    }
    // In several messages, because one that does not fit at all is refused by some versions.
    let part = tokens / 6;
    let messages: Vec<_> = (0..6).map(|nth| json!({"role": "user", "content": prompt(nth, part)})).collect();
    let body = json!({"model": model, "stream": false, "options": {"num_predict": 1}, "messages": messages});
    let answer = asker.ask(Ask::post(Lane::Native, "/api/chat", body)).await;
    let read = answer.json()["prompt_eval_count"].as_u64();
    match (answer.is_ok(), read) {
        (true, Some(read)) if read <= context => {
            let text =
                format!("about {tokens} tokens in a context of {context}: {read} were read, the rest was cut silently");
            Fact::new(id, title, State::Limited, text)
                .with(read)
                .cure("a larger context (OLLAMA_CONTEXT_LENGTH); on /v1 farllama refuses such prompts, or grows the context (context.max)")
        }
        (true, _) => Fact::new(id, title, State::Good, "it was read whole"),
        (false, _) => Fact::new(id, title, State::Good, format!("it is refused: {}", answer.words())),
    }
}

/// `OLLAMA_MAX_QUEUE` refuses only requests that need another model loaded; those for a loaded model wait without a
/// bound (recorded with 0.33.0-rc2: queue). A few requests for a model that is not loaded, while others run on one that
/// is, show whether the queue is short.
pub(super) async fn queue(asker: &Asker, model: &str, other: Option<&str>, speed: Speed, is_cold: bool) -> Fact {
    let (id, title) = ("trap.queue", "more requests than the queue holds");
    let cure = "quota.max_concurrent in farllama's settings bounds what waits at the remote; OLLAMA_MAX_QUEUE (512 unless set) and \
                OLLAMA_MAX_LOADED_MODELS decide what is refused when another model is needed";
    let unknown = |why: &str| {
        let text = format!(
            "not tried: {why}. Known of all versions: only requests that need another model loaded are refused (503), and those for a \
             loaded one wait without a bound"
        );
        Fact::unknown(id, title, text).cure(cure)
    };
    let Some(other) = other.filter(|other| *other != model) else {
        return unknown("it needs a second model, such as one of embeddings");
    };
    if is_cold {
        let body = json!({"model": other, "keep_alive": 0, "input": ""});
        asker.ask(Ask::post(Lane::Native, "/api/embed", body)).await;
    }
    match loaded(asker, other).await {
        None => return unknown("the server does not show what is loaded"),
        Some(Some(_)) => return unknown(&format!("{other} is loaded already (--cold unloads it first)")),
        Some(None) => {}
    }
    if !asker.has_time() {
        return unknown("the time was up (--within 10m gives more)");
    }
    let running = (0..QUEUED).map(|nth| {
        let body = generate(model, &format!("{nth}. Count from one to forty in words."), 24);
        asker.ask(Ask::post(Lane::Native, "/api/chat", body))
    });
    let loading = async {
        // When the others have begun.
        let usual = speed.first.unwrap_or_default();
        tokio::time::sleep((usual * 4).max(Duration::from_millis(150))).await;
        let ask = |nth: usize| {
            let body = json!({"model": other, "input": format!("lighthouse {nth}")});
            asker.ask(Ask::post(Lane::Native, "/api/embed", body))
        };
        join_all((0..QUEUED).map(ask)).await
    };
    let (running, loading) = tokio::join!(join_all(running), loading);
    let refused = |answers: &[Answer]| answers.iter().filter(|answer| answer.status() == Some(503)).count();
    let (of_loaded, of_other) = (refused(&running), refused(&loading));
    if of_loaded == 0 && of_other == 0 {
        let text = format!(
            "{QUEUED} requests for {other}, which was not loaded, and {QUEUED} for {model} at the same time: none was refused, so the \
             queue is not shorter than that; requests for a loaded model wait without a bound"
        );
        return Fact::new(id, title, State::Good, text).with(0).cure(cure);
    }
    let text = format!(
        "{of_other} of {QUEUED} requests for {other}, which was not loaded, were refused (503), and {of_loaded} of {QUEUED} for {model}, \
         which was"
    );
    let failed = loading.into_iter().chain(running).find(|answer| answer.status() == Some(503));
    let fact = Fact::new(id, title, State::Limited, text).with(of_other + of_loaded).cure(cure);
    match failed {
        Some(failed) => failed.shows(fact),
        None => fact,
    }
}
