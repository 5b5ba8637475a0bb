//! `farllama setup TOOL --write`, and the check of the tool at its end.

#![cfg(unix)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use farllama::serve;
use mock_ollama::{Mock, Script};

/// A folder with the program, and beside it a `farllama-check` that notes how it was called, and fails.
struct Installed {
    folder: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = Path::new(env!("CARGO_BIN_EXE_farllama"));
        let at = folder.path().join("farllama");
        // On another file system it is copied.
        fs::hard_link(own, &at).or_else(|_| fs::copy(own, &at).map(|_| ())).unwrap();
        let check = folder.path().join("farllama-check");
        let script = "#!/bin/sh\nprintf '%s ' \"$@\" > \"$0.called\"\nprintf '%s' \"$FARLLAMA_REMOTE_API_KEY\" > \"$0.key\"\necho checked\nexit 1\n";
        fs::write(&check, script).unwrap();
        fs::set_permissions(&check, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the command; its output.
    async fn setup(&self, settings: &str, args: &[&str]) -> String {
        let config = self.path("farllama.toml");
        fs::write(&config, settings).unwrap();
        let mut command = Command::new(self.path("farllama"));
        command.arg("setup").args(args).arg("--config").arg(config);
        command.env_clear().env("HOME", self.folder.path());
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{text}{}", String::from_utf8_lossy(&ran.stderr));
        text
    }

    /// How the check was called last, and with which key.
    fn called(&self) -> Option<(String, String)> {
        let called = fs::read_to_string(self.path("farllama-check.called")).ok()?;
        let key = fs::read_to_string(self.path("farllama-check.key")).unwrap();
        fs::remove_file(self.path("farllama-check.called")).unwrap();
        Some((called.trim().to_owned(), key))
    }
}

#[tokio::test]
async fn what_is_written_is_checked_with_the_remote_or_through_the_proxy_that_runs() {
    let mock = Mock::start(Script::default()).await.unwrap();
    let installed = Installed::new();
    let remote = format!("http://{}", mock.addr());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "[local]\nport = {port}\n[remote]\nurl = \"{remote}\"\napi_key = \"remote-key\"\n[models.\"gpt-4o\"]\nto = \"smollm2:135m\"\n"
    );
    let args = ["llm", "--write", "--model", "gpt-4o", "--key", "tool-key"];

    let shown = installed.setup(&settings, &["llm", "--model", "gpt-4o"]).await;
    assert!(shown.contains("farllama-check doctor") && !shown.contains("remote-key"), "{shown}");
    assert_eq!(installed.called(), None, "nothing was written");

    let written = installed.setup(&settings, &args).await;
    assert!(written.contains("extra-openai-models.yaml: written") && written.ends_with("checked\n"), "{written}");
    let words = format!("doctor --remote-host {remote} --for openai-sdk --model smollm2:135m");
    assert_eq!(installed.called(), Some((words, "remote-key".to_owned())), "the remote does not know the alias");

    let config = farllama::Config::from_toml(&settings).unwrap();
    let proxy = serve(config).await.unwrap();
    let again = installed.setup(&settings, &args).await;
    assert!(again.contains("nothing to change") && again.ends_with("checked\n"), "{again}");
    let words = format!("doctor --remote-host http://127.0.0.1:{port} --for openai-sdk --model gpt-4o");
    assert_eq!(installed.called(), Some((words, "tool-key".to_owned())));
    drop(proxy);

    installed.setup(&settings, &[&args[..], &["--no-check"]].concat()).await;
    assert_eq!(installed.called(), None);
    fs::remove_file(installed.path("farllama-check")).unwrap();
    let without = installed.setup(&settings, &args).await;
    assert!(without.contains("Check what works with this model: "), "{without}");
    let undone = installed.setup(&settings, &["llm", "--undo"]).await;
    assert!(!undone.is_empty() && !installed.path(".config/io.datasette.llm/extra-openai-models.yaml").exists());
}
