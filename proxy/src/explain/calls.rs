//! What becomes of a pasted call, or of the text of an answer, by the tools of a request.

use serde::Serialize;
use serde_json::Value;

use crate::{
    openai::tools::{CalledFunction, forced::Call, repair::Repairs, rescued},
    receipt::Receipt,
};

/// What the client would get.
#[derive(Debug, Serialize)]
pub struct Pasted {
    /// The calls, repaired where that is possible.
    pub calls: Vec<PastedCall>,
    /// The text that stays.
    pub text: String,
    /// What was changed and what does not hold, as in the header `x-farllama-receipt`.
    pub receipt: String,
}

/// A call as the client would get it.
#[derive(Debug, Serialize)]
pub struct PastedCall {
    /// The name of the tool.
    pub name: String,
    /// The text of a JSON object.
    pub arguments: String,
}

impl Pasted {
    pub(super) fn of(pasted: &str, repairs: &Repairs) -> Self {
        let mut receipt = Receipt::default();
        let (calls, text) = match call(pasted) {
            Some(call) => (vec![call], String::new()),
            None => in_text(pasted, repairs, &mut receipt),
        };
        let fix = |Call { name, arguments }: Call| {
            let mut call = CalledFunction { name: name.into(), arguments: arguments.into() };
            repairs.fix(&mut call, &mut receipt);
            PastedCall { name: call.name.into_owned(), arguments: call.arguments.into_owned() }
        };
        let calls = calls.into_iter().map(fix).collect();
        Self { calls, text, receipt: receipt.to_string() }
    }

    /// A line for each call, and what was changed.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let calls = self.calls.iter().map(|call| format!("call: {} {}", call.name, call.arguments));
        let text = (!self.text.is_empty()).then(|| format!("text: {}", self.text));
        let receipt = (!self.receipt.is_empty()).then(|| format!("receipt of the answer: {}", self.receipt));
        calls.chain(text).chain(receipt)
    }
}

/// A call as Ollama or OpenAI writes it.
fn call(pasted: &str) -> Option<Call> {
    let value: Value = serde_json::from_str(pasted).ok()?;
    let function = value.get("function").unwrap_or(&value);
    let arguments = match function.get("arguments")? {
        Value::String(text) => text.clone(),
        arguments => arguments.to_string(),
    };
    Some(Call { name: function.get("name")?.as_str()?.to_owned(), arguments })
}

fn in_text(pasted: &str, repairs: &Repairs, receipt: &mut Receipt) -> (Vec<Call>, String) {
    let Some(mut rescue) = repairs.rescue() else { return (Vec::new(), pasted.to_owned()) };
    let mut text = rescue.push(pasted).into_owned();
    let rest = rescue.finish(Some("stop"));
    text.push_str(&rest.text);
    rescued(&rest.calls, receipt);
    (rest.calls, text)
}
