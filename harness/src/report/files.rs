//! Report files for programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::{RunResult, html, json, junit, markdown};

/// Reports for programs.
#[derive(Args, Clone, Debug, Default)]
pub struct Files {
    /// Writes the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Writes the results as Markdown
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Writes the results as one HTML file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

impl Files {
    /// Checks before a run that the reports can be written after it.
    ///
    /// # Errors
    /// Fails if a file's folder does not exist, or the path is a folder.
    pub fn check(&self) -> anyhow::Result<()> {
        let given =
            [("--json", &self.json), ("--junit", &self.junit), ("--markdown", &self.markdown), ("--html", &self.html)];
        check(given.into_iter().filter_map(|(flag, path)| Some((flag, path.as_deref()?))))
    }

    /// Writes what was asked for.
    ///
    /// # Errors
    /// A file cannot be written, or a report cannot be made.
    pub fn write(&self, run: &RunResult) -> anyhow::Result<()> {
        if let Some(path) = &self.json {
            std::fs::write(path, json::render(run)?).with_context(|| format!("--json {}", path.display()))?;
        }
        if let Some(path) = &self.junit {
            std::fs::write(path, junit::render(run)?).with_context(|| format!("--junit {}", path.display()))?;
        }
        if let Some(path) = &self.markdown {
            std::fs::write(path, markdown::render(run)).with_context(|| format!("--markdown {}", path.display()))?;
        }
        if let Some(path) = &self.html {
            let page = html::of_run(run).render();
            std::fs::write(path, page).with_context(|| format!("--html {}", path.display()))?;
        }
        Ok(())
    }
}

/// Checks that files can be written, before a run.
///
/// # Errors
/// Fails if a file's folder does not exist, or the path is a folder.
pub(crate) fn check<'a>(files: impl IntoIterator<Item = (&'static str, &'a Path)>) -> anyhow::Result<()> {
    for (flag, path) in files {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let shown = path.display();
        if path.is_dir() {
            bail!("{flag} {shown} is a folder: name a file in it");
        }
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            bail!("{flag} {shown} cannot be written: there is no folder {}", folder.display());
        }
        let is_readonly = |path: &Path| path.metadata().is_ok_and(|data| data.permissions().readonly());
        if is_readonly(path) || !path.exists() && is_readonly(folder.unwrap_or(Path::new("."))) {
            bail!("{flag} {shown} cannot be written: it is read-only");
        }
    }
    Ok(())
}
