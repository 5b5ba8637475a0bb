//! The Debian package is installed and purged in a folder of its own, and the images are built and run by a real Docker
//! engine.
//!
//! They hold the programs that `cargo build` left, because static ones take long to build. What is missing here (dpkg,
//! an engine) is reported as skipped; on CI (`CI=true`) that is a failure.

#![cfg(target_os = "linux")]

use std::{
    env, fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a command that must succeed, and returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn xtask(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(args);
    command
}

/// Whether a program answers, and the programs of the workspace are built.
fn can(program: &str, args: &[&str]) -> bool {
    let answers = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let beside = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let is_built =
        ["farllama", "farllama-check", "mock-ollama"].iter().all(|name| beside.with_file_name(name).exists());
    if answers.is_ok_and(|status| status.success()) && is_built {
        return true;
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "{program} or the programs of `cargo build` are missing");
    eprintln!("\n*** SKIPPED: {program} or the programs of `cargo build` are missing ***\n");
    false
}

#[test]
fn the_debian_package_installs_starts_and_purges() {
    if !can("dpkg-deb", &["--version"]) {
        return;
    }
    let package = run(&mut xtask(&["deb", "--built"])).lines().last().unwrap().to_owned();
    let folder = root().join("target/dist/test-install");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("var/lib/dpkg/info")).unwrap();
    for file in ["status", "available"] {
        fs::write(folder.join("var/lib/dpkg").join(file), "").unwrap();
    }
    let dpkg = |args: &[&str]| {
        let mut dpkg = Command::new("dpkg");
        // Its scripts run outside, with DPKG_ROOT; the libraries of this machine are not in its list.
        dpkg.arg(format!("--root={}", folder.display())).arg("--log=/dev/null");
        dpkg.args(["--force-script-chrootless", "--force-not-root", "--force-depends"]).args(args);
        run(&mut dpkg)
    };
    dpkg(&["--install", &package]);
    for file in [
        "usr/bin/farllama",
        "usr/bin/farllama-check",
        "usr/bin/mock-ollama",
        "usr/lib/systemd/system/farllama.service",
        "usr/lib/sysusers.d/farllama.conf",
        "etc/farllama/config.toml",
        "usr/share/doc/farllama/copyright",
        "usr/share/man/man1/farllama.1.gz",
        "usr/share/man/man1/farllama-serve.1.gz",
        "usr/share/bash-completion/completions/farllama",
        "usr/share/zsh/vendor-completions/_farllama-check",
        "usr/share/fish/vendor_completions.d/mock-ollama.fish",
    ] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    // The settings that it installs are valid, and the command of the unit starts with them.
    let config = folder.join("etc/farllama/config.toml");
    let program = folder.join("usr/bin/farllama");
    run(Command::new(&program).args(["config", "check", "--config"]).arg(&config));
    let unit = fs::read_to_string(folder.join("usr/lib/systemd/system/farllama.service")).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    assert_eq!(start, "/usr/bin/farllama serve --config /etc/farllama/config.toml");
    // Debian need not have a program `kill`.
    let reload = unit.lines().find_map(|line| line.strip_prefix("ExecReload=")).unwrap();
    assert_eq!(reload, "/usr/bin/farllama reload --pid $MAINPID");
    let mut served = Command::new(&program)
        .args(["serve", "--local-port", "0", "--admin-enabled=false", "--remote-probe", "0s", "--config"])
        .arg(&config)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_secs(1));
    assert!(served.try_wait().unwrap().is_none(), "it ended by itself");
    run(Command::new("kill").args(["-s", "TERM", &served.id().to_string()]));
    let output = served.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output).contains("listening"), "{}", text(&output));

    fs::create_dir_all(folder.join("var/lib/farllama")).unwrap();
    dpkg(&["--remove", "farllama"]);
    assert!(!program.exists() && config.exists(), "a removal keeps the settings");
    dpkg(&["--purge", "farllama"]);
    assert!(!config.exists() && !folder.join("var/lib/farllama").exists(), "a purge leaves nothing");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_unit_is_valid_and_hardened() {
    if !can("systemd-analyze", &["--version"]) {
        return;
    }
    let unit = root().join("contrib/systemd/farllama.service");
    let output = Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&unit).output();
    let output = text(&output.unwrap());
    let level = output.lines().find(|line| line.contains("Overall exposure level")).unwrap_or(&output);
    let figure: f64 = level.rsplit(": ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(figure < 2.0, "{level}");
    let output = text(&Command::new("systemd-analyze").arg("verify").arg(&unit).output().unwrap());
    // The program and its manual page are not installed here.
    let is_known = |line: &&str| line.contains("/usr/bin/farllama") || line.contains("man farllama(1)");
    let others: Vec<&str> =
        output.lines().filter(|line| line.contains("farllama.service") && !is_known(line)).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// A container that is gone when this is dropped.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.0]).output();
    }
}

impl Container {
    fn start(args: &[&str]) -> Self {
        Self(run(Command::new("docker").args(["run", "--detach"]).args(args)))
    }

    fn inspect(&self, format: &str) -> String {
        run(Command::new("docker").args(["inspect", "--format", format, &self.0]))
    }

