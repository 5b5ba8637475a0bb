//! The client of the remote, for both lanes: what every request carries, and the texts for why there is no response.
//!
//! Does not follow redirects or decompress.

use std::{
    borrow::Cow,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request,
    uri::{Authority, PathAndQuery},
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http1_client::{Error as Broken, Invalid};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::{
    bridge::{self, Bridge, Translation},
    config::{Config, Remote},
    deadline::Alarm,
    error::{self, Dialect, Error},
    json_writer, offload,
    ollama::{refusal, version::Version},
    redact::Redactor,
    upstream::{
        connect::{Cause, Connector, cause},
        fence,
        last_line::LastLine,
        pool::{Body, Failure, Outgoing, Pool, Unanswered},
        remotes::Counted,
        request_body::RequestBody,
    },
    whole_body::{self, Failed},
};

/// Maximum size of a response that is read whole: an unstreamed chat or a list of models.
const MAX_WHOLE: usize = 256 << 20;

/// The client of the remote. Clones share its connections.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Arc<Pool>,
    /// The remote as a person names it.
    name: String,
    authority: Authority,
    port: u16,
    /// Whether its requests wake the remote's machine.
    wakes: bool,
    base_path: String,
    /// The names of what every request carries: `Host`, credentials and extra headers.
    carried: Vec<HeaderName>,
    /// These headers and `Via`, as lines; and the same for a request with a JSON body.
    lines: Bytes,
    json_lines: Bytes,
    /// Masks the credentials among them.
    redactor: Redactor,
    /// What every request adds to `Via`, to detect loops.
    via: HeaderValue,
    first_byte: Duration,
    idle: Duration,
    /// What the remote speaks.
    bridge: Arc<Bridge>,
}

impl Client {
    /// The client of `config.remote`.
    ///
    /// # Errors
    /// As [`Client::of`].
    pub(crate) fn new(config: &Config, via: HeaderValue) -> io::Result<Self> {
        let remote = &config.remote;
        let secrets = remote.authorization.iter().chain(remote.headers.iter().map(|(_, value)| value));
        Self::of(config, remote, via, Redactor::new(secrets.cloned()))
    }

