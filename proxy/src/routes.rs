//! The table of routes: everything that the proxy knows of a path, in one row. Router, error dialect, gate, `explain`,
//! `docs/parameters.md`, the log's label and `cargo xtask tidy` read it. A new endpoint is one row here and one folder
//! under `openai/`.

use std::{borrow::Cow, convert::Infallible, future::Future, ops::Range, pin::Pin};

use axum::{
    extract::{FromRequestParts, Request},
    handler::Handler as _,
    response::Response,
};
use http::{Method, request::Parts};

use crate::{
    anthropic,
    app::App,
    bridge,
    config::Config,
    error::{Dialect, Error},
    gate::paths,
    openai::{
        audio, batches, chat, completions, conversations, embeddings, files, images, models, moderations,
        request::parameters::Endpoint, responses,
    },
    text,
};

/// Which requests a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// `GET`, and `HEAD` with it.
    Get,
    Post,
    Delete,
    /// Every method: the remote or the handler decides.
    Any,
}

impl Verb {
    pub(crate) fn allows(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Post => method == Method::POST,
            Self::Delete => method == Method::DELETE,
            Self::Any => true,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Any => "",
        }
    }
}

/// Where a route has the names of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// In these fields of a JSON body.
    Body(&'static [&'static str]),
    /// In these fields of a JSON body that defines a model, and may bring weights that have no name.
    Definition(&'static [&'static str]),
    /// In the field `model` of a form, or of a JSON body that has a form's names.
    Form,
    /// In the path: its parameter.
    Path,
    /// It is about weights, which may be any model's.
    Weights,
    /// Nowhere in the request: the answer is a list, under this field, with names under these.
    Listed(&'static str, &'static [&'static str]),
    /// Nowhere, and nothing to hide. Who may see a stored response is decided by its own routes.
    Nowhere,
}

/// The header that every client of Anthropic's API sends.
const ANTHROPIC_VERSION: &str = "anthropic-version";

/// Who answers.
#[derive(Clone, Copy)]
pub(crate) enum Lane {
    /// farllama translates: this handler.
    Translated(Handler),
    /// The remote: the bytes pass through.
    Native,
}

/// A translated route's handler. Its future is boxed, so that native requests do not carry the room for it.
pub(crate) type Handler = fn(Request, App) -> Pin<Box<dyn Future<Output = Response> + Send>>;

/// One route.
pub(crate) struct Row {
    pub(crate) verb: Verb,
    /// `{base}` is `openai.base_path`, `{id}` one segment, `{*id}` all that is left. A second segment may end the path.
    pub(crate) path: &'static str,
    /// Its short name: the log's label, and what `farllama explain --endpoint` takes.
    pub(crate) name: &'static str,
    /// The key of its request fields, where it has fields of OpenAI's.
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) lane: Lane,
    pub(crate) names: Names,
    /// Whether it changes which models the remote has. Names mean the remote's own models there, never aliases.
    pub(crate) management: bool,
    /// Whose API it is, where it is not OpenAI's or Ollama's.
    pub(crate) api: Option<Dialect>,
    /// The handler for clients of Anthropic's API, where theirs has a route of the same path.
    anthropic: Option<Handler>,
    /// Whether it opens a WebSocket.
    socket: bool,
    /// The handler of a native route where the remote is an OpenAI server. Translated routes pass through there, unless
    /// this is their own.
    bridged: Option<Handler>,
    /// The path below the API's root that an OpenAI server has if it answers this route itself: then the route passes
    /// through.
    theirs: Option<&'static str>,
    /// What it is for, in a few words.
    pub(crate) summary: &'static str,
    pattern: Pattern,
}

