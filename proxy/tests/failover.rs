//! Requests while remotes are killed and revived: none fails that another remote could have served before its first
//! byte, and none is sent to a second remote after a byte of a response came back.
//!
//! `cargo xtask failover --requests 10000 --seed 1` runs many; here is a short run. Which requests are sent and which
//! remotes are killed depends on the seed alone; when the two meet depends on the machine.

#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use farllama::{Config, serve};
use mock_ollama::{Chaos, Journal, Mock, Options, Script, Stock};
use serde_json::json;
use support::dice::Dice;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};

/// Requests at the same time.
const AT_ONCE: usize = 24;

/// Longer than any request takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The models of each remote: one that all have, some that two have, one that is nowhere else.
const MODELS: [&[&str]; 3] = [&["all", "ab", "ca", "a"], &["all", "ab", "bc", "b"], &["all", "bc", "ca", "c"]];

/// A remote that is killed, and revived on the same port.
struct Mortal {
    addr: SocketAddr,
    models: &'static [&'static str],
    mock: Option<Mock>,
    /// Changes with each life and each death, so that a remote that was there all the time is known.
    epoch: u64,
    /// The journals of all its lives.
    journals: Vec<Journal>,
}

impl Mortal {
    async fn new(models: &'static [&'static str], seed: u64) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut mortal = Self { addr, models, mock: None, epoch: 0, journals: Vec::new() };
        mortal.revive(seed).await;
        mortal
    }

    async fn revive(&mut self, seed: u64) {
        let models: Vec<_> = self.models.iter().map(|model| model.parse().unwrap()).collect();
        // Pieces are late at random, so that a remote is killed before the first byte of a response and after it.
        let chaos = Some(Chaos { seed, slow: 0.15, ..Chaos::default() });
        let options = Options { port: self.addr.port(), stock: Stock::Empty, models, chaos, ..Options::default() };
        let mock = loop {
            match Mock::start_with(options.clone(), Script::default()).await {
                Ok(mock) => break mock,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        self.addr = mock.addr();
        self.journals.push(mock.journal());
        self.mock = Some(mock);
        self.epoch += 1;
    }

    fn kill(&mut self) {
        self.mock = None;
        self.epoch += 1;
    }
}

type Mortals = Arc<Mutex<Vec<Mortal>>>;

/// The remotes that have `model` and are there, with their epochs.
fn alive(remotes: &Mortals, model: &str) -> Vec<(usize, u64)> {
    let remotes = remotes.lock().unwrap();
    let alive =
        remotes.iter().enumerate().filter(|(_, remote)| remote.mock.is_some() && remote.models.contains(&model));
    alive.map(|(at, remote)| (at, remote.epoch)).collect()
}

/// What is asked.
struct Plan {
    model: &'static str,
    path: &'static str,
    stream: bool,
}

impl Plan {
    fn of(seed: u64, n: usize) -> Self {
        let mut dice = Dice(seed ^ (n as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let model = ["all", "all", "ab", "bc", "ca", "a", "b", "c"][dice.roll(8)];
        let path =
            ["/api/chat", "/v1/chat/completions", "/api/generate", "/v1/responses", "/v1/messages"][dice.roll(5)];
        Self { model, path, stream: dice.roll(2) == 0 }
    }

    fn request(&self, n: usize) -> Vec<u8> {
        let prompt = format!("request {n}.");
        let mut body = json!({"model": self.model, "stream": self.stream});
        let (field, value) = match self.path {
            "/api/generate" => ("prompt", json!(prompt)),
            "/v1/responses" => ("input", json!(prompt)),
            _ => ("messages", json!([{"role": "user", "content": prompt}])),
        };
        body[field] = value;
        if self.path == "/v1/messages" {
            body["max_tokens"] = json!(50);
        }
        let request = String::from_utf8(support::post(self.path, &body.to_string())).unwrap();
        request.replacen("\r\n", "\r\nConnection: close\r\n", 1).into_bytes()
    }
}

/// What became of a request.
struct Outcome {
    plan: Plan,
    status: u16,
    text: String,
    /// Whether the response says that it is whole.
    whole: bool,
    /// Remotes that have the model and were there from its begin to its end.
    healthy: Vec<usize>,
}

async fn send(proxy: SocketAddr, plan: Plan, n: usize, remotes: Mortals) -> Outcome {
    let before = alive(&remotes, plan.model);
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(&plan.request(n)).await.unwrap();
    let mut got = Vec::new();
    // A reset ends a response too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("an end in time");
    let after = alive(&remotes, plan.model);
    let healthy = before.into_iter().filter(|remote| after.contains(remote)).map(|(at, _)| at).collect();
    let text = String::from_utf8_lossy(&got).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let ends = ["[DONE]", "\"done\":true", "message_stop", "response.completed"];
    let whole = status == 200 && (!plan.stream || ends.iter().any(|end| text.contains(end)));
    Outcome { plan, status, text, whole, healthy }
}

/// Kills and revives remotes until it is stopped. Returns how often it killed one.
async fn reaper(remotes: Mortals, seed: u64, over: Arc<AtomicBool>) -> usize {
    let (mut dice, mut kills) = (Dice(!seed), 0);
    while !over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(10 + dice.roll(200) as u64)).await;
        let at = dice.roll(MODELS.len());
        let dead = {
            let mut remotes = remotes.lock().unwrap();
            let remote = &mut remotes[at];
            if remote.mock.is_some() {
                // They are there more often than not.
                if dice.roll(2) == 0 {
                    continue;
                }
                remote.kill();
                kills += 1;
                None
            } else {
                // It is revived outside of the lock.
                Some(Mortal { journals: Vec::new(), mock: None, ..*remote })
            }
        };
        if let Some(mut revived) = dead {
            revived.revive(dice.roll(1000) as u64).await;
            let mut remotes = remotes.lock().unwrap();
            let remote = &mut remotes[at];
            (remote.mock, remote.epoch) = (revived.mock.take(), revived.epoch);
            remote.journals.append(&mut revived.journals);
        }
    }
    kills
}

/// When a remote got a request, and when it last wrote a piece of its response.
struct Attempt {
    arrived: Instant,
    wrote: Option<Instant>,
}

/// The attempts at each request, by its number.
fn attempts(remotes: &Mortals) -> HashMap<usize, Vec<Attempt>> {
    let mut attempts: HashMap<usize, Vec<Attempt>> = HashMap::new();
    let remotes = remotes.lock().unwrap();
    for entry in remotes.iter().flat_map(|remote| &remote.journals).flat_map(Journal::entries) {
        let body = String::from_utf8_lossy(&entry.body).into_owned();
        let Some(n) = body.split_once("request ").and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok()) else {
            continue;
        };
        attempts.entry(n).or_default().push(Attempt { arrived: entry.arrived, wrote: entry.wrote });
    }
    attempts.values_mut().for_each(|attempts| attempts.sort_by_key(|attempt| attempt.arrived));
    attempts
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(usual)
}

