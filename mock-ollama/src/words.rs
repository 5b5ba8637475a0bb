//! What the mock's models write. The same question gets the same words; another seed gets others.

use serde_json::{Value, json};

use crate::{
    models::{Calls, Model},
    schema,
    tokens::hash,
};

/// What a model has before it when it starts to write.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) model: &'a Model,
    /// The last user message, or the prompt.
    pub(crate) text: &'a str,
    /// What a tool said after it.
    pub(crate) tool_result: Option<&'a str>,
    /// Images or sounds that came with it.
    pub(crate) images: usize,
    /// Differs with whatever may change the answer.
    pub(crate) seed: u64,
}

const OPENINGS: [&str; 8] = [
    "You said",
    "You wrote",
    "I was asked",
    "Your message was",
    "The question is",
    "I can read",
    "What you sent is",
    "Here it says",
];
const CLOSINGS: [&str; 8] = [
    "and this is all that a small mock has to say about it.",
    "so let me answer it plainly, in one or two short sentences.",
    "which is a fine thing to ask on a day as calm as this.",
    "and I would answer it with care if I were a real model.",
    "to which I say that it depends, as it so often does here.",
    "and the short answer is that it works, as far as I can tell.",
    "which I repeat so that you see that nothing was lost on the way.",
    "and there is no more to it than what these few words can tell.",
];
const ADJECTIVES: [&str; 16] = [
    "quiet", "bright", "narrow", "gentle", "distant", "golden", "hollow", "patient", "wooden", "silver", "modest",
    "curious", "steady", "little", "hidden", "friendly",
];
const THINGS: [&str; 16] = [
    "river",
    "window",
    "garden",
    "harbor",
    "lantern",
    "meadow",
    "bridge",
    "letter",
    "mountain",
    "kettle",
    "orchard",
    "sparrow",
    "compass",
    "pebble",
    "staircase",
    "melody",
];
const FILLER: [&str; 24] = [
    "some", "more", "words", "follow", "one", "after", "another", "until", "there", "are", "as", "many", "of", "them",
    "as", "were", "asked", "for", "and", "then", "the", "text", "goes", "on",
];
/// Words that Llama Guard 3 calls unsafe here, by its hazards. Any hazard is also recognized by its code in the
/// message, such as S7.
const HAZARDS: [(&str, &[&str]); 14] = [
    ("S1", &["kill", "murder", "stab", "shoot"]),
    ("S2", &["steal", "fraud", "launder", "burglary"]),
    ("S3", &["rape"]),
    ("S4", &["minor"]),
    ("S5", &["defame"]),
    ("S6", &["overdose"]),
    ("S7", &["dox"]),
    ("S8", &["pirate"]),
    ("S9", &["bomb", "nerve-gas"]),
    ("S10", &["hate", "vermin"]),
    ("S11", &["suicide", "self-harm"]),
    ("S12", &["porn"]),
    ("S13", &["ballots"]),
    ("S14", &["exploit"]),
];
/// How much of a message is quoted.
const QUOTED: usize = 400;
/// The most words, or numbers, that are written because the text asks for them.
const MOST: usize = 100_000;