/// A path in three parts, so that most rows are compared in one step.
#[derive(Clone, Copy)]
struct Pattern {
    based: bool,
    before: &'static str,
    parameter: Parameter,
    after: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Parameter {
    None,
    Segment,
    /// Two segments with [`Pattern::after`] between them, where the path ends with the second.
    Pair,
    Rest,
}

const MODEL: Names = Names::Body(&["model"]);
/// Older clients of Ollama say `name`.
const NAMED: Names = Names::Body(&["model", "name"]);
use Names::{Form, Listed, Nowhere};
use Verb::{Any, Delete, Get, Post};

macro_rules! handler {
    ($handler:path) => {
        |request, app| $handler.call(request, app)
    };
}

/// Every route. Of those that fit a path, the first counts. Endpoints stand in the order in which `explain` tries a
/// body.
pub(crate) const TABLE: &[Row] = &[
    row(Post, "{base}/chat/completions", "chat", MODEL, "One answer of a conversation, streamed or whole.")
        .handler(handler!(chat::create))
        .fields(Endpoint::Chat),
    row(Get, "{base}/chat/completions", "chat", Nowhere, "The stored chats.").handler(handler!(chat::list)),
    row(Get, "{base}/chat/completions/{id}", "chat/{id}", Nowhere, "A stored chat.").handler(handler!(chat::retrieve)),
    row(Post, "{base}/chat/completions/{id}", "chat/{id}", Nowhere, "Changes the metadata of a stored chat.")
        .handler(handler!(chat::update)),
    row(Delete, "{base}/chat/completions/{id}", "chat/{id}", Nowhere, "Deletes a stored chat.")
        .handler(handler!(chat::delete)),
    row(Get, "{base}/chat/completions/{id}/messages", "chat/{id}/messages", Nowhere, "What a stored chat was asked.")
        .handler(handler!(chat::messages)),
    row(Post, "{base}/completions", "completions", MODEL, "The continuation of a prompt.")
        .handler(handler!(completions::create))
        .fields(Endpoint::Completions),
    row(Post, "{base}/embeddings", "embeddings", MODEL, "The vectors of texts.")
        .handler(handler!(embeddings::create))
        .fields(Endpoint::Embeddings),
    row(Post, "{base}/responses", "responses", MODEL, "One response, streamed or whole.")
        .handler(handler!(responses::create))
        .of_a_chat()
        .unless_at("/responses")
        .fields(Endpoint::Responses),
    row(Get, "{base}/responses", "responses", MODEL, "A WebSocket for one response after the other.")
        .handler(handler!(responses::connect))
        .of_a_chat()
        .socket(),
    row(Post, "{base}/moderations", "moderations", MODEL, "The verdict of a guard model.")
        .handler(handler!(moderations::create))
        .fields(Endpoint::Moderations),
    row(Post, "{base}/images/generations", "images", MODEL, "Images, where the remote's version makes them.")
        .handler(handler!(images::create))
        .fields(Endpoint::Images),
    row(Post, "{base}/audio/transcriptions", "transcriptions", Form, "The transcript of a recording.")
        .handler(handler!(audio::transcribe))
        .fields(Endpoint::Transcriptions),
    row(Post, "{base}/audio/translations", "translations", Form, "The English translation of a recording.")
        .handler(handler!(audio::translate))
        .fields(Endpoint::Translations),
    row(Post, "{base}/audio/speech", "speech", MODEL, "Always rejected: Ollama has no text-to-speech models.")
        .handler(handler!(audio::speech)),
    row(Post, "{base}/responses/compact", "responses/compact", MODEL, "A conversation, summarized into one item.")
        .handler(handler!(responses::compact))
        .of_a_chat()
        .unless_at("/responses/compact"),
    row(Post, "{base}/responses/input_tokens", "responses/input_tokens", MODEL, "The length of a prompt in tokens.")
        .handler(handler!(responses::input_tokens))
        .of_a_chat()
        .unless_at("/responses/input_tokens"),
    row(Get, "{base}/responses/{id}", "responses/{id}", Nowhere, "A stored response, whole or as its events.")
        .handler(handler!(responses::retrieve))
        .of_a_chat()
        .unless_at("/responses"),
    row(Delete, "{base}/responses/{id}", "responses/{id}", Nowhere, "Deletes a stored response.")
        .handler(handler!(responses::delete))
        .of_a_chat()
        .unless_at("/responses"),
    row(Post, "{base}/responses/{id}/cancel", "responses/{id}/cancel", Nowhere, "Cancels one in the background.")
        .handler(handler!(responses::cancel))
        .of_a_chat()
        .unless_at("/responses"),
    row(Get, "{base}/responses/{id}/input_items", "responses/{id}/input_items", Nowhere, "What it was asked.")
        .handler(handler!(responses::input_items))
        .of_a_chat()
        .unless_at("/responses"),
    row(Post, "{base}/conversations", "conversations", Nowhere, "Creates a conversation.")
        .handler(handler!(conversations::create))
        .of_a_chat()
        .unless_at("/responses"),
    row(Get, "{base}/conversations/{id}", "conversations/{id}", Nowhere, "A conversation.")
        .handler(handler!(conversations::retrieve))
        .of_a_chat()
        .unless_at("/responses"),
    row(Post, "{base}/conversations/{id}", "conversations/{id}", Nowhere, "Changes the metadata of a conversation.")
        .handler(handler!(conversations::update))
        .of_a_chat()
        .unless_at("/responses"),
    row(Delete, "{base}/conversations/{id}", "conversations/{id}", Nowhere, "Deletes a conversation.")
        .handler(handler!(conversations::delete))
        .of_a_chat()
        .unless_at("/responses"),
    row(Get, "{base}/conversations/{id}/items", "conversations/{id}/items", Nowhere, "The items of a conversation.")
        .handler(handler!(conversations::list_items))
        .of_a_chat()
        .unless_at("/responses"),
    row(Post, "{base}/conversations/{id}/items", "conversations/{id}/items", Nowhere, "Adds items to a conversation.")
        .handler(handler!(conversations::add_items))
        .of_a_chat()
        .unless_at("/responses"),
    row(Get, "{base}/conversations/{id}/items/{item}", "conversations/{id}/items/{item}", Nowhere, "One item.")
        .handler(handler!(conversations::retrieve_item))
        .of_a_chat()
        .unless_at("/responses"),
    row(
        Delete,
        "{base}/conversations/{id}/items/{item}",
        "conversations/{id}/items/{item}",
        Nowhere,
        "Deletes an item.",
    )
    .handler(handler!(conversations::delete_item))
    .of_a_chat()
    .unless_at("/responses"),
    row(Get, "{base}/models", "models", Listed("data", &["id"]), "The models of the remote.")
        .handler(handler!(models::list))
        .anthropic(handler!(anthropic::models::list)),
    row(Get, "{base}/models/{*id}", "models/{id}", Names::Path, "One model.")
        .handler(handler!(models::retrieve))
        .anthropic(handler!(anthropic::models::retrieve)),
    row(Post, "{base}/messages", "messages", MODEL, "Anthropic's API: one message of a model, streamed or whole.")
        .handler(handler!(anthropic::create))
        .of_a_chat()
        .unless_at("/messages")
        .fields(Endpoint::Messages)
        .api(Dialect::Anthropic),
    row(Post, "{base}/messages/count_tokens", "messages/count_tokens", MODEL, "The estimated length of a prompt.")
        .handler(handler!(anthropic::count_tokens))
        .of_a_chat()
        .unless_at("/messages/count_tokens")
        .api(Dialect::Anthropic),
    row(Any, "{base}/messages/batches", "messages/batches", Nowhere, "Always refused: nothing runs in batches.")
        .handler(handler!(anthropic::refuse_batches))
        .of_a_chat()
        .unless_at("/messages")
        .api(Dialect::Anthropic),
    row(Any, "{base}/messages/batches/{*id}", "messages/batches/{id}", Nowhere, "Always refused.")
        .handler(handler!(anthropic::refuse_batches))
        .of_a_chat()
        .unless_at("/messages")
        .api(Dialect::Anthropic),
    row(Post, "{base}/files", "files", Nowhere, "Stores a file.")
        .handler(handler!(files::create))
        .anthropic(handler!(files::refuse)),
    row(Get, "{base}/files", "files", Nowhere, "The stored files.")
        .handler(handler!(files::list))
        .anthropic(handler!(files::refuse)),
    row(Get, "{base}/files/{id}", "files/{id}", Nowhere, "A stored file.")
        .handler(handler!(files::retrieve))
        .anthropic(handler!(files::refuse)),
    row(Delete, "{base}/files/{id}", "files/{id}", Nowhere, "Deletes a stored file.")
        .handler(handler!(files::delete))
        .anthropic(handler!(files::refuse)),
    row(Get, "{base}/files/{id}/content", "files/{id}/content", Nowhere, "The content of a stored file.")
        .handler(handler!(files::content))
        .anthropic(handler!(files::refuse)),
    row(Post, "{base}/batches", "batches", Nowhere, "Starts a batch of requests.").handler(handler!(batches::create)),
    row(Get, "{base}/batches", "batches", Nowhere, "The batches.").handler(handler!(batches::list)),
    row(Get, "{base}/batches/{id}", "batches/{id}", Nowhere, "A batch.").handler(handler!(batches::retrieve)),
    row(Post, "{base}/batches/{id}/cancel", "batches/{id}/cancel", Nowhere, "Cancels a batch.")
        .handler(handler!(batches::cancel)),
    // Known for their models' names only.
    row(Any, "{base}/images/edits", "images/edits", MODEL, "Ollama's own."),
    row(Any, "/", "root", Nowhere, "Whether Ollama is running.").bridged(handler!(bridge::root)),
    row(Any, "/api/version", "api/version", Nowhere, "The remote's version.").bridged(handler!(bridge::version)),
    row(Any, "/api/chat", "api/chat", MODEL, "Ollama's chat.").bridged(handler!(bridge::chat)),
    row(Any, "/api/generate", "api/generate", MODEL, "Ollama's completion.").bridged(handler!(bridge::generate)),
    row(Any, "/api/embed", "api/embed", MODEL, "Ollama's embeddings.").bridged(handler!(bridge::embed)),
    row(Any, "/api/embeddings", "api/embeddings", MODEL, "Ollama's older embeddings.")
        .bridged(handler!(bridge::embeddings)),
    row(Any, "/api/show", "api/show", NAMED, "What a model is.").bridged(handler!(bridge::show)),
    row(Any, "/api/delete", "api/delete", NAMED, "Deletes a model.").management().bridged(handler!(bridge::refuse)),
    row(Any, "/api/pull", "api/pull", NAMED, "Fetches a model from a registry.")
        .management()
        .bridged(handler!(bridge::pull)),
    row(Any, "/api/push", "api/push", NAMED, "Sends a model to a registry.")
        .management()
        .bridged(handler!(bridge::refuse)),
    row(Any, "/api/create", "api/create", Names::Definition(&["model", "name", "from"]), "Makes a model.")
        .management()
        .bridged(handler!(bridge::refuse)),
    row(Any, "/api/copy", "api/copy", Names::Body(&["source", "destination"]), "Copies a model.")
        .management()
        .bridged(handler!(bridge::refuse)),
    row(Any, "/api/tags", "api/tags", Listed("models", &["name", "model"]), "The models of the remote.")
        .bridged(handler!(bridge::tags)),
    row(Any, "/api/ps", "api/ps", Listed("models", &["name", "model"]), "The models that are loaded.")
        .bridged(handler!(bridge::ps)),
    row(Any, "/api/blobs/{*digest}", "api/blobs", Names::Weights, "The files of models.")
        .management()
        .bridged(handler!(bridge::refuse)),
];

/// A row of the native lane.
const fn row(verb: Verb, path: &'static str, name: &'static str, names: Names, summary: &'static str) -> Row {
    Row {
        verb,
        path,
        name,
        endpoint: None,
        lane: Lane::Native,
        names,
        management: false,
        api: None,
        anthropic: None,
        socket: false,
        bridged: None,
        theirs: None,
        summary,
        pattern: Pattern::of(path),
    }
}

impl Row {
    const fn handler(self, handler: Handler) -> Self {
        Self { lane: Lane::Translated(handler), ..self }
    }

