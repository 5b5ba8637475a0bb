//! `farllama status`, `start`, `stop`, `restart`, `remote`, `logs`, `requests`, `top`, `inspect`: the admin API on the
//! command line.
//!
//! Exit codes: 0 done; 1 the running farllama refused or failed; 2 wrong usage or settings; 3 no farllama answers at
//! the admin address.

use std::{
    fmt::Write as _,
    io::{IsTerminal, Write as _},
    time::Duration,
};

use bytes::Bytes;
use clap::{Arg, ArgAction, ArgMatches, Command};
use farllama::Config;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

/// No farllama answers.
const NOT_RUNNING: u8 = 3;
const REFUSED: u8 = 1;

/// How long a call may take: a test of a remote takes up to 10 s for each of its two requests.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often `-f` and `top` look.
const INTERVAL: Duration = Duration::from_millis(500);

/// The names of the commands.
pub(crate) const NAMES: [&str; 10] =
    ["status", "start", "stop", "restart", "remote", "remotes", "logs", "requests", "top", "inspect"];

/// Why a command failed: its exit code, and the text for stderr.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: u8,
    pub(crate) text: String,
}

impl Failed {
    fn refused(text: impl Into<String>) -> Self {
        Self { code: REFUSED, text: text.into() }
    }
}

type Outcome<T = ()> = Result<T, Failed>;

/// The commands.
pub(crate) fn commands() -> Vec<Command> {
    let json =
        || Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON, one document or one per line");
    let follow =
        || Arg::new("follow").short('f').long("follow").action(ArgAction::SetTrue).help("Go on with what is new");
    let lines = |help: &'static str| {
        let count = clap::value_parser!(u32).range(1..=1000);
        Arg::new("lines")
            .short('n')
            .long("lines")
            .value_name("COUNT")
            .value_parser(count)
            .default_value("50")
            .help(help)
    };
    let plain = |name: &'static str, about: &'static str| Command::new(name).about(about).arg(json());
    let key = || {
        let number = clap::value_parser!(u64);
        Arg::new("key")
            .value_name("KEY")
            .required(true)
            .value_parser(number)
            .help("The number that `farllama requests` shows")
    };
    vec![
        plain("status", "Show whether farllama runs, and its state"),
        plain("start", "Start the data listener of the running farllama again"),
        plain("stop", "Stop the data listener of the running farllama; running requests go on"),
        plain("restart", "Stop and start the data listener; running requests go on"),
        Command::new("remote")
            .about("Show or change the remote of the running farllama")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(plain("show", "Show the remote in force"))
            .subcommand(
                plain("set", "Test a remote and switch to it; running requests go on")
                    .arg(
                        Arg::new("url")
                            .value_name("URL")
                            .required(true)
                            .help("A name, an address, host:port, or a URL"),
                    )
                    .arg(
                        Arg::new("kind")
                            .long("kind")
                            .value_name("KIND")
                            .value_parser(["ollama", "openai", "auto"])
                            .help("What it speaks [default: as now]"),
                    )
                    .arg(Arg::new("key").long("key").value_name("KEY").help("API key for the remote; empty: none"))
                    .arg(
                        Arg::new("save")
                            .long("save")
                            .action(ArgAction::SetTrue)
                            .help("Write it into the settings file; comments and layout are preserved"),
                    )
                    .arg(
                        Arg::new("force")
                            .long("force")
                            .action(ArgAction::SetTrue)
                            .help("Apply it though the test fails"),
                    )
                    .arg(Arg::new("test").long("test").action(ArgAction::SetTrue).help("Only test it")),
            ),
        plain("remotes", "Show all remotes of the running farllama, with their state and their models"),
        plain("logs", "Show the last log lines")
            .arg(follow())
            .arg(lines("How many"))
            .arg(
                Arg::new("level")
                    .long("level")
                    .value_name("LEVEL")
                    .value_parser(["error", "warn", "info", "debug", "trace"])
                    .help("Only lines that are at least as important"),
            )
            .arg(Arg::new("search").long("search").value_name("TEXT").help("Only lines that contain this text"))
            .arg(Arg::new("clear").long("clear").action(ArgAction::SetTrue).help("Forget the lines that are kept")),
        plain("requests", "Show running requests and the last that have ended")
            .arg(follow())
            .arg(lines("How many of those that have ended"))
            .arg(
                Arg::new("cancel")
                    .long("cancel")
                    .value_name("KEY")
                    .value_parser(clap::value_parser!(u64))
                    .help("Cancel the running request with this number"),
            ),
        plain("top", "Show a refreshing view of status, requests and speed")
            .arg(Arg::new("once").long("once").action(ArgAction::SetTrue).help("Show it once")),
        Command::new("inspect")
            .about("Keep headers and bodies of exchanges for a limited time, and show them")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(plain("on", "Switch the inspector on, for admin.inspector_time"))
            .subcommand(plain("off", "Switch it off; what it has stays"))
            .subcommand(plain("list", "List the exchanges that it has"))
            .subcommand(plain("clear", "Forget them"))
            .subcommand(Command::new("show").about("Print one exchange as JSON").arg(key()))
            .subcommand(Command::new("curl").about("Print the request of one exchange as a curl command").arg(key()))
            .subcommand(
                Command::new("scenario").about("Print one exchange as a scenario for farllama-check").arg(key()),
            ),
    ]
}

