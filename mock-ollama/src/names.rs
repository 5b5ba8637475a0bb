//! Model names: `[host/][namespace/]model[:tag]`, with Ollama's defaults and its grammar (`ollama-wire` A10). Pure.

/// A valid name, with all of its parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) host: String,
    pub(crate) namespace: String,
    pub(crate) model: String,
    pub(crate) tag: String,
    /// `http://` was in front of it.
    pub(crate) insecure: bool,
}

const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";

impl Name {
    /// None where the grammar is broken.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (insecure, text) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme == "http", rest),
            None => (false, text),
        };
        let slash = text.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match text[slash..].split_once(':') {
            Some((model, tag)) => (format!("{}{model}", &text[..slash]), tag),
            None => (text.to_owned(), "latest"),
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (host, namespace, model) = match parts[..] {
            [model] => (HOST, NAMESPACE, model),
            [namespace, model] => (HOST, namespace, model),
            [host, namespace, model] => (host, namespace, model),
            _ => return None,
        };
        let fine = is_part(host, ":-_.", 350)
            && is_part(namespace, "-_", 80)
            && is_part(model, "-_.", 80)
            && is_part(tag, "-_.", 80);
        fine.then(|| Self {
            host: host.to_owned(),
            namespace: namespace.to_owned(),
            model: model.to_owned(),
            tag: tag.to_owned(),
            insecure,
        })
    }

    /// A model of Ollama's own library.
    pub(crate) fn in_library(model: &str, tag: &str) -> Self {
        let (host, namespace) = (HOST.to_owned(), NAMESPACE.to_owned());
        Self { host, namespace, model: model.to_owned(), tag: tag.to_owned(), insecure: false }
    }

    /// The whole name: `registry.ollama.ai/library/m:latest`.
    pub(crate) fn full(&self) -> String {
        format!("{}/{}/{}:{}", self.host, self.namespace, self.model, self.tag)
    }

    /// As people see it: without the default host and namespace, with the tag.
    pub(crate) fn short(&self) -> String {
        match (self.host == HOST, self.namespace == NAMESPACE) {
            (true, true) => format!("{}:{}", self.model, self.tag),
            (true, false) => format!("{}/{}:{}", self.namespace, self.model, self.tag),
            (false, _) => self.full(),
        }
    }

    /// Whether the model comes from Ollama's own registry.
    pub(crate) fn is_default_host(&self) -> bool {
        self.host == HOST
    }

    /// Whether the model is of Ollama's own library.
    pub(crate) fn is_library(&self) -> bool {
        self.host == HOST && self.namespace == NAMESPACE
    }

    /// What two names of the same model share.
    pub(crate) fn key(&self, ignore_case: bool) -> String {
        let full = self.full();
        if ignore_case { full.to_lowercase() } else { full }
    }
}

fn is_part(part: &str, others: &str, most: usize) -> bool {
    let mut chars = part.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    first && part.len() <= most && chars.all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_ollamas_defaults() {
        assert_eq!(Name::parse("m").unwrap().full(), "registry.ollama.ai/library/m:latest");
        assert_eq!(Name::parse("u/m:1").unwrap().short(), "u/m:1");
        assert_eq!(Name::parse("hf.co/u/m:Q4_K_M").unwrap().short(), "hf.co/u/m:Q4_K_M");
        assert_eq!(Name::parse("127.0.0.1:9/x/y").unwrap().host, "127.0.0.1:9");
        assert!(Name::parse("http://127.0.0.1:9/x/y").unwrap().insecure);
    }

    #[test]
    fn broken_names_are_none() {
        for wrong in ["", "a b c", "x/", "/x", "a/b/c/d", "a/b/c/d:e:f", "m:", "-m", "m:a b"] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }
}
