//! What is wrong with the meaning of a scenario that has the right shape: everything, in one go, each with its place.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::{
    call::verbatim,
    expect::{laws::Laws, matcher::Matcher, path},
    scenario::{
        Answers, Call, Check, Checks, Client, Events, Http, MockSettings, Part, Place, Retries, Scenario, Sent, Step,
        Wire,
        client::Key,
        events::{Entry, Next, Pick, Wanted},
        step::{MOST, Repeat},
        variables::{Answer, Variables, is_name},
        vars::{self, Source},
        versions,
    },
};

/// The file, if it is not the scenario's own, the place and what is wrong there.
pub(super) type Wrong = (Option<Arc<str>>, Place, String);

/// Everything that is wrong.
pub(super) fn wrong(scenario: &Scenario) -> Vec<Wrong> {
    let all = match vars::combinations(&scenario.matrix) {
        Ok(all) => all,
        Err((at, message)) => return vec![(None, at, message)],
    };
    let mut wrong: Vec<Wrong> = Vec::new();
    for given in all {
        let mut reader = Reader {
            wrong: Vec::new(),
            from: None,
            variables: Variables::new("model", "prompt", "system prompt"),
            captured: Vec::new(),
        };
        for (name, value) in given {
            reader.variables.set(&name, value);
        }
        reader.scenario(scenario);
        for problem in reader.wrong {
            if !wrong.contains(&problem) {
                wrong.push(problem);
            }
        }
    }
    wrong
}

/// Looks for what is wrong with the meaning.
struct Reader {
    wrong: Vec<Wrong>,
    /// The file that is looked at, if it is not the scenario's own.
    from: Option<Arc<str>>,
    /// What may be named so far.
    variables: Variables,
    /// Those of them whose values are known only when the scenario runs.
    captured: Vec<String>,
}

impl Reader {
    fn wrong(&mut self, at: Place, message: impl Into<String>) {
        self.wrong.push((self.from.clone(), at, message.into()));
    }

    fn scenario(&mut self, scenario: &Scenario) {
        let title = Place::from(&scenario.title);
        if scenario.title.value.trim().is_empty() {
            self.wrong(title, "the title is empty: say in one sentence what a user can rely on");
        }
        if scenario.steps.is_empty() {
            self.wrong(title, "there are no steps, so nothing is checked");
        }
        if let Some(config) = &scenario.config {
            self.settings("config", config);
        }
        if let Some(mock) = &scenario.mock {
            self.mock(mock);
        }
        for check in scenario.vars.0.iter().chain(&scenario.matrix.0) {
            if !is_name(&check.key) {
                self.wrong(check.at, format!("{:?} is not a variable name: use letters, digits and _ only", check.key));
            }
        }
        for check in &scenario.vars.0 {
            if scenario.matrix.0.iter().any(|other| other.key == check.key) {
                self.wrong(check.at, format!("`{}` is both in vars and in matrix", check.key));
            }
            match Source::read(&check.expected) {
                Ok(Source::Value(value)) => self.variables.set(&check.key, value),
                Ok(_) => self.unknown(&check.key),
                Err(wrong) => self.wrong(check.at, wrong),
            }
        }
        for name in &scenario.no_laws {
            if let Err(wrong) = Laws::without([&name.value]) {
                self.wrong(Place::from(name), wrong);
            }
        }
        self.client(title, &scenario.client);
        for name in scenario.all_steps().filter_map(|step| step.name.as_deref()) {
            self.variables.answered(name, Answer::None("has not been done by then"));
        }
        for (steps, checked) in [(&scenario.setup, false), (&scenario.steps, true), (&scenario.teardown, false)] {
            for step in steps {
                self.from.clone_from(&step.from);
                self.step(step, checked);
                self.answered(step, scenario);
            }
        }
        self.from = None;
        if let Some(Step { reload: Some(reload), .. }) = scenario.steps.last() {
            self.wrong(reload.into(), "nothing is done after this reload, so nothing is checked of it");
        }
    }

    fn settings(&mut self, name: &str, settings: &Spanned<String>) {
        if let Err(error) = farllama::Config::from_toml(&settings.value) {
            self.wrong(settings.into(), format!("{name}: {error}"));
        }
    }