    const fn anthropic(self, handler: Handler) -> Self {
        Self { anthropic: Some(handler), ..self }
    }

    const fn socket(self) -> Self {
        Self { socket: true, ..self }
    }

    /// Whether it lists or shows models in OpenAI's form.
    fn lists_models(&self) -> bool {
        matches!(self.name, "models" | "models/{id}")
    }

    /// The handler where the remote is an OpenAI server.
    const fn bridged(self, handler: Handler) -> Self {
        Self { bridged: Some(handler), ..self }
    }

    /// Translated over an OpenAI server too: it is made of a chat.
    const fn of_a_chat(self) -> Self {
        match self.lane {
            Lane::Translated(handler) => self.bridged(handler),
            Lane::Native => self,
        }
    }

    /// Passes through to an OpenAI server that has `path` itself.
    const fn unless_at(self, path: &'static str) -> Self {
        Self { theirs: Some(path), ..self }
    }

    const fn api(self, api: Dialect) -> Self {
        Self { api: Some(api), ..self }
    }

    const fn management(self) -> Self {
        Self { management: true, ..self }
    }

    const fn fields(self, endpoint: Endpoint) -> Self {
        Self { endpoint: Some(endpoint), ..self }
    }

    /// Method and path as the API's documentation writes them: `POST /v1/responses`.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.verb.as_str(), self.path.replacen("{base}", "/v1", 1))
    }
}

