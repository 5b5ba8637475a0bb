//! References of a schema, as llama-server resolves them before anything else.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Where references lead.
#[derive(Debug)]
pub(super) struct Refs {
    targets: HashMap<String, Value>,
}

impl Refs {
    /// All references of a schema, and what is wrong with them, in the order in which they stand.
    pub(super) fn of(schema: &Value) -> (Self, Vec<String>) {
        let root = with_definitions_at_the_top(schema);
        let mut refs = Self { targets: HashMap::new() };
        let mut faults = Vec::new();
        refs.collect(&root, &root, &mut faults);
        (refs, faults)
    }

    /// What a reference points to; nothing is known of a remote or a wrong one.
    pub(super) fn get(&self, reference: &str) -> Option<&Value> {
        self.targets.get(reference)
    }

    fn collect(&mut self, root: &Value, part: &Value, faults: &mut Vec<String>) {
        match part {
            Value::Array(parts) => parts.iter().for_each(|part| self.collect(root, part, faults)),
            Value::Object(object) => match object.get("$ref").and_then(Value::as_str) {
                None => object.values().for_each(|part| self.collect(root, part, faults)),
                Some(reference) if self.targets.contains_key(reference) || reference.starts_with("https://") => {}
                Some(reference) => match target(root, reference) {
                    Ok(found) => {
                        self.targets.insert(reference.to_owned(), found.clone());
                    }
                    Err(fault) => faults.push(fault),
                },
            },
            _ => {}
        }
    }
}

/// Follows a pointer such as `#/$defs/a`.
fn target<'a>(root: &'a Value, reference: &str) -> Result<&'a Value, String> {
    let Some(pointer) = reference.strip_prefix("#/") else { return Err(format!("Unsupported ref: {reference}")) };
    let mut target = root;
    for selector in pointer.split('/') {
        let next = match target {
            Value::Array(items) => selector.parse().ok().and_then(|nth: usize| items.get(nth)),
            target => target.get(selector),
        };
        target = next.ok_or_else(|| format!("Error resolving ref {reference}: {selector} not in {target}"))?;
    }
    Ok(target)
}

/// Nested `$defs` count as the root's.
fn with_definitions_at_the_top(schema: &Value) -> Value {
    fn collect(part: &Value, found: &mut Map<String, Value>) {
        match part {
            Value::Object(object) => {
                for (name, definition) in object.get("$defs").and_then(Value::as_object).into_iter().flatten() {
                    found.entry(name.clone()).or_insert_with(|| definition.clone());
                }
                object.values().for_each(|part| collect(part, found));
            }
            Value::Array(parts) => parts.iter().for_each(|part| collect(part, found)),
            _ => {}
        }
    }
    let mut found = Map::new();
    collect(schema, &mut found);
    let mut root = schema.clone();
    if let Some(object) = root.as_object_mut()
        && !found.is_empty()
    {
        object.insert("$defs".to_owned(), found.into());
    }
    root
}