    /// The client of `remote`. `redactor` masks its credentials, and those of the other remotes.
    ///
    /// # Errors
    /// Fails if the remote's host is not a host name, or TLS cannot be set up.
    pub(crate) fn of(config: &Config, remote: &Remote, via: HeaderValue, redactor: Redactor) -> io::Result<Self> {
        let Remote { base_path, authorization, headers, .. } = remote;
        let (_, authority) = remote.origin();
        let authority: Authority = authority.parse().map_err(|error| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("invalid host name {authority:?}: {error} (remote.host)"),
            )
        })?;
        let invalid = |error: http::Error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let mut carried = HeaderMap::new();
        carried.insert(header::HOST, HeaderValue::from_str(authority.as_str()).map_err(|error| invalid(error.into()))?);
        carried.extend(authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        for (name, value) in headers {
            carried.append(name, value.clone());
        }
        let pool = Arc::new(Pool::new(Connector::new(remote, &config.timeouts)?));
        let mut lines = BytesMut::new();
        for (name, value) in carried.iter().chain([(&header::VIA, &via)]) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
        let kind: &[u8] =
            if carried.contains_key(header::CONTENT_TYPE) { b"" } else { b"content-type: application/json\r\n" };
        let json_lines = [kind, &lines].concat().into();
        Ok(Self {
            pool,
            name: remote.name(),
            authority,
            port: remote.port,
            wakes: true,
            base_path: base_path.clone(),
            carried: carried.keys().cloned().collect(),
            lines: lines.freeze(),
            json_lines,
            redactor,
            via,
            first_byte: config.timeouts.first_byte,
            idle: config.timeouts.idle,
            bridge: Arc::new(Bridge::new(config, remote)),
        })
    }

    /// What the remote speaks, and what is known of it if that is not Ollama's API.
    pub(crate) fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// The same client, which shares what `other` knows of their remote's API.
    pub(crate) fn sharing(self, other: &Self) -> Self {
        Self { bridge: other.bridge.clone(), ..self }
    }

    /// What the remote is, for texts.
    fn noun(&self) -> &'static str {
        if self.bridge.is_on() { "remote server" } else { "remote Ollama" }
    }

    /// The remote as a person writes it, without credentials: `http://gpu-box:11434/prefix`, `ssh://gpu-box`.
    pub(crate) fn remote(&self) -> String {
        self.name.clone()
    }

    /// How many connections to the remote there are: idle ones, and all of them.
    pub(crate) fn connections(&self) -> (usize, usize) {
        self.pool.connections()
    }

    /// The host of the remote, and its port.
    pub(crate) fn address(&self) -> (&str, u16) {
        (self.authority.host(), self.port)
    }

    /// The same client, whose requests carry one more header in place of the caller's.
    pub(crate) fn with_header(&self, name: HeaderName, value: &HeaderValue) -> Self {
        let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat();
        let mut client = self.clone();
        for lines in [&mut client.lines, &mut client.json_lines] {
            *lines = [&**lines, &*line].concat().into();
        }
        client.carried.push(name);
        client
    }

    /// The same client, whose requests fail if the remote's machine is asleep: looking at a remote does not wake it.
    pub(crate) fn without_waking(&self) -> Self {
        Self { wakes: false, ..self.clone() }
    }

    /// What requests of this client carry in `Via`.
    pub(crate) fn via(&self) -> &HeaderValue {
        &self.via
    }

    /// Masks the remote's credentials in texts of its own.
    pub(crate) fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Whether a request has been through here before, and came back from the remote.
    pub(crate) fn has_sent(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(header::VIA)
            .iter()
            .any(|hops| hops.as_bytes().split(|byte| *byte == b',').any(|hop| hop.trim_ascii() == self.via.as_bytes()))
    }

    /// Closes idle connections that are too old or that the remote has closed, until the client is dropped.
    pub(crate) fn reaper(&self) -> impl Future<Output = ()> + Send + use<> {
        self.pool.reaper()
    }

    /// The names of the headers that every request carries, in place of the caller's.
    pub(crate) fn carried(&self) -> impl Iterator<Item = &HeaderName> {
        self.carried.iter()
    }

    /// Encodes a request as it goes to the remote: its raw path and query under the base path, its headers without
    /// those that are `hidden` or that the settings set.
    ///
    /// # Errors
    /// Fails if the path leaves the base path.
    pub(crate) fn prepare(
        &self,
        request: &request::Parts,
        hidden: impl Fn(&HeaderName) -> bool,
        body: RequestBody,
    ) -> Result<Outgoing, Error> {
        let target = self.target(request.uri.path_and_query())?;
        let hidden = |name: &HeaderName| hidden(name) || self.carried().any(|carried| carried == name);
        Ok(self.waking(Outgoing::new(&request.method, &target, &request.headers, hidden, &self.lines, body)))
    }

    fn waking(&self, request: Outgoing) -> Outgoing {
        if self.wakes { request } else { request.without_waking() }
    }

    /// Sends `request` and waits for the head of the response.
    ///
    /// Dropping the future, or the body of the response, cancels the request upstream at once.
    pub(crate) async fn send(&self, request: Outgoing) -> Result<Response<Upstream>, Error> {
        let response = self.pool.send(request, self.first_byte).await.map_err(|failure| self.unanswered(failure))?;
        Ok(response.map(|body| Upstream::new(Some(body), self.idle, self.authority.clone())))
    }

    /// A body that is here already.
    pub(crate) fn given(&self, bytes: Bytes) -> Upstream {
        let mut upstream = Upstream::new(None, self.idle, self.authority.clone());
        upstream.put_back(bytes, false);
        upstream
    }

    /// Sends a request to `target`, the whole of the remote's path, and waits for the head of the response, whatever it
    /// is.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(crate) async fn exchange(
        &self,
        method: Method,
        target: &str,
        ask: Option<Bytes>,
    ) -> Result<Response<Upstream>, Error> {
        let lines = if ask.is_some() { &self.json_lines } else { &self.lines };
        let body = RequestBody::whole(ask.unwrap_or_default());
        self.send(self.waking(Outgoing::new(&method, target, &HeaderMap::new(), |_| false, lines, body))).await
    }

    /// As [`Client::send`], for a request that may be sent to another remote.
    ///
    /// # Errors
    /// As [`Client::send`], with what is needed to send it elsewhere.
    pub(crate) async fn try_send(&self, request: Outgoing) -> Result<Response<Upstream>, Box<Missed>> {
        match self.pool.try_send(request, self.first_byte).await {
            Ok(response) => Ok(response.map(|body| Upstream::new(Some(body), self.idle, self.authority.clone()))),
            Err(unanswered) => {
                let Unanswered { failure, again, body } = *unanswered;
                Err(Box::new(Missed { error: self.unanswered(failure), again, body }))
            }
        }
    }

    /// As [`Client::open`], for a request that may be sent to another remote.
    ///
    /// # Errors
    /// As [`Client::open`]. It may be sent to another remote if no byte of a response came, or if a gateway, or a busy
    /// Ollama, responds that it was not served.
    pub(crate) async fn try_open(
        &self,
        method: Method,
        path: &'static str,
        ask: Option<Bytes>,
    ) -> Result<Upstream, Box<Missed>> {
        let missed = |error, again| Box::new(Missed { error, again, body: None });
        if self.bridge.is_on() {
            return Box::pin(bridge::open(self, path, ask)).await.map_err(|error| Box::new(Missed::of(error)));
        }
        let asking = self.asking(&method, path, ask).map_err(|error| missed(error, false))?;
        let mut response = self.try_send(asking).await?;
        response.body_mut().forget_request();
        if is_success(&response) {
            return Ok(response.into_body());
        }
        let again = is_unserved(response.status());
        Err(missed(self.refused(path, response).await, again))
    }

    /// Asks and reads the whole answer, which must be a success.
    ///
    /// # Errors
    /// As [`Client::send`]; what Ollama refused, in its words; what is no Ollama.
    pub(crate) async fn call(&self, method: Method, path: &'static str, ask: Option<Bytes>) -> Result<Bytes, Error> {
        let body = self.open(method, path, ask).await?;
        whole(body).await
    }

    /// Asks, and hands over the body of a successful answer as it arrives.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(crate) async fn open(&self, method: Method, path: &'static str, ask: Option<Bytes>) -> Result<Upstream, Error> {
        if self.bridge.is_on() {
            return Box::pin(bridge::open(self, path, ask)).await;
        }
        let response = self.send(self.asking(&method, path, ask)?).await?;
        if is_success(&response) {
            return Ok(response.into_body());
        }
        Err(Box::pin(self.refused(path, response)).await)
    }

    fn asking(&self, method: &Method, path: &'static str, ask: Option<Bytes>) -> Result<Outgoing, Error> {
        let path = PathAndQuery::from_static(path);
        let target = self.target(Some(&path))?;
        let lines = if ask.is_some() { &self.json_lines } else { &self.lines };
        let body = RequestBody::whole(ask.unwrap_or_default());
        Ok(self.waking(Outgoing::new(method, &target, &HeaderMap::new(), |_| false, lines, body)))
    }

    /// Why a response is not a success.
    async fn refused(&self, path: &str, response: Response<Upstream>) -> Error {
        let (parts, body) = response.into_parts();
        match whole(body).await {
            Ok(body) => refusal::read(parts.status, &parts.headers, &body, &self.asked(path), &self.redactor),
            Err(error) => error,
        }
    }

    /// Understands a whole answer to `path`.
    ///
    /// # Errors
    /// It is not what Ollama answers there.
    pub(crate) fn read<'a, T: Deserialize<'a>>(&self, path: &str, reply: &'a [u8]) -> Result<T, Error> {
        // One look at all of it is cheaper than one at each string. Strings that nothing reads may have other bytes.
        let read = std::str::from_utf8(reply).map_or_else(|_| serde_json::from_slice(reply), serde_json::from_str);
        read.map_err(|_| refusal::read(StatusCode::OK, &HeaderMap::new(), reply, &self.asked(path), &self.redactor))
    }

    /// Returns the remote's version. Asks for it at most once a minute while connections live, and anew after all were
    /// lost. A remote that does not report its version counts as the newest.
    ///
    /// # Errors
    /// Fails if the remote cannot be reached or does not respond.
    pub(crate) async fn version(&self) -> Result<Version, Error> {
        if self.bridge.is_on() {
            return Ok(Version::read(bridge::VERSION));
        }
        if let Some(version) = self.pool.known().and_then(|known| known.version()) {
            return Ok(version);
        }
        let version = match self.call(Method::GET, "/api/version", None).await {
            Ok(reply) => Version::from_reply(&reply),
            Err(error @ (Error::Unreachable { .. } | Error::Timeout { .. } | Error::Cut { .. })) => return Err(error),
            // A gateway whose Ollama is just being started anew: it may know later.
            Err(_) => return Ok(Version::newest()),
        };
        if let Some(known) = self.pool.known() {
            known.learn(version.clone());
        }
        Ok(version)
    }

    /// The URL of `path`, for texts.
    pub(crate) fn asked(&self, path: &str) -> String {
        match self.bridge.is_on() {
            // That path has the base path already.
            true => format!("{}{path}", self.name.strip_suffix(&*self.base_path).unwrap_or(&self.name)),
            false => format!("{}{path}", self.remote()),
        }
    }

    /// The raw path and query under the remote's base path.
    fn target<'a>(&self, raw: Option<&'a PathAndQuery>) -> Result<Cow<'a, str>, Error> {
        Ok(match raw {
            Some(target) if self.bridge.is_on() => self.bridge.target(target.as_str())?,
            None => Cow::Borrowed("/"),
            Some(target) if self.base_path.is_empty() => Cow::Borrowed(target.as_str()),
            Some(target) if fence::leaves(target.path()) => {
                let message = "the path leaves the remote's base path".to_owned();
                return Err(Error::Invalid { message, param: None, code: None });
            }
            Some(target) => Cow::Owned(format!("{}{target}", self.base_path)),
        })
    }

    /// Why there was no answer, in words that name the remote, the cause and what to change.
    fn unanswered(&self, failure: Failure) -> Error {
        let (remote, noun) = (self.remote(), self.noun());
        let cause = match failure {
            Failure::Connect(cause) => cause,
            Failure::FirstByte => {
                return Error::Timeout {
                    message: format!(
                        "the {noun} at {remote} sent nothing within {} of the request; a model may still be loading: raise timeouts.first_byte, or set it to 0s",
                        humantime::format_duration(self.first_byte)
                    ),
                };
            }
            // The client stopped sending its body.
            Failure::Exchange(error @ Broken::Body(_)) => {
                if let Some(own) = error::own(&error) {
                    return own;
                }
                let message = "the request body ended before it was whole".to_owned();
                return Error::Invalid { message, param: None, code: None };
            }
            Failure::Exchange(Broken::Invalid(Invalid::StatusLine)) => {
                return Error::NotOllama {
                    message: format!(
                        "not an Ollama at {remote}: the server there does not speak HTTP; if it speaks TLS, set remote.protocol to https (--remote-protocol https)"
                    ),
                };
            }
            Failure::Exchange(Broken::Invalid(reason)) => {
                return Error::NotOllama {
                    message: format!(
                        "the remote at {remote} sent an invalid HTTP response: {reason}; an Ollama does not: check the gateway in front of it"
                    ),
                };
            }
            Failure::Exchange(error) => match cause(&error) {
                // Some are noticed only when the connection is used.
                found @ (Cause::Ssh(_) | Cause::ClientCertificate(_)) => found,
                other => {
                    return Error::Unreachable {
                        message: format!(
                            "the {noun} at {remote} closed the connection without an answer ({other}); see its log{}",
                            if self.bridge.is_on() { "" } else { " (ollama serve)" }
                        ),
                    };
                }
            },
        };
        let advice = match &cause {
            Cause::Refused if self.bridge.is_on() => {
                "is the server running there, on that port (--remote-port)?".into()
            }
            cause => cause.advice(),
        };
        let message = format!("cannot reach the {noun} at {remote}: {cause}; {advice}");
        if cause.is_timeout() { Error::Timeout { message } } else { Error::Unreachable { message } }
    }
}

