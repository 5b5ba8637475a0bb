//! How a vector of files is checked: `client.json` is the list of the form's parts, `answer.json` the stored file.

use async_openai::types::files::OpenAIFile;
use serde_json::Value;

use super::wire::Upload;
use crate::{
    openai::request::form::Part,
    vectors::{Case, stamp},
};

pub(crate) fn check(case: &mut Case) {
    let parts: Vec<Value> = serde_json::from_slice(&case.input("client.json").unwrap()).unwrap();
    let text = |part: &Value, name: &str| part[name].as_str().map(str::to_owned);
    let mut upload = Upload::default();
    let added = parts.iter().try_for_each(|part| {
        let value = text(part, "value").unwrap_or_default().into();
        upload.add(Part { name: text(part, "name").unwrap(), filename: text(part, "filename"), value })
    });
    match added.and_then(|()| upload.finish(stamp("file-"))) {
        Ok((file, _)) => {
            case.read_by::<OpenAIFile>(&serde_json::to_string(&file).unwrap());
            case.json("answer.json", &file);
        }
        Err(error) => case.refusal(&error),
    }
}
