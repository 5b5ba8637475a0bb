//! From a socket to an answer and back: what every route shares. What the routes say is in [`crate::routes`].
//!
//! HTTP is spoken here, and not by a library, because a stand-in has to have the oddities of Go's server, which no
//! library offers: answers before the body is read, 100 Continue only when the body is wanted, HTTP/1.0, its texts for
//! what it rejects, its order of headers.

pub(crate) mod answer;
pub(crate) mod gate;
pub(crate) mod head;
pub(crate) mod request;
mod writer;

use crate::version::Feature;
use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{Method, StatusCode, header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::ReadHalf},
    task::JoinSet,
};

use self::{
    answer::Answer,
    head::{Head, NoHead},
    request::{Asked, Incoming},
    writer::{Next, Terms, Writer},
};
use crate::{
    chaos::Fates,
    journal::Journal,
    names::Name,
    pace::Runner,
    replay::Replaying,
    routes::{self, Outcome},
    script::{self, Playing, Reply},
    state::{State, Ticket},
};

/// How long Go leaves a connection half open after it answered without having read everything, so that the client gets
/// to read the answer.
const LINGER: Duration = Duration::from_millis(500);
/// How much of the next request is read ahead while an answer is on its way.
const AHEAD: usize = 64 << 10;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) state: Arc<State>,
    pub(crate) playing: Playing,
    pub(crate) journal: Journal,
    pub(crate) fates: Fates,
    pub(crate) replaying: Option<Replaying>,
    /// Takes time, if it should.
    pub(crate) runner: Option<Runner>,
}

/// Accepts until it is dropped; its connections end with it.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&app)));
                }
                // Such as too many open files: the next one may be luckier.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut stream: TcpStream, app: Arc<App>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut buffer = BytesMut::new();
    let mut is_after_post = false;
    let ended = loop {
        match head::read(&mut stream, &mut buffer, std::mem::take(&mut is_after_post)).await {
            Ok(head) => {
                is_after_post = head.method == Method::POST;
                match exchange(&mut stream, &mut buffer, head, &app).await {
                    Ok(Next::KeepAlive) => {}
                    ended => break ended,
                }
            }
            Err(NoHead::Gone) => return,
            Err(NoHead::Rejected(rejection)) => {
                tracing::info!(?rejection, "rejected");
                break match stream.write_all(rejection.response().as_bytes()).await {
                    Ok(()) => linger(&mut stream).await.map(|()| Next::Close),
                    Err(error) => Err(error),
                };
            }
        }
    };
    let closed = match ended {
        // Closing a socket that lingers for no time is what sends RST.
        Ok(Next::Reset) => stream.set_zero_linger(),
        Ok(_) => stream.shutdown().await,
        Err(error) => Err(error),
    };
    if let Err(error) = closed {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// Ends the sending side, and leaves the client time to read before the close, which may send a reset.
async fn linger(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::time::sleep(LINGER).await;
    Ok(())
}

/// Answers one request.
///
/// # Errors
/// The client goes away.
async fn exchange(stream: &mut TcpStream, buffer: &mut BytesMut, head: Head, app: &App) -> io::Result<Next> {
    let mut entry = app.journal.open(head.entry());
    let mut incoming = Incoming::new(&head);
    let early = early_answer(&head);
    let is_refused = early.as_ref().is_some_and(|answer| answer.status == StatusCode::EXPECTATION_FAILED);
    let unread = Asked::unread(&head);
    let wants_body = early.is_none()
        && (!head.has_body() || app.replaying.is_some() || app.playing.may_be_for(&unread) || reads_body(app, &unread));
    let asked = if wants_body { incoming.receive(&head, stream, buffer, &entry).await? } else { unread };
    tracing::info!(method = %asked.method, path = asked.path, bytes = asked.body.len(), "asked");
    let answer = match early {
        Some(answer) => answer,
        None if asked.fault.is_some() => Answer::error(StatusCode::BAD_REQUEST, asked.fault.unwrap_or_default()),
        // An unread body hides whether the client is still there.
        None if !incoming.is_over() => answer(app, &asked).await,
        None => tokio::select! {
            answer = answer(app, &asked) => answer,
            gone = gone(stream, buffer) => return Err(gone),
        },
    };
    let is_read = match wants_body {
        true => asked.fault.is_none(),
        // The client of such a request may never send its body.
        false => !is_refused && incoming.discard(stream, buffer, &entry).await?,
    };
    let terms = Terms {
        is_head: head.method == Method::HEAD,
        is_1_0: head.is_1_0,
        wants_keep_alive: head.wants_keep_alive(),
        closes: head.wants_close() || !is_read,
    };
    let dice = app.fates.dice(head.method.as_str(), &head.target, &asked.body);
    let next = write(stream, buffer, Writing { answer, terms, dice, entry: &mut entry, watches: is_read }).await?;
    if next == Next::Close && !is_read {
        linger(stream).await?;
    }
    Ok(next)
}

/// What is to be written.
struct Writing<'a> {
    answer: Answer,
    terms: Terms,
    dice: Option<crate::chaos::Dice>,
    entry: &'a mut crate::journal::OpenEntry,
    /// Whether the end of the connection is looked for meanwhile.
    watches: bool,
}