/// A request without a response that counts.
pub(crate) struct Missed {
    pub(crate) error: Error,
    /// Whether it may be sent to another remote.
    pub(crate) again: bool,
    /// Its body, from the beginning, if it streams.
    pub(crate) body: Option<RequestBody>,
}

impl Missed {
    /// Why an OpenAI server gave no answer. The request may be sent to another remote if no byte of a response came, or
    /// one that says that it was not served.
    pub(crate) fn of(error: Error) -> Self {
        let again = match &error {
            Error::Unreachable { .. } => true,
            Error::Refused(refused) => is_unserved(refused.status),
            _ => false,
        };
        Self { error, again, body: None }
    }
}

/// Whether a response is one of Ollama's: a login page comes with 200 as well.
fn is_success(response: &Response<Upstream>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    response.status() == StatusCode::OK && kind.contains("json")
}

/// Whether a response says that the request was not served: by a gateway whose Ollama is not there, or by an Ollama
/// whose queue is full.
pub(crate) fn is_unserved(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// What is asked, as it crosses the wire, in about `size` bytes.
///
/// # Errors
/// None that a plain struct can cause.
pub(crate) fn encode_sized(ask: &impl Serialize, size: usize) -> Result<Bytes, Error> {
    let body = json_writer::to_vec(ask, size).map_err(|error| Error::Internal { message: error.to_string() })?;
    Ok(offload::freed_elsewhere(body.into()))
}

/// What is asked, as it crosses the wire.
///
/// # Errors
/// As [`encode_sized`].
pub(crate) fn encode(ask: &impl Serialize) -> Result<Bytes, Error> {
    encode_sized(ask, 1 << 10)
}

/// Reads the whole of `body`.
pub(crate) async fn whole(body: Upstream) -> Result<Bytes, Error> {
    let remote = body.remote.clone();
    whole_body::read(body, MAX_WHOLE).await.map_err(|failed| match failed {
        Failed::Refused(error) => error,
        Failed::TooLarge => Error::Cut { message: format!("the answer of {remote} is larger than {MAX_WHOLE} bytes") },
        Failed::Broken(error) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::Cut { message: error.to_string() },
        },
    })
}

