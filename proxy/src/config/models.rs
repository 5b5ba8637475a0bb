//! Aliases and presets of models: `[models."gpt-4o"]` in the settings. Chains of aliases are followed once, when the
//! settings are checked.

use std::{borrow::Cow, collections::HashMap, fmt::Write, sync::Arc};

use serde_json::value::{RawValue, to_raw_value};
use toml::de::DeValue;

use super::{Anthropic, Repair, value};
use crate::{gate::pattern, ollama::name};

/// Aliases, presets, and which models are listed.
#[derive(Clone, Debug, Default)]
pub struct Models {
    /// In the order of their names.
    entries: Vec<Entry>,
    /// The entries of single names, by the name that Ollama compares.
    exact: HashMap<String, usize>,
    /// The entries of patterns, the most specific one first.
    patterns: Vec<usize>,
    /// The model for names that neither an entry nor the remote has. Empty, the default: such requests fail.
    pub default: String,
    /// Patterns of names that are not listed.
    pub hidden: Vec<String>,
    /// Patterns of the only names that are listed. Empty, the default: all.
    pub shown: Vec<String>,
}

/// One entry: a name or a pattern, what it stands for, and what is asked for where the request says nothing.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    /// As the settings have it.
    own: Preset,
    to: Option<String>,
    /// The end of its chain. None: the name that was asked for.
    target: Option<String>,
    /// Its own preset, and those of the entries that its chain leads through.
    preset: Arc<Preset>,
}

/// What a request asks for where it says nothing itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preset {
    pub(crate) num_ctx: Option<u64>,
    pub(crate) keep_alive: Option<Box<RawValue>>,
    pub(crate) think: Option<Box<RawValue>>,
    pub(crate) options: Vec<(String, Box<RawValue>)>,
    pub(crate) system: Option<String>,
    pub(crate) tools: PresetTools,
}

/// The settings of `[tools]` for one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PresetTools {
    pub(crate) repair: Option<Repair>,
    pub(crate) rescue: Option<Repair>,
    pub(crate) reask: Option<bool>,
    pub(crate) repair_native: Option<bool>,
}

impl Preset {
    /// Every option, the context size among them.
    pub(crate) fn options(&self) -> impl Iterator<Item = (&str, Cow<'_, RawValue>)> {
        let num_ctx = self.num_ctx.and_then(|tokens| Some(("num_ctx", Cow::Owned(to_raw_value(&tokens).ok()?))));
        let options = self.options.iter().map(|(name, value)| (&**name, Cow::Borrowed(&**value)));
        num_ctx.into_iter().chain(options)
    }

    /// Whether a request stays as it is.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { num_ctx: None, keep_alive: None, think: None, options, system: None, tools } = self else {
            return false;
        };
        options.is_empty() && *tools == PresetTools::default()
    }

    /// Takes from `other` what this one does not have.
    fn fill(&mut self, other: &Self) {
        self.num_ctx = self.num_ctx.or(other.num_ctx);
        self.keep_alive = self.keep_alive.take().or_else(|| other.keep_alive.clone());
        self.think = self.think.take().or_else(|| other.think.clone());
        self.system = self.system.take().or_else(|| other.system.clone());
        for (name, value) in &other.options {
            if !self.options.iter().any(|(known, _)| known == name) {
                self.options.push((name.clone(), value.clone()));
            }
        }
        let (own, other) = (&mut self.tools, other.tools);
        own.repair = own.repair.or(other.repair);
        own.rescue = own.rescue.or(other.rescue);
        own.reask = own.reask.or(other.reask);
        own.repair_native = own.repair_native.or(other.repair_native);
    }
}

/// What a name in a request stands for.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// The name in the request.
    pub(crate) asked: Arc<str>,
    /// The model of the remote.
    pub(crate) model: Arc<str>,
    /// The spelling of `model` by which names are compared.
    pub(crate) full: Arc<str>,
    /// None: there is no entry for the name.
    pub(crate) preset: Option<Arc<Preset>>,
}