async fn write(stream: &mut TcpStream, buffer: &mut BytesMut, writing: Writing<'_>) -> io::Result<Next> {
    let Writing { answer, terms, dice, entry, watches } = writing;
    let (mut reader, mut writer) = stream.split();
    let writing = Writer { stream: &mut writer, entry, dice }.write(answer, terms);
    if !watches {
        return writing.await;
    }
    tokio::select! {
        biased;
        next = writing => next,
        gone = gone_from(&mut reader, buffer) => Err(gone),
    }
}

/// What Go's server answers before any handler.
fn early_answer(head: &Head) -> Option<Answer> {
    let expect = head.header(&header::EXPECT).filter(|value| !value.is_empty());
    if expect.is_some_and(|value| !value.eq_ignore_ascii_case("100-continue")) {
        return Some(writer::expectation_failed());
    }
    (head.path == "*").then(writer::options_star)
}

/// The answer of the script, of a recording, or the faithful one.
async fn answer(app: &App, asked: &Asked) -> Answer {
    let Some(reply) = app.playing.choose(asked) else {
        return match app.replaying.as_ref().map(|replaying| (replaying.answer(asked), replaying.fallback)) {
            Some((Ok(answer), _)) => answer,
            Some((Err(why), false)) => {
                tracing::warn!("{why}");
                Answer::error(StatusCode::NOT_IMPLEMENTED, &why)
            }
            Some((Err(_), true)) | None => faithful(app, asked, None).await,
        };
    };
    let seen = &app.playing.seen;
    reply.delay.pass(seen, seen.times()).await;
    let own = match reply.faithful_words() {
        Some(words) => faithful(app, asked, words).await,
        None => Answer::empty(StatusCode::OK),
    };
    let own = if reply.kills() { killed(app, asked, reply, own) } else { own };
    reply.answer(asked, seen, own)
}

/// The answer of a model whose runner is killed.
fn killed(app: &App, asked: &Asked, reply: &Reply, answer: Answer) -> Answer {
    let json: Option<serde_json::Value> = serde_json::from_slice(&asked.body).ok();
    let name = json.as_ref().and_then(script::model_of).and_then(Name::parse);
    let Some(model) = name.and_then(|name| app.state.model(&name)) else { return answer };
    let error = app.state.kill_runner(&model);
    script::killed(answer, reply.after.unwrap_or(0), &error, asked, app.state.version.has(Feature::LlamaServer))
}

/// Whether the faithful answer depends on the body; if not, it comes before the body is read.
fn reads_body(app: &App, asked: &Asked) -> bool {
    let is_granted = || matches!(gate::admit(asked, app.state.listens_on_loopback), gate::Admission::Granted(_));
    gate::redirect(asked).is_none() && is_granted() && routes::reads_body(&app.state, asked)
}

/// What Ollama would answer; `words` are the model's, where a script decides them.
async fn faithful(app: &App, asked: &Asked, words: Option<&str>) -> Answer {
    if let Some(answer) = gate::redirect(asked) {
        return answer;
    }
    let granted = match gate::admit(asked, app.state.listens_on_loopback) {
        gate::Admission::Refused => return Answer::empty(StatusCode::FORBIDDEN),
        gate::Admission::Answered(answer) => return answer,
        gate::Admission::Granted(headers) => headers,
    };
    if let Some(runner) = &app.runner {
        runner.read(asked).await;
    }
    let ticket = Ticket::default();
    let answer = loop {
        let mut changes = std::pin::pin!(app.state.changes());
        changes.as_mut().enable();
        match routes::answer(&app.state, asked, words, &ticket) {
            Outcome::Answered(answer) => break answer,
            Outcome::Waits => changes.await,
        }
    };
    granted.into_iter().fold(answer.settled().await, |answer, (name, value)| answer.with(name, value))
}

/// Resolves when the client closes the connection; what it sends before that is kept for the next request.
async fn gone(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Error {
    gone_from(&mut stream.split().0, buffer).await
}

async fn gone_from(reader: &mut ReadHalf<'_>, buffer: &mut BytesMut) -> io::Error {
    loop {
        if buffer.len() > AHEAD {
            // A client that sends so much is there.
            return std::future::pending().await;
        }
        match reader.read_buf(buffer).await {
            Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}
