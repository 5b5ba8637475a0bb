//! Names of models, as Ollama compares them.

use std::borrow::Cow;

/// The tag of a model without one.
const LATEST: &str = ":latest";

/// The spelling of an empty name.
pub(crate) const NONE: &str = LATEST;

/// One spelling per model: `m` is `m:latest`, and the case of ASCII letters does not count. Other letters are in no
/// valid name.
pub(crate) fn full(name: &str) -> Cow<'_, str> {
    let last = &name.as_bytes()[memchr::memrchr(b'/', name.as_bytes()).map_or(0, |slash| slash + 1)..];
    match (memchr::memchr(b':', last).is_some(), name.bytes().any(|byte| byte.is_ascii_uppercase())) {
        (true, false) => Cow::Borrowed(name),
        (true, true) => Cow::Owned(name.to_ascii_lowercase()),
        (false, _) => {
            let mut full = String::with_capacity(name.len() + LATEST.len());
            full.push_str(name);
            full.make_ascii_lowercase();
            full.push_str(LATEST);
            Cow::Owned(full)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_without_a_tag_is_its_latest() {
        for (name, full_name) in [
            ("Llama3.2", "llama3.2:latest"),
            ("hf.co:443/org/name", "hf.co:443/org/name:latest"),
            ("QWEN3:8B", "qwen3:8b"),
            ("\u{212a}", "\u{212a}:latest"),
            ("", ":latest"),
        ] {
            assert_eq!(full(name), full_name);
        }
    }
}
