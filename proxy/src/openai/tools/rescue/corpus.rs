//! The corpus of calls that models get wrong, `vectors/tool-calls.json`, held against repair and rescue as the
//! endpoints use them.

use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::{
    config,
    openai::tools::{CalledFunction, Tool},
    receipt::Receipt,
};

#[derive(Deserialize)]
struct Corpus<'a> {
    #[serde(borrow)]
    tools: Vec<Tool<'a>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    source: String,
    #[serde(default)]
    call: Option<Wanted>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    done_reason: Option<String>,
    #[serde(default)]
    right: Vec<Wanted>,
    #[serde(default)]
    leave: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Wanted {
    name: String,
    arguments: Value,
}

fn fixed(repairs: &Repairs, name: &str, arguments: &str) -> Wanted {
    let mut call = CalledFunction { name: name.into(), arguments: arguments.into() };
    repairs.fix(&mut call, &mut Receipt::default());
    Wanted { name: call.name.into_owned(), arguments: serde_json::from_str(&call.arguments).unwrap() }
}

#[test]
fn calls_that_models_get_wrong_are_put_right_and_what_is_not_certain_is_left() {
    let text = include_str!("../../../../vectors/tool-calls.json");
    let corpus: Corpus<'_> = serde_json::from_str(text).unwrap();
    let repairs = Repairs::new(&corpus.tools, &config::Tools::default());
    let (mut right, mut left, mut wrong, mut touched) = (0, 0, Vec::new(), Vec::new());
    for case in &corpus.cases {
        assert!(case.source.contains('/') && case.right.is_empty() == case.leave, "{}", case.id);
        let (calls, unchanged) = match (&case.call, &case.text) {
            (Some(call), _) => {
                let fixed = fixed(&repairs, &call.name, &call.arguments.to_string());
                let unchanged = fixed == *call;
                (vec![fixed], unchanged)
            }
            (None, Some(text)) => {
                let mut rescue = repairs.rescue().unwrap();
                let mut passed = rescue.push(text).into_owned();
                let rest = rescue.finish(Some(case.done_reason.as_deref().unwrap_or("stop")));
                passed.push_str(&rest.text);
                let unchanged = passed == *text && rest.calls.is_empty();
                (rest.calls.iter().map(|call| fixed(&repairs, &call.name, &call.arguments)).collect(), unchanged)
            }
            _ => panic!("{} has no call", case.id),
        };
        match case.leave {
            true if unchanged => left += 1,
            true => touched.push(format!("{}: {calls:?}", case.id)),
            false if calls == case.right => right += 1,
            false => wrong.push(format!("{}: {calls:?}", case.id)),
        }
    }
    assert!(touched.is_empty(), "changed, though nothing is certain:\n{}", touched.join("\n"));
    let all = right + wrong.len();
    assert!(right * 100 >= all * 95, "{right} of {all} are right; wrong:\n{}", wrong.join("\n"));
    assert!(all + left >= 120 && left >= 40, "{all} and {left}");
    println!("{right} of {all} right, {left} left alone; wrong: {wrong:?}");
}