impl Resolved {
    /// `asked`, which stands for `model` of the remote.
    pub(super) fn new(asked: &str, model: &str, preset: Option<&Arc<Preset>>) -> Self {
        let asked: Arc<str> = asked.into();
        let model = if *asked == *model { asked.clone() } else { model.into() };
        let full = name::full(&model);
        let full = if *full == *model { model.clone() } else { full.into() };
        Self { asked, model, full, preset: preset.cloned() }
    }

    /// A name that stands for itself.
    pub(crate) fn itself(asked: &str) -> Self {
        Self::new(asked, asked, None)
    }

    /// Whether the request has another name than the remote.
    pub(crate) fn is_alias(&self) -> bool {
        self.asked != self.model
    }
}

/// A name that stands for a model of the remote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alias<'a> {
    pub(crate) name: &'a str,
    pub(crate) target: &'a str,
}

impl Models {
    /// Whether requests pass without a look at their models' names.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.default.is_empty()
    }

    /// Whether lists of models are the remote's own.
    pub(crate) fn leaves_lists_alone(&self) -> bool {
        self.entries.is_empty() && self.hidden.is_empty() && self.shown.is_empty()
    }

    /// Returns what `asked` stands for where the remote does not have it.
    pub(crate) fn fallback(&self, asked: &str) -> Option<Resolved> {
        let default = Some(&self.default).filter(|default| !default.is_empty())?;
        let (model, preset) = self.behind(default, None);
        Some(Resolved::new(asked, model, preset))
    }

    /// Returns the remote's model behind `asked`, which may be one of Anthropic's names where `anthropic` is given, and
    /// its preset.
    pub(crate) fn behind<'a>(
        &'a self,
        asked: &'a str,
        anthropic: Option<&'a Anthropic>,
    ) -> (&'a str, Option<&'a Arc<Preset>>) {
        let found = |name: &'a str| {
            let entry = &self.entries[self.entry(name)?];
            Some((entry.target.as_deref().unwrap_or(name), Some(&entry.preset)))
        };
        found(asked).unwrap_or_else(|| {
            let behind = anthropic.and_then(|anthropic| anthropic.behind(asked)).unwrap_or(asked);
            found(behind).unwrap_or((behind, None))
        })
    }

    /// The preset of `asked`.
    pub(crate) fn preset(&self, asked: &str) -> Option<&Preset> {
        self.entry(asked).map(|at| &*self.entries[at].preset)
    }

    /// The names that stand for models of the remote. Patterns are not among them.
    pub(crate) fn aliases(&self) -> impl Iterator<Item = Alias<'_>> {
        let named = self.entries.iter().filter(|entry| !entry.name.contains('*'));
        named.filter_map(|entry| Some(Alias { name: &entry.name, target: entry.target.as_deref()? }))
    }

    /// Whether lists show `name`.
    pub(crate) fn lists(&self, name: &str) -> bool {
        let fits = |patterns: &[String]| patterns.iter().any(|pattern| fits(pattern, name));
        !fits(&self.hidden) && (self.shown.is_empty() || fits(&self.shown))
    }

    fn entry(&self, asked: &str) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        if let Some(at) = self.exact.get(&*name::full(asked)) {
            return Some(*at);
        }
        self.patterns.iter().copied().find(|at| fits(&self.entries[*at].name, asked))
    }

    /// Adds entries, or replaces those of the same name, without following chains.
    fn put(&mut self, name: String, to: Option<String>, own: Preset) {
        match self.entries.iter_mut().find(|entry| name::full(&entry.name) == name::full(&name)) {
            Some(entry) => (entry.name, entry.to, entry.own) = (name, to, own),
            None => {
                self.entries.push(Entry { name, to, own, target: None, preset: Arc::default() });
            }
        }
    }

    /// Sets what `name` stands for; its preset stays.
    fn point(&mut self, name: &str, to: String) {
        match self.entries.iter_mut().find(|entry| name::full(&entry.name) == name::full(name)) {
            Some(entry) => entry.to = Some(to),
            None => self.put(name.to_owned(), Some(to), Preset::default()),
        }
    }

    /// Follows all chains.
    ///
    /// # Errors
    /// Fails with every chain that ends nowhere, and the name of its first entry.
    pub(super) fn finish(&mut self) -> Result<(), Vec<(String, String)>> {
        self.entries.sort_by(|a, b| a.name.cmp(&b.name));
        let (mut exact, mut patterns) = (HashMap::new(), Vec::new());
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.name.contains('*') {
                patterns.push(at);
            } else {
                exact.insert(name::full(&entry.name).into_owned(), at);
            }
        }
        patterns.sort_by_key(|at| std::cmp::Reverse(self.entries[*at].name.len()));
        (self.exact, self.patterns) = (exact, patterns);
        let mut wrong = Vec::new();
        for at in 0..self.entries.len() {
            match self.chain(at) {
                Ok((target, preset)) => {
                    let entry = &mut self.entries[at];
                    (entry.target, entry.preset) = (target, Arc::new(preset));
                }
                Err(what) => wrong.push((self.entries[at].name.clone(), what)),
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The end of the chain that begins at an entry, and the presets along it.
    fn chain(&self, first: usize) -> Result<(Option<String>, Preset), String> {
        let mut preset = self.entries[first].own.clone();
        let (mut seen, mut target) = (vec![first], None);
        while let Some(to) = &self.entries[seen[seen.len() - 1]].to {
            if to.is_empty() || to.contains('*') {
                return Err(format!("invalid target {to:?}: expected the name of one model of the remote"));
            }
            target = Some(to.clone());
            let Some(next) = self.exact.get(&*name::full(to)).copied() else {
                // A pattern that stands for all names must not take the place of a target, but its preset counts.
                let covering = self.patterns.iter().map(|at| &self.entries[*at]);
                if let Some(entry) = covering.into_iter().find(|entry| entry.to.is_none() && fits(&entry.name, to)) {
                    preset.fill(&entry.own);
                }
                break;
            };
            if let Some(at) = seen.iter().position(|known| *known == next) {
                let names = seen[at..].iter().map(|at| format!("{:?}", self.entries[*at].name));
                let names: Vec<_> = names.chain([format!("{to:?}")]).collect();
                let chain = names.join(" → ");
                return Err(format!("{chain} is a cycle: one of them must name a model of the remote"));
            }
            preset.fill(&self.entries[next].own);
            seen.push(next);
        }
        Ok((target, preset))
    }
}

/// Whether a pattern, or a name, covers `name`. A model without a tag is its `latest`, and a pattern fits it with its
/// tag or without.
fn fits(pattern: &str, name: &str) -> bool {
    if !pattern.contains('*') {
        return name::full(pattern) == name::full(name);
    }
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    pattern::fits(&pattern, &name) || pattern::fits(&pattern, &name::full(&name))
}

/// An entry in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    to: Option<String>,
    preset: Preset,
}