/// The body of a response, as the network brings it, with a timeout on the silence between two packets.
pub(crate) struct Upstream {
    /// None: there is only what was put back.
    body: Option<Body>,
    idle: Idle,
    remote: Authority,
    /// Whether something (the head, a packet) was handed over since the reader last had to wait.
    fresh: bool,
    /// A failure that waits until what came before it is on its way.
    failed: Option<Error>,
    /// Fails a stream that ends in order before it is done.
    last_line: Option<Box<LastLine>>,
    /// What was read already.
    front: Option<Box<Front>>,
    /// Counts the request as one of its remote, where there are several.
    counted: Option<Counted>,
    /// Makes lines of events.
    translation: Option<Box<Translating>>,
    /// Changes what all of that gives.
    filtering: Option<Box<Filtering>>,
}

/// Changes a body on its way, and may make requests of its own.
pub(crate) trait Filter: Send {
    /// Takes a packet.
    fn push(&mut self, packet: Bytes);

    /// What may go out now. Empty: it needs more of the body, or nothing follows if that has `ended`.
    fn poll_out(&mut self, ended: bool, cx: &mut Context<'_>) -> Poll<Bytes>;

    /// The body has failed: returns what may go out before the error.
    fn give_up(&mut self) -> Bytes;
}

/// A filter, and whether the body has ended.
struct Filtering {
    filter: Box<dyn Filter>,
    ended: bool,
}

/// A translation, and its end.
struct Translating {
    translation: Translation,
    /// When the last line was written: the remote has a moment to end too, which makes its connection usable again.
    closed: Option<Instant>,
    ended: bool,
}

/// How long the end of a translated body waits for the end of the remote's.
const LINGER: Duration = Duration::from_millis(100);

/// What of a body was read already, or stands in its place.
struct Front {
    bytes: Bytes,
    /// Whether the rest of the body follows.
    more: bool,
}

impl Upstream {
    fn new(body: Option<Body>, idle: Duration, remote: Authority) -> Self {
        Self {
            body,
            idle: Idle::new(idle),
            remote,
            fresh: true,
            failed: None,
            last_line: None,
            front: None,
            counted: None,
            translation: None,
            filtering: None,
        }
    }

