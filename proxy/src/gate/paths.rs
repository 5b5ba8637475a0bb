//! Lists of paths, and how a path is read before it is looked for in one: decoded and cleaned, as the remote's router reads it.
//!
//! Reading changes nothing: the raw bytes pass on.

/// `path` percent-decoded once, and cleaned of `//`, `.` and `..` as Go's `path.Clean` does. What is not UTF-8 is replaced, and fits nothing.
pub(crate) fn read(path: &str) -> String {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
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
    format!("/{}", parts.join("/"))
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

fn fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning) || beginning.strip_suffix('/') == Some(path),
        None => pattern == path || pattern.strip_suffix('/') == Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_the_remote_reads_it() {
        for (raw, path) in [
            ("/api/%64elete", "/api/delete"),
            ("/api//delete", "/api/delete"),
            ("/api/x/../delete/", "/api/delete"),
            ("/api%2Fdelete", "/api/delete"),
            ("/%2e%2e/api/./delete", "/api/delete"),
            ("/", "/"),
            ("", "/"),
            ("/api/%2564elete", "/api/%64elete"),
        ] {
            assert_eq!(read(raw), path, "{raw}");
        }
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