    /// A variable whose value is known only when the scenario runs.
    fn unknown(&mut self, name: &str) {
        self.variables.set(name, Value::from("1"));
        self.captured.push(name.to_owned());
    }

    fn mock(&mut self, mock: &MockSettings) {
        for (name, version) in [("version", &mock.version), ("from", &mock.from), ("before", &mock.before)] {
            if let Some(version) = version
                && let Err(error) = version.value.parse::<mock_ollama::Version>()
            {
                return self.wrong(version.into(), format!("mock.{name}: {error}"));
            }
        }
        let usual = mock.version.as_ref().and_then(|version| version.value.parse().ok()).unwrap_or_default();
        if let Some(bound) = mock.from.as_ref().or(mock.before.as_ref())
            && !versions::covers(Some(mock), &usual)
        {
            self.wrong(
                bound.into(),
                format!("{usual} lies outside; name a mock.version between mock.from and mock.before"),
            );
        }
    }

    /// From now on it may be compared with.
    fn answered(&mut self, step: &Step, scenario: &Scenario) {
        let Some(name) = &step.name else { return };
        let namesakes = scenario.all_steps().filter(|other| other.name.as_ref() == Some(name)).count();
        self.variables.answered(
            name,
            if namesakes > 1 { Answer::None("is not the only one with this name") } else { step.answer() },
        );
    }

    /// `checked`: whether something must be expected of it.
    fn step(&mut self, step: &Step, checked: bool) {
        if let Some(reload) = &step.reload {
            return self.settings("reload", reload);
        }
        if checked && step.is_blind() && step.live().is_none() && step.sent.as_ref().is_none_or(Sent::is_empty) {
            self.wrong(step.place(), "nothing is expected of this call; add expect, wire, time or sent");
        }
        for part in &step.parts {
            self.part(part);
        }
        self.tries(step);
        if let Some(answers) = &step.answers {
            self.answers(answers.into(), &answers.value, step.calls());
        }
        if let (2.., Some(live)) = (step.calls(), step.parts.iter().find_map(|part| part.time.live.as_ref())) {
            self.wrong(live.into(), "live is for a step with one call");
        }
        if let (2.., Some(check)) = (step.calls(), step.capture.0.first()) {
            self.wrong(check.at, "several calls have no single answer to capture from");
        }
        for ask in step.sent.iter().flat_map(Sent::asks) {
            for check in &ask.body.0 {
                self.path(check);
            }
            for check in &ask.headers.0 {
                self.header(check);
            }
            for check in
                [&ask.method, &ask.path, &ask.text, &ask.ended, &ask.ended_ms, &ask.count].into_iter().flatten()
            {
                self.matcher(check.at, &check.expected);
            }
        }
        if let Some(Sent::Each(asks)) = &step.sent {
            for count in asks.iter().filter_map(|ask| ask.count.as_ref()) {
                self.wrong(count.at, "a list of requests says by itself how many there are; leave out count");
            }
        }
        for check in &step.capture.0 {
            match check.expected.as_str() {
                None => self.wrong(check.at, "capture takes a name and a JSONPath"),
                Some(wanted) => {
                    if let Err(wrong) = path::check(wanted) {
                        self.wrong(check.at, wrong);
                    }
                }
            }
            self.unknown(&check.key);
        }
    }

    fn tries(&mut self, step: &Step) {
        if let Some(repeat) = &step.repeat {
            let Repeat { times, pass } = repeat.value;
            if !(1..=MOST).contains(&times) || pass.is_some_and(|pass| !(1..=times).contains(&pass)) {
                self.wrong(repeat.into(), format!("repeat takes times from 1 to {MOST}, and pass from 1 to times"));
            }
            if step.parts.iter().all(|part| part.model.0.is_empty()) && pass.is_some_and(|pass| pass < times) {
                self.wrong(repeat.into(), "only what is expected under `model` may fail; nothing is");
            }
            if let Some(check) = step.capture.0.first() {
                self.wrong(check.at, "several calls have no single answer to capture from");
            }
        }
        if let Some(within) = &step.within {
            if let Err(error) = humantime::parse_duration(&within.value) {
                self.wrong(within.into(), format!("{:?} is not a duration such as 5s: {error}", within.value));
            }
            if step.repeat.is_some() {
                self.wrong(within.into(), "a step has `repeat` or `within`, not both");
            }
        }
    }

