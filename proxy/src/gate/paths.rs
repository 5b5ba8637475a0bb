//! How a path is read before anything is decided by it, and lists of paths.
//!
//! Reading changes nothing: the raw bytes pass on.

use std::borrow::Cow;

use crate::gate::pattern;

/// A path as it is judged and routed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading<'a> {
    /// Percent-decoded once, and cleaned of `//`, `.` and `..` as Go's `path.Clean` does. What is not UTF-8 is
    /// replaced, and fits nothing.
    pub(crate) clean: Cow<'a, str>,
    /// Whether cleaning changed nothing but a last slash. Who reads the path without cleaning it, or cleans it twice,
    /// then reads the same.
    pub(crate) plain: bool,
    /// Whether there was a last slash, which is not in `clean`. For the gate that is the same path, for routers it may
    /// be another.
    pub(crate) slash: bool,
}

/// Reads a raw path.
pub(crate) fn read(path: &str) -> Reading<'_> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
    // By bytes, which costs a third of a search for a character.
    let mut parts = decoded.as_bytes().split(|byte| *byte == b'/').skip(1);
    let is_clean =
        decoded.starts_with('/') && (decoded.len() == 1 || parts.all(|part| !matches!(part, b"" | b"." | b"..")));
    if is_clean {
        return Reading { clean: decoded, plain: true, slash: false };
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in decoded.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let clean = format!("/{}", parts.join("/"));
    let slash = clean.len() > 1 && decoded.strip_suffix('/') == Some(&clean);
    Reading { clean: Cow::Owned(clean), plain: slash || decoded.is_empty(), slash }
}

/// Patterns of paths: `/api/chat`, `/v1/*`, `*`, and `!…` for what is taken out again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paths {
    allowed: Vec<String>,
    taken_out: Vec<String>,
}

impl Paths {
    pub(crate) fn new(patterns: &[String]) -> Self {
        let (taken_out, allowed): (Vec<_>, Vec<_>) = patterns.iter().partition(|pattern| pattern.starts_with('!'));
        let taken_out = taken_out.into_iter().map(|pattern| pattern[1..].to_owned()).collect();
        Self { allowed: allowed.into_iter().cloned().collect(), taken_out }
    }

    /// Whether the list has `path`, which was [`read`].
    pub(crate) fn contain(&self, path: &str) -> bool {
        let fits = |pattern: &String| fits(pattern, path);
        self.allowed.iter().any(fits) && !self.taken_out.iter().any(fits)
    }
}

/// `/v1/*` has `/v1` too, and `/api/chat/` is `/api/chat`.
fn fits(pattern: &str, path: &str) -> bool {
    let folder = pattern.strip_suffix('*').unwrap_or(pattern).strip_suffix('/');
    pattern::fits(pattern, path) || folder == Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_the_remote_reads_it() {
        for (raw, path, plain) in [
            ("/api/%64elete", "/api/delete", true),
            ("/api//delete", "/api/delete", false),
            ("/api/x/../delete/", "/api/delete", false),
            ("/api/delete/", "/api/delete", true),
            ("/api%2Fdelete", "/api/delete", true),
            ("/%2e%2e/api/./delete", "/api/delete", false),
            ("/v1/models/x%2F..%2F..%2F..", "/", false),
            ("/", "/", true),
            ("", "/", true),
            ("//", "/", false),
            ("/api/%2564elete", "/api/%64elete", true),
            ("evil:80", "/evil:80", false),
        ] {
            let reading = read(raw);
            assert_eq!((&*reading.clean, reading.plain), (path, plain), "{raw}");
        }
        assert!(matches!(read("/v1/chat/completions").clean, Cow::Borrowed(_)));
    }

    #[test]
    fn a_list_has_what_it_names_and_not_what_it_takes_out() {
        let list = |patterns: &[&str]| Paths::new(&patterns.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        let some = list(&["/v1/*", "/api/chat"]);
        for (path, there) in [
            ("/v1/models", true),
            ("/v1", true),
            ("/v10", false),
            ("/api/chat", true),
            ("/api/chats", false),
            ("/", false),
        ] {
            assert_eq!(some.contain(path), there, "{path}");
        }
        let most = list(&["*", "!/api/delete", "!/api/blobs/*"]);
        for (path, there) in [("/api/chat", true), ("/api/delete", false), ("/api/blobs/x", false)] {
            assert_eq!(most.contain(path), there, "{path}");
        }
        assert!(!list(&[]).contain("/"));
    }
}