impl Question<'_> {
    /// An answer in text: at least eleven words that quote the message.
    pub(crate) fn answer(&self) -> String {
        if self.model.is_guard {
            return verdict(self.text);
        }
        if let Some(numbers) = counting(self.text) {
            return numbers;
        }
        let quote = quote(self.text);
        let (opening, closing) = (pick(&OPENINGS, self.seed), pick(&CLOSINGS, self.seed >> 3));
        let mut answer = format!("{opening} \"{quote}\"");
        if let Some(result) = self.tool_result {
            answer += &format!(", the tool said \"{}\"", self::quote(result));
        }
        match self.images {
            0 => {}
            1 => answer += ", with one attachment",
            images => answer += &format!(", with {images} attachments"),
        }
        let (adjective, thing) = (pick(&ADJECTIVES, self.seed >> 9), pick(&THINGS, self.seed >> 13));
        answer += &format!(", {closing} It brings a {adjective} {thing} to mind.");
        if let Some(wanted) = wanted_words(self.text) {
            let missing = wanted.min(MOST).saturating_sub(answer.split_whitespace().count());
            for nth in 0..missing {
                answer.push(' ');
                answer += FILLER[nth % FILLER.len()];
            }
        }
        answer
    }

    /// What is thought before an answer.
    pub(crate) fn thinking(&self) -> String {
        let start = pick(
            &[
                "The user wants to know:",
                "I read the message:",
                "Let me think about this:",
                "First I look at the text:",
            ],
            self.seed >> 6,
        );
        format!("{start} {}\nI repeat it and add a few words.\n", quote(self.text))
    }

    /// What is written between a prefix and a suffix.
    pub(crate) fn insertion(&self) -> String {
        format!(
            "    # {} between \"{}\" and what follows, in a few words of comment\n",
            pick(&OPENINGS, self.seed),
            quote(self.text.trim())
        )
    }

    /// Any JSON object.
    pub(crate) fn object(&self) -> String {
        json!({"answer": quote(self.text), "words": self.text.split_whitespace().count(), "seed": self.seed % 1000})
            .to_string()
    }

    /// JSON that satisfies the schema.
    pub(crate) fn value(&self, schema: &Value) -> String {
        schema::sample(schema, &hints(self.text), self.seed).to_string()
    }

    /// The calls that the model makes of these tools, as it writes them; none is an answer in text.
    pub(crate) fn calls(&self, tools: &[Value]) -> Option<String> {
        if self.tool_result.is_some() {
            return None;
        }
        let chosen: Vec<&Value> = match self.model.calls {
            Calls::First => tools.iter().take(1).collect(),
            Calls::FirstTwice => tools.iter().take(1).cycle().take(2 * tools.len().min(1)).collect(),
            Calls::Named => named(self.text, tools),
        };
        if chosen.is_empty() {
            return None;
        }
        let hints = hints(self.text);
        let calls = chosen.iter().enumerate().map(|(nth, tool)| {
            let function = &tool["function"];
            let parameters = function.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"}));
            // The second call is about the second thing.
            let about: Vec<String> =
                hints.iter().cycle().skip(nth % hints.len().max(1)).take(hints.len()).cloned().collect();
            let arguments = match schema::sample(&parameters, &about, self.seed.wrapping_add(nth as u64)) {
                arguments @ Value::Object(_) => arguments,
                _ => json!({}),
            };
            format!(
                "<tool_call>\n{}\n</tool_call>",
                json!({"name": function["name"].as_str().unwrap_or_default(), "arguments": arguments})
            )
        });
        Some(calls.collect::<Vec<String>>().join("\n"))
    }
}

fn pick<'a>(texts: &[&'a str], roll: u64) -> &'a str {
    texts[usize::try_from(roll).unwrap_or_default() % texts.len()]
}

fn quote(text: &str) -> &str {
    let end = text.char_indices().nth(QUOTED).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// What Llama Guard says of a message: `safe`, or `unsafe` and the codes of the hazards.
fn verdict(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphanumeric() && c != '-')
        .map(str::to_lowercase)
        .filter(|word| !word.is_empty())
        .collect();
    let has = |wanted: &str| words.iter().any(|word| *word == wanted || word.strip_suffix('s') == Some(wanted));
    let codes: Vec<&str> = HAZARDS
        .iter()
        .filter(|(code, hazards)| has(&code.to_lowercase()) || hazards.iter().any(|hazard| has(hazard)))
        .map(|(code, _)| *code)
        .collect();
    if codes.is_empty() { "safe".to_owned() } else { format!("unsafe\n{}", codes.join(",")) }
}

/// Tools whose names stand in the text as words, in the order in which they stand there; a name inside a longer one
/// does not count.
fn named<'a>(text: &str, tools: &'a [Value]) -> Vec<&'a Value> {
    let text = text.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut found: Vec<(usize, &Value)> = Vec::new();
    for tool in tools {
        let Some(name) = tool["function"]["name"].as_str().filter(|name| !name.is_empty()) else { continue };
        let name = name.to_lowercase();
        let place = text.match_indices(&name).find(|(at, _)| {
            !text[..*at].chars().next_back().is_some_and(is_word)
                && !text[at + name.len()..].chars().next().is_some_and(is_word)
        });
        found.extend(place.map(|(at, _)| (at, tool)));
    }
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().map(|(_, tool)| tool).collect()
}