/// Runs the command that `matches` names.
///
/// # Errors
/// Fails with the exit code and what to say.
pub(crate) async fn run(matches: &ArgMatches, config: &Config) -> Outcome {
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    let api = Api::of(config);
    let flag = |name: &str| matches.try_get_one::<bool>(name).ok().flatten().is_some_and(|on| *on);
    match name {
        "status" => {
            let status = api.call(Method::GET, "/api/status", None).await?;
            print(&if flag("json") { line(&status) } else { status_text(&status) });
        }
        "start" | "stop" | "restart" => {
            let acted = api.call(Method::POST, &format!("/api/{name}"), None).await?;
            let state = if acted["running"] == true { "running" } else { "stopped" };
            let changed = if acted["changed"] == true { "" } else { " already" };
            print(&if flag("json") { line(&acted) } else { format!("data listener: {state}{changed}\n") });
        }
        "remotes" => {
            let list = api.call(Method::GET, "/api/remotes", None).await?;
            print(&if flag("json") { line(&list) } else { remotes_text(&list["remotes"]) });
        }
        "logs" => logs(&api, matches).await?,
        "requests" => requests(&api, matches).await?,
        "top" => top(&api, flag("once")).await?,
        "remote" => remote(&api, matches).await?,
        _ => inspect(&api, matches).await?,
    }
    Ok(())
}

/// Where the API is.
struct Api {
    host: String,
    port: u16,
    token: String,
}

impl Api {
    fn of(config: &Config) -> Self {
        let admin = &config.admin;
        // A listener on all addresses is reached on loopback.
        let host = match &*admin.host {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        Self { host: host.to_owned(), port: admin.port, token: admin.token.0.clone() }
    }

    fn absent(&self) -> Failed {
        let (host, port) = (&self.host, self.port);
        Failed {
            code: NOT_RUNNING,
            text: format!("not running: no farllama answers at {host}:{port} (admin.host, admin.port)"),
        }
    }

    /// Sends one request. The connection lives as long as what is returned.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Outcome<(Response<Incoming>, JoinSet<()>)> {
        let stream = TcpStream::connect((&*self.host, self.port)).await.map_err(|_| self.absent())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| self.absent())?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            // Its error is the request's.
            let _ = connection.await;
        });
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{host}:{}", self.port))
            .header("x-farllama-admin", "1");
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(body)).map_err(|error| Failed::refused(error.to_string()))?;
        let response = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let response = response.map_err(|_| Failed::refused("the running farllama did not answer in time"))?;
        Ok((response.map_err(|_| self.absent())?, driver))
    }

    /// The text of a successful response.
    async fn text(&self, method: Method, path: &str, body: Option<Value>) -> Outcome<String> {
        let (response, _driver) = self.send(method, path, body).await?;
        let (status, is_ours) = (response.status(), response.headers().contains_key("content-security-policy"));
        let read = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
        let read = read.ok().and_then(Result::ok).ok_or_else(|| self.absent())?.to_bytes();
        let text = String::from_utf8_lossy(&read).into_owned();
        if !is_ours {
            return Err(self.absent());
        }
        if status.is_success() {
            return Ok(text);
        }
        let error =
            serde_json::from_str::<Value>(&text).ok().and_then(|body| body["error"].as_str().map(str::to_owned));
        let text = error.unwrap_or_else(|| format!("the running farllama answered {status}"));
        let hint = if status == StatusCode::UNAUTHORIZED { " (--admin-token, FARLLAMA_ADMIN_TOKEN)" } else { "" };
        Err(Failed::refused(format!("{text}{hint}")))
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Outcome<Value> {
        let text = self.text(method, path, body).await?;
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|_| self.absent())
    }
}

