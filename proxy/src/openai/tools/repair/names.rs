//! Names that are written differently. Pure.

/// What separates a namespace from a name.
const SEPARATORS: [&str; 4] = ["__", ".", "/", ":"];

/// What models put in front of a tool's name though no tool is called so.
const ADDED: [&str; 6] = ["functions", "function", "default_api", "tools", "tool", "api"];

/// A name without what writers differ in: case, dashes, underscores, blanks.
pub(super) fn normal(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The last name of a path such as `stops[0].days`.
pub(super) fn own_name(path: &str) -> &str {
    let last = path.rsplit('.').next().unwrap_or_default();
    last.split('[').next().unwrap_or_default()
}

/// What follows each separator in `name`.
fn tails(name: &str) -> impl Iterator<Item = &str> {
    SEPARATORS.iter().flat_map(move |separator| {
        name.match_indices(separator).map(move |(at, found)| &name[at + found.len()..]).filter(|tail| !tail.is_empty())
    })
}

/// The one tool that `said` means: its own name, the name written differently, or with a namespace lost or doubled.
pub(super) fn resolve<'a>(said: &str, known: &(impl Iterator<Item = &'a str> + Clone)) -> Option<usize> {
    let only = |matches: &dyn Fn(&str) -> bool| {
        let mut found = known.clone().enumerate().filter(|(_, name)| matches(name)).map(|(n, _)| n);
        match (found.next(), found.next()) {
            (Some(n), None) => Ok(Some(n)),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(()),
        }
    };
    // Two tools of one name are no choice between tools.
    if let Some(n) = known.clone().position(|name| name == said) {
        return Some(n);
    }
    let form = normal(said);
    if form.is_empty() {
        return None;
    }
    let same = |name: &str| normal(name) == form;
    let lost = |name: &str| tails(name).any(|tail| normal(tail) == form);
    let added = |name: &str| tails(said).any(|tail| normal(tail) == normal(name));
    for tier in [&same as &dyn Fn(&str) -> bool, &|name: &str| lost(name) || added(name)] {
        match only(tier) {
            Ok(Some(n)) => return Some(n),
            Ok(None) => {}
            Err(()) => return None,
        }
    }
    None
}

/// Longest text that may be a name, in bytes.
const LONGEST: usize = 128;

/// Whether a name that begins like `begun` may still be one that [`resolve`] finds. It holds for every beginning of
/// `begun`, so that text in pieces is judged as the whole is.
pub(super) fn may_become<'a>(begun: &str, known: &(impl Iterator<Item = &'a str> + Clone)) -> bool {
    let beginnings = begun.char_indices().skip(1).map(|(at, _)| &begun[..at]);
    begun.len() <= LONGEST && beginnings.chain([begun]).all(|begun| looks_like_one(begun, known.clone()))
}

fn looks_like_one<'a>(begun: &str, mut known: impl Iterator<Item = &'a str>) -> bool {
    let form = normal(begun);
    let begins = |name: &str| normal(name).starts_with(&form);
    if begun.starts_with(|first: char| !first.is_alphanumeric() && !"_\"'".contains(first)) {
        return false;
    }
    if form.is_empty() || ADDED.iter().any(|added| begins(added)) {
        return true;
    }
    let after: Vec<String> = tails(begun).map(normal).collect();
    known.any(|name| {
        let whole = normal(name);
        whole.starts_with(&form)
            || tails(name).any(begins)
            // A namespace of its own, or a doubled one.
            || after.iter().any(|after| whole.starts_with(after.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(said: &str, known: &[&'a str]) -> Option<&'a str> {
        resolve(said, &known.iter().copied()).map(|n| known[n])
    }

    #[test]
    fn a_name_is_the_one_tool_that_it_can_mean() {
        let known = ["read_file", "get_weather", "mcp__fs__write_file", "ns__list"];
        for (said, meant) in [
            ("read_file", Some("read_file")),
            ("readFile", Some("read_file")),
            ("Read-File", Some("read_file")),
            ("functions.get_weather", Some("get_weather")),
            ("default_api:get_weather", Some("get_weather")),
            ("write_file", Some("mcp__fs__write_file")),
            ("fs__write_file", Some("mcp__fs__write_file")),
            ("ns__ns__list", Some("ns__list")),
            ("get_weather()", Some("get_weather")),
            ("weather", None),
            ("file", None),
            ("", None),
            ("--", None),
        ] {
            assert_eq!(found(said, &known), meant, "{said}");
        }
    }

    #[test]
    fn a_name_that_may_mean_two_tools_means_none() {
        assert_eq!(found("getweather", &["get_weather", "getWeather"]), None);
        assert_eq!(found("list", &["a__list", "b__list"]), None);
        assert_eq!(found("get_weather", &["get_weather", "getWeather"]), Some("get_weather"));
    }

    #[test]
    fn every_beginning_of_a_name_that_is_found_may_become_one() {
        let known = ["read_file", "mcp__fs__write_file", "ns__list"];
        for said in ["readFile", "functions.read_file", "write_file", "fs__write_file", "ns__ns__list", "ns__list"] {
            assert!(found(said, &known).is_some());
            for end in 0..=said.len() {
                assert!(may_become(&said[..end], &known.iter().copied()), "{}", &said[..end]);
            }
        }
        for other in ["Alice", "xyz", "Oslo", "Text. ", "text.read_file"] {
            assert!(!may_become(other, &known.iter().copied()), "{other}");
        }
    }
}