    /// Counts the request as one of its remote until the body is dropped.
    pub(crate) fn count(&mut self, counted: Counted) {
        self.counted = Some(counted);
    }

    /// As [`Body::take_request`].
    pub(crate) fn take_request(&mut self) -> Result<Option<RequestBody>, ()> {
        self.body.as_mut().map_or(Ok(None), Body::take_request)
    }

    /// As [`Body::forget_request`].
    pub(crate) fn forget_request(&mut self) {
        if let Some(body) = &mut self.body {
            body.forget_request();
        }
    }

    /// Hands over what `translation` makes of the body.
    pub(crate) fn translate(&mut self, translation: Translation) {
        self.translation = Some(Box::new(Translating { translation, closed: None, ended: false }));
    }

    /// Hands over what `filter` makes of the body.
    pub(crate) fn filter(&mut self, filter: Box<dyn Filter>) {
        self.filtering = Some(Box::new(Filtering { filter, ended: false }));
    }

    /// Fails at the end of the stream unless its last line says that it is complete, and reports every failure in a
    /// line of the stream.
    pub(crate) fn expect_final_line(&mut self) {
        self.last_line = Some(Box::default());
    }

    /// Puts `bytes` in front of the rest of the body, or in its place if there is no `more` of it.
    pub(crate) fn put_back(&mut self, bytes: Bytes, more: bool) {
        self.front = Some(Box::new(Front { bytes, more }));
    }