impl Pattern {
    const fn of(path: &'static str) -> Self {
        const BASE: &[u8] = b"{base}";
        let bytes = path.as_bytes();
        let based = bytes[0] == b'{';
        let start = if based { BASE.len() } else { 0 };
        let mut open = start;
        while open < bytes.len() && bytes[open] != b'{' {
            open += 1;
        }
        let mut close = open;
        while close < bytes.len() && bytes[close] != b'}' {
            close += 1;
        }
        let before = path.split_at(open).0.split_at(start).1;
        if open == bytes.len() {
            return Self { based, before, parameter: Parameter::None, after: "" };
        }
        let after = path.split_at(close + 1).1;
        let mut second = close + 1;
        while second < bytes.len() && bytes[second] != b'{' {
            second += 1;
        }
        if second < bytes.len() {
            let between = after.split_at(second - close - 1).0;
            return Self { based, before, parameter: Parameter::Pair, after: between };
        }
        let parameter = if bytes[open + 1] == b'*' { Parameter::Rest } else { Parameter::Segment };
        Self { based, before, parameter, after }
    }

    /// Whether `path`, without the base where the pattern stands under it, fits; and where its parameter is.
    fn fits(&self, path: &str) -> Option<Option<Range<usize>>> {
        if self.parameter == Parameter::None {
            return (path == self.before).then_some(None);
        }
        if self.parameter == Parameter::Pair {
            let pair = path.strip_prefix(self.before)?;
            let (first, second) = pair.split_once(self.after)?;
            let fits = [first, second].iter().all(|segment| !segment.is_empty() && !segment.contains('/'));
            return fits.then_some(Some(self.before.len()..path.len()));
        }
        let parameter = path.strip_prefix(self.before)?.strip_suffix(self.after)?;
        let fits = !parameter.is_empty() && (self.parameter == Parameter::Rest || !parameter.contains('/'));
        fits.then(|| Some(self.before.len()..self.before.len() + parameter.len()))
    }
}

