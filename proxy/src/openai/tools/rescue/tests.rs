//! Calls as models write them, and text that must stay text; and the laws of both.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{forms::FORMS, *};
use crate::{
    config,
    openai::{
        request::json::Text,
        tools::{Function, Tool},
    },
};

fn repairs() -> Repairs {
    let tool = |name: &'static str, parameters: Value| {
        let parameters = serde_json::value::to_raw_value(&parameters).unwrap();
        Tool::from(Function {
            name: Text(name.into()),
            description: None,
            parameters: Some(Cow::Owned(parameters)),
            strict: None,
        })
    };
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]});
    let write = json!({"type": "object", "properties": {"path": {"type": "string"}, "content": {"type": "string"}}, "required": ["path", "content"]});
    let list = json!({"type": "object", "properties": {}});
    let stop = json!({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]});
    let tools = [
        tool("get_weather", weather),
        tool("write_file", write),
        tool("list_files", list),
        tool("mcp__ci__stop", stop),
    ];
    Repairs::new(&tools, &config::Tools::default())
}

/// What an answer becomes that arrives in `pieces`: its text, and its calls as `name arguments`.
fn rescued<'t>(pieces: impl IntoIterator<Item = &'t str>, done_reason: &str) -> (String, Vec<String>) {
    let mut rescue = repairs().rescue().unwrap();
    let mut text: String = pieces.into_iter().map(|piece| rescue.push(piece).into_owned()).collect();
    let rest = rescue.finish(Some(done_reason));
    text.push_str(&rest.text);
    (text, rest.calls.into_iter().map(|call| format!("{} {}", call.name, call.arguments)).collect())
}

const OSLO: &str = r#"get_weather {"city":"Oslo"}"#;

#[test]
fn each_form_of_the_file_is_read_alone_and_after_text_and_never_within_text() {
    for form in *FORMS {
        let (name, example) = (&form.name, form.example.as_str());
        assert_eq!(rescued([example], "stop"), (String::new(), vec![OSLO.to_owned()]), "{name}");
        assert_eq!(rescued(["\n  ", example, "\n"], "stop").1, [OSLO], "{name}");
        let before = "I will look at the weather.\n";
        let after_text = rescued([before, example.trim_start()], "stop");
        if form.place == Place::Answer {
            assert_eq!(after_text, (format!("{before}{}", example.trim_start()), vec![]), "{name}");
        } else {
            assert_eq!(after_text, (before.to_owned(), vec![OSLO.to_owned()]), "{name}");
        }
        let twice = format!("{example}\n{}", example.trim_start());
        assert_eq!(rescued([&*twice], "stop").1.len(), 2, "{name}");
        for text in [
            format!("{example}\nThat is the call."),
            format!("Here is an example of a call:\n{}", example.trim_start()),
            format!("```\n{}", example.trim_start()),
            format!("Write `{}` and it is called.", example.trim_start()),
        ] {
            if text.starts_with("```\n") && !matches!(&**name, "fence") {
                // A code block whose only content is a call is one, where its form may stand in a code block.
                let (_, calls) = rescued([&*format!("Look:\n{text}")], "stop");
                assert!(
                    calls.is_empty()
                        || form.body.iter().all(|body| matches!(
                            body,
                            forms::Body::Json | forms::Body::Python | forms::Body::Function
                        )),
                    "{name}"
                );
                continue;
            }
            assert_eq!(rescued([&*text], "stop"), (text.clone(), vec![]), "{name}");
        }
    }
}

