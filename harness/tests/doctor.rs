//! The doctor on mocks that are ill in nine ways: its verdicts are those of a table that was written first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use farllama_check::doctor::{Diagnosis, Examination, Patient, examine, fact::State, page, persona};
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
        patient: Patient::Remote(Box::new(remote)),
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
        ("breaks", "it ends streams early"),
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