/// A row that fits a path.
#[derive(Clone)]
pub(crate) struct Match {
    pub(crate) row: &'static Row,
    /// Where the path's parameter is.
    pub(crate) parameter: Option<Range<usize>>,
    /// Whether the path stands under `openai.base_path`.
    pub(crate) based: bool,
}

/// The row for `method` and `path`, where OpenAI's routes stand under `base`. Of a path that has no row for this
/// method, a row for another.
pub(crate) fn find(method: &Method, path: &str, base: &str) -> Option<Match> {
    let (rest, based, start) = match under(path, base) {
        Some(rest) => (rest, true, base.len()),
        // Ollama's own, where ours stand elsewhere.
        None => match under(path, "/v1") {
            Some(rest) => (rest, false, "/v1".len()),
            None => return first(method, path, false),
        },
    };
    let found = first(method, rest, true)?;
    // Ollama reads a form by rules of its own.
    if !based && found.row.names == Names::Form {
        return None;
    }
    let parameter = found.parameter.map(|parameter| parameter.start + start..parameter.end + start);
    Some(Match { parameter, based, ..found })
}

/// What follows `base` in `path`, from its slash on.
fn under<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    path.strip_prefix(base).filter(|rest| rest.starts_with('/'))
}

fn first(method: &Method, path: &str, based: bool) -> Option<Match> {
    let mut other: Option<Match> = None;
    for row in TABLE.iter().filter(|row| row.pattern.based == based) {
        if other.as_ref().is_some_and(|other| other.row.path != row.path) {
            continue;
        }
        if let Some(parameter) = row.pattern.fits(path) {
            let found = Match { row, parameter, based: false };
            if row.verb.allows(method) {
                return Some(found);
            }
            other.get_or_insert(found);
        }
    }
    other
}

