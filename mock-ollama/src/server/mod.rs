//! From a socket to an answer and back: what every route shares. What the routes say is in [`crate::routes`].

pub(crate) mod answer;
mod body;
pub(crate) mod gate;
pub(crate) mod request;
mod wire;

use std::{io, sync::Arc};

use http::{Method, Request, Response, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use self::{
    answer::Answer,
    body::MockBody,
    wire::{Fault, Wire},
};
use crate::{journal::Journal, routes, script::Playing, state::State};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) state: Arc<State>,
    pub(crate) playing: Playing,
    pub(crate) journal: Journal,
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
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, app: Arc<App>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let (wire, fault) = Wire::new(stream);
    let service = service_fn(move |request| exchange(request, fault.clone(), Arc::clone(&app)));
    let served = http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(wire), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended badly");
    }
}

async fn exchange(request: Request<Incoming>, fault: Fault, app: Arc<App>) -> Result<Response<MockBody>, io::Error> {
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let pencil = app.journal.open(request::entry(&head));
    let asked = request::receive(head, body, &pencil).await.map_err(io::Error::other)?;
    tracing::info!(method = %asked.method, path = asked.path, bytes = asked.body.len(), "asked");
    let answer = match app.playing.play(&asked, |words| faithful(&app, &asked, words)).await {
        Some(answer) => answer,
        None => faithful(&app, &asked, None),
    };
    let has_no_body = is_head || answer.status == StatusCode::NO_CONTENT;
    let mut response = answer.into_http(is_head);
    response.body_mut().attach(fault, pencil, has_no_body);
    Ok(response)
}

/// What Ollama would answer; `words` are the model's, where a script puts them into its mouth.
fn faithful(app: &App, asked: &request::Asked, words: Option<&str>) -> Answer {
    if let Some(answer) = gate::redirect(asked) {
        return answer;
    }
    let granted = match gate::admit(asked, app.state.listens_on_loopback) {
        gate::Admission::Refused => return Answer::empty(StatusCode::FORBIDDEN),
        gate::Admission::Answered(answer) => return answer,
        gate::Admission::Granted(headers) => headers,
    };
    let answer = routes::answer(&app.state, asked, words);
    granted.into_iter().fold(answer, |answer, (name, value)| answer.with(name, value))
}
