//! `options` of a request over those of the Modelfile (`ollama-wire` A4).

use serde_json::{Map, Value};

/// The options that change what the mock does; the others are judged and dropped.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) num_ctx: Option<usize>,
    /// Absent is no limit.
    pub(super) num_predict: Option<usize>,
    pub(super) num_keep: usize,
    pub(super) seed: Option<i64>,
    pub(super) stop: Vec<String>,
    /// Whatever else may change the answer, as text.
    pub(super) sampling: String,
}

const INTEGERS: [&str; 12] = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
    "num_gqa",
];
const FLOATS: [&str; 7] =
    ["top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty", "frequency_penalty"];

/// Judges every option that Ollama knows, in their order.
///
/// # Errors
/// Ollama's text for a wrong type.
pub(super) fn options(modelfile: &Map<String, Value>, request: Option<&Value>) -> Result<Options, String> {
    let mut options = Options { num_keep: 4, ..Options::default() };
    let given = request.and_then(Value::as_object).into_iter().flatten();
    for (key, value) in modelfile.iter().chain(given).filter(|(_, value)| !value.is_null()) {
        let wrong = |kind: &str| Err(format!("option {key:?} must be of type {kind}"));
        match key.as_str() {
            key if INTEGERS.contains(&key) => {
                let Some(number) = value.as_f64() else { return wrong("integer") };
                #[expect(clippy::cast_possible_truncation, reason = "Ollama truncates too")]
                let number = number as i64;
                match key {
                    "num_ctx" => options.num_ctx = usize::try_from(number).ok(),
                    // 0 is no limit either (recorded: chat/num-predict-0).
                    "num_predict" => options.num_predict = usize::try_from(number).ok().filter(|most| *most > 0),
                    "num_keep" => options.num_keep = usize::try_from(number).unwrap_or_default(),
                    "seed" => options.seed = Some(number),
                    _ => {}
                }
            }
            key if FLOATS.contains(&key) => {
                if !value.is_number() {
                    return wrong("float32");
                }
                if key == "temperature" {
                    options.sampling = value.to_string();
                }
            }
            "use_mmap" if !value.is_boolean() => return wrong("boolean"),
            "stop" => {
                let Some(texts) = value.as_array() else { return wrong("array") };
                let texts: Option<Vec<String>> = texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
                let Some(texts) = texts else {
                    return Err("option \"stop\" must be of an array of strings".to_owned());
                };
                options.stop = texts;
            }
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(modelfile: &Value, request: &Value) -> Result<Options, String> {
        options(modelfile.as_object().unwrap(), Some(request))
    }

    #[test]
    fn a_request_wins_over_the_modelfile() {
        let options = read(
            &json!({"num_ctx": 1024, "stop": ["a"]}),
            &json!({"num_ctx": 2048.9, "num_predict": -1, "x": 1, "seed": null}),
        )
        .unwrap();
        assert_eq!((options.num_ctx, options.num_predict, options.stop), (Some(2048), None, vec!["a".to_owned()]));
    }

    #[test]
    fn wrong_types_have_ollamas_texts() {
        let reported = |request: Value| read(&json!({}), &request).unwrap_err();
        assert_eq!(reported(json!({"temperature": "hot"})), "option \"temperature\" must be of type float32");
        assert_eq!(reported(json!({"num_ctx": "8k"})), "option \"num_ctx\" must be of type integer");
        assert_eq!(reported(json!({"stop": "x"})), "option \"stop\" must be of type array");
        assert_eq!(reported(json!({"stop": [1]})), "option \"stop\" must be of an array of strings");
    }
}