/// The methods that a path takes, as the header `Allow` has them.
pub(crate) fn allow(path: &str) -> String {
    let verbs: Vec<_> = TABLE.iter().filter(|row| row.path == path).map(|row| row.verb.as_str()).collect();
    verbs.join(", ")
}

/// The row of an endpoint with fields of OpenAI's.
pub(crate) fn of(endpoint: Endpoint) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.endpoint == Some(endpoint))
}

/// What the remotes speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Ollama,
    /// There is one remote, and it is an OpenAI server.
    OpenAi,
    /// There are several remotes, and some of them are OpenAI servers: each request's remote decides.
    Either,
}

/// Who answers where a request is sent to an OpenAI server, which is known when its remote is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerRemote {
    /// None: the request passes through.
    pub(crate) handler: Option<Handler>,
    /// The path that the server has if the request passes through to it all the same.
    pub(crate) theirs: Option<&'static str>,
}

/// What a request is for, found once, before the gate.
pub(crate) struct Route {
    /// None: a path that the table does not have; the remote may.
    pub(crate) row: Option<&'static Row>,
    /// Who answers. If that depends on the remote, the handler for an Ollama. None: the native lane.
    pub(crate) handler: Option<Handler>,
    /// Who answers where the request is sent to an OpenAI server, if that depends on the remote.
    pub(crate) per_remote: Option<PerRemote>,
    /// How errors are written.
    pub(crate) dialect: Dialect,
    /// The path's parameter, decoded.
    pub(crate) id: Option<String>,
    /// Whether the path stands under `openai.base_path`.
    pub(crate) based: bool,
    /// Whether the path reads the same for who cleans it and who does not. One that does not has no row.
    pub(crate) plain: bool,
    /// The path as it was read, where that differs from the raw one.
    path: Option<String>,
}

impl Route {
    /// The route of `request`, where the remotes speak that.
    pub(crate) fn of(request: &Request, config: &Config, speaks: Speaks) -> Self {
        let base = &*config.openai.base_path;
        let paths::Reading { clean: path, plain, slash } = paths::read(request.uri().path());
        let found = if plain { find(request.method(), &path, base) } else { None };
        let based = path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let api = found.as_ref().and_then(|found| found.row.api);
        let anthropic = based && (api == Some(Dialect::Anthropic) || request.headers().contains_key(ANTHROPIC_VERSION));
        let passed = api == Some(Dialect::Anthropic) && config.anthropic.passthrough;
        let changes_lists = !config.models.leaves_lists_alone();
        let handler = |openai: bool| {
            found.as_ref().and_then(|found| match found.row.lane {
                Lane::Translated(_) if !found.based || slash || passed => None,
                Lane::Translated(handler) if openai => {
                    let own = found.row.anthropic.filter(|_| anthropic).or(found.row.bridged);
                    // Lists with aliases, or without what is hidden, are made here.
                    own.or((changes_lists && found.row.lists_models()).then_some(handler))
                }
                Lane::Translated(handler) => Some(found.row.anthropic.filter(|_| anthropic).unwrap_or(handler)),
                Lane::Native if openai && !slash => found.row.bridged,
                Lane::Native => None,
            })
        };
        let theirs = found.as_ref().and_then(|found| found.row.theirs).filter(|_| handler(true).is_some());
        let depends = found.as_ref().is_some_and(|found| match (found.row.lane, speaks) {
            (_, Speaks::Ollama) => false,
            (_, Speaks::OpenAi) => theirs.is_some(),
            // Lists of models are those of all remotes, and what farllama stores itself is on none.
            (Lane::Translated(_), Speaks::Either) => {
                found.based && !slash && matches!(found.row.names, Names::Body(_) | Names::Form)
            }
            (Lane::Native, Speaks::Either) => handler(true).is_some(),
        });
        let per_remote = depends.then(|| PerRemote { handler: handler(true), theirs });
        Self {
            row: found.as_ref().map(|found| found.row),
            handler: handler(speaks == Speaks::OpenAi),
            per_remote,
            dialect: match based {
                true if anthropic => Dialect::Anthropic,
                true => Dialect::OpenAi,
                false => Dialect::Ollama,
            },
            id: found.and_then(|found| found.parameter).map(|at| path[at].to_owned()),
            based,
            plain,
            path: match path {
                Cow::Borrowed(path) if path.len() == request.uri().path().len() => None,
                path => Some(path.into_owned()),
            },
        }
    }

