//! How a vector of batches is checked: `client.json` asks for a batch of `file.jsonl`; `answer.json` is the batch once
//! its file is read, and `lines.json` what its requests are.

use serde_json::{Value, json};

use super::wire::{Counts, Create, Status, lines};
use crate::{
    openai::request::json::Json,
    receipt::Receipt,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let mut receipt = Receipt::default();
    let created = Create::read(&Json::of_test(case.input("client.json").unwrap()), &mut receipt);
    if !receipt.is_empty() {
        case.output("receipt.txt", &format!("{receipt}\n"));
    }
    let mut batch = match created {
        Ok(created) => created.batch(stamp("batch_")),
        Err(error) => return case.refusal(&error),
    };
    let file = case.input("file.jsonl").unwrap();
    match lines(&file, &batch.endpoint) {
        Ok((lines, model)) => {
            let body = |line: &super::wire::Line| serde_json::from_slice::<Value>(&file[line.body.clone()]).unwrap();
            let asked: Vec<_> = lines.iter().map(|line| json!([line.custom_id, body(line)])).collect();
            case.json("lines.json", &asked);
            batch.model = model;
            batch.request_counts = Counts { total: lines.len(), ..Counts::default() };
            batch.set(Status::InProgress, 1_700_000_001);
        }
        Err(errors) => batch.fail(errors, 1_700_000_001),
    }
    case.json("answer.json", &batch);
}
