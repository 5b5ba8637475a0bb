//! What llama-server says of a schema that it cannot use.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    ABYSS, pattern,
    refs::Refs,
    shape::{self, Others, Shape},
};

/// Why a schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It becomes no grammar; all that was found, a line each.
    Schema(String),
    /// It becomes a grammar that cannot be read.
    Grammar,
}

/// The first kind of fault of a schema, if it has one.
pub(crate) fn fault(schema: &Value) -> Option<Fault> {
    let (refs, faults) = Refs::of(schema);
    let mut walk = Walk { refs: &refs, faults, visited: HashSet::new(), broken_grammar: false };
    walk.visit(schema, 0);
    if !walk.faults.is_empty() {
        return Some(Fault::Schema(walk.faults.join("\n")));
    }
    walk.broken_grammar.then_some(Fault::Grammar)
}

struct Walk<'a> {
    refs: &'a Refs,
    faults: Vec<String>,
    visited: HashSet<String>,
    broken_grammar: bool,
}

impl Walk<'_> {
    fn visit(&mut self, schema: &Value, depth: usize) {
        if depth > ABYSS {
            return;
        }
        let refs = self.refs;
        match shape::of(schema, &|reference| refs.get(reference)) {
            Shape::Ref(reference) => {
                if self.visited.insert(reference.to_owned())
                    && let Some(target) = refs.get(reference)
                {
                    self.visit(target, depth + 1);
                }
            }
            Shape::Union(parts) => parts.iter().for_each(|part| self.visit(part, depth + 1)),
            Shape::Object(object) => {
                object.properties.iter().for_each(|(_, part, _)| self.visit(part, depth + 1));
                if let Others::Of(others) = object.others {
                    self.visit(others, depth + 1);
                }
            }
            Shape::Tuple(items) => items.iter().for_each(|item| self.visit(item, depth + 1)),
            Shape::Array { item, .. } => self.visit(item, depth + 1),
            Shape::Pattern(pattern) => match pattern::fault(pattern) {
                Some(pattern::Fault::Pattern(text)) => self.faults.push(text.to_owned()),
                Some(pattern::Fault::Grammar) => self.broken_grammar = true,
                None => {}
            },
            Shape::Unrecognized => self.faults.push(format!("Unrecognized schema: {schema}")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_are_reported_in_the_order_in_which_they_are_found() {
        let reported = |schema: Value| match fault(&schema) {
            Some(Fault::Schema(text)) => text,
            other => panic!("{schema}: {other:?}"),
        };
        assert_eq!(reported(json!({"type": "nonsense"})), "Unrecognized schema: {\"type\":\"nonsense\"}");
        assert_eq!(reported(json!({"type": 5})), "Unrecognized schema: {\"type\":5}");
        assert_eq!(reported(json!({"type": ["x", "null"], "a": 1})), "Unrecognized schema: {\"type\":\"x\",\"a\":1}");
        assert_eq!(
            reported(json!({"properties": {"a": true, "b": {"items": false}}})),
            "Unrecognized schema: true\nUnrecognized schema: false"
        );
        assert_eq!(reported(json!({"$ref": "#"})), "Unsupported ref: #");
        assert_eq!(
            reported(json!({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"c": {}}})),
            "Error resolving ref #/$defs/b: b not in {\"c\":{}}"
        );
        assert_eq!(reported(json!({"pattern": "[a-z]"})), "Pattern must start with '^' and end with '$'");
        assert_eq!(fault(&json!({"items": {"type": "string", "pattern": "^\\d$"}})), Some(Fault::Grammar));
    }

    #[test]
    fn what_is_never_looked_at_is_no_fault() {
        for schema in [
            json!({"type": "object", "properties": {"a": {"type": "null"}}, "not": {"type": "x"}, "if": true, "required": 7}),
            json!({"$defs": {"a": {"type": "x"}}, "type": "null"}),
            json!({"anyOf": [{"type": "null"}], "type": "x"}),
            json!({"const": 1, "type": "x"}),
            json!({"$ref": "https://example.com/x.json"}),
            json!({"properties": []}),
            json!({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}}}}),
            json!({"items": {"$defs": {"a": {"type": "null"}}, "$ref": "#/$defs/a"}}),
        ] {
            assert_eq!(fault(&schema), None, "{schema}");
        }
    }
}
