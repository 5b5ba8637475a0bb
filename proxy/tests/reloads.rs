//! Settings that change in the file of a running proxy: each is in force after a reload, or the log says that only a
//! restart changes it.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, pin::Pin, time::Duration};

use crate::program::Program;
use crate::reaching::{Authority, asked, asleep, connect_proxy, mutual};
use crate::redis::RedisServer;
use crate::support::{Act, Answer, Client, PATIENCE, Upstream, ask, post, raw_response};
use farllama::config::SETTINGS;
use mock_ollama::{Mock, Options, Script, Stock};
use serde_json::{Value, json};

/// A running proxy and its settings file.
struct Rig {
    program: Program,
    folder: tempfile::TempDir,
    /// Two Ollamas with the same models.
    mocks: [Mock; 2],
}

impl Rig {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let models = || ["m", "other", "third"].map(|name| name.parse().unwrap());
        let options = || Options { stock: Stock::Empty, models: models().into(), ..Options::default() };
        let mock = async || Mock::start_with(options(), Script::default()).await.unwrap();
        let mocks = [mock().await, mock().await];
        let file = folder.path().join("farllama.toml");
        std::fs::write(&file, Self::whole(&remote(mocks[0].addr()))).unwrap();
        Self { program: Program::of_file(&file, &[]), folder, mocks }
    }

    fn whole(settings: &str) -> String {
        format!("{settings}\n[local]\nport = 0\n[admin]\nenabled = false\n[log]\nformat = \"json\"\n")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Gives the proxy other settings, with one remote. Returns what it logs of them.
    async fn set(&self, more: &str) -> String {
        self.set_all(&format!("{}{more}", remote(self.mocks[0].addr()))).await
    }

    /// Gives the proxy other settings.
    async fn set_all(&self, settings: &str) -> String {
        std::fs::write(self.path("farllama.toml"), Self::whole(settings)).unwrap();
        let told = self.program.reload().await;
        assert!(told.contains("configuration reloaded"), "{told}\n{settings}");
        told
    }

    async fn get(&self, path: &str) -> Answer {
        self.keyed(path, "none").await
    }

    async fn keyed(&self, path: &str, key: &str) -> Answer {
        ask(self.program.addr, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n")).await
    }

    async fn chat(&self, model: &str) -> Answer {
        let body = json!({"model": model, "stream": false, "messages": [{"role": "user", "content": "hi"}]});
        ask(self.program.addr, post("/api/chat", &body.to_string())).await
    }

    /// The names in `/api/tags`.
    async fn names(&self) -> Vec<String> {
        let tags = self.get("/api/tags").await.json();
        tags["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap().to_owned()).collect()
    }

    /// How many requests for `path` a mock has got.
    fn count(&self, mock: usize, path: &str) -> usize {
        self.mocks[mock].journal().entries().iter().filter(|entry| entry.target == path).count()
    }

    /// The body of the last chat that the first mock got.
    fn asked(&self) -> Value {
        let entries = self.mocks[0].journal().entries();
        let last = entries.iter().rev().find(|entry| entry.target == "/api/chat").unwrap();
        serde_json::from_slice(&last.body).unwrap()
    }

    /// Waits until `holds`.
    async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "{what}: {}", self.program.printed());
    }

    /// Two remotes, `a` and `b`, with more lines for each.
    fn two(&self, a: &str, b: &str) -> String {
        let entry = |name: &str, mock: &Mock, more: &str| {
            format!("[[remotes]]\nname = \"{name}\"\nurl = \"http://{}\"\n{more}\n", mock.addr())
        };
        entry("a", &self.mocks[0], a) + &entry("b", &self.mocks[1], b)
    }
}

fn remote(addr: SocketAddr) -> String {
    format!("[remote]\nprobe = \"0s\"\nhost = \"{}\"\nport = {}\n", addr.ip(), addr.port())
}

/// An address on which nothing listens.
fn closed() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What a restart alone changes: the process opens it once.
const RESTART: [&str; 5] = ["local.host", "local.port", "log.level", "log.format", "admin."];