/// One field of an entry: how it is called, and what it does to the draft.
type Field = (&'static str, fn(&mut Draft, &DeValue<'_>) -> Result<(), String>);

/// Every field of an entry.
pub(super) const FIELDS: &[Field] = &[
    ("to", |draft, value| set(&mut draft.to, text(value)?)),
    ("num_ctx", |draft, value| match whole(value)? {
        tokens @ 1.. => set(&mut draft.preset.num_ctx, tokens.unsigned_abs()),
        other => Err(format!("invalid number of tokens {other}: expected a whole number such as 32768")),
    }),
    ("keep_alive", |draft, value| {
        let fine = match value {
            DeValue::Integer(_) => true,
            DeValue::String(text) => is_go_duration(text),
            _ => false,
        };
        if !fine {
            let expected = "expected a duration such as \"30m\", seconds, or -1 for ever";
            return Err(format!("invalid keep_alive {}: {expected}", shown(&json(value)?)));
        }
        set(&mut draft.preset.keep_alive, raw(&json(value)?)?)
    }),
    ("think", |draft, value| {
        let fine = match value {
            DeValue::Boolean(_) => true,
            DeValue::String(text) => matches!(&**text, "low" | "medium" | "high" | "max"),
            _ => false,
        };
        if !fine {
            let expected = "expected true, false, \"low\", \"medium\", \"high\" or \"max\"";
            return Err(format!("invalid value {}: {expected}", shown(&json(value)?)));
        }
        set(&mut draft.preset.think, raw(&json(value)?)?)
    }),
    ("options", |draft, value| {
        let DeValue::Table(table) = value else {
            return Err(format!("expected a table such as {{ temperature = 0.2 }}, got {}", value.type_str()));
        };
        for (name, value) in table {
            let name = name.get_ref();
            if name == "num_ctx" {
                return Err("num_ctx belongs beside options, not in it".to_owned());
            }
            draft.preset.options.push((name.to_string(), raw(&json(value.get_ref())?)?));
        }
        Ok(())
    }),
    ("system", |draft, value| set(&mut draft.preset.system, text(value)?)),
    ("tools", |draft, value| {
        let DeValue::Table(table) = value else {
            return Err(format!("expected a table such as {{ repair = \"off\" }}, got {}", value.type_str()));
        };
        let tools = &mut draft.preset.tools;
        for (name, value) in table {
            let value = match value.get_ref() {
                DeValue::Boolean(on) => value::Value::Boolean(*on),
                value => value::Value::Text(text(value)?),
            };
            let wrong = |what: String| format!("{}: {what}", name.get_ref());
            match &**name.get_ref() {
                "repair" => tools.repair = Some(value::word(value).map_err(wrong)?),
                "rescue" => tools.rescue = Some(value::word(value).map_err(wrong)?),
                "reask" => tools.reask = Some(value::boolean(value).map_err(wrong)?),
                "repair_native" => tools.repair_native = Some(value::boolean(value).map_err(wrong)?),
                other => {
                    return Err(format!("unknown field {other}; there are repair, rescue, reask, repair_native"));
                }
            }
        }
        Ok(())
    }),
];

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), String> {
    *place = Some(value);
    Ok(())
}

fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        other => Err(format!("expected a string, got {}", other.type_str())),
    }
}

fn whole(value: &DeValue<'_>) -> Result<i64, String> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{} is out of range", number.as_str())),
        other => Err(format!("expected a number, got {}", other.type_str())),
    }
}

/// A value of the file as JSON.
fn json(value: &DeValue<'_>) -> Result<serde_json::Value, String> {
    Ok(match value {
        DeValue::String(text) => text.to_string().into(),
        DeValue::Integer(_) => whole(value)?.into(),
        DeValue::Float(number) => {
            let parsed = number.as_str().replace('_', "").parse::<f64>().ok();
            let parsed = parsed.and_then(serde_json::Number::from_f64);
            parsed.ok_or_else(|| format!("{} is not a number", number.as_str()))?.into()
        }
        DeValue::Boolean(on) => (*on).into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect::<Result<_, _>>()?,
        DeValue::Table(table) => table
            .iter()
            .map(|(name, value)| Ok((name.get_ref().to_string(), json(value.get_ref())?)))
            .collect::<Result<serde_json::Map<_, _>, String>>()?
            .into(),
        DeValue::Datetime(_) => return Err("a date is not expected here".to_owned()),
    })
}

fn raw(value: &serde_json::Value) -> Result<Box<RawValue>, String> {
    to_raw_value(value).map_err(|error| error.to_string())
}

fn shown(value: &serde_json::Value) -> String {
    value.to_string()
}

