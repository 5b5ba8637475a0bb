//! The doctor on mocks that are ill in nine ways: its verdicts are those of a table that was written first.

use std::time::Duration;

use farllama_check::doctor::{Diagnosis, Examination, Patient, bundle, examine, fact::State, page, persona};
use mock_ollama::{Mock, Model, Options, Script, Stock, Then};

/// Each profile with its mock.
const PROFILES: [&str; 9] = ["healthy", "old", "no-tools", "ctx-2048", "slow", "breaks", "401", "502", "no-embed"];

/// R: ready, L: with limits, N: not ready; a column for each profile.
const TABLE: &str = "
    tool         healthy old no-tools ctx-2048 slow breaks 401 502 no-embed
    aider           R     R     R        R      R     N     N   N     R
    claude-code     R     L     N        N      L     N     N   N     R
    cline           R     R     R        R      L     N     N   N     R
    codex           R     N     N        N      L     N     N   N     R
    continue        R     R     L        R      L     N     N   N     L
    copilot         R     N     L        N      L     N     N   N     R
    jetbrains       R     L     R        L      L     N     N   N     R
    langchain       R     R     L        L      R     N     N   N     L
    ollama-cli      R     R     R        R      R     N     N   N     R
    open-webui      R     L     R        L      L     N     N   N     L
    openai-sdk      R     R     L        L      R     N     N   N     L
    opencode        R     L     N        N      L     N     N   N     R
    zed             R     N     L        R      L     N     N   N     R
";

/// A model with tools and a long context, and one of embeddings.
fn options() -> Options {
    Options { context_length: Some(131_072), ..Options::default() }
}

fn profile(name: &str) -> (Options, Script) {
    let healthy = Script::default();
    match name {
        "healthy" => (options(), healthy),
        "old" => {
            // A model of its time: it calls tools, and does not think.
            let models = ["llama3.1=completion,tools,context:131072", "all-minilm=embedding"];
            let models = models.map(|model| model.parse().unwrap()).to_vec();
            (Options { version: "0.5.0".parse().unwrap(), stock: Stock::Empty, models, ..options() }, healthy)
        }
        "no-tools" => {
            let models = vec![
                "mute=completion,context:131072".parse::<Model>().unwrap(),
                "all-minilm=embedding".parse().unwrap(),
            ];
            (Options { stock: Stock::Empty, models, ..options() }, healthy)
        }
        "ctx-2048" => (Options { context_length: Some(2048), ..options() }, healthy),
        "slow" => (options(), Script::on("/api/chat").nth(1).delay(Duration::from_millis(5500))),
        "breaks" => (options(), Script::on("/api/chat").containing("\"stream\":true").after(2).then(Then::Cut)),
        "401" => (options(), Script::always().status(401).body(serde_json::json!({"error": "unauthorized"}))),
        "502" => {
            let page = "<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>";
            (options(), Script::always().status(502).header("content-type", "text/html").body(page))
        }
        "no-embed" => {
            let models = vec!["gpt-oss:20b=completion,tools,thinking,context:131072".parse().unwrap()];
            (Options { stock: Stock::Empty, models, ..options() }, healthy)
        }
        other => unreachable!("no profile {other}"),
    }
}

async fn diagnosis(name: &str) -> Diagnosis {
    let (options, script) = profile(name);
    let mock = Mock::start_with(options, script).await.unwrap();
    let addr = mock.addr();
    let remote = farllama::config::Remote { host: addr.ip().to_string(), port: addr.port(), ..Default::default() };
    let examination = Examination {
        patient: Patient::remote(remote),
        models: Vec::new(),
        embedding_model: None,
        tools: persona::all().unwrap(),
        tries: 3,
        timeout: Duration::from_secs(20),
        within: Duration::from_secs(60),
        cold: false,
    };
    examine(&examination, |_| {}).await.unwrap()
}

/// What `name` makes of each tool, a letter each, in the order of the table.
fn letters(diagnosis: &Diagnosis) -> Vec<(String, char)> {
    let letter = |level| match level {
        persona::Level::Ready => 'R',
        persona::Level::Limits => 'L',
        persona::Level::Unknown => '?',
        persona::Level::NotReady => 'N',
    };
    diagnosis.models[0].verdicts.iter().map(|verdict| (verdict.id.clone(), letter(verdict.level))).collect()
}