/// A value for each setting that is not its default; for those that go together, all of them. `FOLDER` stands for a
/// folder with the files.
const VALUES: &[(&str, &str)] = &[
    ("origins", "[\"https://chat.example\"]"),
    ("remotes", "[{ name = \"a\", url = \"http://127.0.0.1:9\" }]"),
    ("local.host", "\"127.0.0.2\""),
    ("local.port", "9"),
    ("local.hosts", "[\"ai.example\"]"),
    ("local.public", "true"),
    ("local.tls_cert", "\"FOLDER/client.pem\"\nlocal.tls_key = \"FOLDER/client.key\""),
    ("local.tls_key", "\"FOLDER/client.key\"\nlocal.tls_cert = \"FOLDER/client.pem\""),
    ("remote.kind", "\"openai\""),
    ("remote.url", "\"https://127.0.0.1:9/prefix\""),
    ("remote.protocol", "\"https\""),
    ("remote.host", "\"127.0.0.9\""),
    ("remote.port", "9"),
    ("remote.base_path", "\"/prefix\""),
    ("remote.api_key", "\"a-key\""),
    ("remote.basic_auth", "\"user:pass\""),
    ("remote.headers", "{ X-Team = \"a\" }"),
    ("remote.ca_file", "\"FOLDER/ca.pem\""),
    ("remote.verify", "false"),
    (
        "remote.client_cert",
        "\"FOLDER/client.pem\"\nremote.client_key = \"FOLDER/client.key\"\nremote.protocol = \"https\"",
    ),
    (
        "remote.client_key",
        "\"FOLDER/client.key\"\nremote.client_cert = \"FOLDER/client.pem\"\nremote.protocol = \"https\"",
    ),
    ("remote.proxy", "\"http://127.0.0.1:9\""),
    ("remote.ssh", "\"user@gpu-box\""),
    ("remote.wake", "\"aa:bb:cc:dd:ee:ff\""),
    ("remote.wake_time", "\"1m\""),
    ("remote.probe", "\"1h\""),
    ("remote.forward_auth", "true"),
    ("remote.forward_cookies", "true"),
    ("remote.replay_body", "\"2MiB\""),
    ("health.interval", "\"20s\""),
    ("health.timeout", "\"6s\""),
    ("health.fail_after", "3"),
    ("health.return_after", "3"),
    ("health.models_age", "\"1m\""),
    ("native.truthful_end", "false"),
    ("openai.base_path", "\"/openai\""),
    ("openai.strict", "true"),
    ("models.aliases", "{ \"gpt-4o\" = \"m\" }"),
    ("models.default", "\"m\""),
    ("models.hidden", "[\"m\"]"),
    ("models.shown", "[\"m\"]"),
    ("context.num_ctx", "8192"),
    ("context.max", "8192"),
    ("context.overflow", "\"truncate\""),
    ("context.overflow_by_model", "{ m = \"truncate\" }"),
    ("completions.raw", "true"),
    ("moderation.model", "\"m\""),
    ("audio.prompt_as_transcript", "true"),
    ("tools.repair", "\"off\""),
    ("tools.rescue", "\"off\""),
    ("tools.reask", "true"),
    ("tools.repair_native", "true"),
    ("responses.max_bytes", "\"1MiB\""),
    ("responses.max_count", "10"),
    ("responses.ttl", "\"1h\""),
    ("responses.max_websockets", "5"),
    ("responses.websocket_idle", "\"1m\""),
    ("responses.max_background", "5"),
    ("responses.compaction_key", "\"0123456789abcdef\""),
    ("responses.hosted_tools", "\"refuse\""),
    ("files.max_bytes", "\"1MiB\""),
    ("files.max_count", "5"),
    ("files.max_bytes_per_key", "\"1MiB\""),
    ("files.max_count_per_key", "5"),
    ("files.ttl", "\"1h\""),
    ("batches.max_count", "5"),
    ("batches.concurrency", "2"),
    ("anthropic.passthrough", "true"),
    ("anthropic.model", "\"m\""),
    ("anthropic.small_model", "\"m\""),
    ("anthropic.server_tools", "\"refuse\""),
    ("images.fetch", "true"),
    ("images.max_bytes", "\"1MiB\""),
    ("images.timeout", "\"5s\""),
    ("images.allow_private", "true"),
    ("timeouts.connect", "\"5s\""),
    ("timeouts.first_byte", "\"5s\""),
    ("timeouts.idle", "\"5s\""),
    ("heartbeat.after", "\"5s\""),
    ("heartbeat.every", "\"5s\""),
    ("limits.body", "\"1MiB\""),
    ("limits.fields", "10"),
    ("limits.buffered", "\"100MiB\""),
    ("limits.native_body", "\"1MiB\""),
    ("limits.head", "\"16KiB\""),
    ("limits.head_time", "\"5s\""),
    ("limits.body_idle", "\"5s\""),
    ("limits.body_rate", "100"),
    ("limits.write_idle", "\"5s\""),
    ("limits.idle", "\"5s\""),
    ("limits.connections", "100"),
    ("limits.connections_per_address", "100"),
    ("limits.connections_per_key", "100"),
    ("auth.enabled", "true\nauth.keys = [\"a-long-key\"]"),
    ("auth.header", "\"x-team-key\""),
    ("auth.keys", "[\"a-long-key\"]"),
    ("auth.keys_file", "\"FOLDER/keys.toml\""),
    ("auth.exempt", "[\"/api/version\"]"),
    ("quota.window", "\"2m\""),
    ("quota.max_concurrent", "5"),
    ("quota.queue", "5"),
    ("quota.wait", "\"5s\""),
    ("store.url", "\"redis://127.0.0.1:9/\""),
    ("store.prefix", "\"{other}:\""),
    ("store.fail", "\"closed\""),
    ("store.timeout", "\"2s\""),
    ("store.lease", "\"20s\""),
    ("store.ca_file", "\"FOLDER/ca.pem\""),
    ("warm.models", "[\"m\"]"),
    ("log.level", "\"debug\""),
    ("log.format", "\"text\""),
    ("log.running", "\"5m\""),
    ("admin.enabled", "true"),
    ("admin.required", "true"),
    ("admin.host", "\"127.0.0.2\""),
    ("admin.port", "9"),
    ("admin.token", "\"a-token\""),
    ("admin.hosts", "[\"ai.example\"]"),
    ("admin.requests", "5"),
    ("admin.log_bytes", "\"2MiB\""),
    ("admin.inspector_requests", "5"),
    ("admin.inspector_bytes", "\"1MiB\""),
    ("admin.inspector_time", "\"5m\""),
    ("traces.url", "\"http://127.0.0.1:9\""),
    ("traces.headers", "{ X-Key = \"a\" }"),
    ("traces.service_name", "\"proxy\""),
    ("traces.propagate", "true"),
    ("shutdown.grace", "\"5s\""),
];