/// Whether Go reads `text` as a duration: numbers with units, such as `1h30m`, or `0`.
fn is_go_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if rest[..number].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        if !UNITS.contains(&&rest[..unit]) {
            return false;
        }
        rest = &rest[unit..];
        parts += 1;
    }
    parts > 0
}

impl Models {
    /// Adds the entry `name`.
    ///
    /// # Errors
    /// Fails if there is an entry for this name already, written differently.
    pub(super) fn add(&mut self, name: &str, draft: Draft) -> Result<(), String> {
        let name = name.trim();
        if name.is_empty() {
            return Err("the name is empty".to_owned());
        }
        if let Some(known) = self.entries.iter().find(|entry| name::full(&entry.name) == name::full(name)) {
            return Err(format!("{:?} and {name:?} are the same model", known.name));
        }
        self.put(name.to_owned(), draft.to, draft.preset);
        Ok(())
    }

    /// Sets plain aliases: `NAME=MODEL` pairs.
    pub(super) fn set_aliases(&mut self, value: value::Value) -> Result<(), String> {
        let pairs = match value {
            value::Value::Table(pairs) => pairs,
            other => value::list(other)?
                .iter()
                .flat_map(|item| item.lines())
                .map(|pair| {
                    let (name, to) = pair
                        .split_once('=')
                        .ok_or_else(|| format!("invalid alias {pair:?}: expected one such as \"gpt-4o=qwen3:30b\""))?;
                    Ok((name.trim().to_owned(), to.trim().to_owned()))
                })
                .collect::<Result<_, String>>()?,
        };
        for (name, to) in pairs {
            self.point(&name, to);
        }
        Ok(())
    }

    /// The entries as tables of a file.
    pub(super) fn show(&self, origin: impl Fn(&str) -> String) -> String {
        let mut out = String::new();
        for entry in &self.entries {
            let _ = writeln!(out, "\n[models.{}]  # {}", toml::Value::from(&*entry.name), origin(&entry.name));
            for (name, value) in entry.fields() {
                let _ = writeln!(out, "{name} = {value}");
            }
        }
        out
    }

    /// What differs between the entries of two configurations.
    pub(super) fn changes(before: &Self, after: &Self) -> Vec<String> {
        let text = |models: &Self, name: &str| {
            let entry = models.entries.iter().find(|entry| entry.name == name)?;
            let fields = entry.fields().into_iter().map(|(name, value)| format!("{name} = {value}"));
            Some(fields.collect::<Vec<_>>().join(", "))
        };
        let mut changes = Vec::new();
        for entry in &after.entries {
            let name = &entry.name;
            match (text(before, name), text(after, name).unwrap_or_default()) {
                (None, new) => changes.push(format!("models.{name:?} added: {new}")),
                (Some(old), new) if old != new => changes.push(format!("models.{name:?}: {old} → {new}")),
                _ => {}
            }
        }
        let removed = before.entries.iter().filter(|entry| text(after, &entry.name).is_none());
        changes.extend(removed.map(|entry| format!("models.{:?} removed", entry.name)));
        changes
    }
}

