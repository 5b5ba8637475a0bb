//! One mutant at work on one scenario: what it does with what passes, and what it has seen.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use farllama::{
    Config,
    config::{Auth, Quota},
};
use serde_json::Value;

use super::{
    Field,
    frame::{Act, Frame, Tamper},
    library::{Kind, Mutant},
    message::{Head, Message},
    requests,
};

/// A mutant at work on one scenario, or none at all: the control. Cheap to clone; clones share what they have seen.
#[derive(Clone, Debug, Default)]
pub struct Mutation {
    action: Action,
    seen: Arc<Seen>,
}

#[derive(Clone, Debug, Default)]
enum Action {
    #[default]
    Nothing,
    /// The `nth` way of a mutant.
    Mutant(&'static Mutant, usize),
    /// A field of requests is dropped.
    Without(Field),
}

/// What a scenario's exchanges have that a mutant can change.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// The fields of OpenAI's that were sent.
    pub fields: BTreeSet<Field>,
    /// The media types of the streams that came.
    pub streams: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Whether the traffic has been changed.
    touched: AtomicBool,
    /// Whether a request has been let through.
    admitted: AtomicBool,
    traffic: Mutex<Traffic>,
    /// The headers with the caller's keys, of the last request that had any.
    keys: Mutex<Vec<(String, String)>>,
}

impl Mutation {
    /// The `nth` way of this mutant.
    #[must_use]
    pub fn of(mutant: &'static Mutant, nth: usize) -> Self {
        Self { action: Action::Mutant(mutant, nth), seen: Arc::default() }
    }

    /// This field never reaches the proxy.
    #[must_use]
    pub fn without(field: Field) -> Self {
        Self { action: Action::Without(field), seen: Arc::default() }
    }

    /// Whether the traffic has been changed.
    #[must_use]
    pub fn touched(&self) -> bool {
        self.seen.touched.load(Ordering::SeqCst)
    }

    /// What has passed.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.passed().clone()
    }

    fn passed(&self) -> MutexGuard<'_, Traffic> {
        self.seen.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings of a proxy whose gate is open, if this mutant needs one: there a request is answered that should
    /// have been refused.
    #[must_use]
    pub fn past_the_gate(&self, config: &Config) -> Option<Config> {
        let open = || Config { auth: Auth::default(), quota: Quota::default(), ..config.clone() };
        matches!(self.kind()?, Kind::OneMore | Kind::GateOpen).then(open)
    }

    /// Whether the request with this answer is let through in spite of it. That a server miscounts by one shows in one
    /// request, so of those beyond a limit it is one in all.
    pub(super) fn admits(&self, refusal: &Head) -> bool {
        match (self.kind(), refusal.status()) {
            (Some(Kind::OneMore), 429) => !self.seen.admitted.swap(true, Ordering::SeqCst),
            (Some(Kind::GateOpen), 401 | 403) => true,
            _ => false,
        }
    }

    /// Whether Ollama goes on when the client has left.
    pub(super) fn outlives(&self) -> bool {
        matches!(self.kind(), Some(Kind::Outlived))
    }

    /// Whether an answer that breaks off ends as if it were whole.
    pub(super) fn hides_cuts(&self) -> bool {
        matches!(self.kind(), Some(Kind::CutHidden))
    }

    pub(super) fn touch(&self) {
        self.seen.touched.store(true, Ordering::SeqCst);
    }

    fn kind(&self) -> Option<Kind> {
        if let Action::Mutant(mutant, _) = self.action { Some(mutant.kind) } else { None }
    }

    /// What becomes of a client's request.
    pub(super) fn request(&self, mut request: Message) -> Message {
        let before = request.clone();
        self.note(&request);
        match &self.action {
            Action::Mutant(Mutant { kind: Kind::Request(change), .. }, nth) => change(&mut request, *nth),
            Action::Without(field) if field.is_at(&request.head) => requests::drop_field(&mut request, &field.name),
            _ => {}
        }
        if request != before {
            self.touch();
        }
        request
    }

    fn note(&self, request: &Message) {
        let fields = requests::fields(request).into_iter().map(|name| Field::of(&request.head, name));
        self.passed().fields.extend(fields);
        let is_key = |name: &str| name == "authorization" || name.ends_with("-key");
        let keys = request.head.headers.iter().filter(|(name, _)| is_key(&name.to_ascii_lowercase()));
        let keys: Vec<_> = keys.cloned().collect();
        if !keys.is_empty() {
            *self.seen.keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        }
    }

    /// What becomes of the proxy's request on its way to Ollama.
    pub(super) fn upstream(&self, mut request: Message) -> Message {
        let before = request.clone();
        match &self.action {
            Action::Mutant(Mutant { kind: Kind::CallersKey, .. }, _) => {
                let keys = self.seen.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
                keys.into_iter().for_each(|(name, value)| request.head.set(&name, value));
            }
            Action::Mutant(Mutant { kind: Kind::Upstream(change), .. }, nth) => change(&mut request, *nth),
            _ => {}
        }
        if request != before {
            self.touch();
        }
        request
    }

    /// What becomes of an answer that is no stream.
    pub(super) fn answer(&self, request: &Head, mut answer: Message) -> Message {
        let Action::Mutant(mutant, nth) = self.action else { return answer };
        let before = answer.clone();
        match mutant.kind {
            Kind::Answer(change) => change(&mut answer),
            Kind::Answers(change) => change(&mut answer, nth),
            Kind::Document(change) => {
                if let Ok(document) = serde_json::from_slice::<Value>(&answer.body) {
                    let mut changed = document.clone();
                    change(&mut changed, 0);
                    if changed != document {
                        answer.body = changed.to_string().into_bytes();
                    }
                }
            }
            Kind::Native(change) if request.is_native() => answer.body = change(Frame(answer.body)).0,
            _ => {}
        }
        if answer != before {
            self.touch();
        }
        answer
    }

    /// The head of a stream.
    pub(super) fn head(&self, request: &Head, head: Head) -> Head {
        match self.kind() {
            Some(Kind::Answer(_) | Kind::Answers(_)) => self.answer(request, Message { head, body: Vec::new() }).head,
            _ => head,
        }
    }

    /// What is done with a stream of this media type.
    pub(super) fn tamper(&self, request: &Head, media_type: &str) -> Option<Tamper> {
        self.passed().streams.insert(media_type.to_owned());
        let Action::Mutant(mutant, nth) = self.action else { return None };
        match mutant.kind {
            Kind::Frames(tamper) => Some(tamper(nth)),
            Kind::Only(only, tamper) => only.contains(&media_type).then(tamper),
            Kind::Document(change) => Some(each_document(change)),
            Kind::Native(change) => request.is_native().then(|| each_frame(change)),
            _ => None,
        }
    }
}

fn each_frame(change: fn(Frame) -> Frame) -> Tamper {
    Box::new(move |frame| frame.into_iter().map(|frame| Act::Write(change(frame).0)).collect())
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