/// A file with these settings, each a dotted key and its value.
fn file(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

#[cfg(unix)]
#[tokio::test]
async fn every_setting_is_reloaded_or_the_log_says_that_it_needs_a_restart() {
    let authority = Authority::new("ours");
    authority.issue("client");
    std::fs::write(authority.path("keys.toml"), "[[keys]]\nname = \"ann\"\nkey = \"a-long-key\"\n").unwrap();
    let mock = Mock::start(Script::default()).await.unwrap();
    let folder = authority.path("");
    let base: BTreeMap<String, String> = [
        ("local.port", "0".to_owned()),
        ("admin.enabled", "false".to_owned()),
        ("log.format", "\"json\"".to_owned()),
        ("remote.host", "\"127.0.0.1\"".to_owned()),
        ("remote.port", mock.addr().port().to_string()),
        ("remote.probe", "\"0s\"".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let path = authority.path("farllama.toml");
    std::fs::write(&path, file(&base)).unwrap();
    let program = Program::of_file(&path, &[]);
    for setting in SETTINGS {
        let key = setting.key;
        let value = VALUES.iter().find(|(known, _)| *known == key);
        let (_, value) = value.unwrap_or_else(|| panic!("no value for {key}: add one to VALUES"));
        let mut settings = base.clone();
        let value = value.replace("FOLDER", folder.to_str().unwrap().trim_end_matches('/'));
        for (nth, line) in value.lines().enumerate() {
            let (other, value) = if nth == 0 { (key, line) } else { line.split_once(" = ").unwrap() };
            settings.insert(other.to_owned(), value.to_owned());
        }
        std::fs::write(&path, file(&settings)).unwrap();
        let told = program.reload().await;
        assert!(told.contains("configuration reloaded"), "{key}: {told}");
        let (now, later) = told.split_once("only a restart changes").unwrap_or((&told, ""));
        let needs_restart = RESTART.iter().any(|name| key == *name || name.ends_with('.') && key.starts_with(name));
        let named = match key {
            // Its parts are named, and the entries of these.
            "remote.url" => "remote.base_path",
            "models.aliases" => "models.\"gpt-4o\"",
            key => key,
        };
        let (right, wrong) = if needs_restart { (later, now) } else { (now, later) };
        assert!(right.contains(named) && !wrong.contains(named), "{key}: {told}");
        // Back to where it was, which is a change like any other.
        std::fs::write(&path, file(&base)).unwrap();
        let told = program.reload().await;
        let back = told.contains(named) || needs_restart && told.contains("nothing changed");
        assert!(back && !told.contains("reload failed"), "{key}, back: {told}");
    }
    let known: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
    let unknown: Vec<_> = VALUES.iter().filter(|(key, _)| !known.contains(key)).collect();
    assert!(unknown.is_empty(), "no such settings: {unknown:?}");
}

type Showing<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;
type Shows = for<'a> fn(&'a Rig) -> Showing<'a>;

/// Settings of models, remotes, limits and the shared store, and what shows that a reload changes each.
const EFFECTS: &[(&str, Shows)] = &[
    ("models.aliases", |rig| {
        Box::pin(async move {
            assert_eq!(rig.chat("gpt-4o").await.code(), 404);
            rig.set("[models.\"gpt-4o\"]\nto = \"m\"\nnum_ctx = 2048\nsystem = \"Be brief.\"\n").await;
            assert_eq!(rig.chat("gpt-4o").await.code(), 200);
            let asked = rig.asked();
            assert_eq!((&asked["model"], &asked["options"]["num_ctx"]), (&json!("m"), &json!(2048)), "{asked}");
            assert_eq!(asked["messages"][0]["content"], "Be brief.");
            rig.set("[models]\naliases = { \"gpt-4o\" = \"other\" }\n").await;
            assert_eq!((rig.chat("gpt-4o").await.code(), &rig.asked()["model"]), (200, &json!("other")));
        })
    }),
    ("models.default", |rig| {
        Box::pin(async move {
            assert_eq!(rig.chat("nowhere").await.code(), 404);
            rig.set("[models]\ndefault = \"m\"\n").await;
            assert_eq!((rig.chat("nowhere").await.code(), &rig.asked()["model"]), (200, &json!("m")));
        })
    }),
    ("models.hidden", |rig| {
        Box::pin(async move {
            assert_eq!(rig.names().await.len(), 3);
            rig.set("[models]\nhidden = [\"other\", \"third\"]\n").await;
            assert_eq!(rig.names().await, ["m:latest"]);
        })
    }),
    ("models.shown", |rig| {
        Box::pin(async move {
            rig.set("[models]\nshown = [\"other\"]\n").await;
            assert_eq!(rig.names().await, ["other:latest"]);
        })
    }),
    ("remotes", |rig| {
        Box::pin(async move {
            let chats = || (rig.count(0, "/api/chat"), rig.count(1, "/api/chat"));
            // Where a model is loaded counts more than the priority.
            for (a, b, model, expected) in [
                ("priority = 0", "priority = 1", "m", 0),
                ("priority = 1", "priority = 0", "third", 1),
                ("models = [\"other\"]", "priority = 1", "m", 1),
                ("key = \"a-key\"", "priority = 1", "m", 0),
            ] {
                rig.set_all(&rig.two(a, b)).await;
                let before = chats();
                assert_eq!(rig.chat(model).await.code(), 200);
                assert_eq!(chats(), (before.0 + (1 - expected), before.1 + expected), "{a} {b}");
            }
            let entries = rig.mocks[0].journal().entries();
            let keyed = |(name, value): &(String, String)| name == "authorization" && value == "Bearer a-key";
            assert!(entries.last().unwrap().headers.iter().any(keyed));
            rig.set("").await;
            assert_eq!(rig.chat("m").await.code(), 200);
            assert!(!rig.mocks[0].journal().entries().last().unwrap().headers.iter().any(keyed));
        })
    }),
    ("health.interval", |rig| {
        Box::pin(async move {
            let asked = || rig.count(0, "/api/version");
            rig.set_all(&(rig.two("", "") + "[health]\ninterval = \"1h\"\n")).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let before = asked();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert_eq!(asked(), before);
            rig.set_all(&(rig.two("", "") + "[health]\ninterval = \"20ms\"\n")).await;
            rig.until("the remote is asked often", || asked() >= before + 5).await;
        })
    }),
    ("health.timeout", |rig| {
        Box::pin(async move {
            let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let remotes = |timeout: &str| {
                let url = silent.local_addr().unwrap();
                format!(
                    "[[remotes]]\nname = \"silent\"\nurl = \"http://{url}\"\n{}[health]\nfail_after = 1\ntimeout = \"{timeout}\"\n",
                    rig.two("", "")
                )
            };
            rig.set_all(&remotes("1h")).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(!rig.program.printed().contains("(health.timeout)"));
            rig.set_all(&remotes("70ms")).await;
            rig.until("the log says so", || rig.program.printed().contains("within 70ms (health.timeout)")).await;
        })
    }),
    ("health.fail_after", |rig| {
        Box::pin(async move {
            let gone = closed();
            let remotes = |failures: usize| {
                format!(
                    "[[remotes]]\nname = \"gone\"\nurl = \"http://{gone}\"\n{}[health]\ninterval = \"20ms\"\nfail_after = {failures}\n",
                    rig.two("", "")
                )
            };
            rig.set_all(&remotes(1_000_000)).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            let out = format!("gone (http://{gone}) is out of use");
            assert!(!rig.program.printed().contains(&out));
            rig.set_all(&remotes(1)).await;
            rig.until("the log says so", || rig.program.printed().contains(&out)).await;
        })
    }),
    ("health.return_after", |rig| {
        Box::pin(async move {
            let addr = closed();
            let remotes = |successes: usize| {
                format!(
                    "[[remotes]]\nname = \"back\"\nurl = \"http://{addr}\"\n{}[health]\ninterval = \"20ms\"\nfail_after = 1\n\
                     return_after = {successes}\n",
                    rig.two("", "")
                )
            };
            rig.set_all(&remotes(1_000_000)).await;
            let (out, back) = ("back (http", "is in use again");
            let says = |text: &str| rig.program.printed().lines().any(|line| line.contains(out) && line.contains(text));
            rig.until("it leaves", || says("is out of use")).await;
            let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
            let to = rig.mocks[0].addr();
            tokio::spawn(async move {
                while let Ok((mut client, _)) = listener.accept().await {
                    let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
                    tokio::spawn(async move {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    });
                }
            });
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!says(back));
            rig.set_all(&remotes(1)).await;
            rig.until("it returns", || says(back)).await;
        })
    }),
    ("health.models_age", |rig| {
        Box::pin(async move {
            let lists = || rig.count(0, "/api/tags");
            let remotes = |age: &str| rig.two("", "") + "[health]\ninterval = \"1h\"\nmodels_age = \"" + age + "\"\n";
            rig.set_all(&remotes("1h")).await;
            assert_eq!(rig.chat("m").await.code(), 200);
            let before = lists();
            assert_eq!((rig.chat("m").await.code(), lists()), (200, before));
            rig.set_all(&remotes("1ms")).await;
            rig.until("the lists are read at the start", || lists() > before).await;
            let before = lists();
            tokio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(rig.chat("m").await.code(), 200);
            assert!(lists() > before);
        })
    }),
    ("remote.proxy", |rig| {
        Box::pin(async move {
            let to = rig.mocks[0].addr();
            let (proxy, seen) = connect_proxy(to, "200 Connection established").await;
            assert_eq!((rig.get("/api/tags").await.code(), asked(&seen).len()), (200, 0));
            rig.set(&format!("proxy = \"http://{proxy}\"\n")).await;
            assert_eq!((rig.get("/api/tags").await.code(), asked(&seen).len()), (200, 1));
        })
    }),
    ("remote.client_cert", |rig| Box::pin(certificates(rig))),
    ("remote.client_key", |rig| Box::pin(certificates(rig))),
    ("remote.ssh", |rig| {
        Box::pin(async move {
            rig.set("ssh = \"nobody@127.0.0.1:9\"\n").await;
            let answer = rig.get("/api/tags").await;
            assert!(answer.code() == 502 && answer.text().contains("ssh"), "{}", answer.text());
            rig.set("").await;
            assert_eq!(rig.get("/api/tags").await.code(), 200);
        })
    }),
    #[cfg(target_os = "linux")]
    ("remote.wake", |rig| {
        Box::pin(async move {
            let (listener, _filled) = asleep().await;
            let card = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let settings = |wake: &str| sleeping(listener.local_addr().unwrap(), wake);
            let packets = || card.try_recv(&mut [0; 200]).is_ok();
            rig.set_all(&settings("")).await;
            assert_eq!((rig.get("/api/tags").await.code(), packets()), (504, false));
            let wake = format!("wake = \"aa:bb:cc:dd:ee:ff@{}\"\nwake_time = \"200ms\"\n", card.local_addr().unwrap());
            rig.set_all(&settings(&wake)).await;
            assert!(rig.get("/api/tags").await.code() >= 500);
            assert!(packets());
        })
    }),
    #[cfg(target_os = "linux")]
    ("remote.wake_time", |rig| {
        Box::pin(async move {
            let (listener, _filled) = asleep().await;
            let settings = |time: &str| {
                let wake = format!("wake = \"aa:bb:cc:dd:ee:ff@127.0.0.1:9\"\nwake_time = \"{time}\"\n");
                sleeping(listener.local_addr().unwrap(), &wake)
            };
            rig.set_all(&settings("1h")).await;
            let waiting = tokio::time::timeout(Duration::from_millis(700), rig.get("/api/tags")).await;
            assert!(waiting.is_err(), "it does not wait");
            rig.set_all(&settings("200ms")).await;
            assert!(rig.get("/api/tags").await.code() >= 500);
        })
    }),
    ("warm.models", |rig| {
        Box::pin(async move {
            let loads = || rig.count(0, "/api/generate");
            let before = loads();
            rig.set("[warm]\nmodels = [\"other\"]\n").await;
            rig.until("the model is loaded", || loads() > before).await;
        })
    }),
    ("auth.keys_file", |rig| {
        Box::pin(async move {
            let (file, path) = (rig.path("keys.toml"), "/api/version");
            let write = |key: &str| std::fs::write(&file, format!("[[keys]]\nname = \"ann\"\nkey = \"{key}\"\n"));
            write("a-long-key").unwrap();
            let auth = "[auth]\nenabled = true\nkeys = [\"another-key\"]\n";
            rig.set(auth).await;
            assert_eq!(rig.keyed(path, "a-long-key").await.code(), 401);
            rig.set(&format!("{auth}keys_file = {file:?}\n")).await;
            assert_eq!(rig.keyed(path, "a-long-key").await.code(), 200);
            // The file is watched: no signal is needed.
            write("a-newer-key").unwrap();
            let renewed = async {
                while rig.keyed(path, "a-newer-key").await.code() != 200 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            assert!(tokio::time::timeout(PATIENCE * 2, renewed).await.is_ok(), "{}", rig.program.printed());
            assert_eq!(rig.keyed(path, "a-long-key").await.code(), 401);
        })
    }),
    ("quota.window", |rig| {
        Box::pin(async move {
            let keys =
                "[auth]\nenabled = true\nkeys = [{ name = \"ann\", key = \"a-long-key\", limit_per_minute = 1 }]\n";
            rig.set(keys).await;
            let codes = [rig.keyed("/api/tags", "a-long-key").await, rig.keyed("/api/tags", "a-long-key").await];
            assert_eq!(codes.map(|answer| answer.code()), [200, 429]);
            rig.set(&format!("{keys}[quota]\nwindow = \"20ms\"\n")).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 200);
        })
    }),
    ("quota.max_concurrent", |rig| {
        Box::pin(async move {
            let held = held(rig).await;
            assert_eq!(held.get(rig, "[quota]\nmax_concurrent = 9\n").await, None, "it runs");
            assert_eq!(held.get(rig, "[quota]\nmax_concurrent = 1\nqueue = 0\n").await, Some(429));
        })
    }),
    ("quota.queue", |rig| {
        Box::pin(async move {
            let held = held(rig).await;
            assert_eq!(held.get(rig, "[quota]\nmax_concurrent = 1\nqueue = 1\n").await, None, "it waits");
            assert_eq!(held.get(rig, "[quota]\nmax_concurrent = 1\nqueue = 0\n").await, Some(429));
        })
    }),
    ("quota.wait", |rig| {
        Box::pin(async move {
            let held = held(rig).await;
            assert_eq!(held.get(rig, "[quota]\nmax_concurrent = 1\nwait = \"1h\"\n").await, None, "it waits");
            assert_eq!(held.get(rig, "[quota]\nmax_concurrent = 1\nwait = \"20ms\"\n").await, Some(429));
        })
    }),
    ("store.url", |rig| {
        Box::pin(async move {
            let Some(server) = RedisServer::start() else { return };
            rig.set(&limited(&format!("url = \"redis://{}/\"\nfail = \"closed\"\n", closed()))).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 503);
            rig.set(&limited(&format!("url = {:?}\nfail = \"closed\"\n", server.url()))).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 200);
            assert_ne!(server.command("DBSIZE").trim(), ":0");
        })
    }),
    ("store.fail", |rig| {
        Box::pin(async move {
            let url = format!("url = \"redis://{}/\"\n", closed());
            rig.set(&limited(&format!("{url}fail = \"closed\"\n"))).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 503);
            rig.set(&limited(&format!("{url}fail = \"open\"\n"))).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 200);
        })
    }),
    ("store.prefix", |rig| {
        Box::pin(async move {
            let Some(server) = RedisServer::start() else { return };
            for prefix in ["{one}:", "{two}:"] {
                assert!(!server.command("KEYS *").contains(prefix));
                rig.set(&limited(&format!("url = {:?}\nprefix = \"{prefix}\"\n", server.url()))).await;
                assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 200);
                assert!(server.command("KEYS *").contains(prefix), "{}", server.command("KEYS *"));
            }
        })
    }),
    ("store.timeout", |rig| {
        Box::pin(async move {
            let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let store = |time: &str| {
                let url = format!("url = \"redis://{}/\"\n", silent.local_addr().unwrap());
                limited(&format!("{url}fail = \"closed\"\ntimeout = \"{time}\"\n"))
            };
            rig.set(&store("1h")).await;
            let asking = rig.keyed("/api/tags", "a-long-key");
            assert!(tokio::time::timeout(Duration::from_millis(500), asking).await.is_err(), "it does not wait");
            rig.set(&store("50ms")).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 503);
        })
    }),
    ("store.lease", |rig| {
        Box::pin(async move {
            let Some(server) = RedisServer::start() else { return };
            let held = Upstream::start(vec![Act::Hold, Act::Write(raw_response("200 OK", "", "{}"))]).await;
            // What a request holds is renewed at a third of the lease.
            for (lease, renews) in [("1h", false), ("150ms", true)] {
                let auth =
                    "[auth]\nenabled = true\nkeys = [{ name = \"ann\", key = \"a-long-key\", max_concurrent = 9 }]\n";
                let store = format!("[store]\nurl = {:?}\nlease = \"{lease}\"\n", server.url());
                rig.set_all(&[&*remote(held.addr), auth, &store].concat()).await;
                let path = format!("/api/held-{lease}");
                let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: a-long-key\r\n\r\n");
                let _running = Client::sending(rig.program.addr, request).await;
                held.until(|seen| seen.text().contains(&path)).await;
                let scripts = || {
                    let stats = server.command("INFO commandstats");
                    let calls = stats
                        .lines()
                        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse().ok());
                    calls.unwrap_or(0_u64)
                };
                let before = scripts();
                tokio::time::sleep(Duration::from_millis(600)).await;
                assert_eq!(scripts() > before + 1, renews, "{lease}: {before} to {}", scripts());
            }
        })
    }),
    ("store.ca_file", |rig| {
        Box::pin(async move {
            let authority = Authority::new("ours");
            let (cert, key) = authority.issue("redis");
            let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
            let Some(server) = RedisServer::with_tls(&read(cert), &read(key)) else { return };
            let url = format!("url = {:?}\nfail = \"closed\"\n", server.url());
            rig.set(&limited(&url)).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 503);
            rig.set(&limited(&format!("{url}ca_file = {:?}\n", authority.path("ca.pem")))).await;
            assert_eq!(rig.keyed("/api/tags", "a-long-key").await.code(), 200);
        })
    }),
];

