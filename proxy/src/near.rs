//! The known name that a misspelled one probably means. Pure.

/// How alike two names must be, from 0 to 1: `hots` and `host`, `temprature` and `temperature`, but not `foo` and
/// `format`.
const ALIKE: f64 = 0.85;

/// Longer names are not compared: comparing takes the product of both lengths.
const LONGEST: usize = 64;

/// Returns the name that is most like `name`, if one is near.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > LONGEST {
        return None;
    }
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(alike, _)| *alike > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_name_is_found_and_another_name_is_not() {
        let names = ["temperature", "top_p", "format", "max_tokens", "remote.host", "user"];
        let near = |name| nearest(name, names.into_iter());
        assert_eq!(near("temprature"), Some("temperature"));
        assert_eq!(near("max_token"), Some("max_tokens"));
        assert_eq!(near("remote.hots"), Some("remote.host"));
        for other in ["foo", "zzz", "chat_template_kwargs", "enable_thinking"] {
            assert_eq!(near(other), None, "{other}");
        }
    }
}