    fn part(&mut self, part: &Part) {
        let at = Place::from(&part.call);
        match self.variables.call(&part.call.value) {
            Err(unknown) => self.wrong(at, unknown),
            Ok(Call::Http(http)) => {
                self.http(at, &http);
                if part.client.as_ref().is_some_and(|client| !client.is_empty()) {
                    self.wrong(at, "`client` sets up the OpenAI client; a raw call has headers of its own");
                }
            }
            Ok(call) => {
                if let Err(wrong) = crate::call::check(&call) {
                    self.wrong(at, wrong);
                }
            }
        }
        if let Some(client) = &part.client {
            self.client(at, client);
        }
        if let Some(times) = part.times.as_ref().filter(|times| !(1..=MOST).contains(&times.value)) {
            self.wrong(times.into(), format!("times takes a number from 1 to {MOST}"));
        }
        self.judged(&part.expect, &part.wire);
        self.events(&part.events);
        for check in &part.model.0 {
            self.path(check);
        }
        for (_, spanned) in part.time.matchers() {
            self.matcher(spanned.into(), &spanned.value);
        }
    }

    fn client(&mut self, at: Place, client: &Client) {
        if let Some(header) = &client.header
            && http::HeaderName::try_from(&header.value).is_err()
        {
            self.wrong(header.into(), format!("{:?} is not a header name", header.value));
        }
        if let Some(key) = &client.key
            && let Key::Text(text) = &key.value
        {
            match self.variables.text(text) {
                Err(unknown) => self.wrong(key.into(), unknown),
                Ok(text) if text.is_empty() || http::HeaderValue::try_from(&text).is_err() => {
                    self.wrong(key.into(), "key takes what a header can hold; false sends none");
                }
                Ok(_) => {}
            }
        }
        if let (Some(header), Some(Key::None)) = (&client.header, client.key.as_ref().map(|key| &key.value)) {
            self.wrong(header.into(), "without a key there is no header to hold it");
        }
        if let Some(Retries::Times(11..)) = client.retries {
            self.wrong(at, "retries takes a number up to 10, or `default`");
        }
    }

    fn judged(&mut self, expect: &Checks, wire: &Wire) {
        for check in expect.0.iter().chain(&wire.body.0) {
            self.path(check);
        }
        for check in &wire.headers.0 {
            self.header(check);
        }
        let matchers = [&wire.status, &wire.content_type, &wire.frames, &wire.text, &wire.attempts, &wire.end];
        for spanned in matchers.into_iter().flatten() {
            self.matcher(spanned.into(), &spanned.value);
        }
    }

    fn events(&mut self, entries: &Events) {
        for entry in entries {
            match &entry.value {
                Entry::Some(wanted) => {
                    let Wanted { pick, at, count, expect } = &**wanted;
                    self.pick(Place::from(entry), pick);
                    if let Some(count) = count {
                        self.matcher(count.into(), &count.value);
                        if count.value == 0 && (at.is_some() || !expect.0.is_empty()) {
                            self.wrong(count.into(), "of no events nothing can be expected; leave out at and expect");
                        }
                    }
                    for check in &expect.0 {
                        self.path(check);
                    }
                }
                Entry::InOrder(order) => {
                    if order.value.len() < 2 {
                        self.wrong(order.into(), "an order is of two events or more");
                    }
                    for next in &order.value {
                        let (at, Next(pick)) = (Place::from(next), &next.value);
                        if pick.is_empty() {
                            self.wrong(at, "an event in an order has type, event or where");
                        }
                        self.pick(at, pick);
                    }
                }
            }
        }
    }