    /// Whether a model runs for it.
    pub(crate) fn runs_model(&self) -> bool {
        let counts = |row: &Row| matches!(row.name, "responses/input_tokens" | "messages/count_tokens");
        self.row.is_some_and(|row| matches!(row.names, MODEL | Form) && !counts(row))
    }

    /// Whether farllama answers, and not the remote.
    pub(crate) fn translated(&self) -> bool {
        self.handler.is_some()
    }

    /// # Errors
    /// Fails if farllama itself answers this path, and not with this method.
    pub(crate) fn check_method(&self, method: &Method) -> Result<(), Error> {
        match self.row {
            Some(row) if self.translated() && self.per_remote.is_none() && !row.verb.allows(method) => {
                Err(Error::Method { method: method.to_string(), allow: allow(row.path) })
            }
            _ => Ok(()),
        }
    }

    /// Whether it opens a WebSocket, whose messages are requests of their own.
    pub(crate) fn opens_socket(&self) -> bool {
        self.translated() && self.row.is_some_and(|row| row.socket)
    }

    /// Whether the response is one of Ollama's: the remote's own, or one that farllama makes where the remote is an
    /// OpenAI server.
    pub(crate) fn is_native(&self) -> bool {
        self.handler.is_none() || self.row.is_some_and(|row| matches!(row.lane, Lane::Native))
    }

    /// A label for logs and metrics that has only so many values.
    pub(crate) fn label(&self) -> &'static str {
        self.row.map_or("other", |row| row.name)
    }

    /// The path of `request`, whose route this is, as it was read.
    pub(crate) fn path<'a>(&'a self, request: &'a Request) -> &'a str {
        self.path.as_deref().unwrap_or_else(|| request.uri().path())
    }
}

/// Says where the routes are, for a path that neither farllama nor the remote has.
pub(crate) fn hint(method: &Method, path: &str, base: &str) -> String {
    let place = format!("OpenAI's routes are under {base} (base URL http://HOST:PORT{base}), Ollama's under /api");
    // A wrong base URL comes before a path that is right.
    let ends = path.match_indices('/').map(|(at, _)| &path[at..]).filter(|end| end.len() > 1);
    let right = ends.flat_map(|end| [end.to_owned(), format!("{base}{end}")]).find(|candidate| {
        candidate != path && find(method, candidate, base).is_some_and(|found| found.row.verb.allows(method))
    });
    match right {
        Some(right) => format!("did you mean {}? {place}.", text::name(&right)),
        None if path.contains("health") => format!("for a health check ask for / or /api/version. {place}."),
        None => format!("{place}."),
    }
}

/// The parameter of a request's path, decoded; empty where the route has none.
#[derive(Clone, Debug)]
pub(crate) struct Id(pub(crate) String);

impl FromRequestParts<App> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self(app.id.clone().unwrap_or_default()))
    }
}

/// The two parameters of a request's path, decoded; empty where the route has none.
#[derive(Clone, Debug)]
pub(crate) struct Ids(pub(crate) String, pub(crate) String);

