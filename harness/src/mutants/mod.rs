//! Self-proof: traffic that is broken in named ways, to see that scenarios notice.
//!
//! A scenario that no broken server can fail proves nothing. So a layer stands between client and proxy and breaks one
//! thing at a time; a few mutants are settings that the proxy should not have. [`matrix`] runs and judges.

mod answers;
mod documents;
mod frame;
mod frames;
mod layer;
pub mod matrix;
mod message;
mod requests;

use farllama::Config;
use serde_json::Value;

use frame::{Act, Frame, Tamper};
use layer::{Message, Touched};
use message::Head;

pub use layer::Layer;

/// One way to be wrong.
#[derive(Debug)]
pub struct Mutant {
    /// Its name, as in the tag `mutant:NAME`.
    pub name: &'static str,
    /// What it does, in words.
    pub what: &'static str,
    kind: Kind,
}

/// Where a mutant takes hold.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The proxy has other settings. Whether that is a change.
    Settings(fn(&mut Config) -> bool),
    /// The request is another one: the `nth` way to change it.
    Request(fn(&mut Message, usize)),
    /// An answer that is no stream is another one.
    Answer(fn(&mut Message)),
    /// Every JSON document of an answer, whole or streamed: with its number.
    Document(fn(&mut Value, usize)),
    /// The frames of a stream, the `nth` way.
    Frames(fn(usize) -> Tamper),
    /// The frames of a stream of one of these media types.
    Only(&'static [&'static str], fn() -> Tamper),
}

/// All mutants.
pub const MUTANTS: &[Mutant] = &[
    mutant("frame-dropped", "each frame of a stream in turn is dropped", Kind::Frames(frames::dropped)),
    mutant("frame-doubled", "each frame of a stream in turn comes twice", Kind::Frames(frames::doubled)),
    mutant("frames-swapped", "each frame of a stream in turn comes after the next one", Kind::Frames(frames::swapped)),
    mutant("event-split", "every event is written in two pieces", Kind::Only(EVENTS, frames::split)),
    mutant("crlf", "lines of an event stream end with CRLF", Kind::Only(EVENTS, frames::crlf)),
    mutant("comment-removed", "comments do not come", Kind::Only(EVENTS, frames::without_comments)),
    mutant("index-wrong", "choices and data are not numbered from 0", Kind::Document(documents::index_wrong)),
    mutant("index-changing", "a choice changes its number in mid-stream", Kind::Document(documents::index_changing)),
    mutant("id-wrong", "the id is of no known kind", Kind::Document(documents::id_wrong)),
    mutant("id-changing", "the id changes in mid-stream", Kind::Document(documents::id_changing)),
    mutant("created-wrong", "the time of creation is in milliseconds", Kind::Document(documents::created_wrong)),
    mutant(
        "created-changing",
        "the time of creation changes in mid-stream",
        Kind::Document(documents::created_changing),
    ),
    mutant("model-changing", "the model's name changes in mid-stream", Kind::Document(documents::model_changing)),
    mutant("role-wrong", "the model speaks as the user", Kind::Document(documents::role_wrong)),
    mutant("finish-wrong", "every choice is said to be filtered", Kind::Document(documents::finish_wrong)),
    mutant("finish-missing", "no choice finishes", Kind::Document(documents::finish_missing)),
    mutant("finish-twice", "a choice finishes twice", Kind::Only(EVENTS, frames::finish_twice)),
    mutant("usage-missing", "the usage chunk does not come", Kind::Only(EVENTS, frames::usage_missing)),
    mutant("usage-twice", "the usage chunk comes twice", Kind::Only(EVENTS, frames::usage_twice)),
    mutant("usage-early", "the usage chunk comes before the finish", Kind::Only(EVENTS, frames::usage_early)),
    mutant("usage-wrong", "the tokens do not add up", Kind::Document(documents::usage_wrong)),
    mutant("float-rewritten", "a native number is written anew", Kind::Only(LINES, frames::float_rewritten)),
    mutant("key-order", "the keys of a native line are in another order", Kind::Only(LINES, frames::key_order)),
    mutant(
        "status-swapped",
        "success is 202, a refusal is 500, a failure is 400",
        Kind::Answer(answers::status_swapped),
    ),
    mutant("error-bare", "an OpenAI error is a text and no object", Kind::Answer(answers::error_bare)),
    mutant(
        "early-end",
        "a stream ends after its second event, without an error",
        Kind::Only(EVENTS, frames::early_end),
    ),
    mutant("done-missing", "[DONE] does not come", Kind::Only(EVENTS, frames::done_missing)),
    mutant("done-twice", "[DONE] comes twice", Kind::Only(EVENTS, frames::done_twice)),
    mutant("done-after-error", "[DONE] comes after an error", Kind::Only(EVENTS, frames::done_after_error)),
    mutant("first-late", "the first event is held back for two seconds", Kind::Only(STREAMS, frames::first_late)),
    mutant("buffered", "a stream comes in one piece when it is over", Kind::Only(STREAMS, frames::buffered)),
    mutant("key-forwarded", "the caller's key reaches Ollama", Kind::Settings(key_forwarded)),
    mutant("one-more-admitted", "every limit lets one more through", Kind::Settings(one_more_admitted)),
    mutant("stream-ignored", "`stream` is ignored", Kind::Request(requests::stream_ignored)),
    mutant("option-dropped", "each option of a request in turn is ignored", Kind::Request(requests::option_dropped)),
    mutant(
        "arguments-object",
        "the arguments of a tool call are an object",
        Kind::Document(documents::arguments_object),
    ),
    mutant("base64-big-endian", "vectors in base64 are big-endian", Kind::Document(documents::base64_big_endian)),
    mutant("embeddings-swapped", "two vectors have changed places", Kind::Document(documents::embeddings_swapped)),
    mutant("retry-after-missing", "a 429 does not say when to come again", Kind::Answer(answers::retry_after_missing)),
    mutant("length-lies", "content-length promises more than comes", Kind::Answer(answers::length_lies)),
    mutant("gzip-unasked", "an answer is compressed that nobody wanted so", Kind::Answer(answers::gzip_unasked)),
];