fn print(text: &str) {
    // A reader that has gone needs no more.
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// A text of a caller's or the remote's on a terminal: without control characters.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn milliseconds(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(ms) if ms < 1000.0 => format!("{ms:.0} ms"),
        Some(ms) => format!("{:.1} s", ms / 1000.0),
    }
}

/// What a remote is: its kind, and its version or the program that it is.
fn described(remote: &Value) -> String {
    match (remote["kind"].as_str(), remote["server"].as_str()) {
        (Some("openai"), Some(_)) => format!("OpenAI server ({})", shown(&remote["server"])),
        (Some("openai"), None) => "OpenAI server".to_owned(),
        _ if remote["version"].is_string() => format!("Ollama {}", shown(&remote["version"])),
        _ => "Ollama of unknown version".to_owned(),
    }
}

fn status_text(status: &Value) -> String {
    let (listener, remote) = (&status["listener"], &status["remote"]);
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:12}{value}");
    };
    let state = match (&listener["running"], &listener["shutting_down"]) {
        (Value::Bool(true), _) => "running",
        (_, Value::Bool(true)) => "shutting down",
        _ => "stopped (farllama start)",
    };
    row("farllama", format!("{} (pid {}), data listener {state}", shown(&status["version"]), status["pid"]));
    row("Ollama API", shown(&listener["ollama"]));
    row("OpenAI API", shown(&listener["openai"]));
    row("keys", if listener["keys"] == true { "required" } else { "not required" }.to_owned());
    row("remote", shown(&remote["url"]));
    let health = if remote["reachable"] == true {
        format!("reachable, {}, {}", described(remote), milliseconds(&remote["latency_ms"]))
    } else {
        shown(&remote["error"])
    };
    row("", health);
    for remote in status["remotes"].as_array().into_iter().flatten() {
        let state = match remote["reachable"] == true {
            true => format!("up, {}", described(remote)),
            false => format!("DOWN: {}", shown(&remote["error"])),
        };
        row("", format!("{} ({}) {state}", shown(&remote["name"]), shown(&remote["url"])));
    }
    row("requests", format!("{} running", status["requests"]["in_flight"]));
    if status["inspector"]["until_ms"].is_number() {
        row("inspector", "ON: prompts and answers are kept (farllama inspect off)".to_owned());
    }
    row("console", shown(&status["admin"]));
    text
}

/// One line for each remote, and one with its models.
fn remotes_text(remotes: &Value) -> String {
    let mut text = String::new();
    let names = |list: &Value| list.as_array().map(|list| list.iter().map(shown).collect::<Vec<_>>());
    for remote in remotes.as_array().into_iter().flatten() {
        let state = if remote["reachable"] == true { "up" } else { "down" };
        let _ = write!(text, "{:16}{state:6}{}", shown(&remote["name"]), shown(&remote["url"]));
        if remote["reachable"] == true {
            let _ = write!(text, "  {}, {}", described(remote), milliseconds(&remote["latency_ms"]));
        }
        if let Some(requests) = remote["in_flight"].as_u64() {
            let _ = write!(text, ", {requests} running, priority {}, weight {}", remote["priority"], remote["weight"]);
        }
        text.push('\n');
        if remote["reachable"] != true {
            let _ = writeln!(text, "{:16}{}", "", shown(&remote["error"]));
        }
        let loaded = names(&remote["loaded"]).unwrap_or_default();
        if let Some(mut models) = names(&remote["installed"]) {
            models.iter_mut().filter(|model| loaded.contains(model)).for_each(|model| *model += " (loaded)");
            let models = if models.is_empty() { "no models".to_owned() } else { models.join(", ") };
            let _ = writeln!(text, "{:16}{models}", "");
        }
    }
    text
}

