//! Each known trap of servers is found on a mock that has it, with its cure, and not on one that has not.

use std::time::Duration;

use farllama_check::doctor::{
    Diagnosis, Examination, Patient, examine,
    fact::{Fact, State},
    persona,
};
use mock_ollama::{Mock, Model, Options, Pace, Script, Stock};

/// Tokens in a second: a prompt of 3,300 takes nearly a second, sixteen of 1,500 take six.
const SPEED: u32 = 4000;

fn models() -> Vec<Model> {
    ["gpt-oss:20b=completion,tools,thinking,context:131072", "all-minilm=embedding"]
        .map(|model| model.parse().unwrap())
        .to_vec()
}

fn options() -> Options {
    Options { stock: Stock::Empty, models: models(), context_length: Some(8192), ..Options::default() }
}

async fn diagnosis(mock: &Mock) -> Diagnosis {
    let addr = mock.addr();
    let remote = farllama::config::Remote { host: addr.ip().to_string(), port: addr.port(), ..Default::default() };
    let examination = Examination {
        patient: Patient::remote(remote),
        models: vec!["gpt-oss:20b".to_owned()],
        embedding_model: None,
        tools: persona::chosen(&["ollama-cli".to_owned()]).unwrap(),
        tries: 1,
        timeout: Duration::from_secs(60),
        within: Duration::from_secs(600),
        cold: false,
    };
    examine(&examination, |_| {}).await.unwrap()
}

async fn found(options: Options, script: Script) -> Diagnosis {
    diagnosis(&Mock::start_with(options, script).await.unwrap()).await
}

fn trap<'a>(diagnosis: &'a Diagnosis, id: &str) -> &'a Fact {
    diagnosis.all_facts().find(|fact| fact.id == id).unwrap_or_else(|| panic!("{id} was not probed"))
}

#[track_caller]
fn is_there(diagnosis: &Diagnosis, id: &str, text: &str, cure: &str) {
    let fact = trap(diagnosis, id);
    assert_eq!(fact.state, State::Limited, "{fact:?}");
    assert!(fact.text.contains(text), "{}: {text}", fact.text);
    assert!(fact.cure.as_ref().is_some_and(|known| known.contains(cure)), "{:?}: {cure}", fact.cure);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_traps_is_said_to_have_none() {
    let none = found(options(), Script::default()).await;
    for id in ["trap.prompt-cache", "trap.canceled-prompt", "trap.twins", "trap.queue"] {
        let fact = trap(&none, id);
        assert_eq!(fact.state, State::Good, "{fact:?}");
    }
    assert_eq!(trap(&none, "trap.cut").state, State::Unknown, "a context of 8192 tokens is not overflowed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_copy_of_idle_slots_is_found_and_so_is_a_canceled_prompt() {
    let pace = Some(Pace { prompt_speed: SPEED, cache_stall: Duration::from_secs(3) });
    let both = found(Options { pace, ..options() }, Script::default()).await;
    is_there(&both, "trap.prompt-cache", "first token after 3", "LLAMA_ARG_CACHE_RAM=0");
    is_there(&both, "trap.canceled-prompt", "longer", "OLLAMA_NUM_PARALLEL");

    // The same server with LLAMA_ARG_CACHE_RAM=0.
    let pace = Some(Pace { prompt_speed: SPEED, cache_stall: Duration::ZERO });
    let cured = found(Options { pace, ..options() }, Script::default()).await;
    assert_eq!(trap(&cured, "trap.prompt-cache").state, State::Good, "{:?}", trap(&cured, "trap.prompt-cache"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_names_of_the_weights_are_found_copies_and_others() {
    let mock = Mock::start_with(options(), Script::default()).await.unwrap();
    let http = reqwest::Client::new();
    let copy = serde_json::json!({"source": "gpt-oss:20b", "destination": "mine"});
    assert!(http.post(format!("{}/api/copy", mock.url())).json(&copy).send().await.unwrap().status().is_success());
    // Other instructions make another digest of the same weights.
    let made = serde_json::json!({"model": "brief", "from": "gpt-oss:20b", "system": "Be brief.", "stream": false});
    assert!(http.post(format!("{}/api/create", mock.url())).json(&made).send().await.unwrap().status().is_success());
    let twins = diagnosis(&mock).await;
    is_there(&twins, "trap.twins", "brief:latest, mine:latest too", "use one name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_queue_is_found() {
    let options = Options { max_queue: Some(1), max_loaded_models: Some(1), ..options() };
    let script = Script::on("/api/chat").containing("Count from one to forty").pause(Duration::from_millis(40));
    let short = found(options, script).await;
    is_there(&short, "trap.queue", "requests for all-minilm", "quota.max_concurrent");
    // Requests for the loaded model are refused only once it had to give its place to the other one.
    let text = &trap(&short, "trap.queue").text;
    assert!(text.starts_with("6 of 8 requests for all-minilm"), "one waits for the place, one in the queue: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_is_cut_is_found() {
    let cut = found(Options { context_length: Some(2048), ..options() }, Script::default()).await;
    is_there(&cut, "trap.cut", "cut silently", "context.max");
}
