//! What is said on stderr while a check takes long: whether the remote loads the model, or is at work.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use serde_json::Value;

use crate::backend::preflight::lists;

/// A check that is quicker than this is not talked about.
const SILENT: Duration = Duration::from_secs(3);

/// How often something is said where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// Waits for a check of `model`, or of none, and says what it waits for.
pub(super) async fn with_progress<T>(
    check: impl Future<Output = T>,
    http: &reqwest::Client,
    proxy: &str,
    model: Option<&str>,
) -> T {
    let progress = show_progress(http, proxy, model);
    tokio::select! {
        result = check => result,
        never = progress => match never {},
    }
}

async fn show_progress(http: &reqwest::Client, proxy: &str, model: Option<&str>) -> std::convert::Infallible {
    let start = Instant::now();
    tokio::time::sleep(SILENT).await;
    let terminal = std::io::stderr().is_terminal();
    let spinner = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    // The spinner is gone when the check is done and this is dropped.
    let _clear = Clear(spinner.clone());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut said = None::<Instant>;
    loop {
        let what = match model {
            None => "waiting for the remote".to_owned(),
            Some(model) => match loaded(http, proxy, model).await {
                Some(false) => format!("the remote is loading {model}"),
                Some(true) | None => format!("waiting for {model} to answer"),
            },
        };
        let line = format!("{what} ({} s)", start.elapsed().as_secs());
        if terminal {
            spinner.set_message(line);
        } else if said.is_none_or(|said| said.elapsed() >= EVERY) {
            said = Some(Instant::now());
            eprintln!("{line}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

struct Clear(ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Whether the remote has the model in memory, as far as it says.
async fn loaded(http: &reqwest::Client, proxy: &str, model: &str) -> Option<bool> {
    let get = async |path: &str| {
        let request = http.get(format!("{proxy}{path}")).timeout(Duration::from_secs(2));
        request.send().await.ok()?.json::<Value>().await.ok()
    };
    is_loaded(&get("/api/ps").await?, &get("/api/tags").await?, model)
}

/// Whether the list of what is in memory has the model. Weights that are loaded under another name of theirs stand
/// there under that name, so digests decide. A model that runs elsewhere (`:cloud`) is never loaded.
fn is_loaded(ps: &Value, tags: &Value, model: &str) -> Option<bool> {
    let named = |entry: &&Value| entry["name"].as_str().is_some_and(|name| lists(&[name], model));
    let running = ps["models"].as_array()?;
    if running.iter().any(|entry| named(&entry)) {
        return Some(true);
    }
    let entry = tags["models"].as_array()?.iter().find(named)?;
    if entry.get("remote_host").is_some() {
        return None;
    }
    let digest = entry["digest"].as_str()?;
    Some(running.iter().any(|entry| entry["digest"].as_str() == Some(digest)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_is_loading_only_where_the_remote_has_it_and_its_weights_are_not_in_memory() {
        let entry = |name: &str, digest: &str| json!({"name": name, "model": name, "digest": digest});
        let mut cloud = entry("big:cloud", "d3");
        cloud["remote_host"] = "https://ollama.com:443".into();
        let tags =
            json!({"models": [entry("a:latest", "d1"), entry("alias:latest", "d1"), entry("b:1b", "d2"), cloud]});
        let ps = json!({"models": [entry("a:latest", "d1")]});
        for (model, loaded) in
            [("a", Some(true)), ("alias", Some(true)), ("b:1b", Some(false)), ("big:cloud", None), ("nowhere", None)]
        {
            assert_eq!(is_loaded(&ps, &tags, model), loaded, "{model}");
        }
        assert_eq!(is_loaded(&json!({"error": "x"}), &tags, "a"), None);
    }
}