impl Entry {
    /// Its fields as a file has them.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let toml = |raw: &RawValue| {
            let value = serde_json::from_str::<toml::Value>(raw.get());
            value.map_or_else(|_| raw.get().to_owned(), |value| value.to_string())
        };
        let own = &self.own;
        let mut fields = Vec::new();
        fields.extend(self.to.as_ref().map(|to| ("to", toml::Value::from(&**to).to_string())));
        fields.extend(own.num_ctx.map(|tokens| ("num_ctx", tokens.to_string())));
        fields.extend(own.keep_alive.as_ref().map(|value| ("keep_alive", toml(value))));
        fields.extend(own.think.as_ref().map(|value| ("think", toml(value))));
        if !own.options.is_empty() {
            let options =
                own.options.iter().map(|(name, value)| format!("{} = {}", toml_edit::Key::new(&**name), toml(value)));
            fields.push(("options", format!("{{ {} }}", options.collect::<Vec<_>>().join(", "))));
        }
        fields.extend(own.system.as_ref().map(|system| ("system", toml::Value::from(&**system).to_string())));
        let tools = own.tools;
        let word = |repair: Repair| format!("{:?}", value::Word::word(repair));
        let tools: Vec<String> = [
            tools.repair.map(|repair| format!("repair = {}", word(repair))),
            tools.rescue.map(|rescue| format!("rescue = {}", word(rescue))),
            tools.reask.map(|reask| format!("reask = {reask}")),
            tools.repair_native.map(|on| format!("repair_native = {on}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !tools.is_empty() {
            fields.push(("tools", format!("{{ {} }}", tools.join(", "))));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn models(text: &str) -> Models {
        Config::from_toml(text).unwrap().models
    }

    fn wrong(text: &str) -> String {
        Config::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn a_chain_leads_to_its_end_and_gathers_presets_on_the_way() {
        let models = models(
            "[models.\"gpt-4o\"]\nto = \"coder\"\nnum_ctx = 32768\noptions = { top_k = 5 }\n\
             [models.coder]\nto = \"qwen3:30b\"\nnum_ctx = 4096\nthink = false\noptions = { top_k = 1, temperature = 0.5 }\n\
             [models.\"qwen3:30b\"]\nkeep_alive = \"30m\"\nsystem = \"Be brief.\"\n",
        );
        let (model, preset) = models.behind("GPT-4o:latest", None);
        let preset = preset.unwrap();
        assert_eq!(model, "qwen3:30b");
        let options: Vec<_> = preset.options().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(options, ["num_ctx=32768", "top_k=5", "temperature=0.5"]);
        assert_eq!(preset.keep_alive.as_ref().unwrap().get(), "\"30m\"");
        assert_eq!(preset.think.as_ref().unwrap().get(), "false");
        let (own, preset) = models.behind("qwen3:30b", None);
        assert!(own == "qwen3:30b" && preset.unwrap().num_ctx.is_none());
        assert!(models.preset("qwen3").is_none(), "which is qwen3:latest");
        assert_eq!(models.aliases().map(|alias| alias.name).collect::<Vec<_>>(), ["coder", "gpt-4o"]);
    }

    #[test]
    fn a_pattern_for_all_models_gives_its_preset_to_targets_but_is_no_target() {
        let models =
            models("[models.a]\nto = \"qwen3:8b\"\n[models.\"qwen*\"]\nnum_ctx = 5\n[models.\"*\"]\nto = \"x\"\n");
        let (model, preset) = models.behind("a", None);
        assert_eq!((model, preset.unwrap().num_ctx), ("qwen3:8b", Some(5)));
    }

    #[test]
    fn the_name_comes_before_patterns_and_the_longest_pattern_before_others() {
        let models = models(
            "[models.\"*\"]\nto = \"any\"\n[models.\"gpt-*\"]\nto = \"gpt-oss:20b\"\n[models.\"gpt-*-mini\"]\nto = \"small\"\n\
             [models.\"gpt-oss:120b\"]\n",
        );
        for (asked, target) in [
            ("gpt-4o", "gpt-oss:20b"),
            ("gpt-4o-mini", "small"),
            ("GPT-5-mini:latest", "gpt-oss:20b"),
            ("gpt-oss:20b", "gpt-oss:20b"),
            ("gpt-oss:120b", "gpt-oss:120b"),
            ("llama3", "any"),
        ] {
            assert_eq!(models.behind(asked, None).0, target, "{asked}");
        }
    }

    #[test]
    fn a_chain_that_ends_nowhere_is_an_error() {
        let circle = wrong("[models.a]\nto = \"b\"\n[models.b]\nto = \"c\"\n[models.c]\nto = \"a:latest\"\n");
        assert!(circle.contains("models.\"a\": \"a\" → \"b\" → \"c\" → \"a:latest\" is a cycle"), "{circle}");
        assert!(circle.contains("settings:1:"), "{circle}");
        assert!(wrong("[models.a]\nto = \"A\"\n").contains("is a cycle"));
        assert!(wrong("[models.a]\nto = \"\"\n").contains("invalid target \"\""));
        assert!(wrong("[models.a]\nto = \"gpt-*\"\n").contains("invalid target \"gpt-*\""));
        assert!(wrong("[models]\ndefault = \"a*\"\n").contains("models.default"));
        assert!(wrong("[models.a]\nto = \"b\"\n[models.\"A:latest\"]\nto = \"c\"\n").contains("are the same model"));
    }

    #[test]
    fn wrong_fields_are_named_with_their_place() {
        for (text, place, what) in [
            ("[models.a]\ntoo = \"b\"", "settings:2:1", "did you mean to?"),
            ("[models.a]\nnum_ctx = 0", "settings:2:11", "32768"),
            ("[models.a]\nkeep_alive = \"30\"", "settings:2:14", "\"30m\""),
            ("[models.a]\nthink = \"hard\"", "settings:2:9", "\"max\""),
            ("[models.a]\ntools = { repair = \"yes\" }", "settings:2:9", "auto or off"),
            ("[models.a]\ntools = { fix = \"yes\" }", "settings:2:9", "unknown field fix"),
            ("[models.a]\noptions = { num_ctx = 5 }", "settings:2:11", "belongs beside"),
            ("[models]\na = \"b\"", "settings:2:1", "[models.\"a\"]"),
        ] {
            let reported = wrong(text);
            assert!(reported.starts_with(place) && reported.contains(what), "{reported}");
        }
    }

    #[test]
    fn entries_are_shown_as_a_file_that_could_be_loaded_again() {
        let text = "[models.\"a.b\"]\nto = \"c\"\nnum_ctx = 5\nkeep_alive = -1\nthink = \"low\"\n\
                    options = { stop = [\"x\"], temperature = 0.5 }\nsystem = \"a \\\"b\\\"\"\n\
                    tools = { repair = \"off\", reask = true }\n";
        let before = models(text);
        let shown = before.show(|_| "here".to_owned());
        let after = models(&shown);
        assert_eq!(format!("{:?}", before.entries), format!("{:?}", after.entries), "{shown}");
        assert_eq!(Models::changes(&before, &after), Vec::<String>::new());
        assert_eq!(Models::changes(&before, &Models::default()), ["models.\"a.b\" removed"]);
    }

    #[test]
    fn aliases_come_from_pairs_too() {
        let mut models = Models::default();
        models.set_aliases(value::Value::Text("gpt-4o=qwen3:30b, gpt-4o-mini = qwen3:4b".to_owned())).unwrap();
        models.finish().unwrap();
        assert_eq!(models.behind("gpt-4o", None).0, "qwen3:30b");
        assert_eq!(models.behind("gpt-4o-mini", None).0, "qwen3:4b");
        assert!(models.set_aliases(value::Value::Text("gpt-4o".to_owned())).is_err());
    }

    #[test]
    fn a_duration_is_read_as_go_reads_it() {
        for (text, fine) in [
            ("30m", true),
            ("1h30m", true),
            ("-1s", true),
            ("1.5h", true),
            ("0", true),
            ("30", false),
            ("", false),
            ("m", false),
        ] {
            assert_eq!(is_go_duration(text), fine, "{text}");
        }
    }

    #[test]
    fn lists_leave_out_what_is_hidden() {
        let models = models("[models]\nhidden = [\"*embed*\", \"old\"]\nshown = [\"qwen*\", \"*embed*\"]\n");
        let listed = |name: &str| models.lists(name);
        assert!(listed("qwen3:8b") && !listed("nomic-embed-text:latest") && !listed("llama3:latest"));
        assert!(models.is_empty() && !models.leaves_lists_alone());
    }
}
