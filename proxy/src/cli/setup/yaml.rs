//! Changes YAML files by whole lines, so that comments and layout stay: what farllama writes stands between two marks.

const BEGIN: &str = "# >>> farllama setup";
const END: &str = "# <<< farllama setup";

/// The text without what was written before, and where that stood.
fn without_block(text: &str) -> (String, Option<usize>) {
    let mut out = String::new();
    let (mut inside, mut at) = (false, None);
    for line in text.split_inclusive('\n') {
        match line.trim() {
            mark if mark == BEGIN => {
                inside = true;
                at = Some(out.len());
            }
            mark if mark == END => inside = false,
            _ if inside => {}
            _ => out.push_str(line),
        }
    }
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    (out, at)
}

/// Lines between marks, which are indented as they are.
fn block(lines: &[String], indent: usize) -> String {
    let margin = " ".repeat(indent);
    let lines: String = lines.iter().map(|line| format!("{margin}{line}\n")).collect();
    format!("{margin}{BEGIN}\n{lines}{margin}{END}\n")
}

/// Adds `items`, the lines of elements of a list, to the list at the top of the file.
///
/// # Errors
/// Fails if the top of the file is not a list of that form.
pub(super) fn add_to_list(text: &str, items: &[String]) -> Result<String, String> {
    let (rest, at) = without_block(text);
    let fits = rest.lines().all(|line| {
        line.trim().is_empty()
            || line.starts_with(['#', ' ', '\t'])
            || line.starts_with("- ")
            || line.starts_with("---")
    });
    if !fits {
        return Err("it is not a list of models".to_owned());
    }
    let at = at.unwrap_or(rest.len());
    Ok(format!("{}{}{}", &rest[..at], block(items, 0), &rest[at..]))
}

/// Adds `items`, the lines of elements of a list, to the list under `key`, which is added where it is missing.
///
/// # Errors
/// Fails if the list is written in another form.
pub(super) fn add_under(text: &str, key: &str, items: &[String]) -> Result<String, String> {
    let (rest, at) = without_block(text);
    let named = format!("{key}:");
    let mut end = 0;
    let mut lines = rest.split_inclusive('\n');
    let head = lines.by_ref().find(|line| {
        end += line.len();
        line.starts_with(&named)
    });
    let Some(head) = head else {
        let lines: Vec<_> = std::iter::once(named).chain(items.iter().map(|line| format!("  {line}"))).collect();
        return Ok(rest + &block(&lines, 0));
    };
    let value = head[named.len()..].trim();
    if !(value.is_empty() || value.starts_with('#')) {
        return Err(format!("`{key}` in it is not a list with an element on each line"));
    }
    let first = lines.find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let indent = match first {
        Some(line) if line.trim_start().starts_with("- ") => line.len() - line.trim_start().len(),
        _ => 2,
    };
    let at = at.filter(|at| *at >= end).unwrap_or(end);
    Ok(format!("{}{}{}", &rest[..at], block(items, indent), &rest[at..]))
}

/// Sets plain keys at the top of the file. What they were before stays as a comment.
pub(super) fn set(text: &str, pairs: &[(&str, String)]) -> String {
    let (rest, at) = without_block(text);
    let set =
        |line: &str| pairs.iter().any(|(key, _)| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
    let mut out = String::new();
    let mut place = None;
    for line in rest.split_inclusive('\n') {
        if place.is_none() && at.is_some_and(|at| out.len() >= at) {
            place = Some(out.len());
        }
        if set(line) {
            out.push_str("# before farllama setup: ");
        }
        out.push_str(line);
    }
    let place = place.unwrap_or(out.len());
    let lines: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}: {}", quoted(value))).collect();
    format!("{}{}{}", &out[..place], block(&lines, 0), &out[place..])
}

/// A text in quotes: JSON is YAML.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_list_at_the_top_gets_elements_once() {
        let first = add_to_list("# mine\n- model_id: a\n  model_name: b\n", &lines(&["- model_id: c"])).unwrap();
        assert_eq!(
            first,
            "# mine\n- model_id: a\n  model_name: b\n# >>> farllama setup\n- model_id: c\n# <<< farllama setup\n"
        );
        let more = first.clone() + "- model_id: z\n";
        assert_eq!(add_to_list(&first, &lines(&["- model_id: c"])).unwrap(), first);
        let second = add_to_list(&more, &lines(&["- model_id: d"])).unwrap();
        assert_eq!(second, more.replace("model_id: c", "model_id: d"));
        assert!(add_to_list("models:\n- a\n", &[]).is_err());
    }

    #[test]
    fn a_list_under_a_key_gets_elements_with_its_indentation() {
        for (text, expected) in [
            ("", "# >>> farllama setup\nmodels:\n  - name: x\n# <<< farllama setup\n"),
            (
                "name: me\nmodels:\n    - name: a\nrules: []\n",
                "name: me\nmodels:\n    # >>> farllama setup\n    - name: x\n    # <<< farllama setup\n    - name: a\nrules: []\n",
            ),
            ("models:\n- name: a\n", "models:\n# >>> farllama setup\n- name: x\n# <<< farllama setup\n- name: a\n"),
        ] {
            let items = lines(&["- name: x"]);
            let once = add_under(text, "models", &items).unwrap();
            assert_eq!(once, expected);
            assert_eq!(add_under(&once, "models", &items).unwrap(), once);
        }
        assert!(add_under("models: []\n", "models", &[]).is_err());
    }

    #[test]
    fn keys_are_set_and_what_they_were_stays_as_a_comment() {
        let pairs = [("model", "openai/q".to_owned())];
        let once = set("# mine\nmodel: gpt-4o\nmodel-settings-file: x\n", &pairs);
        assert_eq!(
            once,
            "# mine\n# before farllama setup: model: gpt-4o\nmodel-settings-file: x\n# >>> farllama setup\nmodel: \"openai/q\"\n# <<< farllama setup\n"
        );
        assert_eq!(set(&once, &pairs), once);
    }
}
