//! The laws of repairs, held against any schema and any value; and single cases.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{openai::tools::Function, receipt::Call};

fn schema(value: Value) -> Schema {
    Schema { value, compiled: OnceLock::new() }
}

/// What the crate alone says, by the options that are used here.
fn valid(schema: &Schema, value: &Value) -> bool {
    schema.judge(value).unwrap()
}

/// What becomes of arguments, as JSON with the words of the receipt.
fn repaired(parameters: Value, arguments: &Value) -> Value {
    match schema(parameters).repair(&arguments.to_string()) {
        Outcome::Fits => json!("fits"),
        Outcome::Repaired(text, _) => serde_json::from_str(&text).unwrap(),
        Outcome::Misfit => json!("misfit"),
        Outcome::Unchecked => json!("unchecked"),
        Outcome::Cut => json!("cut"),
    }
}

fn object(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "required": required});
    schema["properties"] = properties;
    schema
}

#[test]
fn what_is_wrong_is_repaired_where_one_repair_is_possible() {
    let closed = |properties: Value| json!({"type": "object", "properties": properties, "additionalProperties": false});
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let whole = json!({"type": "integer"});
    let cases = [
        // Quotes.
        (object(json!({"a": whole}), &["a"]), json!({"a": "3"}), json!({"a": 3})),
        (object(json!({"a": whole}), &["a"]), json!({"a": " 3.0 "}), json!({"a": 3})),
        (object(json!({"a": {"type": "number"}}), &["a"]), json!({"a": "-2.5"}), json!({"a": -2.5})),
        (object(json!({"a": {"type": "boolean"}}), &["a"]), json!({"a": "True"}), json!({"a": true})),
        (object(json!({"a": {"type": ["integer", "null"]}}), &["a"]), json!({"a": "null"}), json!({"a": null})),
        (object(json!({"a": text}), &["a"]), json!({"a": 12345}), json!({"a": "12345"})),
        // What would be invented, or may mean several things.
        (object(json!({"a": whole}), &["a"]), json!({"a": "3.5"}), json!("misfit")),
        (object(json!({"a": whole}), &["a"]), json!({"a": "three"}), json!("misfit")),
        (object(json!({"a": whole}), &["a"]), json!({"a": "1,000"}), json!("misfit")),
        (object(json!({"a": whole}), &["a"]), json!({"a": ""}), json!("misfit")),
        (object(json!({"a": {"type": "boolean"}}), &["a"]), json!({"a": "yes"}), json!("misfit")),
        (object(json!({"a": {"type": "boolean"}}), &["a"]), json!({"a": 1}), json!("misfit")),
        (object(json!({"a": text}), &["a"]), json!({"a": 1.5}), json!("misfit")),
        (object(json!({"a": {"type": "number"}}), &["a"]), json!({"a": "0.12345678901234567890"}), json!("misfit")),
        // Lists and objects as text, and single values for lists.
        (object(json!({"a": texts}), &["a"]), json!({"a": "[\"x\", \"y\"]"}), json!({"a": ["x", "y"]})),
        (object(json!({"a": texts}), &["a"]), json!({"a": "['x', 'y']"}), json!({"a": ["x", "y"]})),
        (object(json!({"a": texts}), &["a"]), json!({"a": "x"}), json!({"a": ["x"]})),
        (object(json!({"a": texts}), &["a"]), json!({"a": "x, y"}), json!("misfit")),
        (object(json!({"a": texts}), &["a"]), json!({"a": "[x]"}), json!({"a": ["[x]"]})),
        (object(json!({"a": {"type": "array", "items": whole}}), &["a"]), json!({"a": "5"}), json!({"a": [5]})),
        (
            object(json!({"a": object(json!({"b": whole}), &["b"])}), &["a"]),
            json!({"a": "{\"b\": \"1\"}"}),
            json!({"a": {"b": 1}}),
        ),
        // Objects around a value.
        (object(json!({"city": text}), &["city"]), json!({"city": {"city": "Oslo"}}), json!({"city": "Oslo"})),
        (object(json!({"city": text}), &["city"]), json!({"city": {"value": "Oslo"}}), json!({"city": "Oslo"})),
        (object(json!({"files": texts}), &["files"]), json!({"files": {"file": ["x"]}}), json!({"files": ["x"]})),
        (object(json!({"city": text}), &["city"]), json!({"city": {"country": "Norway"}}), json!("misfit")),
        (object(json!({"city": text}), &["city"]), json!({"arguments": {"city": "Oslo"}}), json!({"city": "Oslo"})),
        (closed(json!({"city": text})), json!({"parameters": "{\"city\": \"Oslo\"}"}), json!({"city": "Oslo"})),
        // Names.
        (object(json!({"filePath": text}), &["filePath"]), json!({"file_path": "x"}), json!({"filePath": "x"})),
        (object(json!({"file_path": text}), &["file_path"]), json!({"File-Path": "x"}), json!({"file_path": "x"})),
        (object(json!({"path": text}), &["path"]), json!({"file": "x"}), json!("misfit")),
        (object(json!({"ab": text, "a_b": text}), &["ab", "a_b"]), json!({"AB": "x"}), json!("misfit")),
        (object(json!({"ab": text}), &["ab"]), json!({"AB": "x", "a_b": "y"}), json!("misfit")),
        (closed(json!({"ab": text})), json!({"ab": "x", "AB": "y"}), json!("misfit")),
        (object(json!({"ab": text}), &[]), json!({"AB": "x"}), json!("fits")),
        // Values of an enum.
        (
            object(json!({"u": {"enum": ["celsius", "kelvin"]}}), &["u"]),
            json!({"u": " Celsius"}),
            json!({"u": "celsius"}),
        ),
        (object(json!({"u": {"enum": ["A", "a"]}}), &["u"]), json!({"u": "a "}), json!("misfit")),
        (object(json!({"u": {"type": "integer", "enum": [1, 2]}}), &["u"]), json!({"u": "2"}), json!({"u": 2})),
        (object(json!({"u": {"enum": ["celsius"]}}), &["u"]), json!({"u": "C"}), json!("misfit")),
        // Absent, forbidden and missing properties.
        (object(json!({"a": whole, "b": text}), &["b"]), json!({"a": null, "b": ""}), json!({"b": ""})),
        (object(json!({"a": whole}), &[]), json!({"a": ""}), json!({})),
        (closed(json!({"a": whole})), json!({"a": 1, "thought": "x"}), json!({"a": 1})),
        (object(json!({"a": {"type": "integer", "default": 7}}), &["a"]), json!({}), json!({"a": 7})),
        (object(json!({"a": {"type": "integer", "default": 7}}), &["a"]), json!({"a": null}), json!({"a": 7})),
        (object(json!({"a": {"type": "integer", "default": "x"}}), &["a"]), json!({}), json!("misfit")),
        (object(json!({"a": whole}), &["a"]), json!({}), json!("misfit")),
        // Alternatives.
        (object(json!({"a": {"anyOf": [whole, {"type": "null"}]}}), &["a"]), json!({"a": "4"}), json!({"a": 4})),
        (
            object(json!({"a": {"anyOf": [whole, {"type": "boolean"}]}}), &["a"]),
            json!({"a": "true"}),
            json!({"a": true}),
        ),
        (
            object(
                json!({"a": {"anyOf": [{"type": "array", "items": whole}, {"type": "array", "items": {"type": "array", "items": whole}}]}}),
                &["a"],
            ),
            json!({"a": "4"}),
            json!("misfit"),
        ),
        // References.
        (
            json!({"$defs": {"Day": object(json!({"n": whole, "next": {"$ref": "#/$defs/Day"}}), &["n"])}, "type": "object",
                "properties": {"day": {"$ref": "#/$defs/Day"}}}),
            json!({"day": {"n": "1", "next": {"n": "2"}}}),
            json!({"day": {"n": 1, "next": {"n": 2}}}),
        ),
        (object(json!({"a": {"allOf": [whole], "description": "x"}}), &["a"]), json!({"a": "4"}), json!({"a": 4})),
        // What is left to the crate.
        (object(json!({"a": {"type": "string", "pattern": "^[a-z]+$"}}), &["a"]), json!({"a": "X"}), json!("misfit")),
        (object(json!({"a": {"type": "string", "pattern": "^[0-9]+$"}}), &["a"]), json!({"a": 7}), json!({"a": "7"})),
    ];
    for (parameters, arguments, expected) in cases {
        assert_eq!(repaired(parameters.clone(), &arguments), expected, "{arguments} by {parameters}");
    }
}

