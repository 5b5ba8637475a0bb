//! What is said on stderr while a check takes long: whether the remote loads the model, or is at work.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::ProgressBar;
use serde_json::Value;

/// A check that is quicker than this is not talked about.
const SILENT: Duration = Duration::from_secs(3);

/// How often something is said where there is no terminal.
const EVERY: Duration = Duration::from_secs(10);

/// Waits for a check, and tells what it waits for.
pub(super) async fn told<T>(check: impl Future<Output = T>, http: &reqwest::Client, proxy: &str, model: &str) -> T {
    let telling = tell(http, proxy, model);
    tokio::select! {
        result = check => result,
        never = telling => match never {},
    }
}

async fn tell(http: &reqwest::Client, proxy: &str, model: &str) -> std::convert::Infallible {
    let start = Instant::now();
    tokio::time::sleep(SILENT).await;
    let terminal = std::io::stderr().is_terminal();
    let spinner = if terminal { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    // The spinner is gone when the check is done and this is dropped.
    let _clear = Clear(spinner.clone());
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut said = None::<Instant>;
    loop {
        let what = match loaded(http, proxy, model).await {
            Some(true) => format!("waiting for {model} to answer"),
            Some(false) => format!("the remote is loading {model}"),
            None => "waiting for the remote".to_owned(),
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

/// Whether the remote has the model in memory, if it tells.
async fn loaded(http: &reqwest::Client, proxy: &str, model: &str) -> Option<bool> {
    let request = http.get(format!("{proxy}/api/ps")).timeout(Duration::from_secs(2));
    let running: Value = request.send().await.ok()?.json().await.ok()?;
    let names: Vec<&str> = running["models"].as_array()?.iter().filter_map(|model| model["name"].as_str()).collect();
    Some(crate::backend::preflight::lists(&names, model))
}