/// A page without its numbers: what differs only in times is the same.
fn without_numbers(page: &str) -> String {
    let mut out: String = page.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).collect();
    while out.contains("##") {
        out = out.replace("##", "#");
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verdicts_are_those_of_the_table_and_no_two_pages_are_alike() {
    let all: Vec<_> = futures_util::future::join_all(PROFILES.map(diagnosis)).await;
    let mut wrong = Vec::new();
    let mut rows = TABLE.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).filter(|row| !row.is_empty());
    assert_eq!(rows.next().unwrap()[1..], PROFILES);
    let rows: Vec<_> = rows.collect();
    for (nth, (name, diagnosis)) in PROFILES.iter().zip(&all).enumerate() {
        let letters = letters(diagnosis);
        assert_eq!(letters.len(), rows.len(), "{name}: each tool has a row");
        for ((id, letter), row) in letters.iter().zip(&rows) {
            assert_eq!(id, row[0]);
            if letter.to_string() != row[nth + 1] {
                let verdict = diagnosis.models[0].verdicts.iter().find(|verdict| verdict.id == *id).unwrap();
                wrong.push(format!("{name}, {id}: {letter} instead of {}: {:#?}", row[nth + 1], verdict.reasons));
            }
        }
        for verdict in diagnosis.models.iter().flat_map(|model| &model.verdicts) {
            assert_eq!(verdict.reasons.is_empty(), verdict.level == persona::Level::Ready, "{name}: {}", verdict.id);
            for reason in &verdict.reasons {
                let facts: Vec<_> = diagnosis.all_facts().filter(|fact| fact.id == reason.probe).collect();
                assert!(
                    facts.iter().any(|fact| fact.text == reason.found),
                    "{name}: the evidence {} is a fact",
                    reason.probe
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let pages: Vec<_> = all.iter().map(|diagnosis| without_numbers(&page::render(diagnosis, false))).collect();
    for (nth, page) in pages.iter().enumerate() {
        for (other, name) in PROFILES.iter().enumerate().skip(nth + 1) {
            assert_ne!(page, &pages[other], "{} and {name}", PROFILES[nth]);
        }
    }
    // What the pages must say, in the words of a person who has this trouble.
    for (name, words) in [
        ("old", "capabilities in /api/show"),
        ("no-tools", "the model has no tools"),
        ("ctx-2048", "2048 tokens"),
        ("slow", "OLLAMA_KEEP_ALIVE"),
        ("breaks", "ends streams early"),
        ("401", "FARLLAMA_REMOTE_API_KEY"),
        ("502", "a gateway answers, and Ollama behind it does not: 502 with an HTML page"),
        ("no-embed", "no model for embeddings is there"),
    ] {
        let nth = PROFILES.iter().position(|known| *known == name).unwrap();
        let page = page::render(&all[nth], false);
        assert!(page.contains(words), "{name}: {words}\n{page}");
    }
    let healthy = &all[0];
    assert_eq!(healthy.exit() as u8, 0);
    let bad: Vec<_> = healthy.all_facts().filter(|fact| fact.state == State::Bad).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(all[6].exit() as u8 == 1 && all[1].exit() as u8 == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_can_be_run_and_holds_no_secret() {
    // A server that repeats the key that it is given, and a model that writes markup.
    const CANARY: &str = "blue-canary-4711-secret";
    let repeats = format!("the key {CANARY} is not enough");
    let script = Script::on("/api/chat")
        .containing("get_time")
        .status(403)
        .body(serde_json::json!({"error": repeats}))
        .and(Script::on("/api/chat").containing("get_weather").says("<script>alert(1)</script>"));
    let mock = Mock::start_with(options(), script).await.unwrap();
    let addr = mock.addr();
    let text = format!(
        "[remote]\nurl = \"http://{addr}\"\napi_key = \"{CANARY}\"\n[remote.headers]\nx-team-key = \"{CANARY}-2\"\n"
    );
    let remote = farllama::Config::from_toml(&text).unwrap().remote;
    let examination = Examination {
        patient: Patient::remote(remote),
        models: vec!["gpt-oss:20b".to_owned()],
        embedding_model: None,
        tools: persona::chosen(&["codex".to_owned()]).unwrap(),
        tries: 2,
        timeout: Duration::from_secs(20),
        within: Duration::from_secs(60),
        cold: false,
    };
    let diagnosis = examine(&examination, |_| {}).await.unwrap();
    let settings = bundle::Settings {
        flags: vec![("remote-api-key", CANARY.to_owned())],
        farllama: Some(format!("api_key = \"{CANARY}\"")),
        secrets: vec![CANARY.to_owned()],
    };
    let files = bundle::files(&diagnosis, &settings).unwrap();
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"report.html") && names.contains(&"scenarios/tools-two.yaml"), "{names:?}");
    for (name, text) in &files {
        assert!(!text.contains("blue-canary"), "{name} has the key");
        assert!(name != "report.html" || !text.contains("<script>alert"), "markup is escaped");
        if name.ends_with(".yaml") {
            farllama_check::check::load::read(name, text)
                .unwrap_or_else(|problems| panic!("{name}: {problems:?}\n{text}"));
        }
    }
    // The page itself shows no key either.
    assert!(!page::render(&diagnosis, true).contains("blue-canary"));
    assert!(!serde_json::to_string(&diagnosis).unwrap().contains("blue-canary"));
    let zip = bundle::zip(&diagnosis, &settings).unwrap();
    assert!(zip.starts_with(b"PK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_foreign_server_does_not_show_is_unknown() {
    // farllama itself, below a path where there is no Ollama: as a server with OpenAI's API alone.
    let mock = Mock::start_with(options(), Script::default()).await.unwrap();
    let addr = mock.addr();
    let mut config = farllama::Config::from_toml("[openai]\nbase_path = \"/other\"\n").unwrap();
    config.local.port = 0;
    (config.remote.host, config.remote.port) = (addr.ip().to_string(), addr.port());
    let proxy = farllama::serve(config).await.unwrap();
    let alone = support_openai_alone(proxy.addr()).await;
    let flags = farllama_check::backend::endpoint::Flags {
        base_url: Some(format!("http://{alone}/other")),
        ..Default::default()
    };
    let examination = Examination {
        patient: Patient::Endpoint(
            farllama_check::backend::endpoint::Endpoint::new(&flags).unwrap(),
            flags.client().unwrap(),
        ),
        models: vec!["gpt-oss:20b".to_owned()],
        embedding_model: None,
        tools: persona::all().unwrap(),
        tries: 2,
        timeout: Duration::from_secs(20),
        within: Duration::from_secs(60),
        cold: false,
    };
    let diagnosis = examine(&examination, |_| {}).await.unwrap();
    let state = |id: &str| diagnosis.all_facts().find(|fact| fact.id == id).map(|fact| fact.state);
    for id in ["version", "load", "memory", "embeddings", "trap.all"] {
        assert_eq!(state(id), Some(State::Unknown), "{id}");
    }
    // What its streams show is known.
    assert_eq!(state("speed.first"), Some(State::Info));
    // Settings of Ollama change nothing there.
    for verdict in &diagnosis.models[0].verdicts {
        for change in verdict.reasons.iter().filter_map(|reason| reason.change.as_deref()) {
            let is_of_ollama = ["OLLAMA_", "ollama pull", "upgrade Ollama"].iter().any(|word| change.contains(word));
            assert!(!is_of_ollama, "{}: {change}", verdict.id);
        }
    }
    for id in ["chat", "chat.stream", "tools.one", "schema"] {
        assert_eq!(state(id), Some(State::Good), "{id}");
    }
    let letters: std::collections::BTreeMap<_, _> = letters(&diagnosis).into_iter().collect();
    // Without Ollama's API the tools that speak it cannot work; the list of models has the context.
    assert_eq!(state("context.v1"), Some(State::Info));
    assert_eq!((letters["ollama-cli"], letters["zed"], letters["opencode"], letters["copilot"]), ('N', 'N', 'R', 'N'));
    proxy.stop(Duration::ZERO).await;
}

/// A server that passes everything on but Ollama's API.
async fn support_openai_alone(to: std::net::SocketAddr) -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 4096];
                let read = client.read(&mut head).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default();
                if !path.starts_with("/other") {
                    let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = client.write_all(answer.as_bytes()).await;
                    return;
                }
                // One request a connection, so that no later one is passed on unseen.
                let text = text.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                let Ok(mut server) = tokio::net::TcpStream::connect(to).await else { return };
                let _ = server.write_all(text.as_bytes()).await;
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    addr
}

#[test]
fn the_command_ends_with_what_it_found() {
    use predicates::str::contains;
    let check = || {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_farllama-check"));
        command.env_remove("FARLLAMA_REMOTE_API_KEY").env_remove("FARLLAMA_CHECK_API_KEY");
        command.arg("doctor").timeout(Duration::from_secs(60));
        command
    };
    check().args(["--for", "codx"]).assert().code(2).stderr(contains("did you mean `codex`?"));
    check().args(["--remote-host", "a", "--base-url", "http://b/v1"]).assert().code(2).stderr(contains("two servers"));
    check().arg("--list").assert().code(0).stdout(contains("claude-code"));
    // The built-in mock has a context of 4096 tokens: enough for one, too small for the other.
    let page = check().args(["--for", "ollama-cli", "--tries", "1"]).assert().code(0);
    page.stdout(contains("1 ready, 0 with limits, 0 not ready")).stderr(contains("looking at the way there"));
    let json = check().args(["--for", "codex", "--tries", "1", "--json"]).assert().code(1);
    let json: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).unwrap();
    assert_eq!(json["models"][0]["verdicts"][0]["level"], "not-ready");
    // Port 1 has no listener.
    check()
        .args(["--remote-host", "127.0.0.1", "--remote-port", "1"])
        .assert()
        .code(1)
        .stdout(contains("OLLAMA_HOST=0.0.0.0"));
}
