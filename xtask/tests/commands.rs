//! Each command that a page shows is run here in front of the mock, as it is shown, or listed as an example that
//! cannot be run.

#![cfg(unix)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::docs::{is_built, pages};

/// How a command is tested.
#[derive(Clone, Copy)]
enum How {
    /// It is run, with more flags, and ends with one of these exit codes.
    Runs(&'static str, &'static [i32]),
    /// It serves: it is started with more flags, prints this text, is asked by a command if there is one, and ends with
    /// exit code 0 when it is interrupted.
    Serves(&'static str, &'static str, &'static str),
    /// It cannot be run here. The text says why.
    Example(&'static str),
}
use How::{Example, Runs, Serves};

const FREE_PORTS: &str = " --local-port 0 --admin-port 0";
const ASK_THE_RECORDER: &str = "curl http://127.0.0.1:RECORDER/api/chat -d '{\"model\": \"smollm2:135m\"}'";
/// How commands are tested that begin with a text; the first row that fits counts.
const COMMANDS: &[(&str, How)] = &[
    ("farllama serve --remote-url https://openrouter.ai", Example("needs an account there")),
    // Several remotes, beside none of the settings file.
    ("farllama serve --remotes ", Serves(" --config /dev/null --local-port 0 --admin-port 0", "listening", "")),
    ("farllama serve ", Serves(FREE_PORTS, "listening", "")),
    ("farllama ", Runs("", &[0])),
    ("mock-ollama", Serves(" --port 0", "on http://127.0.0.1:", "")),
    ("farllama-check record ", Serves(" --local-port RECORDER", "http://127.0.0.1:", ASK_THE_RECORDER)),
    ("farllama-check compare --library http://gpu-box:11434 ollama-v1:", Example("the mock has no /v1")),
    // A tool that would not work, and a difference, are findings.
    ("farllama-check doctor ", Runs("", &[0, 1])),
    ("farllama-check compare ", Runs("", &[0, 1])),
    ("farllama-check smoke", Runs(" --local-port 0", &[0])),
    ("farllama-check ", Runs("", &[0])),
    // The page shows what an error looks like (22: the status of curl's --fail).
    ("curl -s http://127.0.0.1:11434/v1/chat/completions \\\n  -d '{\"model\": \"nope\"", Runs("", &[22])),
    ("curl ", Runs("", &[0])),
    ("cat request.json", Runs("", &[0])),
    ("grep '^{' farllama.log | jq", Runs("", &[0])),
    ("cargo install ", Example("takes minutes; the workflows install in this way")),
    ("cargo xtask smoke", Example("builds; `cargo xtask ci` runs it")),
    ("cargo xtask ci", Example("is the gate that runs this test")),
    ("cargo xtask truth", Example("builds; mock-ollama/tests/truth.rs compares the same recordings")),
    ("cargo xtask licenses", Example("`cargo xtask ci` runs it")),
    ("cargo deny ", Example("the workflow ci runs it")),
    ("cargo machete", Example("the workflow ci runs it")),
    ("typos", Example("`cargo xtask ci` runs it")),
    ("cargo llvm-cov", Example("builds everything anew; the workflow nightly runs it")),
    ("cargo +nightly fuzz ", Example("needs a nightly toolchain; the workflow nightly runs it")),
    ("docker run ", Example("packages.rs runs the images")),
    ("sudo ", Example("changes the machine; packages.rs checks the unit")),
    ("OLLAMA_HOST=", Example("needs Ollama")),
];

/// The commands of a page in their order, each with the output that the page shows (of `console` blocks).
fn commands(page: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for (index, block) in page.split("\n```").enumerate() {
        // Every other part is a block; its first line is its language.
        let (language, text) = block.split_once('\n').unwrap_or_default();
        if index % 2 == 0 || !matches!(language, "sh" | "console") {
            continue;
        }
        let mut is_open = false;
        for line in text.lines() {
            let start = if language == "sh" { Some(line) } else { line.strip_prefix("$ ") };
            match (start, commands.last_mut()) {
                // A line that ends in a backslash or within quotes goes on.
                (_, Some((command, _))) if is_open => *command = format!("{command}\n{line}"),
                (Some(line), _) if language == "console" || !(line.is_empty() || line.starts_with('#')) => {
                    commands.push((line.to_owned(), String::new()));
                }
                (None, Some((_, output))) => *output += &format!("{line}\n"),
                _ => continue,
            }
            let (command, output) = commands.last_mut().unwrap();
            is_open = output.is_empty() && (command.ends_with('\\') || command.matches('\'').count() % 2 == 1);
            if !is_open && output.is_empty() {
                *command = without_comment(command);
            }
        }
    }
    commands
}

/// A command without the comment behind it.
fn without_comment(command: &str) -> String {
    command.split("  #").next().unwrap_or(command).trim_end().to_owned()
}

/// A process that is killed when this is dropped.
struct Served {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    /// Waits until each of these texts is in a line that was printed.
    fn prints(&self, texts: &[&str]) -> Result<(), String> {
        let mut missing: Vec<String> = texts.iter().map(|text| comparable(text)).collect();
        let mut printed = Vec::new();
        while !missing.is_empty() {
            let Ok(line) = self.lines.recv_timeout(Duration::from_secs(30)) else {
                return Err(format!("it did not print {missing:?}, but\n{}", printed.join("\n")));
            };
            missing.retain(|text| !comparable(&line).contains(text));
            printed.push(line);
        }
        Ok(())
    }

    /// Interrupts it, and returns its exit code.
    fn interrupt(mut self) -> Option<i32> {
        let status = Command::new("kill").args(["-s", "INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap().code()
    }
}

/// A line of output without what differs from run to run: ids, numbers, times, the width of columns.
fn comparable(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.trim_end();
    while let Some(letter) = rest.chars().next() {
        let hex = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (length, instead) = match letter {
            _ if hex >= 8 => (hex, "#"),
            '0'..='9' => (number, "#"),
            ' ' => (rest.len() - rest.trim_start().len(), " "),
            _ => (letter.len_utf8(), &rest[..letter.len_utf8()]),
        };
        out += instead;
        rest = &rest[length..];
    }
    out.replace("# ms", "#s").replace("# s", "#s")
}

/// Whether an output is the one that a page shows, whose lines may be cut at an ellipsis.
fn is_shown(shown: &str, printed: &str) -> bool {
    let fits = |(shown, printed): (&str, &str)| match shown.split_once('…') {
        Some((start, _)) => comparable(printed).starts_with(&comparable(start)),
        None => comparable(printed) == comparable(shown),
    };
    let (shown, printed) = (shown.trim_end(), printed.trim_end());
    shown.lines().count() == printed.lines().count() && shown.lines().zip(printed.lines()).all(fits)
}

/// What stands for the machines of a page, and the folder that its commands run in.
struct Stage {
    home: PathBuf,
    /// Names that pages use, and what they are here. The first that fits counts, so longer ones come first.
    names: Vec<(String, String)>,
    served: Vec<Served>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Stage {
    fn new(page: &str) -> Self {
        let name = page.replace('/', "-");
        let home = env::temp_dir().join(format!("farllama-run-{}-{name}", std::process::id()));
        for folder in
            [".config/farllama", ".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"]
        {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        let (mock, local, admin) = (free_port(), free_port(), free_port());
        let settings = format!(
            "[remote]\nhost = \"127.0.0.1\"\nport = {mock}\n[local]\nport = {local}\n[admin]\nport = {admin}\n"
        );
        fs::write(home.join(".config/farllama/config.toml"), settings).unwrap();
        // A status of 400 or more is a failure.
        fs::write(home.join(".curlrc"), "fail-with-body\nno-progress-meter\n").unwrap();
        let request = "{\"model\": \"gpt-oss:20b\", \"messages\": [{\"role\": \"user\", \"content\": \"Say hi.\"}], \
            \"max_tokens\": 50, \"temprature\": 0}\n";
        fs::write(home.join("request.json"), request).unwrap();
        let names = [
            ("gpu-box:8000", local),
            ("127.0.0.1:8000", local),
            ("gpu-box:11434", mock),
            ("old-box:11434", mock),
            ("new-box:11434", mock),
            ("gpu-box", mock),
            ("other-box", mock),
            ("127.0.0.1:11434", local),
            ("localhost:11434", local),
            ("127.0.0.1:11436", mock),
        ];
        let mut names = names.map(|(name, port)| (name.to_owned(), format!("127.0.0.1:{port}"))).to_vec();
        names.push(("RECORDER".to_owned(), free_port().to_string()));
        let mut stage = Self { home, names, served: Vec::new() };
        let models = "--model qwen3:8b=completion,tools,thinking --model my-model=completion,tools";
        let mock = stage.start(&format!("mock-ollama --port {mock} {models}"), None);
        mock.prints(&["mock-ollama plays"]).unwrap();
        // Pages read its log.
        let log = fs::File::create(stage.home.join("farllama.log")).unwrap();
        let proxy = stage.start("farllama serve --log-format json", Some(log));
        proxy.prints(&["listening"]).unwrap();
        stage.served = vec![mock, proxy];
        assert!(stage.command("farllama-check init").output().unwrap().status.success());
        stage
    }

    /// A line with the machines that stand for those of the page.
    fn here(&self, line: &str) -> String {
        let (mut here, mut rest) = (String::new(), line);
        while let Some(letter) = rest.chars().next() {
            let name = self.names.iter().find(|(name, _)| rest.starts_with(name));
            let length = name.map_or(letter.len_utf8(), |(name, _)| name.len());
            here += name.map_or(&rest[..length], |(_, value)| value);
            rest = &rest[length..];
        }
        here
    }

    fn command(&self, line: &str) -> Command {
        let bin = Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap().to_owned();
        let path = env::split_paths(&env::var_os("PATH").unwrap()).collect::<Vec<_>>();
        let mut command = Command::new("sh");
        command.args(["-c", &self.here(line)]).current_dir(&self.home);
        command.env("PATH", env::join_paths(std::iter::once(bin).chain(path)).unwrap());
        command.env("HOME", &self.home).env_remove("XDG_CONFIG_HOME");
        command.env("BASE_URL", self.here("http://127.0.0.1:8000/v1")).env("MODEL", "my-model");
        command
    }

    /// Starts a command that goes on, and reads its output, so that it is never blocked by a full pipe.
    fn start(&self, line: &str, log: Option<fs::File>) -> Served {
        let mut command = self.command(&format!("exec {line} 2>&1"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(mut log) = log.as_ref() {
                    writeln!(log, "{line}").unwrap();
                }
                let _ = sender.send(line);
            }
        });
        Served { child, lines }
    }

    /// Runs a command of a page. An error is what is wrong.
    fn check(&mut self, line: &str, how: How, shown: &str) -> Result<(), String> {
        match how {
            Example(why) => {
                println!("not run: {line}: {why}");
                Ok(())
            }
            Serves(flags, ready, ask) => {
                let served = self.start(&format!("{line}{flags}"), None);
                served.prints(&shown.lines().chain([ready]).collect::<Vec<_>>())?;
                let asked = self.command(ask).output().unwrap();
                assert!(asked.status.success(), "{ask}: {}", String::from_utf8_lossy(&asked.stderr));
                match served.interrupt() {
                    Some(0) => Ok(()),
                    code => Err(format!("it ended with {code:?}")),
                }
            }
            Runs(flags, codes) => {
                // A terminal shows both outputs.
                let terminal = if shown.is_empty() { "" } else { " 2>&1" };
                let output = self.command(&format!("{line}{flags}{terminal}")).output().unwrap();
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&*self.home.to_string_lossy(), "~");
                let (printed, errors) = (text(&output.stdout), text(&output.stderr));
                // The conversation that a later command names.
                if let Some((_, id)) = printed.split_once("{\"id\":\"conv_") {
                    let id = id.split('"').next().unwrap_or_default();
                    self.names.push(("conv_…".to_owned(), format!("conv_{id}")));
                }
                if !codes.contains(&output.status.code().unwrap_or(-1)) {
                    return Err(format!("{}\n{printed}{errors}", output.status));
                }
                if !shown.is_empty() && !is_shown(shown, &printed) {
                    return Err(format!("the page shows\n{shown}\nbut it printed\n{printed}"));
                }
                Ok(())
            }
        }
    }
}

/// Whether this machine has a program that pages use; on CI it must.
fn is_there(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    assert!(is_there || env::var("CI").as_deref() != Ok("true"), "{program} is missing");
    if !is_there {
        eprintln!("\n*** SKIPPED: {program} is missing, so the commands of the documentation were NOT run ***\n");
    }
    is_there
}

#[test]
fn every_command_of_every_page_runs_or_is_listed_as_an_example() {
    if !is_built() || ["curl", "jq"].iter().any(|program| !is_there(program)) {
        return;
    }
    let (mut wrong, mut ran, mut used) = (Vec::new(), 0, vec![false; COMMANDS.len()]);
    for (name, page) in pages() {
        let commands = commands(&page);
        if commands.is_empty() {
            continue;
        }
        let mut stage = Stage::new(&name);
        for (line, shown) in commands {
            let Some(row) = COMMANDS.iter().position(|(start, _)| line.starts_with(start)) else {
                wrong.push(format!("{name}: {line}: COMMANDS in xtask/tests/commands.rs has no row for it"));
                continue;
            };
            used[row] = true;
            ran += usize::from(!matches!(COMMANDS[row].1, Example(_)));
            if let Err(what) = stage.check(&line, COMMANDS[row].1, &shown) {
                wrong.push(format!("{name}: {line}\n{what}"));
            }
        }
        fs::remove_dir_all(&stage.home).unwrap();
    }
    let idle =
        COMMANDS.iter().zip(used).filter(|(_, used)| !used).map(|((start, _), _)| format!("no page has {start}"));
    wrong.extend(idle);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(ran > 30, "{ran} commands were run");
}

#[test]
fn an_output_that_a_page_shows_wrongly_is_noticed() {
    assert!(is_shown("ok (57 ms) fl-40615a1b…\n", "ok (1.2 s) fl-99615a1b77\n"));
    assert!(!is_shown("4 passed\n", "4 failed\n"));
    assert!(!is_shown("4 passed\n", "4 passed\n1 skipped\n"));
    let page = "x\n\n```console\n$ a \\\n  -d 'b'\n{}\n\n$ c\n```\n\n```sh\nd 'e\nf'\ng  # h\n```\n";
    let expected = [("a \\\n  -d 'b'", "{}\n\n"), ("c", ""), ("d 'e\nf'", ""), ("g", "")];
    assert_eq!(commands(page), expected.map(|(line, shown)| (line.to_owned(), shown.to_owned())));
}
