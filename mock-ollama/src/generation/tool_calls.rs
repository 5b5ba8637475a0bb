//! Splits tool calls from content while text streams in, as Ollama does for Go templates: what comes after the tag is
//! not content any more, and a call that cannot be read, or is for a tool that was not offered, vanishes.

use serde_json::{Map, Value};

const TAG: &str = "<tool_call>";

/// A call that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) arguments: Map<String, Value>,
}

/// Where a stream of text is.
#[derive(Clone, Debug)]
pub(crate) struct ToolCalls {
    /// Names of the tools that were offered; an empty one is for any call.
    names: Vec<String>,
    held: String,
    tag_seen: bool,
}

impl ToolCalls {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self { names, held: String::new(), tag_seen: false }
    }

    /// What of the text so far is certain: content, and calls that are whole.
    pub(crate) fn add(&mut self, text: &str) -> (String, Vec<Call>) {
        self.held.push_str(text);
        if !self.tag_seen {
            match self.held.split_once(TAG) {
                Some((before, after)) => {
                    let content = before.to_owned();
                    self.held = after.to_owned();
                    self.tag_seen = true;
                    // Text before a call is content; its calls come with what follows.
                    return (content, self.calls());
                }
                None => {
                    let held = (1..TAG.len()).rev().find(|len| self.held.ends_with(&TAG[..*len])).unwrap_or(0);
                    return (self.held.drain(..self.held.len() - held).collect(), Vec::new());
                }
            }
        }
        (String::new(), self.calls())
    }

    fn calls(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some(start) = self.held.find('{') {
            let mut values = serde_json::Deserializer::from_str(&self.held[start..]).into_iter::<Value>();
            let Some(Ok(value)) = values.next() else { break };
            let end = start + values.byte_offset();
            calls.extend(self.call(&value));
            self.held.drain(..end);
        }
        calls
    }

    fn call(&self, value: &Value) -> Option<Call> {
        let written = value.get("name")?.as_str()?;
        let name = self
            .names
            .iter()
            .find(|name| *name == written)
            .or_else(|| self.names.iter().find(|name| name.is_empty()))?;
        let arguments = value.get("arguments").or_else(|| value.get("parameters"))?.as_object()?;
        Some(Call { name: name.clone(), arguments: arguments.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": {\"b\": \"}\"}}}\n</tool_call>";

    fn parser(names: &[&str]) -> ToolCalls {
        ToolCalls::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_call_is_reported_once_it_is_whole() {
        let mut parser = parser(&["f"]);
        let reported: Vec<(usize, Call)> = CALL
            .char_indices()
            .flat_map(|(at, c)| parser.add(&c.to_string()).1.into_iter().map(move |call| (at, call)))
            .collect();
        assert_eq!(reported.len(), 1);
        assert_eq!(reported[0].0, CALL.rfind('}').unwrap());
        assert_eq!(reported[0].1.name, "f");
        assert_eq!(parser.add(CALL).1.len(), 1, "another call");
    }

    #[test]
    fn what_cannot_be_read_or_was_not_offered_vanishes() {
        assert_eq!(parser(&["g"]).add(CALL), (String::new(), vec![]));
        assert_eq!(
            parser(&["f"]).add("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\"</tool_call>"),
            (String::new(), vec![])
        );
        assert_eq!(parser(&[""]).add(CALL).1[0].name, "");
    }

    #[test]
    fn other_text_is_content_and_a_tag_is_held_until_it_is_known() {
        let mut parser = parser(&["f"]);
        assert_eq!(parser.add("a <tool").0, "a ");
        assert_eq!(parser.add("box>").0, "<toolbox>");
    }
}
