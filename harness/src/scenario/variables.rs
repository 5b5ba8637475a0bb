//! `${name}` in scenarios: the model and prompt that a person chose, and what earlier answers held.
//!
//! There are no expressions: a name is replaced by its value, and `$${` stands for a plain `${`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Call, Client, Field, Http,
    call::{Edit, Hearing, Variation},
    client::Key,
};

/// Whether a variable can have this name.
#[must_use]
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Names and their values, and the answers that steps with a name had.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: BTreeMap<String, Value>,
    answers: BTreeMap<String, Answer>,
    this_answer: Answer,
}

/// What is known of the answer to a step.
#[derive(Clone, Debug, Default)]
pub enum Answer {
    /// What the client understood.
    Given(Value),
    /// The step will have one, or would have had one.
    #[default]
    Promised,
    /// It has none that something could be compared with: why, as a text for the report.
    None(&'static str),
}

impl Variables {
    /// What every scenario may use.
    #[must_use]
    pub fn new(model: &str, prompt: &str, system_prompt: &str) -> Self {
        let given = [
            ("model", model),
            ("prompt", prompt),
            ("system_prompt", system_prompt),
            // Of the mock; elsewhere it is the model, unless another is named.
            ("embedding_model", "all-minilm"),
        ];
        let values = given.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        Self { values, ..Self::default() }
    }

    /// The model that a person chose.
    #[must_use]
    pub fn model(&self) -> String {
        self.values.get("model").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// The model that makes vectors.
    #[must_use]
    pub fn embedding_model(&self) -> String {
        self.values.get("embedding_model").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Whether it is there.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Adds or replaces one.
    pub fn set(&mut self, name: &str, value: Value) {
        self.values.insert(name.to_owned(), value);
    }

    /// Says what is known of the answer to a step.
    pub fn answered(&mut self, step: &str, answer: Answer) {
        self.answers.insert(step.to_owned(), answer);
    }

    /// What is known of the answer that is judged.
    #[must_use]
    pub fn this_answer(&self) -> &Answer {
        &self.this_answer
    }

    /// Sets the answer that is judged.
    pub fn set_this_answer(&mut self, understood: Value) {
        self.this_answer = Answer::Given(understood);
    }

    /// What is known of the answer to a step.
    ///
    /// # Errors
    /// The sentence that says that there is no such step, or why it has no answer to compare with.
    pub fn answer(&self, step: &str) -> Result<&Answer, String> {
        match self.answers.get(step) {
            None if self.answers.is_empty() => Err(format!("unknown step `{step}`; no step has a name")),
            None => {
                let known: Vec<_> = self.answers.keys().map(String::as_str).collect();
                Err(format!("unknown step `{step}`, expected one of {}", known.join(", ")))
            }
            Some(Answer::None(why)) => Err(format!("the step `{step}` {why}")),
            Some(answer) => Ok(answer),
        }
    }

    /// Replaces the names in a text.
    ///
    /// # Errors
    /// The sentence that names an unknown variable and lists the known ones.
    pub fn text(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                out.push_str(&rest[..at]);
                out.push('{');
                rest = &rest[at + 2..];
                continue;
            }
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find('}') else {
                return Err(format!("`${{` without `}}` in {text:?}; a plain `${{` is written `$${{`"));
            };
            match self.get(&rest[at + 2..at + end])? {
                Value::String(value) => out.push_str(value),
                other => out.push_str(&other.to_string()),
            }
            rest = &rest[at + end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// Replaces the names in every text of a JSON value, keys included; a text that is one name alone takes the value's
    /// type.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn value(&self, value: &Value) -> Result<Value, String> {
        Ok(match value {
            Value::String(text) => match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
                Some(name) if !name.contains(['$', '}']) => self.get(name)?.clone(),
                _ => Value::String(self.text(text)?),
            },
            Value::Array(items) => Value::Array(items.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?),
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(name, field)| Ok((self.text(name)?, self.value(field)?)))
                    .collect::<Result<_, String>>()?,
            ),
            other => other.clone(),
        })
    }

    /// Replaces the names in a call.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn call(&self, call: &Call) -> Result<Call, String> {
        let mut call = call.clone();
        let each = |texts: &mut [Option<&mut String>]| {
            texts.iter_mut().flatten().try_for_each(|text| self.text(text).map(|reported| **text = reported))
        };
        match &mut call {
            Call::Models => {}
            Call::ById(_, id) => *id = self.text(id)?,
            Call::Json(_, request) => *request = self.value(request)?,
            Call::Transcriptions(Hearing { model, language, prompt, base64, .. })
            | Call::Translations(Hearing { model, language, prompt, base64, .. }) => {
                each(&mut [Some(model), language.as_mut(), prompt.as_mut(), Some(base64)])?;
            }
            Call::ImageEdits(Edit { model, prompt, base64, size, .. }) => {
                each(&mut [Some(model), Some(prompt), Some(base64), size.as_mut()])?;
            }
            Call::ImageVariations(Variation { model, base64, .. }) => each(&mut [model.as_mut(), Some(base64)])?,
            Call::Http(Http { path, headers, body, form, .. }) => {
                each(&mut [Some(path)])?;
                headers.values_mut().try_for_each(|value| each(&mut [Some(value)]))?;
                if let Some(body) = body {
                    *body = self.value(body)?;
                }
                for Field { value, base64, filename, .. } in form.iter_mut().flatten() {
                    each(&mut [value.as_mut(), base64.as_mut(), filename.as_mut()])?;
                }
            }
        }
        Ok(call)
    }

    /// Replaces the names in a client's key.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn client(&self, client: &Client) -> Result<Client, String> {
        let mut client = client.clone();
        if let Some(key) = &mut client.key
            && let Key::Text(text) = &mut key.value
        {
            *text = self.text(text)?;
        }
        Ok(client)
    }

    /// The value of a name.
    ///
    /// # Errors
    /// The sentence that lists the known ones.
    pub fn get(&self, name: &str) -> Result<&Value, String> {
        self.values.get(name).ok_or_else(|| {
            let known: Vec<_> = self.values.keys().map(String::as_str).collect();
            format!("unknown variable `{name}`, expected one of {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::new("m:1", "say hi", "be brief");
        variables.set("calls", json!([1, 2]));
        variables
    }

    #[test]
    fn a_name_within_a_text_becomes_its_value() {
        assert_eq!(variables().text("<${model}> ${prompt}!").unwrap(), "<m:1> say hi!");
        assert_eq!(variables().text("$ref costs $5").unwrap(), "$ref costs $5");
    }

    #[test]
    fn a_name_alone_keeps_the_type_of_its_value() {
        assert_eq!(variables().value(&json!({"a": ["${calls}"]})).unwrap(), json!({"a": [[1, 2]]}));
    }

    #[test]
    fn a_doubled_dollar_is_a_plain_one() {
        assert_eq!(variables().text("$${model}").unwrap(), "${model}");
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let wrong = variables().text("${modle}").unwrap_err();
        assert_eq!(
            wrong,
            "unknown variable `modle`, expected one of calls, embedding_model, model, prompt, system_prompt"
        );
        assert!(variables().text("${model").unwrap_err().contains("without `}`"));
    }
}