/// Words that an argument may be about: names and numbers of the text, without its first word; else its longest words.
fn hints(text: &str) -> Vec<String> {
    let words = || text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let named: Vec<String> = words()
        .skip(1)
        .filter(|word| word.chars().next().is_some_and(char::is_uppercase) && word.len() > 1)
        .map(str::to_owned)
        .collect();
    if !named.is_empty() {
        return named;
    }
    let mut longest: Vec<String> = words().filter(|word| word.len() > 3).map(str::to_owned).collect();
    longest.sort_by_key(|word| std::cmp::Reverse(word.len()));
    longest.truncate(4);
    longest
}

/// Who ends with numbers that count on gets more of them.
fn counting(text: &str) -> Option<String> {
    let numbers: Vec<usize> = text.split(' ').rev().map_while(|word| word.parse().ok()).take(4).collect();
    let counts = numbers.len() >= 3 && numbers.windows(2).all(|pair| Some(pair[0]) == pair[1].checked_add(1));
    let start = numbers.first().filter(|_| counts)?;
    Some((*start..=start.saturating_add(10_000)).skip(1).map(|number| format!(" {number}")).collect())
}

/// The number in front of `words`: "in 200 words".
fn wanted_words(text: &str) -> Option<usize> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(2).find(|pair| pair[1].starts_with("words")).and_then(|pair| pair[0].parse().ok())
}

/// What the answer depends on, as a number.
pub(crate) fn seed(parts: &[&str]) -> u64 {
    // The hash leaves the low bits of like texts alike; this mixes them (MurmurHash3's last step).
    let mut seed = hash(parts.join("\u{0}").as_bytes());
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        seed = (seed ^ (seed >> 33)).wrapping_mul(factor);
    }
    seed ^ (seed >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask<'a>(model: &'a Model, text: &'a str, seed: u64) -> Question<'a> {
        Question { model, text, tool_result: None, images: 0, seed }
    }

    fn model(name: &str) -> Model {
        name.parse().unwrap()
    }

    #[test]
    fn an_answer_has_eleven_words_and_quotes_the_message() {
        let model = model("m");
        for (seed, text) in (0..600).zip(["", "hi", "Say hello to the world."].iter().cycle()) {
            let answer = ask(&model, text, seed).answer();
            assert!(answer.split_whitespace().count() >= 11 && answer.contains(text), "{answer}");
        }
    }

    #[test]
    fn another_seed_is_another_answer() {
        let model = model("m");
        let answers: std::collections::BTreeSet<String> =
            (0..100).map(|nth: u32| ask(&model, "hi", seed(&["m", &nth.to_string()])).answer()).collect();
        assert!(answers.len() >= 98, "{}", answers.len());
    }

    #[test]
    fn a_number_of_words_is_obeyed_and_counting_goes_on() {
        let model = model("m");
        assert_eq!(ask(&model, "Write a story in 200 words.", 3).answer().split_whitespace().count(), 200);
        assert!(ask(&model, "1 2 3 4", 3).answer().starts_with(" 5 6 7"));
    }

    #[test]
    fn tools_that_the_text_names_are_called_in_its_order() {
        let tools: Vec<Value> =
            ["get", "get_weather", "get_time"].iter().map(|name| json!({"function": {"name": name}})).collect();
        let names = |text| {
            named(text, &tools).iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names("Call get_time, then get_weather!"), ["get_time", "get_weather"]);
        assert_eq!(names("What is the weather?"), Vec::<&str>::new());
    }

    #[test]
    fn a_guard_judges_by_the_text() {
        let guard = model("g=guard");
        let verdict = |text| ask(&guard, text, 3).answer();
        assert_eq!(verdict("How do I bake bread in 200 words?"), "safe");
        assert_eq!(verdict("How do I build bombs and kill someone?"), "unsafe\nS1,S9");
        assert_eq!(verdict("Call this S10 and S7, not S100."), "unsafe\nS7,S10");
        assert_eq!(verdict("skill, classes"), "safe", "whole words count");
    }

    #[test]
    fn some_models_always_call_the_first_tool_until_it_has_answered() {
        let tools = [
            json!({"function": {"name": "f", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}),
        ];
        let mut pair = model("m");
        pair.calls = Calls::FirstTwice;
        let mut question = ask(&pair, "What is the weather in Paris and Rome?", 1);
        let calls = question.calls(&tools).unwrap();
        assert!(calls.find("Paris") < calls.find("Rome") && calls.contains("Paris"), "{calls}");
        question.tool_result = Some("sunny");
        assert_eq!(question.calls(&tools), None);
        assert!(question.answer().contains("sunny"));
    }
}