    fn pick(&mut self, at: Place, pick: &Pick) {
        for wanted in [&pick.r#type, &pick.event].into_iter().flatten() {
            // A `type` alone has no place but that of the whole.
            let own = Place::from(wanted);
            self.matcher(if own.line == 0 { at } else { own }, &wanted.value);
        }
        for check in &pick.r#where.0 {
            self.path(check);
        }
    }

    fn answers(&mut self, at: Place, answers: &Answers, calls: usize) {
        if calls < 2 {
            self.wrong(at, "answers are of several calls; say how many with `times`, or write `wire: { status: … }`");
        }
        if answers.0.is_empty() {
            self.wrong(at, "answers names no status");
        }
        for (nth, answered) in answers.0.iter().enumerate() {
            if !(100..600).contains(&answered.status) {
                self.wrong(answered.at, format!("{} is not an HTTP status", answered.status));
            }
            if answers.0[..nth].iter().any(|other| other.status == answered.status) {
                self.wrong(answered.at, format!("{} is there twice", answered.status));
            }
            if let Some(count) = &answered.count {
                self.matcher(answered.at, count);
            }
            if answered.wire.status.is_some() {
                self.wrong(answered.at, "the status of these answers is given already");
            }
            self.judged(&answered.expect, &answered.wire);
            self.events(&answered.events);
        }
        let counts: Option<Vec<u64>> = answers.0.iter().map(|answered| answered.count.as_ref()?.as_u64()).collect();
        if let Some(sum) = counts.map(|counts| counts.iter().sum::<u64>()).filter(|sum| *sum != calls as u64) {
            self.wrong(at, format!("there are {calls} calls, but {sum} answers"));
        }
    }

    fn http(&mut self, at: Place, http: &Http) {
        if http.form.is_some() && http.body.is_some() {
            self.wrong(at, "a raw call has a `body` or a `form`, not both");
        }
        if http.cut_after.is_some() && http.body.is_none() && http.form.is_none() {
            self.wrong(at, "without a body there is nothing to cut");
        }
        for field in http.form.iter().flatten() {
            let one = field.value.is_some() != field.base64.is_some();
            let bytes = field.base64.as_ref().is_none_or(|text| STANDARD.decode(text).is_ok());
            let kind = field.content_type.as_ref().is_none_or(|kind| http::HeaderValue::try_from(kind).is_ok());
            let quoted = field.name.contains(['"', '\r', '\n'])
                || field.filename.as_ref().is_some_and(|name| name.contains(['"', '\r', '\n']));
            if !one || !bytes || !kind || quoted {
                self.wrong(at, format!("the field {:?} has a `value`, or the bytes of a file in `base64`", field.name));
            }
        }
        if !http.path.starts_with('/') {
            self.wrong(at, format!("the path {:?} does not begin with a slash", http.path));
        } else if !verbatim::can(&http.path) {
            let tidied = verbatim::tidied(&http.path).unwrap_or_default();
            self.wrong(at, format!("no request can have the path {:?}; it may be meant as {tidied:?}", http.path));
        }
        if let Some(method) = &http.method
            && reqwest::Method::from_bytes(method.as_bytes()).is_err()
        {
            self.wrong(at, format!("{method:?} is not an HTTP method"));
        }
        for (name, value) in &http.headers {
            if http::HeaderName::try_from(name).is_err() || http::HeaderValue::try_from(value).is_err() {
                self.wrong(at, format!("{name:?}: {value:?} is not an HTTP header"));
            }
        }
    }

    fn path(&mut self, check: &Check) {
        if let Err(wrong) = path::check(&check.key) {
            self.wrong(check.at, wrong);
        }
        self.matcher(check.at, &check.expected);
    }

    fn header(&mut self, check: &Check) {
        if http::HeaderName::try_from(&check.key).is_err() {
            self.wrong(check.at, format!("{:?} is not a header name", check.key));
        }
        self.matcher(check.at, &check.expected);
    }

    fn matcher(&mut self, at: Place, written: &Value) {
        let read = |variables: &Variables| variables.value(written).and_then(|value| Matcher::parse(&value, variables));
        let Err(wrong) = read(&self.variables) else { return };
        // What is captured may turn out to be of the type that the matcher takes.
        for guess in [Value::from(1), Value::from(Vec::<Value>::new()), Value::from(true)] {
            let mut variables = self.variables.clone();
            for name in &self.captured {
                variables.set(name, guess.clone());
            }
            if read(&variables).is_ok() {
                return;
            }
        }
        self.wrong(at, wrong);
    }
}
