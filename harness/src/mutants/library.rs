//! The mutants, by name: what each does, and where it takes hold.

use serde_json::Value;

use super::{
    action::Traffic,
    answers, documents, events,
    frame::{Frame, Tamper},
    frames,
    message::Message,
    messages, requests,
};

/// One way to be wrong.
#[derive(Debug)]
pub struct Mutant {
    /// Its name, as in the tag `mutant:NAME`.
    pub name: &'static str,
    /// What it does, in words.
    pub what: &'static str,
    pub(super) kind: Kind,
    /// It breaks almost every answer: who notices no other proves little.
    pub(crate) blunt: bool,
}

/// Where a mutant takes hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// What Ollama is asked with holds the caller's key.
    CallersKey,
    /// One request beyond a limit is let through.
    OneMore,
    /// Requests that are rejected for their key are admitted.
    GateOpen,
    /// Ollama goes on when the client has left.
    Outlived,
    /// An answer that breaks off ends as if it were whole.
    CutHidden,
    /// The request is another one: the `nth` way to change it.
    Request(fn(&mut Message, usize)),
    /// What Ollama is asked with is another: the `nth` way to change it.
    Upstream(fn(&mut Message, usize)),
    /// An answer that is no stream, or a stream's head, is another one: the `nth` way to change it.
    Answers(fn(&mut Message, usize)),
    /// As before, in one way.
    Answer(fn(&mut Message)),
    /// Every JSON document of an answer, whole or streamed: with its number.
    Document(fn(&mut Value, usize)),
    /// A document of Ollama's native API, whole or a line.
    Native(fn(Frame) -> Frame),
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
    mutant("heartbeat-removed", "heartbeats do not come", Kind::Only(EVENTS, frames::without_heartbeats)),
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
    mutant("role-wrong", "the model answers in the role user", Kind::Document(documents::role_wrong)),
    mutant("role-changing", "the speaker changes in mid-stream", Kind::Document(documents::role_changing)),
    mutant("finish-wrong", "every choice is said to be filtered", Kind::Document(documents::finish_wrong)),
    mutant("finish-missing", "no choice finishes", Kind::Document(documents::finish_missing)),
    mutant("finish-twice", "a choice finishes twice", Kind::Only(EVENTS, frames::finish_twice)),
    mutant("usage-missing", "the usage chunk does not come", Kind::Only(EVENTS, frames::usage_missing)),
    mutant("usage-twice", "the usage chunk comes twice", Kind::Only(EVENTS, frames::usage_twice)),
    mutant("usage-early", "the usage chunk comes before the finish", Kind::Only(EVENTS, frames::usage_early)),
    mutant("usage-wrong", "the tokens do not add up", Kind::Document(documents::usage_wrong)),
    mutant("float-rewritten", "a native number is written anew", Kind::Native(frames::float_rewritten)),
    mutant("key-order", "the keys of a native answer are in another order", Kind::Native(frames::key_order)),
    blunt(
        "status-swapped",
        "success is 202, a refusal is 500, a failure is 400",
        Kind::Answer(answers::status_swapped),
    ),
    mutant("error-bare", "an OpenAI error is a text and no object", Kind::Document(documents::error_bare)),
    mutant(
        "early-end",
        "a stream ends after its second event, without an error",
        Kind::Only(EVENTS, frames::early_end),
    ),
    mutant("done-missing", "[DONE] does not come", Kind::Only(EVENTS, frames::done_missing)),
    mutant("done-twice", "[DONE] comes twice", Kind::Only(EVENTS, frames::done_twice)),
    mutant("done-after-error", "[DONE] comes after an error", Kind::Only(EVENTS, frames::done_after_error)),
    mutant("chunk-after-error", "a chunk comes after an error", Kind::Only(EVENTS, frames::chunk_after_error)),
    mutant(
        "stream-error-swapped",
        "an error within a stream is said to be the client's",
        Kind::Document(documents::stream_error_swapped),
    ),
    mutant("first-late", "the first event is held back for two seconds", Kind::Only(STREAMS, frames::first_late)),
    mutant("buffered", "a stream comes in one piece when it is over", Kind::Only(STREAMS, frames::buffered)),
    mutant("key-forwarded", "the caller's key reaches Ollama", Kind::CallersKey),
    mutant("one-more-admitted", "one request beyond a limit is let through", Kind::OneMore),
    mutant("gate-open", "requests that are refused for their key are let through", Kind::GateOpen),
    mutant("client-outlived", "Ollama goes on when the client has left", Kind::Outlived),
    mutant("cut-hidden", "an answer that breaks off ends as if it were whole", Kind::CutHidden),
    mutant(
        "ask-dropped",
        "each field of what Ollama is asked with in turn is dropped",
        Kind::Upstream(requests::native_dropped),
    ),
    mutant(
        "ask-head-dropped",
        "the query and each header of what Ollama is asked with in turn is dropped",
        Kind::Upstream(requests::head_dropped),
    ),
    mutant("header-dropped", "each header of an answer in turn is dropped", Kind::Answers(answers::header_dropped)),
    mutant("value-changed", "each value in a JSON answer in turn is another", Kind::Answers(answers::value_changed)),
    mutant("stream-ignored", "`stream` is ignored", Kind::Request(requests::stream_ignored)),
    mutant("strict-ignored", "`strict` of a tool is ignored", Kind::Request(requests::strict_ignored)),
    mutant("option-dropped", "each option of a request in turn is ignored", Kind::Request(requests::option_dropped)),
    mutant(
        "arguments-object",
        "the arguments of a tool call are an object",
        Kind::Document(documents::arguments_object),
    ),
    mutant("base64-big-endian", "vectors in base64 are big-endian", Kind::Document(documents::base64_big_endian)),
    mutant("embeddings-swapped", "two vectors have changed places", Kind::Document(documents::embeddings_swapped)),
    mutant("number-gap", "an event's number is left out", Kind::Document(events::number_gap)),
    mutant("number-twice", "two events have the same number", Kind::Document(events::number_twice)),
    mutant("event-misnamed", "the name of an event is not its type", Kind::Only(EVENTS, events::misnamed)),
    mutant("created-missing", "response.created does not come", Kind::Only(EVENTS, events::created_missing)),
    mutant("end-missing", "the last event of a response does not come", Kind::Only(EVENTS, events::end_missing)),
    mutant("end-twice", "the last event of a response comes twice", Kind::Only(EVENTS, events::end_twice)),
    mutant("output-wrong", "the end of a response lacks an item of its output", Kind::Document(events::output_wrong)),
    mutant("response-usage-missing", "a response has no usage", Kind::Document(events::usage_missing)),
    mutant("response-status-wrong", "a response that has ended is in progress", Kind::Document(events::status_wrong)),
    mutant(
        "incomplete-hidden",
        "a streamed response that is incomplete says that it is complete",
        Kind::Only(EVENTS, events::incomplete_hidden),
    ),
    mutant("delta-missing", "a piece of a response's text does not come", Kind::Only(EVENTS, events::delta_missing)),
    mutant("delta-changed", "the pieces of a text are not those of the whole", Kind::Document(events::delta_changed)),
    mutant(
        "output-index-wrong",
        "the items of a response are not numbered from 0",
        Kind::Document(events::output_index_wrong),
    ),
    mutant(
        "content-index-wrong",
        "the parts of an item are not numbered from 0",
        Kind::Document(events::content_index_wrong),
    ),
    mutant("item-id-wrong", "events name an item that is not there", Kind::Document(events::item_id_wrong)),
    mutant("message-end-missing", "message_stop does not come", Kind::Only(EVENTS, messages::end_missing)),
    mutant(
        "message-error-hidden",
        "an error within a message becomes its end",
        Kind::Only(EVENTS, messages::error_hidden),
    ),
    mutant("signature-missing", "thoughts have no signature", Kind::Only(EVENTS, messages::signature_missing)),
    mutant("ping-missing", "pings do not come", Kind::Only(EVENTS, messages::ping_missing)),
    mutant("stop-reason-wrong", "a message ends for another reason", Kind::Document(messages::stop_reason_wrong)),
    mutant(
        "stop-sequence-missing",
        "a message does not name its stop sequence",
        Kind::Document(messages::stop_sequence_missing),
    ),
    mutant("message-usage-wrong", "a message has another usage", Kind::Document(messages::usage_wrong)),
    mutant(
        "block-index-wrong",
        "the blocks of a message are not numbered from 0",
        Kind::Document(messages::block_index_wrong),
    ),
    mutant("input-cut", "the input of a streamed call lacks its end", Kind::Document(messages::input_cut)),
    mutant("retry-after-missing", "a 429 does not say when to come again", Kind::Answer(answers::retry_after_missing)),
    blunt("length-lies", "content-length promises more than comes", Kind::Answer(answers::length_lies)),
    blunt(
        "gzip-unasked",
        "a response is compressed although the client did not ask",
        Kind::Answer(answers::gzip_unasked),
    ),
];

const EVENTS: &[&str] = &["text/event-stream"];
const STREAMS: &[&str] = &["text/event-stream", "application/x-ndjson"];

impl Mutant {
    /// Whether there are several ways of it, counted from 0, until one changes nothing.
    #[must_use]
    pub fn in_turn(&self) -> bool {
        matches!(self.kind, Kind::Request(_) | Kind::Upstream(_) | Kind::Answers(_) | Kind::Frames(_))
    }

    /// Whether it can change anything of this traffic.
    pub(crate) fn reaches(&self, traffic: &Traffic) -> bool {
        match self.kind {
            Kind::Frames(_) => !traffic.streams.is_empty(),
            Kind::Only(only, _) => only.iter().any(|media_type| traffic.streams.contains(*media_type)),
            _ => true,
        }
    }
}

const fn mutant(name: &'static str, what: &'static str, kind: Kind) -> Mutant {
    Mutant { name, what, kind, blunt: false }
}

const fn blunt(name: &'static str, what: &'static str, kind: Kind) -> Mutant {
    Mutant { blunt: true, ..mutant(name, what, kind) }
}

/// The mutant of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Mutant> {
    MUTANTS.iter().find(|mutant| mutant.name == name)
}