    /// Fails with `error` once what was put back is read.
    pub(crate) fn fail_later(&mut self, error: Error) {
        self.failed = Some(error);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(mut filtering) = self.filtering.take() else { return self.poll_unfiltered(cx) };
        let polled = self.poll_filtered(&mut filtering, cx);
        self.filtering = Some(filtering);
        polled
    }

    /// The next part of a body that is filtered.
    fn poll_filtered(
        &mut self,
        filtering: &mut Filtering,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let out = ready!(filtering.filter.poll_out(filtering.ended, cx));
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
            if filtering.ended {
                return Poll::Ready(None);
            }
            match ready!(self.poll_unfiltered(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(packet) = frame.into_data() {
                        filtering.filter.push(packet);
                    }
                }
                Some(Err(error)) => {
                    let rest = filtering.filter.give_up();
                    if rest.is_empty() {
                        return Poll::Ready(Some(Err(error)));
                    }
                    self.failed = Some(error);
                    return Poll::Ready(Some(Ok(Frame::data(rest))));
                }
                None => filtering.ended = true,
            }
        }
    }

    fn poll_unfiltered(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(front) = &mut self.front {
            let bytes = std::mem::take(&mut front.bytes);
            let more = front.more;
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if !more && self.failed.is_none() {
                return Poll::Ready(None);
            }
            self.front = None;
        }
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if self.translation.is_some() { self.poll_translated(cx) } else { self.poll_body(cx) }
    }