#[test]
fn a_repair_says_what_it_changed_and_where() {
    let parameters = json!({"type": "object", "required": ["stops"], "properties":
        {"stops": {"type": "array", "items": object(json!({"days": {"type": "integer"}, "unit": {"enum": ["day"]}}), &["days"])}}});
    let outcome = schema(parameters).repair(r#"{"Stops":"[{\"days\":\"3\",\"unit\":\"Day\"}]"}"#);
    let Outcome::Repaired(text, changes) = outcome else { panic!("{outcome:?}") };
    assert_eq!(text, r#"{"stops":[{"days":3,"unit":"day"}]}"#);
    let changes: Vec<_> = changes.iter().map(|change| format!("{}={}", change.path, change.what.as_str())).collect();
    assert_eq!(changes, ["stops=renamed", "stops=parsed", "stops[0].days=coerced", "stops[0].unit=matched"]);
}

#[test]
fn a_schema_that_takes_too_much_work_is_not_checked() {
    // Each level refers twice to the next: 2^30 visits.
    let mut doubling = serde_json::Map::new();
    for n in 0..30 {
        let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
        doubling.insert(format!("d{n}"), json!({"allOf": [next, next]}));
    }
    doubling.insert("d30".to_owned(), json!({"type": "integer"}));
    let a = |schema: Value| object(json!({"a": schema}), &[]);
    for schema in [
        json!({"$defs": doubling, "type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}}),
        json!({"$ref": "#"}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        a(json!({"$ref": "https://example.com/schema.json"})),
        a(json!({"$ref": "file:///etc/passwd"})),
        a(json!({"$ref": "#/$defs/none"})),
        a(json!({"$dynamicRef": "#x"})),
        a(json!({"type": "string", "pattern": "(?<=a)b"})),
        a(json!({"type": "string", "pattern": "(a{1000}){1000}"})),
        a(json!({"type": "text"})),
        a(json!(7)),
    ] {
        let started = std::time::Instant::now();
        assert_eq!(repaired(schema.clone(), &json!({"a": "1"})), "unchecked", "{schema}");
        assert!(started.elapsed().as_secs() < 2, "{schema}");
    }
}

#[test]
fn numbers_that_would_lose_digits_are_not_written_anew() {
    let schema = schema(object(json!({"a": {"type": "integer"}, "b": {}}), &["a"]));
    for (arguments, repaired) in [
        (r#"{"a":"1","b":0.1234567890123456789}"#, None),
        (r#"{"a":"1","b":123456789012345678901234567890}"#, None),
        (r#"{"a":"1","b":"0.1234567890123456789"}"#, Some(r#"{"a":1,"b":"0.1234567890123456789"}"#)),
        (r#"{"a":"1","b":1.50}"#, Some(r#"{"a":1,"b":1.5}"#)),
        (r#"{"a":"18446744073709551615"}"#, Some(r#"{"a":18446744073709551615}"#)),
    ] {
        let text = match schema.repair(arguments) {
            Outcome::Repaired(text, _) => Some(text),
            _ => None,
        };
        assert_eq!(text.as_deref(), repaired, "{arguments}");
    }
}

#[test]
fn a_call_is_fixed_noted_and_counted() {
    let parameters = r#"{"type":"object","properties":{"days":{"type":"integer"}},"required":["days"]}"#;
    let tool = |name: &'static str, strict| {
        let parameters = serde_json::value::RawValue::from_string(parameters.to_owned()).unwrap();
        Tool::from(Function {
            name: crate::openai::request::json::Text(name.into()),
            description: None,
            parameters: Some(Cow::Owned(parameters)),
            strict: Some(strict),
        })
    };
    let tools = [tool("get_weather", false), tool("get_strictly", true)];
    let settings = config::Tools::default();
    let fix = |settings: &config::Tools, name: &'static str, arguments: &'static str| {
        let mut call = CalledFunction { name: name.into(), arguments: arguments.into() };
        let mut receipt = Receipt::default();
        let verdict = Repairs::new(&tools, settings).fix(&mut call, &mut receipt);
        (format!("{} {}", call.name, call.arguments), receipt.to_string(), verdict, receipt)
    };
    let days = r#"get_weather {"days":3}"#;
    for (name, arguments, call, receipt, verdict, counted) in [
        ("get_weather", r#"{"days":3}"#, days, "", Verdict::Fits, Call::Fits),
        ("get_weather", r#"{"days":"3"}"#, days, "tools.get_weather.days=coerced", Verdict::Repaired, Call::Repaired),
        ("getWeather", r#"{"days":3}"#, days, "tools.get_weather=renamed", Verdict::Repaired, Call::Repaired),
        ("get_weather", "{}", "get_weather {}", "tools.get_weather=does-not-fit", Verdict::Misfit, Call::Misfit),
        ("get_strictly", "{}", "get_strictly {}", "tools.get_strictly=not-obeyed", Verdict::Misfit, Call::Misfit),
        ("other", "{}", "other {}", "tools.other=unknown-tool", Verdict::Unknown, Call::Unknown),
    ] {
        let fixed = fix(&settings, name, arguments);
        assert_eq!((&*fixed.0, &*fixed.1, fixed.2), (call, receipt, verdict), "{name} {arguments}");
        assert_eq!(fixed.3.counted(counted), 1, "{name} {arguments}");
    }
    let (call, receipt, verdict, _) = fix(&settings, "get_weather", r#"{"days":"#);
    assert_eq!((&*call, &*receipt, verdict), (r#"get_weather {"days":"#, "", Verdict::Unchecked));
    let off = config::Tools { repair: config::Repair::Off, rescue: config::Repair::Off, ..config::Tools::default() };
    let (call, receipt, verdict, counts) = fix(&off, "getWeather", r#"{"days":"3"}"#);
    assert_eq!((&*call, &*receipt, verdict), (r#"getWeather {"days":"3"}"#, "", Verdict::Unchecked));
    assert_eq!(counts, Receipt::default());
}

const NAMES: &[&str] = &["a", "A", "a_b", "aB", "value", "items", "c"];

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(NAMES).prop_map(str::to_owned)
}

/// Any value, with a liking for what looks like another.
fn value() -> impl Strategy<Value = Value> {
    let text = prop::sample::select(
        &[
            "",
            "x",
            "X",
            " x ",
            "3",
            "-1.5",
            "true",
            "False",
            "null",
            "[1]",
            "[\"x\"]",
            "{\"a\":1}",
            "['x']",
            "x,y",
            "{\"a\":\"3\"}",
        ][..],
    );
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        prop::sample::select(&[0.5, 3.0, -1.5][..]).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name(), inner), 0..3)
                .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

/// Any schema of the keywords that tools have; each refers to `#/$defs/d` at most.
fn part() -> impl Strategy<Value = Value> {
    const TYPES: &[&str] = &["string", "integer", "number", "boolean", "null", "array", "object"];
    let kind = prop::sample::select(TYPES);
    let leaf = prop_oneof![
        4 => kind.clone().prop_map(|kind| json!({"type": kind})),
        1 => (kind.clone(), kind).prop_map(|(one, other)| if one == other { json!({"type": one}) } else { json!({"type": [one, other]}) }),
        1 => prop::collection::vec(value(), 1..3).prop_map(|values| json!({"enum": values})),
        1 => Just(json!({"enum": ["x", "Y"], "type": "string"})),
        1 => value().prop_map(|value| json!({"const": value})),
        1 => any::<bool>().prop_map(Value::from),
        1 => (-2i64..3).prop_map(|least| json!({"type": "integer", "minimum": least, "exclusiveMaximum": 4})),
        1 => Just(json!({"type": "string", "pattern": "^x", "maxLength": 2})),
        1 => Just(json!({"$ref": "#/$defs/d"})),
        1 => Just(json!({"type": "string", "minLength": 1, "default": "x"})),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let fields = prop::collection::vec((name(), inner.clone()), 0..4)
            .prop_map(|fields| Value::from(fields.into_iter().collect::<serde_json::Map<_, _>>()));
        let rest = prop_oneof![2 => Just(Value::Null), 2 => Just(json!(false)), 1 => inner.clone()];
        let object = (fields, prop::collection::btree_set(name(), 0..3), rest).prop_map(|(properties, required, rest)| {
            let mut schema = json!({"type": "object", "properties": properties, "required": required});
            if !rest.is_null() {
                schema["additionalProperties"] = rest;
            }
            schema
        });
        prop_oneof![
            4 => object,
            2 => (inner.clone(), 0usize..2).prop_map(|(items, least)| json!({"type": "array", "items": items, "minItems": least})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|branches| json!({"anyOf": branches})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|branches| json!({"oneOf": branches})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|branches| json!({"allOf": branches})),
            1 => inner.clone().prop_map(|part| json!({"not": part})),
            1 => (inner.clone(), inner).prop_map(|(when, then)| json!({"if": when, "then": then, "uniqueItems": true})),
        ]
    })
}

fn any_schema() -> impl Strategy<Value = Value> {
    (prop::collection::vec((name(), part()), 0..4), prop::collection::btree_set(name(), 0..3), any::<bool>(), part()).prop_map(
        |(fields, required, open, shared)| {
            let properties: serde_json::Map<_, _> = fields.into_iter().collect();
            json!({"type": "object", "properties": properties, "required": required, "additionalProperties": open, "$defs": {"d": shared}})
        },
    )
}

fn any_arguments() -> impl Strategy<Value = Value> {
    prop::collection::vec((name(), value()), 0..4)
        .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_agrees_with_the_crate(root in any_schema(), value in value()) {
        let schema = schema(root);
        let checker = Checker::new(&schema.value);
        let fit = checker.fit(&schema.value, &value);
        // One that refers to itself without end is not given to the crate.
        if !checker.gave_up() && fit != Fit::Unsure {
            prop_assert_eq!(fit == Fit::Yes, valid(&schema, &value));
        }
    }

    #[test]
    fn what_fits_stays_unchanged_and_what_is_repaired_fits(root in any_schema(), arguments in any_arguments()) {
        let schema = schema(root);
        match schema.repair(&arguments.to_string()) {
            Outcome::Fits => prop_assert!(valid(&schema, &arguments)),
            Outcome::Repaired(text, changes) => {
                let mended: Value = serde_json::from_str(&text).unwrap();
                prop_assert!(!valid(&schema, &arguments), "valid arguments were changed");
                prop_assert!(valid(&schema, &mended));
                prop_assert!(!changes.is_empty());
                // Repairing twice is repairing once.
                prop_assert!(matches!(schema.repair(&text), Outcome::Fits));
            }
            Outcome::Misfit => prop_assert!(!valid(&schema, &arguments)),
            Outcome::Unchecked => {}
            Outcome::Cut => prop_assert!(false, "JSON was read as none"),
        }
    }

    #[test]
    fn where_two_branches_make_different_values_there_is_no_repair(one in part(), other in part(), given in value()) {
        let parts = |schema: &Value| {
            let root = object(json!({"a": schema}), &["a"]);
            let root = { let mut root = root; root["$defs"] = json!({"d": {"type": "integer"}}); root };
            match self::schema(root).repair(&json!({"a": given}).to_string()) {
                Outcome::Repaired(text, _) => Some(serde_json::from_str::<Value>(&text).unwrap()),
                _ => None,
            }
        };
        if let (Some(first), Some(second)) = (parts(&one), parts(&other)) {
            let both = parts(&json!({"anyOf": [one, other]}));
            prop_assert_eq!(both, (first == second).then_some(first));
        }
    }

    #[test]
    fn the_order_of_names_does_not_change_what_is_repaired(root in any_schema(), arguments in any_arguments()) {
        let reversed: Value =
            arguments.as_object().unwrap().clone().into_iter().rev().collect::<serde_json::Map<_, _>>().into();
        prop_assert_eq!(repaired(root.clone(), &arguments), repaired(root, &reversed));
    }
}
