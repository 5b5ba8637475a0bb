//! The promise about the corpus of malformed calls, end to end: through farllama in front of an Ollama that makes them.

use farllama_check::{bench_tools, net};

#[tokio::test]
async fn most_of_what_can_be_repaired_is_repaired_and_nothing_else_is_changed() {
    let scores = bench_tools::run(&[], 0, &net::client().unwrap()).await.unwrap();
    assert!(scores.holds(), "{}\n{}", scores.table(), scores.details());
}