#[tokio::test]
async fn no_request_fails_that_another_remote_could_have_served_and_none_is_sent_twice_after_a_byte() {
    let (requests, seed) = (setting("FAILOVER_REQUESTS", 400) as usize, setting("FAILOVER_SEED", 1));
    let mut mortals = Vec::new();
    for models in MODELS {
        mortals.push(Mortal::new(models, seed).await);
    }
    let mut text = "[local]\nport = 0\n[health]\ninterval = \"50ms\"\ntimeout = \"2s\"\n".to_owned();
    for (remote, name) in mortals.iter().zip('a'..) {
        write!(text, "[[remotes]]\nname = \"{name}\"\nurl = \"http://{}\"\n", remote.addr).unwrap();
    }
    let proxy = serve(Config::from_toml(&text).unwrap()).await.unwrap();
    let proxy_addr = proxy.addr();
    let remotes: Mortals = Arc::new(Mutex::new(mortals));
    let over = Arc::new(AtomicBool::new(false));
    let reaper = tokio::spawn(reaper(remotes.clone(), seed, over.clone()));
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut clients = JoinSet::new();
    for n in 0..requests {
        let permit = permits.clone().acquire_owned().await.unwrap();
        let remotes = remotes.clone();
        clients.spawn(async move {
            let outcome = send(proxy_addr, Plan::of(seed, n), n, remotes).await;
            drop(permit);
            (n, outcome)
        });
    }
    let mut outcomes = Vec::new();
    while let Some(ended) = clients.join_next().await {
        outcomes.push(ended.unwrap());
    }
    over.store(true, Ordering::Relaxed);
    let kills = reaper.await.unwrap();
    let attempts = attempts(&remotes);
    let (mut whole, mut moved, mut cut, mut hopeless) = (0, 0, 0, 0);
    let mut broken = Vec::new();
    for (n, outcome) in &outcomes {
        let none = Vec::new();
        let attempts = attempts.get(n).unwrap_or(&none);
        let began = attempts.iter().any(|attempt| attempt.wrote.is_some());
        whole += usize::from(outcome.whole);
        moved += usize::from(outcome.whole && attempts.len() > 1);
        let Plan { model, path, stream } = outcome.plan;
        let reported = || format!("seed {seed}, request {n} ({model}, {path}, stream {stream}): {}", outcome.text);
        if !outcome.whole {
            if began {
                cut += 1;
            } else if outcome.healthy.is_empty() {
                hopeless += 1;
            } else {
                broken.push(format!("{:?} could have served {}", outcome.healthy, reported()));
            }
            if outcome.status == 404 {
                broken.push(format!("a model that is only out of reach is not a 404: {}", reported()));
            }
        }
        let twice = attempts.iter().enumerate().any(|(at, attempt)| attempt.wrote.is_some() && at + 1 < attempts.len());
        if twice {
            broken.push(format!("sent again after a byte came back: {}", reported()));
        }
    }
    println!(
        "{requests} requests of seed {seed}, {kills} kills: {whole} whole ({moved} of them on another remote or connection), \
         {cut} cut after the first byte, {hopeless} while no remote with their model was there, {} wrong",
        broken.len()
    );
    assert!(broken.is_empty(), "{} are wrong, the first: {}", broken.len(), broken[0]);
    assert_eq!(whole + cut + hopeless, requests);
    // How many of each there are depends on the machine; none of a kind would be a test of nothing.
    assert!(kills > 0 && whole > requests / 10, "the remotes were neither always there nor always gone");
}