/// The same for the certificate that a remote asks for, and its key.
async fn certificates(rig: &Rig) {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let addr = mutual(&ours, rig.mocks[0].addr(), &rustls::version::TLS13).await;
    let settings = |pair: Option<(PathBuf, PathBuf)>| {
        let pair =
            pair.map(|(cert, key)| format!("client_cert = {cert:?}\nclient_key = {key:?}\n")).unwrap_or_default();
        let ca = ours.path("ca.pem");
        format!(
            "[remote]\nprobe = \"0s\"\nprotocol = \"https\"\nhost = \"localhost\"\nport = {}\nca_file = {ca:?}\n{pair}",
            addr.port()
        )
    };
    for (pair, code) in [(None, 502), (Some(theirs.issue("client")), 502), (Some(ours.issue("client")), 200)] {
        rig.set_all(&settings(pair)).await;
        let answer = rig.get("/api/tags").await;
        assert_eq!(answer.code(), code, "{}", answer.text());
    }
}

/// A remote whose machine is asleep, with more lines for it.
#[cfg(target_os = "linux")]
fn sleeping(addr: SocketAddr, more: &str) -> String {
    format!("{}{more}[timeouts]\nconnect = \"100ms\"\n", remote(addr))
}

/// Settings for a key with a limit, which a shared store counts.
fn limited(store: &str) -> String {
    let key = "{ name = \"ann\", key = \"a-long-key\", limit_per_minute = 1000 }";
    format!("[auth]\nenabled = true\nkeys = [{key}]\n[store]\n{store}")
}