    /// The response to a GET, as soon as there is one.
    fn get(&self, port: u16, path: &str) -> String {
        let address = self.inspect("{{.NetworkSettings.IPAddress}}");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(mut socket) = TcpStream::connect((address.as_str(), port)) {
                write!(socket, "GET {path} HTTP/1.0\r\nHost: {address}:{port}\r\n\r\n").unwrap();
                let mut response = String::new();
                socket.read_to_string(&mut response).unwrap();
                return response;
            }
            let logs = text(&Command::new("docker").args(["logs", &self.0]).output().unwrap());
            assert!(Instant::now() < deadline, "no response on port {port}; its log:\n{logs}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn the_images_run_without_privileges_and_know_their_own_health() {
    if !can("docker", &["version"]) {
        return;
    }
    let tag = format!("test-{}", std::process::id());
    run(&mut xtask(&["images", "--built", "--tag", &tag]));
    let (farllama, mock) = (format!("farllama:{tag}"), format!("mock-ollama:{tag}"));
    let container = Container::start(&[&mock, "--version", "0.20.0"]);
    assert!(container.get(11434, "/api/version").ends_with("{\"version\":\"0.20.0\"}"));
    let remote = format!("http://{}:11434", container.inspect("{{.NetworkSettings.IPAddress}}"));

    // Others reach it, so without keys it does not start.
    let refused = Command::new("docker").args(["run", "--rm", &farllama, "serve", &remote]).output().unwrap();
    assert!(!refused.status.success() && text(&refused).contains("--local-public"), "{}", text(&refused));

    let remote_variable = format!("FARLLAMA_REMOTE_HOST={remote}");
    let proxy = Container::start(&["--env", &remote_variable, "--env", "FARLLAMA_LOCAL_PUBLIC=true", &farllama]);
    assert!(proxy.get(11434, "/api/version").ends_with("{\"version\":\"0.20.0\"}"));
    for (container, command) in [
        (&container, &["/usr/bin/mock-ollama", "--health", "--port", "11434"][..]),
        (&proxy, &["/usr/bin/farllama", "status"]),
    ] {
        assert_eq!(container.inspect("{{.Config.User}}"), "65532:65532");
        // The command of the image's own health check, which the engine runs every 30 seconds.
        let check = container.inspect("{{json .Config.Healthcheck.Test}}");
        assert_eq!(
            check,
            format!("[\"CMD\",{}]", command.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(","))
        );
        run(Command::new("docker").args(["exec", &container.0]).args(command));
        let label = container.inspect("{{index .Config.Labels \"org.opencontainers.image.licenses\"}}");
        assert_eq!(label, "MIT");
    }
    drop((container, proxy));
    for image in [farllama, mock] {
        run(Command::new("docker").args(["rmi", "--force", &image]));
    }
}

#[test]
fn each_compose_file_names_services_and_publishes_on_loopback_alone() {
    for name in ["open-webui", "monitoring"] {
        let file = root().join("contrib/compose").join(format!("{name}.yaml"));
        let text = fs::read_to_string(file).unwrap();
        let published: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("- ") && line.matches(':').count() == 2)
            .collect();
        let ports: Vec<&&str> = published.iter().filter(|line| line.ends_with(|c: char| c.is_ascii_digit())).collect();
        assert!(!ports.is_empty() && ports.iter().all(|port| port.starts_with("- 127.0.0.1:")), "{name}: {ports:?}");
    }
}

#[test]
fn each_compose_file_and_the_settings_of_prometheus_are_valid() {
    let folder = root().join("contrib/compose");
    // A plugin of Docker, or a program of its own.
    let plugin = Command::new("docker").args(["compose", "version"]).output();
    let is_plugin = plugin.is_ok_and(|output| output.status.success());
    let program = if is_plugin { "docker" } else { "docker-compose" };
    if is_plugin || can(program, &["version"]) {
        for name in ["open-webui.yaml", "monitoring.yaml"] {
            let mut compose = Command::new(program);
            compose
                .args(is_plugin.then_some("compose"))
                .arg("--file")
                .arg(folder.join(name))
                .args(["config", "--quiet"]);
            run(compose.env("ADMIN_TOKEN", "token").env("GRAFANA_PASSWORD", "password"));
        }
    }
    if can("promtool", &["--version"]) {
        run(Command::new("promtool").args(["check", "config", "--syntax-only"]).arg(folder.join("prometheus.yml")));
    }
}

#[test]
fn each_package_has_every_file_that_its_sources_include() {
    for (package, folder) in [
        ("farllama", "proxy"),
        ("farllama-check", "harness"),
        ("mock-ollama", "mock-ollama"),
        ("http1-client", "http1-client"),
    ] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["package", "--list", "--allow-dirty", "--offline", "--package", package]).current_dir(root());
        let list = run(&mut cargo);
        let has = |path: &str| list.lines().any(|line| line == path || line.starts_with(&format!("{path}/")));
        let mut included = Vec::new();
        for source in list.lines().filter(|line| line.starts_with("src/") && line.ends_with(".rs")) {
            let text = fs::read_to_string(root().join(folder).join(source)).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for part in code.split("include_str!(\"").chain(code.split("include_bytes!(\"")).skip(1) {
                let name = part.split('"').next().unwrap();
                if part.starts_with("//!") || name.contains('\n') {
                    continue;
                }
                // Without the folders that `..` leaves.
                let mut path: Vec<&str> = source.split('/').collect();
                path.pop();
                for step in name.split('/') {
                    if step == ".." {
                        assert!(path.pop().is_some(), "{package}: {source} includes {name} from outside the package");
                    } else {
                        path.push(step);
                    }
                }
                included.push(path.join("/"));
            }
        }
        // What farllama-check includes from other folders is linked into its own; its build script names the links.
        let script = fs::read_to_string(root().join(folder).join("build.rs")).unwrap_or_default();
        included.extend(script.split('"').filter(|text| text.starts_with("data/")).map(str::to_owned));
        let missing: Vec<&String> = included.iter().filter(|path| !has(path)).collect();
        assert!(missing.is_empty(), "{package} is packaged without {missing:?}");
        assert!(!included.is_empty() || package == "http1-client", "{package}: nothing was found that is included");
    }
}