    /// The next lines of a body that is translated.
    fn poll_translated(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let closed = self.translation.as_ref().and_then(|translating| translating.closed);
            if self.translation.as_ref().is_some_and(|translating| translating.ended) {
                return Poll::Ready(None);
            }
            let polled = self.poll_body(cx);
            let Some(translating) = &mut self.translation else { return polled };
            if let Some(closed) = closed {
                match polled {
                    Poll::Ready(Some(Ok(_))) => continue,
                    Poll::Ready(_) => {}
                    Poll::Pending => ready!(self.idle.alarm.poll(closed + LINGER, cx)),
                }
                translating.ended = true;
                return Poll::Ready(None);
            }
            let packet = match ready!(polled) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(packet) => Some(packet),
                    Err(_) => continue,
                },
                Some(Err(error)) => {
                    translating.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => None,
            };
            let ends = packet.is_none();
            let (lines, failed) = translating.translation.take(packet);
            if translating.translation.closed() {
                translating.closed = Some(Instant::now());
            }
            translating.ended = ends || failed.is_some();
            match failed {
                Some(error) if lines.is_empty() => return Poll::Ready(Some(Err(error))),
                failed => self.failed = failed,
            }
            if !lines.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(lines))));
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let failed = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.heard();
                if let (Some(last_line), Some(data)) = (&mut self.last_line, frame.data_ref()) {
                    last_line.push(data);
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(Some(Err(error))) => Error::Cut {
                message: format!("the answer of the remote Ollama at {} broke off: {}", self.remote, cause(&error)),
            },
            Poll::Ready(None) if self.last_line.as_ref().is_some_and(|last_line| !last_line.is_final()) => {
                Error::unfinished()
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(self.idle.poll_over(cx));
                Error::Timeout {
                    message: format!(
                        "the remote Ollama at {} fell silent for {} in the middle of its answer; raise timeouts.idle, or set it to 0s",
                        self.remote,
                        humantime::format_duration(self.idle.within)
                    ),
                }
            }
        };
        Poll::Ready(Some(self.fail(failed)))
    }

    /// How the stream fails: with `error`, and before it with Ollama's own line for it where the last line is known to
    /// be complete. Some clients notice the line alone, Ollama's own for Go among them, others the cut connection alone
    /// (`docs/streams.md`).
    fn fail(&mut self, error: Error) -> Result<Frame<Bytes>, Error> {
        match self.last_line.take() {
            Some(last_line) if last_line.takes_another() => {
                let mut line = error::body(&error, Dialect::Ollama, None);
                line.push(b'\n');
                self.failed = Some(error);
                Ok(Frame::data(line.into()))
            }
            _ => Err(error),
        }
    }
}

impl HttpBody for Upstream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.poll(cx);
        match polled {
            // The server throws away what it has not written yet when a body fails, so it gets a turn to write it.
            Poll::Ready(Some(Err(error))) if self.fresh => {
                self.fresh = false;
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => {
                self.fresh = polled.is_ready();
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // The end of a stream that may fail there must be polled.
        let over = match (&self.translation, &self.filtering) {
            (_, Some(_)) => false,
            (Some(translating), None) => translating.ended,
            (None, None) => self.body.as_ref().is_none_or(HttpBody::is_end_stream),
        };
        self.last_line.is_none() && self.failed.is_none() && self.front.is_none() && over
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) if self.front.is_none() && self.translation.is_none() && self.filtering.is_none() => {
                body.size_hint()
            }
            _ => SizeHint::default(),
        }
    }
}

/// A timeout on silence.
#[derive(Debug)]
struct Idle {
    within: Duration,
    last: Instant,
    alarm: Alarm,
}

impl Idle {
    fn new(within: Duration) -> Self {
        Self { within, last: Instant::now(), alarm: Alarm::default() }
    }

    fn heard(&mut self) {
        self.last = Instant::now();
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.within.is_zero() {
            return Poll::Pending;
        }
        self.alarm.poll(self.last + self.within, cx)
    }
}
