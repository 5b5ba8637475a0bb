//! Report files for programs.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::{RunResult, json, junit, markdown};

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
}

impl Files {
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
        Ok(())
    }
}
