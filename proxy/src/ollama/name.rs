//! Names of models, as Ollama compares them.

use std::borrow::Cow;

/// One spelling per model: `m` is `m:latest`, and the case of ASCII letters does not count. Other letters are in no valid name.
pub(crate) fn full(name: &str) -> Cow<'_, str> {
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.contains(':'), name.bytes().any(|byte| byte.is_ascii_uppercase())) {
        (true, false) => Cow::Borrowed(name),
        (true, true) => Cow::Owned(name.to_ascii_lowercase()),
        (false, _) => Cow::Owned(format!("{}:latest", name.to_ascii_lowercase())),
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