#[test]
fn calls_are_read_however_they_are_written() {
    for (text, calls) in [
        (r#"{"name": "get_weather", "parameters": {"city": "Oslo"}}"#, &[OSLO][..]),
        (r#"{"type": "function", "function": {"name": "get_weather", "arguments": "{\"city\": \"Oslo\"}"}}"#, &[OSLO]),
        (
            r#"{"tool_calls": [{"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}]}"#,
            &[OSLO],
        ),
        (r#"{"tool": "get_weather", "args": {"city": "Oslo"}}"#, &[OSLO]),
        (r#"{"arguments": {"city": "Oslo"}, "name": "get_weather"}"#, &[OSLO]),
        (r#"{"action": "get_weather", "action_input": {"city": "Oslo"}}"#, &[OSLO]),
        ("{'name': 'get_weather', 'arguments': {'city': 'Oslo'}}", &[OSLO]),
        (
            r#"[{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "list_files", "arguments": {}}]"#,
            &[OSLO, "list_files {}"],
        ),
        (
            "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n{\"name\": \"list_files\", \"arguments\": null}",
            &[OSLO, "list_files {}"],
        ),
        (r#"{"name": "functions.getWeather", "arguments": {"city": "Oslo"}}"#, &[OSLO]),
        ("<tool_call>\n{\"name\": \"list_files\"}\n</tool_call>", &["list_files {}"]),
        (
            "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n{\"name\": \"list_files\"}</tool_call>",
            &[OSLO, "list_files {}"],
        ),
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
            &[r#"get_weather {"city":"Oslo","days":3}"#],
        ),
        ("<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>", &[OSLO]),
        ("<function=get_weather>{\"city\": \"Oslo\"}</function>", &[OSLO]),
        ("[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Oslo\"}[TOOL_CALLS]list_files[ARGS]{}", &[OSLO, "list_files {}"]),
        ("[TOOL_CALLS]get_weather[CALL_ID]abc123xyz[ARGS]{\"city\": \"Oslo\"}", &[OSLO]),
        ("<|python_tag|>get_weather(city=\"Oslo\")<|eom_id|>", &[OSLO]),
        ("get_weather(\"Oslo\")", &[]),
        ("stop(\"7\")", &[r#"mcp__ci__stop {"id":"7"}"#]),
        ("```tool_code\nprint(default_api.get_weather(city='Oslo'))\n```", &[OSLO]),
        ("```python\n[get_weather(city='Oslo'), list_files()]\n```", &[OSLO, "list_files {}"]),
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Oslo\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            &[OSLO],
        ),
        (
            "<function_calls>\n<invoke name=\"get_weather\">\n<parameter name=\"city\">Oslo</parameter>\n</invoke>\n</function_calls>",
            &[OSLO],
        ),
        // A value with the marks of its own form in it.
        (
            "<tool_call>{\"name\": \"write_file\", \"arguments\": {\"path\": \"a\", \"content\": \"</tool_call> {\\\"x\\\"\"}}</tool_call>",
            &[r#"write_file {"path":"a","content":"</tool_call> {\"x\""}"#],
        ),
    ] {
        assert_eq!(rescued([text], "stop").1, calls, "{text}");
    }
}

#[test]
fn closers_that_are_missing_at_the_end_are_added() {
    for (text, reason, calls) in [
        (r#"{"name": "get_weather", "arguments": {"city": "Oslo"}"#, "stop", &[OSLO][..]),
        (r#"{"name": "get_weather", "arguments": {"city": "Oslo"#, "stop", &[OSLO]),
        (r#"{"name": "get_weather", "arguments": {"city": "Oslo""#, "length", &[OSLO]),
        (r#"{"name": "get_weather", "arguments": {"city": "Oslo"#, "length", &[]),
        (r#"{"name": "get_weather", "arguments": {"city": "Oslo","#, "length", &[OSLO]),
        (r#"{"name": "get_weather", "arguments": {"city": "Oslo", "da"#, "stop", &[]),
        // What is missing is more than a closer: the schema asks for it.
        (r#"{"name": "write_file", "arguments": {"path": "a""#, "length", &[]),
        (r#"[{"name": "get_weather", "arguments": {"city": "Oslo"}}"#, "stop", &[OSLO]),
        ("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_c", "length", &[OSLO]),
        ("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}\n</tool_call>", "stop", &[]),
        ("```json\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n", "stop", &[OSLO]),
        ("get_weather(city=\"Oslo\"", "stop", &[OSLO]),
        ("get_weather(city=\"Oslo\"", "length", &[]),
        ("<function=get_weather>\n<parameter=city>\nOslo\n</para", "stop", &[OSLO]),
        ("<function=get_weather>\n<parameter=city>\nOslo\n</para", "length", &[]),
    ] {
        let (left, found) = rescued([text], reason);
        assert_eq!(found, calls, "{reason} {text}");
        assert_eq!(left, if calls.is_empty() { text } else { "" }, "{reason} {text}");
    }
}

/// Text that is no call, whatever it looks like.
const TEXTS: &[&str] = &[
    "It is sunny in Oslo.",
    r#"{"city": "Oslo", "temperature": 5}"#,
    r#"{"name": "Alice", "age": 30}"#,
    r#"{"name": "get_weather"}"#,
    r#"{"name": "get_weather", "arguments": "sunny"}"#,
    r#"{"name": "get_weather", "arguments": {"city": "Oslo"}, "comment": "why"}"#,
    r#"{"name": "unknown_tool", "arguments": {}}"#,
    "[1, 2, 3]",
    "[link](https://example.com)",
    "- [ ] a task\n- [x] another",
    "```json\n{\"city\": \"Oslo\"}\n```",
    "```python\nprint(\"hello\")\n```",
    "Call `get_weather(city=\"Oslo\")` to see it.",
    "You can call it like this:\n\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}",
    "Use {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}",
    "get_weather is a tool for the weather.",
    "get_weather(city)",
    "a < b and <b>bold</b>, <tool_call> is a mark",
    "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\nI have called it.",
    "<tool_call>\n{\"name\": \"unknown\", \"arguments\": {}}\n</tool_call>",
    "<function=unknown><parameter=a>b</parameter></function>",
    "Action: think\nAction Input: {}",
    "[TOOL_CALLS] is what Mistral writes",
    "",
    "\n\n",
    "``",
];

#[test]
fn text_stays_text() {
    for text in TEXTS {
        assert_eq!(rescued([*text], "stop"), ((*text).to_owned(), vec![]), "{text}");
    }
}

#[test]
fn text_that_cannot_be_a_call_is_passed_on_at_once() {
    for answer in [
        "The weather in Oslo is fine, and it will stay so for 3 days.\n\nTake a coat.\n",
        "# Files\n\n- `a.txt`: a text\n- b.txt: another (see below)\n\n1 < 2, x[0] = {1}\n",
        "Yes.",
    ] {
        let mut rescue = repairs().rescue().unwrap();
        for chunk in answer.split_inclusive(' ') {
            // The beginning of a line may be that of a call until its second character.
            assert_eq!(rescue.push(chunk), chunk, "{answer}");
        }
        assert_eq!(rescue.finish(Some("stop")), Rest::default());
    }
    // What begins like a call is given back with the character that makes it none.
    let mut rescue = repairs().rescue().unwrap();
    for (chunk, passed) in [
        ("{\"na", ""),
        ("me\": \"", ""),
        ("get_w", ""),
        ("hatever", "{\"name\": \"get_whatever"),
        ("\", \"x\"", "\", \"x\""),
        ("\n<", "\n"),
        ("tool_call>\n{", ""),
        ("\"a\"", "<tool_call>\n{\"a\""),
    ] {
        assert_eq!(rescue.push(chunk), passed, "{chunk}");
    }
}

#[test]
fn reading_takes_linear_time() {
    let started = std::time::Instant::now();
    let content = "x".repeat(300_000);
    let call = format!("{{\"name\": \"write_file\", \"arguments\": {{\"path\": \"a\", \"content\": \"{content}\"}}}}");
    let pieces: Vec<&str> = call.as_bytes().chunks(4).map(|piece| str::from_utf8(piece).unwrap()).collect();
    assert_eq!(rescued(pieces, "stop").1.len(), 1);
    // Beginnings of calls, again and again.
    let openings = "{\"arguments\": {\"a\":\n".repeat(20_000);
    assert!(rescued(openings.split_inclusive('\n'), "stop").1.is_empty());
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Any answer: pieces of calls, of text, and of both.
fn answer() -> impl Strategy<Value = String> {
    let forms: Vec<String> = FORMS.iter().map(|form| form.example.clone()).collect();
    let whole = prop_oneof![
        prop::sample::select(forms.clone()),
        prop::sample::select(TEXTS).prop_map(str::to_owned),
        prop::sample::select(&["\n", " ", ",", "é", "`", "```\n", "<", "{", "Text. ", "get_", "\n\n"][..])
            .prop_map(str::to_owned),
    ];
    let cut = (prop::sample::select(forms), any::<prop::sample::Index>()).prop_map(|(form, at)| {
        let at = form.floor_char_boundary(at.index(form.len() + 1));
        form[..at].to_owned()
    });
    prop::collection::vec(prop_oneof![3 => whole, 1 => cut], 0..4).prop_map(|parts| parts.concat())
}

#[test]
fn a_call_behind_a_broken_one_is_found_at_the_end_whatever_packets_brought_it() {
    let broken = "<function=get_weather>\n<parameter=cit";
    let call = r#"<invoke name="get_weather"><parameter name="city">Oslo</parameter></invoke>"#;
    let answer = format!("{broken}{call}");
    for size in 1..answer.len() {
        let pieces = answer.as_bytes().chunks(size).map(|piece| std::str::from_utf8(piece).unwrap());
        assert_eq!(rescued(pieces, "stop"), (broken.to_owned(), vec![OSLO.to_owned()]), "{size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn an_answer_in_any_packets_becomes_what_the_whole_becomes(answer in answer(), size in 1usize..9, length: bool) {
        let reason = if length { "length" } else { "stop" };
        let chars: Vec<char> = answer.chars().collect();
        let pieces: Vec<String> = chars.chunks(size).map(|piece| piece.iter().collect()).collect();
        let whole = rescued([&*answer], reason);
        prop_assert_eq!(&rescued(pieces.iter().map(String::as_str), reason), &whole);
        // Nothing is lost: without calls the text is the answer, and with calls it is its beginning.
        if whole.1.is_empty() {
            prop_assert_eq!(&whole.0, &answer);
        } else {
            prop_assert!(answer.starts_with(&whole.0));
        }
    }

    #[test]
    fn a_thought_lets_go_of_the_same_text_whatever_packets_brought_it(answer in answer(), more in "[a-z \\{\"]{0,9}", size in 1usize..9) {
        let text = answer + &more;
        let chars: Vec<char> = text.chars().collect();
        let mut rescue = repairs().rescue().unwrap();
        let mut passed = String::new();
        for piece in chars.chunks(size) {
            passed += &rescue.push(&piece.iter().collect::<String>());
        }
        passed += &rescue.interrupt();
        prop_assert_eq!(&passed, &text);
        let mut whole = repairs().rescue().unwrap();
        let _ = (whole.push(&text).into_owned(), whole.interrupt());
        prop_assert_eq!(rescue.off, whole.off, "what follows is read alike");
    }

    #[test]
    fn any_text_at_all_passes(text in "[a-z{}\\[\\]<>|\"':,`\n=()]{0,60}") {
        prop_assert_eq!(rescued([&*text], "stop"), (text.clone(), vec![]));
    }
}