/// A remote that answers nothing, and a request that it has.
struct Held {
    remote: Upstream,
    _running: Client,
}

async fn held(rig: &Rig) -> Held {
    let upstream = Upstream::start(vec![Act::Hold]).await;
    // Requests are counted from the first limit on.
    rig.set_all(&format!("{}[quota]\nmax_concurrent = 9\n", remote(upstream.addr))).await;
    let running = Client::sending(rig.program.addr, "GET /api/held HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    upstream.until(|seen| seen.text().contains("/api/held")).await;
    Held { remote: upstream, _running: running }
}

impl Held {
    /// The status of one more request with these settings; None: there is none soon.
    async fn get(&self, rig: &Rig, more: &str) -> Option<u16> {
        rig.set_all(&format!("{}{more}", remote(self.remote.addr))).await;
        let asking = tokio::time::timeout(Duration::from_millis(500), rig.get("/api/tags")).await;
        asking.ok().map(|answer| answer.code())
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_a_reload_changes_is_seen_in_what_the_proxy_does() {
    let rig = Rig::start().await;
    for (key, shows) in EFFECTS {
        println!("{key}");
        rig.set("").await;
        shows(&rig).await;
    }
    const WAYS: [&str; 8] = [
        "remotes",
        "remote.proxy",
        "remote.client_cert",
        "remote.client_key",
        "remote.ssh",
        "remote.wake",
        "remote.wake_time",
        "auth.keys_file",
    ];
    let of_these =
        |key: &str| ["models.", "health.", "quota.", "store.", "warm."].iter().any(|table| key.starts_with(table));
    let expected = SETTINGS.iter().map(|setting| setting.key).filter(|key| of_these(key) || WAYS.contains(key));
    let lacking: Vec<_> = expected.filter(|key| !EFFECTS.iter().any(|(known, _)| known == key)).collect();
    if cfg!(target_os = "linux") {
        assert!(lacking.is_empty(), "what shows that these are reloaded? {lacking:?}");
    }
}
