//! What was there before a file was written, so that it can be restored: a numbered folder for each `--write`.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::super::variable;

/// The backups of one tool.
pub(super) struct Backups {
    folder: PathBuf,
}

/// A file that was written.
#[derive(Debug, Deserialize, Serialize)]
struct Written {
    path: PathBuf,
    /// None: there was no such file.
    before: Option<String>,
    after: String,
}

/// The name of the list of files in a backup's folder.
const LIST: &str = "files.json";

impl Backups {
    pub(super) fn of(tool: &str, environment: &[(String, String)]) -> Result<Self, String> {
        let state = variable(environment, "XDG_STATE_HOME").map(PathBuf::from);
        let home = || variable(environment, "HOME").or_else(|| variable(environment, "USERPROFILE")).map(PathBuf::from);
        let state = state.or_else(|| home().map(|home| home.join(".local/state")));
        let state = state.ok_or("there is no home directory for backups: set XDG_STATE_HOME")?;
        Ok(Self { folder: state.join("farllama").join("setup").join(tool) })
    }

    /// Writes files, once what is there is kept.
    pub(super) fn write(&self, files: &[(PathBuf, String)]) -> Result<(), String> {
        let mut all = Vec::new();
        for (path, after) in files {
            let before = match fs::read_to_string(path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(format!("{}: {error}", path.display())),
            };
            all.push(Written { path: path.clone(), before, after: after.clone() });
        }
        let folder = self.folder.join(self.last().map_or(1, |last| last + 1).to_string());
        let list = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
        write_private(&folder.join(LIST), &list)?;
        all.iter().try_for_each(|written| replace(&written.path, &written.after))
    }

    /// Restores what was there before the last write.
    pub(super) fn undo(&self) -> Result<String, String> {
        let last = self.last().ok_or("there is nothing to undo: no configuration was written")?;
        let folder = self.folder.join(last.to_string());
        let list = folder.join(LIST);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", list.display());
        let text = fs::read_to_string(&list).map_err(|error| failed(&error))?;
        let all: Vec<Written> = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        // All or nothing: what was changed by hand since is not lost.
        for written in &all {
            if fs::read_to_string(&written.path).unwrap_or_default() != written.after {
                return Err(format!(
                    "{} was changed since; what was there before is in {}",
                    written.path.display(),
                    list.display()
                ));
            }
        }
        let mut out = String::new();
        for written in &all {
            match &written.before {
                Some(before) => replace(&written.path, before)?,
                None => {
                    fs::remove_file(&written.path).map_err(|error| format!("{}: {error}", written.path.display()))?;
                }
            }
            out += &format!(
                "{}: {}\n",
                written.path.display(),
                if written.before.is_some() { "restored" } else { "removed" }
            );
        }
        fs::remove_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(out)
    }

    /// The number of the last backup.
    fn last(&self) -> Option<u32> {
        let entries = fs::read_dir(&self.folder).ok()?;
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).max()
    }
}

/// Puts `text` in the place of a file in one step. What a link points at is changed, not the link.
fn replace(path: &Path, text: &str) -> Result<(), String> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut new = path.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    write_private(&new, text)?;
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if let Ok(known) = fs::metadata(&path) {
        fs::set_permissions(&new, known.permissions()).map_err(failed)?;
    }
    fs::rename(&new, &path).map_err(failed)
}

/// Writes a new file that only its owner may read: it may hold a key.
fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let _ = fs::remove_file(path);
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_undone_step_by_step_unless_it_was_changed_since() {
        let folder = tempfile::tempdir().unwrap();
        let environment = [("XDG_STATE_HOME".to_owned(), folder.path().join("state").to_string_lossy().into_owned())];
        let backups = Backups::of("zed", &environment).unwrap();
        let (old, new) = (folder.path().join("old.json"), folder.path().join("sub/new.json"));
        fs::write(&old, "0").unwrap();
        backups.write(&[(old.clone(), "1".to_owned()), (new.clone(), "1".to_owned())]).unwrap();
        backups.write(&[(old.clone(), "2".to_owned())]).unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "2");
        backups.undo().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "1");
        fs::write(&old, "mine").unwrap();
        assert!(backups.undo().unwrap_err().contains("was changed since"));
        assert_eq!(fs::read_to_string(&old).unwrap(), "mine");
        fs::write(&old, "1").unwrap();
        let reported = backups.undo().unwrap();
        assert!(reported.contains("restored") && reported.contains("removed"), "{reported}");
        assert_eq!((fs::read_to_string(&old).unwrap(), new.exists()), ("0".to_owned(), false));
        assert!(backups.undo().unwrap_err().contains("nothing to undo"));
    }
}
