//! The file by which `farllama reload` finds a running farllama, and learns how the reload went.
//!
//! The file is locked while its process lives, so a file that a crash has left behind is never taken for a running one.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::variable;

/// How long a reload may take until its outcome is shown.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a running farllama writes down.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    pid: u32,
    address: String,
    /// How many reloads there were.
    reloads: u32,
    /// Whether the last one worked, and what it did.
    outcome: Result<String, String>,
}

impl Record {
    fn write(&self) -> String {
        let Self { pid, address, reloads, outcome } = self;
        let (word, text) = match outcome {
            Ok(text) => ("ok", text),
            Err(text) => ("failed", text),
        };
        format!("{pid} {address} {reloads} {word}\n{text}\n")
    }

    fn read(text: &str) -> Option<Self> {
        let (head, outcome) = text.split_once('\n')?;
        let mut words = head.split(' ');
        let (pid, address) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let reloads = words.next()?.parse().ok()?;
        let outcome = outcome.strip_suffix('\n')?.to_owned();
        let outcome = if words.next()? == "ok" { Ok(outcome) } else { Err(outcome) };
        Some(Self { pid, address, reloads, outcome })
    }
}

/// Where the files are: in the user's runtime folder, or in the state folder if the system has no such folder.
fn folder(environment: &[(String, String)]) -> Option<PathBuf> {
    let path = |name: &str| variable(environment, name).map(PathBuf::from);
    let base = path("XDG_RUNTIME_DIR")
        .or_else(|| path("XDG_STATE_HOME"))
        .or_else(|| path("HOME").map(|home| home.join(".local").join("state")));
    base.map(|base| base.join("farllama"))
}

/// The file of this process, removed when it ends.
#[derive(Debug)]
pub(crate) struct Registration {
    path: PathBuf,
    file: File,
    record: Record,
}

impl Registration {
    /// Writes the file. Without it all works but `farllama reload`.
    pub(crate) fn new(environment: &[(String, String)], address: SocketAddr) -> Option<Self> {
        let pid = std::process::id();
        let path = folder(environment)?.join(format!("{pid}.pid"));
        let record = Record { pid, address: address.to_string(), reloads: 0, outcome: Ok(String::new()) };
        let written = create(&path).and_then(|file| {
            let mut registration = Self { path: path.clone(), file, record };
            registration.write().map(|()| registration)
        });
        written.inspect_err(|error| tracing::debug!(target: "farllama", "{}: {error}", path.display())).ok()
    }

    /// Writes down how a reload went.
    pub(crate) fn reloaded(&mut self, outcome: Result<String, String>) {
        self.record.reloads += 1;
        self.record.outcome = outcome;
        if let Err(error) = self.write() {
            tracing::debug!(target: "farllama", "{}: {error}", self.path.display());
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(self.record.write().as_bytes())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn create(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// The record in a file whose process lives. A file without one is removed.
fn running(path: &Path) -> Option<Record> {
    let mut file = File::options().read(true).write(true).open(path).ok()?;
    if file.try_lock().is_ok() {
        let _ = fs::remove_file(path);
        return None;
    }
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    Record::read(&text)
}

/// Makes the running farllama read its settings again, and returns what has changed.
///
/// # Errors
/// Fails if there is none, if there are several and `pid` does not say which, or if the reload fails.
pub(crate) fn reload(environment: &[(String, String)], pid: Option<u32>) -> Result<String, String> {
    let folder = folder(environment).ok_or("no folder to look in: set XDG_RUNTIME_DIR or HOME")?;
    let entries = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let found: Vec<(PathBuf, Record)> =
        entries.filter_map(|path| running(&path).map(|record| (path, record))).collect();
    let wanted: Vec<_> = found.iter().filter(|(_, record)| pid.is_none_or(|pid| pid == record.pid)).collect();
    let name = |record: &Record| format!("{} (pid {})", record.address, record.pid);
    let (path, before) = match wanted.as_slice() {
        [only] => (&only.0, &only.1),
        [] => {
            return Err(format!(
                "no running farllama found in {}: one of another user, or one that was started with another HOME or \
                 XDG_RUNTIME_DIR, is reloaded with `kill -HUP PID`",
                folder.display()
            ));
        }
        several => {
            let names: Vec<_> = several.iter().map(|(_, record)| name(record)).collect();
            return Err(format!("several farllamas are running: {}. Name one: --pid PID", names.join(", ")));
        }
    };
    hang_up(before.pid)?;
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        if let Some(record) = running(path).filter(|record| record.reloads > before.reloads) {
            return record.outcome.map(|text| format!("{}: {text}", name(before)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("{} does not say how the reload went: see its log", name(before)))
}

#[cfg(unix)]
fn hang_up(pid: u32) -> Result<(), String> {
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let process = process.ok_or_else(|| format!("invalid process id {pid}"))?;
    rustix::process::kill_process(process, rustix::process::Signal::HUP)
        .map_err(|error| format!("cannot send SIGHUP to process {pid}: {error}"))
}

#[cfg(not(unix))]
fn hang_up(_pid: u32) -> Result<(), String> {
    Err("a reload needs SIGHUP, which this system does not have: restart farllama".to_owned())
}

/// Reports a state, such as `READY=1`, to systemd where `NOTIFY_SOCKET` names its socket (sd_notify(3)).
pub(crate) fn notify(environment: &[(String, String)], state: &str) {
    if let Some(socket) = variable(environment, "NOTIFY_SOCKET")
        && let Err(error) = send(socket, state)
    {
        tracing::warn!(target: "farllama", "cannot notify systemd at {socket}: {error}");
    }
}

#[cfg(unix)]
fn send(socket: &str, state: &str) -> io::Result<()> {
    use std::os::unix::net::UnixDatagram;
    let sender = UnixDatagram::unbound()?;
    // An address that begins with `@` has no file.
    #[cfg(target_os = "linux")]
    if let Some(name) = socket.strip_prefix('@') {
        use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
        return sender.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?).map(drop);
    }
    sender.send_to(state.as_bytes(), socket).map(drop)
}

#[cfg(not(unix))]
fn send(_socket: &str, _state: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for outcome in [Ok("configuration reloaded: nothing changed".to_owned()), Err("a\nb".to_owned())] {
            let record = Record { pid: 7, address: "127.0.0.1:1".to_owned(), reloads: 3, outcome };
            assert_eq!(Record::read(&record.write()), Some(record));
        }
        assert_eq!(Record::read("7 127.0.0.1:1"), None);
    }

    #[test]
    fn a_file_that_no_process_holds_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let environment = vec![("XDG_RUNTIME_DIR".to_owned(), folder.path().display().to_string())];
        let registration = Registration::new(&environment, "127.0.0.1:1".parse().unwrap()).unwrap();
        let path = registration.path.clone();
        assert_eq!(running(&path), Some(registration.record.clone()));
        drop(registration);
        assert!(!path.exists());
        fs::write(&path, "7 127.0.0.1:1 0 ok\n\n").unwrap();
        assert_eq!(running(&path), None);
        assert!(!path.exists());
    }
}
