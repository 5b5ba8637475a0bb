//! The exit codes of `farllama-check`. Scripts rely on them: an existing code never changes its meaning.

use std::process::ExitCode;

/// How a run ended, as the exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything that ran passed.
    Fit = 0,
    /// An expectation failed.
    Unfit = 1,
    /// Unusable input (flags, YAML), an unreachable server, or something that could not be started.
    Unusable = 2,
    /// No scenario was selected, or all of them were skipped.
    NothingChecked = 3,
    /// Interrupted by Ctrl-C or SIGTERM, as shells report it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn the_codes_are_stable() {
        let all = [Exit::Fit, Exit::Unfit, Exit::Unusable, Exit::NothingChecked, Exit::Interrupted];
        assert_eq!(all.map(|exit| exit as u8), [0, 1, 2, 3, 130]);
    }
}