impl FromRequestParts<App> for Ids {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self, Infallible> {
        // Neither segment has a slash of its own.
        let pair = app.id.as_deref().unwrap_or_default();
        let first = pair.split('/').next().unwrap_or_default();
        let second = pair.rsplit('/').next().unwrap_or_default();
        Ok(Self(first.to_owned(), second.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &Method, path: &str, base: &str) -> Option<(&'static str, String)> {
        let found = find(method, path, base)?;
        Some((found.row.name, found.parameter.map_or(String::new(), |at| path[at].to_owned())))
    }

    #[test]
    fn a_path_has_one_row_and_its_parameter() {
        for (path, name, parameter) in [
            ("/v1/chat/completions", "chat", ""),
            ("/v1/models", "models", ""),
            ("/v1/models/a/b:c", "models/{id}", "a/b:c"),
            ("/v1/responses/resp_1", "responses/{id}", "resp_1"),
            ("/v1/responses/resp_1/input_items", "responses/{id}/input_items", "resp_1"),
            ("/v1/conversations/conv_1/items", "conversations/{id}/items", "conv_1"),
            ("/v1/conversations/conv_1/items/msg_1", "conversations/{id}/items/{item}", "conv_1/items/msg_1"),
            ("/v1/messages", "messages", ""),
            ("/v1/messages/count_tokens", "messages/count_tokens", ""),
            ("/v1/messages/batches/b/results", "messages/batches/{id}", "b/results"),
            ("/api/blobs/sha256:1", "api/blobs", "sha256:1"),
            ("/", "root", ""),
        ] {
            assert_eq!(found(&Method::GET, path, "/v1"), Some((name, parameter.to_owned())), "{path}");
        }
        for unknown in [
            "/x",
            "/v1",
            "/v1/models/",
            "/v1/threads",
            "/v1/responses/a/b",
            "/v1/conversations/a/b",
            "/v1/conversations/a/items/b/c",
            "/v1/conversations//items/b",
            "/v10/models",
            "/api/experimental",
            "/chat",
        ] {
            assert_eq!(found(&Method::GET, unknown, "/v1"), None, "{unknown}");
        }
    }

    #[test]
    fn a_row_of_this_method_comes_first_and_one_of_another_is_better_than_none() {
        let verb = |method, path| find(&method, path, "/v1").unwrap().row.verb;
        assert_eq!(verb(Method::DELETE, "/v1/responses/r"), Delete);
        assert_eq!(verb(Method::HEAD, "/v1/responses/r"), Get);
        assert_eq!(verb(Method::PUT, "/v1/responses/r"), Get);
        assert_eq!(verb(Method::GET, "/v1/responses/compact"), Post, "which is no stored response");
        assert_eq!(allow("{base}/responses/{id}"), "GET, DELETE");
    }

    #[test]
    fn where_ours_stand_elsewhere_ollamas_own_are_known_too() {
        let at = |path| find(&Method::POST, path, "/openai").map(|found| (found.row.name, found.based));
        assert_eq!(at("/openai/chat/completions"), Some(("chat", true)));
        assert_eq!(at("/v1/chat/completions"), Some(("chat", false)));
        assert_eq!(at("/v1/audio/transcriptions"), None, "Ollama reads a form by rules of its own");
        assert_eq!(find(&Method::GET, "/v1/models/m", "/openai").unwrap().parameter, Some(11..12));
    }

    #[test]
    fn a_wrong_base_url_gets_the_right_path() {
        for (path, right) in [
            ("/chat/completions", "/v1/chat/completions"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/api/chat", "/api/chat"),
            ("/openai/v1/models", "/v1/models"),
            ("/v1/chat/completions/chat/completions", "/v1/chat/completions"),
            ("/api/chat/completions", "/v1/chat/completions"),
            ("/api/generate/api/chat", "/api/chat"),
        ] {
            let method = if path.ends_with("models") { Method::GET } else { Method::POST };
            let hint = hint(&method, path, "/v1");
            assert!(hint.starts_with(&format!("did you mean {right}?")), "{path}: {hint}");
        }
        assert!(hint(&Method::GET, "/health", "/v1").contains("/api/version"));
        assert!(hint(&Method::POST, "/v1/threads", "/v1").starts_with("OpenAI's routes are under /v1 "));
    }

    #[test]
    fn rows_of_one_path_agree_on_what_the_gate_reads() {
        for row in TABLE {
            for other in TABLE.iter().filter(|other| other.path == row.path) {
                // A GET has no body, so what it reads differs from what a POST does.
                let stored = |row: &Row| row.verb == Get && row.names == Nowhere;
                assert!(row.names == other.names || stored(row) || stored(other), "{}", row.path);
                assert_eq!(row.name, other.name, "{}", row.path);
            }
            assert!(row.summary.ends_with('.') && !row.name.is_empty(), "{}", row.path);
            assert_eq!(row.names == Names::Path, row.path.contains("models/{*id}"), "{}", row.path);
        }
    }
}
