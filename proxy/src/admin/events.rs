//! Live updates as server-sent events: status, requests and log lines. It looks twice a second while a client listens,
//! so that nothing costs anything while none does.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use axum::{
    extract::State as Extract,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use http::StatusCode;
use serde::Serialize;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use super::{Problem, State, api::Requests};
use crate::json_writer;

const TICK: Duration = Duration::from_millis(500);

/// Maximum number of requests, and of log lines, that are sent each time, the last ones: what a console costs has a
/// bound however busy the proxy is.
const ROWS: usize = 100;
const LINES: usize = 100;

/// How often the status is sent at least.
const STATUS: Duration = Duration::from_secs(5);

struct Listening {
    state: State,
    ticks: Interval,
    row: u64,
    line: u64,
    running: HashSet<(u64, bool)>,
    status: Option<(Instant, String)>,
    pending: Vec<Event>,
    _permit: OwnedSemaphorePermit,
}

/// The stream. It begins with the status, the last requests and the last lines.
pub(crate) async fn stream(Extract(state): Extract<State>) -> Response {
    let Ok(permit) = state.streams.clone().try_acquire_owned() else {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many event streams are open: close a console")
            .into_response();
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let listening = Listening {
        state,
        ticks,
        row: 0,
        line: 0,
        running: HashSet::new(),
        status: None,
        pending: Vec::new(),
        _permit: permit,
    };
    let events = stream::unfold(listening, |mut listening| async move {
        loop {
            if let Some(event) = listening.pending.pop() {
                return Some((Ok::<_, Infallible>(event), listening));
            }
            listening.ticks.tick().await;
            listening.look().await;
        }
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

impl Listening {
    fn send(&mut self, name: &str, data: &impl Serialize) {
        // Written in one pass: axum's writer looks for line ends in each piece.
        let written = json_writer::to_vec(data, 16 << 10).ok().and_then(|written| String::from_utf8(written).ok());
        if let Some(data) = written {
            self.pending.push(Event::default().event(name).data(data));
        }
    }

    async fn look(&mut self) {
        let persistent = &self.state.control.persistent;
        let finished = persistent.history.after(self.row, if self.row == 0 { 200 } else { ROWS });
        let running = persistent.in_flight.list();
        let now: HashSet<_> = running.iter().map(|open| (open.key, open.first_token_ms.is_some())).collect();
        if !finished.is_empty() || now != self.running {
            self.row = finished.last().map_or(self.row, |row| row.seq);
            self.running = now;
            self.send("requests", &Requests { running, finished });
        }
        let lines = self.state.log.after(self.line, if self.line == 0 { 500 } else { LINES }, None, "");
        if let Some(last) = lines.last() {
            self.line = last.seq;
            self.send("logs", &lines);
        }
        let config = self.state.control.config();
        // What changes without an event of its own.
        let key = format!(
            "{} {} {:?} {:?}",
            self.state.control.is_listening(),
            self.state.control.setup().shared.remotes.first().client.remote(),
            self.state.control.persistent.inspector.until(),
            config.auth.enabled,
        );
        if self.status.as_ref().is_none_or(|(at, of)| at.elapsed() >= STATUS || *of != key) {
            let status = self.state.current().await;
            self.status = Some((Instant::now(), key));
            self.send("status", &status);
        }
    }
}
