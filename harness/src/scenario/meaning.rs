//! What is wrong with the meaning of a scenario that has the right shape: everything, in one go, each with its place.

use serde_json::Value;
use serde_saphyr::Spanned;

use super::{
    Answers, Call, Check, Checks, Client, Http, MockSettings, Part, Place, Scenario, Sent, Step, Wire, client::Key,
    step::MOST, variables::Variables, versions,
};
use crate::expect::{matcher::Matcher, path};

/// Everything that is wrong.
pub(super) fn wrong(scenario: &Scenario) -> Vec<(Place, String)> {
    let mut reader = Reader { wrong: Vec::new(), variables: Variables::new("model", "prompt", "system prompt") };
    reader.scenario(scenario);
    reader.wrong
}

/// Looks for what is wrong with the meaning.
struct Reader {
    wrong: Vec<(Place, String)>,
    /// What may be named so far.
    variables: Variables,
}

impl Reader {
    fn wrong(&mut self, at: Place, message: impl Into<String>) {
        self.wrong.push((at, message.into()));
    }

    fn scenario(&mut self, scenario: &Scenario) {
        let title = Place::from(&scenario.title);
        if scenario.title.value.trim().is_empty() {
            self.wrong(title, "the title is empty; tell in one sentence what a user can rely on");
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
        self.client(title, &scenario.client);
        for step in &scenario.steps {
            self.step(step);
        }
        if let Some(Step { reload: Some(reload), .. }) = scenario.steps.last() {
            self.wrong(reload.into(), "nothing is done after this reload, so nothing is checked of it");
        }
    }

    fn settings(&mut self, name: &str, settings: &Spanned<String>) {
        if let Err(error) = farllama::Config::from_toml(&settings.value) {
            self.wrong(settings.into(), format!("{name}: {error}"));
        }
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

    fn step(&mut self, step: &Step) {
        if let Some(reload) = &step.reload {
            return self.settings("reload", reload);
        }
        if step.is_blind() && step.live().is_none() && step.sent.as_ref().is_none_or(Sent::is_empty) {
            self.wrong(step.place(), "nothing is expected of this call; add expect, wire, time or sent");
        }
        for part in &step.parts {
            self.part(part);
        }
        if let Some(answers) = &step.answers {
            self.answers(answers.into(), &answers.value, step.calls());
        }
        if let (2.., Some(live)) = (step.calls(), step.parts.iter().find_map(|part| part.time.live.as_ref())) {
            self.wrong(live.into(), "live is told of a step with one call");
        }
        if let (2.., Some(check)) = (step.calls(), step.capture.0.first()) {
            self.wrong(check.at, "several calls have no one answer to capture from");
        }
        for ask in step.sent.iter().flat_map(Sent::asks) {
            for check in &ask.body.0 {
                self.path(check);
            }
            for check in &ask.headers.0 {
                self.header(check);
            }
            for check in [&ask.method, &ask.path, &ask.text, &ask.ended, &ask.count].into_iter().flatten() {
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
            self.variables.set(&check.key, Value::from("1"));
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
            Ok(
                Call::Chat(request)
                | Call::Completions(request)
                | Call::Embeddings(request)
                | Call::Moderations(request)
                | Call::Images(request)
                | Call::Responses(request),
            ) if !request.is_object() => self.wrong(at, "this call takes the request as a mapping"),
            Ok(_) => {}
        }
        if let Some(client) = &part.client {
            self.client(at, client);
        }
        if let Some(times) = part.times.as_ref().filter(|times| !(1..=MOST).contains(&times.value)) {
            self.wrong(times.into(), format!("times takes a number from 1 to {MOST}"));
        }
        self.judged(&part.expect, &part.wire);
        for (_, spanned) in part.time.matchers() {
            self.matcher(spanned.into(), &spanned.value);
        }
    }

    fn client(&mut self, at: Place, client: &Client) {
        if let Some(header) = &client.header
            && http::HeaderName::try_from(&header.value).is_err()
        {
            self.wrong(header.into(), format!("{:?} is no header name", header.value));
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
        if let Some(super::Retries::Times(11..)) = client.retries {
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

    fn answers(&mut self, at: Place, answers: &Answers, calls: usize) {
        if calls < 2 {
            self.wrong(at, "answers are of several calls; say how many with `times`, or write `wire: { status: … }`");
        }
        if answers.0.is_empty() {
            self.wrong(at, "answers names no status");
        }
        for (nth, answered) in answers.0.iter().enumerate() {
            if !(100..600).contains(&answered.status) {
                self.wrong(answered.at, format!("{} is no HTTP status", answered.status));
            }
            if answers.0[..nth].iter().any(|other| other.status == answered.status) {
                self.wrong(answered.at, format!("{} is there twice", answered.status));
            }
            if let Some(count) = &answered.count {
                self.matcher(answered.at, count);
            }
            if answered.wire.status.is_some() {
                self.wrong(answered.at, "the status of these answers is told already");
            }
            self.judged(&answered.expect, &answered.wire);
        }
        let counts: Option<Vec<u64>> = answers.0.iter().map(|answered| answered.count.as_ref()?.as_u64()).collect();
        if let Some(sum) = counts.map(|counts| counts.iter().sum::<u64>()).filter(|sum| *sum != calls as u64) {
            self.wrong(at, format!("there are {calls} calls, but {sum} answers"));
        }
    }

    fn http(&mut self, at: Place, http: &Http) {
        if !http.path.starts_with('/') {
            self.wrong(at, format!("the path {:?} does not begin with a slash", http.path));
        }
        if let Some(method) = &http.method
            && reqwest::Method::from_bytes(method.as_bytes()).is_err()
        {
            self.wrong(at, format!("{method:?} is no HTTP method"));
        }
        for (name, value) in &http.headers {
            if http::HeaderName::try_from(name).is_err() || http::HeaderValue::try_from(value).is_err() {
                self.wrong(at, format!("{name:?}: {value:?} is no HTTP header"));
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
            self.wrong(check.at, format!("{:?} is no header name", check.key));
        }
        self.matcher(check.at, &check.expected);
    }

    fn matcher(&mut self, at: Place, written: &Value) {
        if let Err(wrong) = self.variables.value(written).and_then(|value| Matcher::parse(&value)) {
            self.wrong(at, wrong);
        }
    }
}