async fn logs(api: &Api, matches: &ArgMatches) -> Outcome {
    if matches.get_flag("clear") {
        return api.call(Method::DELETE, "/api/logs", None).await.map(|_| ());
    }
    let mut query = String::new();
    for (name, flag) in [("level", "level"), ("search", "search")] {
        if let Some(value) = matches.get_one::<String>(flag) {
            let value = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            let _ = write!(query, "&{name}={value}");
        }
    }
    let (json, follow) = (matches.get_flag("json"), matches.get_flag("follow"));
    let (mut after, mut limit) = (0, matches.get_one::<u32>("lines").copied().unwrap_or(50));
    loop {
        let read = api.call(Method::GET, &format!("/api/logs?after={after}&limit={limit}{query}"), None).await?;
        for one in read["lines"].as_array().into_iter().flatten() {
            after = one["seq"].as_u64().unwrap_or(after);
            print(&if json { line(one) } else { format!("{}\n", shown(&one["text"])) });
        }
        if !follow {
            return Ok(());
        }
        limit = 1000;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The columns of the list of requests.
fn request_row(one: &Value, running: bool) -> String {
    let tokens = match (one["input_tokens"].as_u64(), one["output_tokens"].as_u64()) {
        (Some(input), Some(output)) => format!("{input} > {output}"),
        _ => "-".to_owned(),
    };
    let end = if running {
        one["waiting_for"].as_str().map_or("running".to_owned(), |what| format!("waits for {what}"))
    } else {
        shown(&one["ending"])
    };
    let total = milliseconds(&one[if running { "running_ms" } else { "total_ms" }]);
    let model: String = shown(&one["model"]).chars().take(24).collect();
    let path: String = shown(&one["path"]).chars().take(28).collect();
    format!(
        "{:>6}  {:28}  {model:24}  {:10}  {:>4}  {:>8}  {total:>8}  {tokens:>13}  {:>6}  {end}",
        one["key"],
        path,
        shown(&one["caller"]).chars().take(10).collect::<String>(),
        shown(&one["status"]),
        milliseconds(&one["first_token_ms"]),
        shown(&one["tokens_per_second"]),
    )
}

fn request_head() -> String {
    format!(
        "{:>6}  {:28}  {:24}  {:10}  {:>4}  {:>8}  {:>8}  {:>13}  {:>6}  END",
        "KEY", "ROUTE", "MODEL", "CALLER", "CODE", "1ST TOK", "TOTAL", "TOKENS", "TOK/S"
    )
}

async fn requests(api: &Api, matches: &ArgMatches) -> Outcome {
    if let Some(key) = matches.get_one::<u64>("cancel") {
        api.call(Method::POST, &format!("/api/requests/{key}/cancel"), None).await?;
        print(&format!("canceled {key}\n"));
        return Ok(());
    }
    let (json, follow) = (matches.get_flag("json"), matches.get_flag("follow"));
    let (mut after, mut limit) = (0, matches.get_one::<u32>("lines").copied().unwrap_or(50));
    if !json {
        print(&format!("{}\n", request_head()));
    }
    loop {
        let read = api.call(Method::GET, &format!("/api/requests?after={after}&limit={limit}"), None).await?;
        for one in read["finished"].as_array().into_iter().flatten() {
            after = one["seq"].as_u64().unwrap_or(after);
            print(&if json { line(one) } else { format!("{}\n", request_row(one, false)) });
        }
        if !follow {
            for one in read["running"].as_array().into_iter().flatten() {
                print(&if json { line(one) } else { format!("{}\n", request_row(one, true)) });
            }
            return Ok(());
        }
        limit = 1000;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Status, running requests, the last that have ended, and the speed of the last minute.
async fn top(api: &Api, once: bool) -> Outcome {
    let terminal = std::io::stdout().is_terminal();
    loop {
        let status = api.call(Method::GET, "/api/status", None).await?;
        let requests = api.call(Method::GET, "/api/requests?limit=15", None).await?;
        let history = api.call(Method::GET, "/api/history", None).await?;
        let minute = history["points"].as_array().into_iter().flatten();
        let minute: Vec<&Value> = minute.filter(|point| point["age_s"].as_u64().is_some_and(|age| age < 60)).collect();
        let sum = |field: &str| minute.iter().filter_map(|point| point[field].as_u64()).sum::<u64>();
        let mut text = status_text(&status);
        let _ = writeln!(
            text,
            "last minute {} requests, {} errors, {} tokens in, {} out\n\n{}",
            sum("requests"),
            sum("errors"),
            sum("input_tokens"),
            sum("output_tokens"),
            request_head()
        );
        for one in requests["running"].as_array().into_iter().flatten() {
            let _ = writeln!(text, "{}", request_row(one, true));
        }
        for one in requests["finished"].as_array().into_iter().flatten().rev() {
            let _ = writeln!(text, "{}", request_row(one, false));
        }
        if once {
            print(&text);
            return Ok(());
        }
        // Home, each line cleared to its end, and the rest of the screen.
        let screen = text.replace('\n', "\u{1b}[K\r\n");
        print(&if terminal { format!("\u{1b}[H{screen}\u{1b}[J") } else { text + "\n" });
        tokio::time::sleep(2 * INTERVAL).await;
    }
}

async fn remote(api: &Api, matches: &ArgMatches) -> Outcome {
    let Some((verb, matches)) = matches.subcommand() else { return Ok(()) };
    let json_wanted = matches.get_flag("json");
    if verb == "show" {
        let remote = api.call(Method::GET, "/api/remote", None).await?;
        let credentials = shown(&remote["credentials"]);
        print(&if json_wanted {
            line(&remote)
        } else {
            format!("{} (credentials: {credentials})\n", shown(&remote["url"]))
        });
        return Ok(());
    }
    let mut change = json!({ "url": matches.get_one::<String>("url") });
    if let Some(key) = matches.get_one::<String>("key") {
        change["api_key"] = json!(key);
    }
    if let Some(kind) = matches.get_one::<String>("kind") {
        change["kind"] = json!(kind);
    }
    let test = matches.get_flag("test");
    let (method, path) = if test { (Method::POST, "/api/remote/test") } else { (Method::PUT, "/api/remote") };
    if !test {
        change["save"] = json!(matches.get_flag("save"));
        change["force"] = json!(matches.get_flag("force"));
    }
    let outcome = api.call(method, path, Some(change)).await?;
    for warning in outcome["warnings"].as_array().into_iter().flatten() {
        eprintln!("farllama: warning: {}", shown(warning));
    }
    let unreachable = outcome["reachable"] != true;
    if json_wanted {
        print(&line(&outcome));
    } else {
        let found = if unreachable { shown(&outcome["error"]) } else { described(&outcome) };
        let done = if outcome["applied"] == true { "remote set to " } else { "" };
        print(&format!("{done}{}: {found}\n", shown(&outcome["url"])));
        if let Some(file) = outcome["saved"].as_str() {
            print(&format!("saved in {file}\n"));
        }
    }
    if test && unreachable { Err(Failed::refused("the remote cannot be used")) } else { Ok(()) }
}

async fn inspect(api: &Api, matches: &ArgMatches) -> Outcome {
    let Some((verb, matches)) = matches.subcommand() else { return Ok(()) };
    let key = || matches.try_get_one::<u64>("key").ok().flatten().copied().unwrap_or_default();
    let json_wanted = matches.try_get_one::<bool>("json").ok().flatten().is_some_and(|json| *json);
    match verb {
        "on" | "off" => {
            let list = api.call(Method::PUT, "/api/inspector", Some(json!({ "on": verb == "on" }))).await?;
            print(&if json_wanted { line(&list) } else { format!("inspector: {verb}\n") });
        }
        "clear" => drop(api.call(Method::DELETE, "/api/inspector", None).await?),
        "list" => {
            let list = api.call(Method::GET, "/api/inspector", None).await?;
            if json_wanted {
                print(&line(&list));
                return Ok(());
            }
            for one in list["exchanges"].as_array().into_iter().flatten() {
                let model = shown(&one["model"]);
                let (method, path) = (shown(&one["method"]), shown(&one["path"]));
                print(&format!(
                    "{:>6}  {method} {path}  {model}  {}  {}\n",
                    one["key"],
                    one["status"],
                    shown(&one["ending"])
                ));
            }
        }
        "show" => print(&api.text(Method::GET, &format!("/api/inspector/{}", key()), None).await?),
        "curl" => print(&api.text(Method::GET, &format!("/api/inspector/{}/curl", key()), None).await?),
        _ => print(&api.text(Method::GET, &format!("/api/inspector/{}/scenario", key()), None).await?),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_chose_cannot_steer_a_terminal() {
        let row =
            request_row(&json!({ "key": 1, "model": "\u{1b}[2Jm", "path": "/a\nb", "ending": "complete" }), false);
        assert!(!row.contains('\u{1b}') && !row.contains('\n'), "{row:?}");
    }
}