const EVENTS: &[&str] = &["text/event-stream"];
const LINES: &[&str] = &["application/x-ndjson"];
const STREAMS: &[&str] = &["text/event-stream", "application/x-ndjson"];

impl Mutant {
    /// Whether there are several ways of it, counted from 0, until one changes nothing.
    #[must_use]
    pub fn in_turn(&self) -> bool {
        matches!(self.kind, Kind::Request(_) | Kind::Frames(_))
    }
}

const fn mutant(name: &'static str, what: &'static str, kind: Kind) -> Mutant {
    Mutant { name, what, kind }
}

/// The mutant of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Mutant> {
    MUTANTS.iter().find(|mutant| mutant.name == name)
}

/// A mutant at work on one scenario, or none at all: the control.
#[derive(Clone, Debug, Default)]
pub struct Mutation {
    mutant: Option<&'static Mutant>,
    /// Which frame or option, of those mutants that take each in turn.
    nth: usize,
    touched: Touched,
}

impl Mutation {
    /// The `nth` way of this mutant.
    #[must_use]
    pub fn of(mutant: &'static Mutant, nth: usize) -> Self {
        Self { mutant: Some(mutant), nth, touched: Touched::default() }
    }

    /// Whether the traffic has been changed.
    #[must_use]
    pub fn touched(&self) -> bool {
        self.touched.get()
    }

    /// Changes the proxy's settings.
    pub fn settings(&self, config: &mut Config) {
        if let Some(Kind::Settings(change)) = self.kind()
            && change(config)
        {
            self.touch();
        }
    }

    fn kind(&self) -> Option<Kind> {
        self.mutant.map(|mutant| mutant.kind)
    }

    fn touch(&self) {
        self.touched.set();
    }

    fn request(&self, mut request: Message) -> Message {
        if let Some(Kind::Request(change)) = self.kind() {
            let before = request.clone();
            change(&mut request, self.nth);
            if request != before {
                self.touch();
            }
        }
        request
    }

    fn answer(&self, mut answer: Message) -> Message {
        let before = answer.clone();
        match self.kind() {
            Some(Kind::Answer(change)) => change(&mut answer),
            Some(Kind::Document(change)) => {
                if let Ok(document) = serde_json::from_slice::<Value>(&answer.body) {
                    let mut changed = document.clone();
                    change(&mut changed, 0);
                    if changed != document {
                        answer.body = changed.to_string().into_bytes();
                    }
                }
            }
            _ => {}
        }
        if answer != before {
            self.touch();
        }
        answer
    }

    /// The head of a stream.
    fn head(&self, head: Head) -> Head {
        match self.kind() {
            Some(Kind::Answer(_)) => self.answer(Message { head, body: Vec::new() }).head,
            _ => head,
        }
    }

    /// What is done with a stream of this media type.
    fn tamper(&self, media_type: &str) -> Option<Tamper> {
        match self.kind()? {
            Kind::Frames(tamper) => Some(tamper(self.nth)),
            Kind::Only(only, tamper) => only.contains(&media_type).then(tamper),
            Kind::Document(change) => Some(each_document(change)),
            _ => None,
        }
    }
}

/// Changes the documents of a stream.
fn each_document(change: fn(&mut Value, usize)) -> Tamper {
    let mut nth = 0;
    Box::new(move |frame| {
        let Some(frame) = frame else { return Vec::new() };
        let Some(document) = frame.document() else { return vec![Act::Write(frame.0)] };
        let mut changed = document.clone();
        change(&mut changed, nth);
        nth += 1;
        let Frame(bytes) = if changed == document { frame } else { frame.with(&changed) };
        vec![Act::Write(bytes)]
    })
}

fn key_forwarded(config: &mut Config) -> bool {
    !std::mem::replace(&mut config.remote.forward_auth, true)
}

fn one_more_admitted(config: &mut Config) -> bool {
    let tokens = config.auth.tokens.iter_mut();
    let limits = tokens.flat_map(|token| [&mut token.limit_per_minute, &mut token.max_concurrent]).flatten();
    let all = Some(&mut config.quota.max_concurrent).filter(|all| **all > 0);
    limits.chain(all).map(|limit| *limit += 1).count() > 0
}
