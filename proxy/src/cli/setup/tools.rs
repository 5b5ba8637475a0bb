//! The tools: where each keeps its configuration, and what stands there for this proxy.

use std::path::PathBuf;

use farllama::ListedModel;
use serde_json::{Value, json};
use toml_edit::{DocumentMut, Item, Table, value};

use super::{Places, json::Json, read, yaml};

/// A tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// Its name in `farllama-check doctor --for`.
    pub(super) persona: &'static str,
    pub(super) plan: fn(&Facts, &Places<'_>) -> Result<Plan, String>,
}

/// Every tool.
pub(super) const ALL: &[Tool] = &[
    Tool { name: "codex", persona: "codex", plan: codex },
    Tool { name: "claude", persona: "claude-code", plan: claude },
    Tool { name: "continue", persona: "continue", plan: continue_dev },
    Tool { name: "zed", persona: "zed", plan: zed },
    Tool { name: "copilot", persona: "copilot", plan: copilot },
    Tool { name: "cline", persona: "cline", plan: cline },
    Tool { name: "opencode", persona: "opencode", plan: opencode },
    Tool { name: "aider", persona: "aider", plan: aider },
    Tool { name: "openwebui", persona: "open-webui", plan: open_webui },
    Tool { name: "llm", persona: "openai-sdk", plan: llm },
];

/// What the configurations are made of.
pub(super) struct Facts {
    /// Where Ollama's API is.
    pub(super) native: String,
    /// Where OpenAI's API is.
    pub(super) openai: String,
    /// The key for this proxy. None: it needs none.
    pub(super) key: Option<String>,
    pub(super) models: Vec<Model>,
    /// The model that the tool uses first.
    pub(super) model: String,
}

/// A model that can chat.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) name: String,
    /// The remote's model.
    pub(super) target: String,
    /// Tokens of a prompt and its answer together. None: the remote does not say.
    pub(super) context: Option<u64>,
    pub(super) tools: bool,
    /// Whether this is the context in force.
    pub(super) in_force: bool,
    vision: bool,
    thinking: bool,
}

impl From<ListedModel> for Model {
    fn from(listed: ListedModel) -> Self {
        // Old versions of Ollama do not say what a model can do.
        let can = |what: &str| listed.capabilities.as_ref().is_some_and(|all| all.iter().any(|known| known == what));
        let tools = listed.capabilities.is_none() || can("tools");
        let (vision, thinking) = (can("vision"), can("thinking"));
        Self {
            tools,
            vision,
            thinking,
            in_force: listed.in_force,
            name: listed.name,
            target: listed.model,
            context: listed.context,
        }
    }
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The files, each with its whole new text.
    pub(super) files: Vec<(PathBuf, String)>,
    /// What is left to do by hand.
    pub(super) steps: Vec<String>,
}

impl Facts {
    /// The key, or a word in its place for tools that do not work without one.
    fn some_key(&self) -> &str {
        self.key.as_deref().unwrap_or("farllama")
    }

    pub(super) fn chosen(&self) -> Option<&Model> {
        self.models.iter().find(|model| model.name == self.model)
    }

    /// The context of the chosen model.
    fn context(&self) -> Option<u64> {
        self.chosen().and_then(|model| model.context)
    }
}

/// How much of a context is left for the answer where a tool wants both bounds.
fn answer(context: u64) -> u64 {
    (context / 4).min(32_768)
}

fn plan(
    path: PathBuf,
    change: impl FnOnce(&str) -> Result<String, String>,
    steps: Vec<String>,
) -> Result<Plan, String> {
    let text = change(&read(&path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Plan { files: vec![(path, text)], steps })
}

/// A profile in a file of its own (Codex 0.160 and later): `codex --profile farllama`.
fn codex(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| {
        let folder = places.variable("CODEX_HOME").map_or_else(|| places.home().map(|home| home.join(".codex")), Ok)?;
        Ok(folder.join("farllama.config.toml"))
    })?;
    let mut steps = vec!["Use it: codex --profile farllama".to_owned()];
    if let Some(key) = &facts.key {
        steps.push(format!("Codex reads the key from the environment: export FARLLAMA_KEY={key}"));
    }
    let change = |text: &str| {
        let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
        document["model"] = value(&facts.model);
        document["model_provider"] = value("farllama");
        match facts.context() {
            Some(tokens) => document["model_context_window"] = value(i64::try_from(tokens).unwrap_or(i64::MAX)),
            None => {
                document.remove("model_context_window");
            }
        }
        let providers = document.entry("model_providers").or_insert(Item::Table(Table::new()));
        let providers = providers.as_table_mut().ok_or("model_providers in it is not a table")?;
        providers.set_implicit(true);
        let mut provider = Table::new();
        provider["name"] = value("farllama");
        provider["base_url"] = value(&facts.openai);
        provider["wire_api"] = value("responses");
        if facts.key.is_some() {
            provider["env_key"] = value("FARLLAMA_KEY");
        }
        providers.insert("farllama", Item::Table(provider));
        Ok(document.to_string())
    };
    plan(path, change, steps)
}

/// Environment variables in Claude Code's settings.
fn claude(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| {
        let own = places.variable("CLAUDE_CONFIG_DIR");
        Ok(own.map_or_else(|| places.home().map(|home| home.join(".claude")), Ok)?.join("settings.json"))
    })?;
    // It adds /v1/messages itself.
    let base = facts.openai.strip_suffix("/v1").ok_or("Claude Code needs openai.base_path to end in /v1")?;
    let variables = [
        ("ANTHROPIC_BASE_URL", base),
        ("ANTHROPIC_AUTH_TOKEN", facts.some_key()),
        ("ANTHROPIC_MODEL", &facts.model),
        ("ANTHROPIC_DEFAULT_HAIKU_MODEL", &facts.model),
    ];
    let change = |text: &str| {
        let json = Json::read(text)?;
        for (name, value) in variables {
            json.set(&["env", name], &Value::from(value))?;
        }
        Ok(json.text())
    };
    let mut steps = vec!["Use it: claude".to_owned()];
    if facts.context().is_some_and(|tokens| tokens < 32_768) {
        steps.push(format!(
            "{} has a context of {} tokens; Claude Code's instructions and tools alone take about 20,000. Raise it with \
             [models.\"{}\"] num_ctx = 65536, or context.max = 65536",
            facts.model,
            facts.context().unwrap_or(0),
            facts.model
        ));
    }
    plan(path, change, steps)
}

/// Models of the provider `openai` in Continue's `config.yaml`.
fn continue_dev(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| Ok(places.home()?.join(".continue").join("config.yaml")))?;
    let mut lines = Vec::new();
    for model in &facts.models {
        let line = |text: String| text;
        lines.push(line(format!("- name: {}", yaml::quoted(&format!("{} (farllama)", model.name)))));
        lines.push("  provider: openai".to_owned());
        lines.push(format!("  model: {}", yaml::quoted(&model.name)));
        lines.push(format!("  apiBase: {}", yaml::quoted(&facts.openai)));
        lines.push(format!("  apiKey: {}", yaml::quoted(facts.some_key())));
        lines.push("  roles: [chat, edit, apply]".to_owned());
        let able = [("tool_use", model.tools), ("image_input", model.vision)];
        let able: Vec<_> = able.into_iter().filter(|(_, can)| *can).map(|(name, _)| name).collect();
        if !able.is_empty() {
            lines.push(format!("  capabilities: [{}]", able.join(", ")));
        }
        if let Some(tokens) = model.context {
            lines.push("  defaultCompletionOptions:".to_owned());
            lines.push(format!("    contextLength: {tokens}"));
        }
    }
    let change = |text: &str| {
        let head = "name: farllama\nversion: 1.0.0\nschema: v1\n";
        yaml::add_under(if text.trim().is_empty() { head } else { text }, "models", &lines)
    };
    plan(path, change, vec![format!("Choose {} in Continue's list of models.", facts.model)])
}

/// Ollama's provider in Zed's settings.
///
/// Source: `zed-industries/zed`, `crates/settings_content/src/language_model.rs` at 000b56b (`OllamaSettingsContent`).
/// Models that are not listed are found by Zed itself, unless `auto_discover` is false.
fn zed(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| Ok(places.settings()?.join("zed").join("settings.json")))?;
    let models: Vec<Value> = facts
        .models
        .iter()
        .map(|model| {
            json!({
                "name": model.name,
                "display_name": model.name,
                "max_tokens": model.context.unwrap_or(8192),
                "supports_tools": model.tools,
                "supports_thinking": model.thinking,
                "supports_images": model.vision,
            })
        })
        .collect();
    let change = |text: &str| {
        let json = Json::read(text)?;
        json.set(&["language_models", "ollama", "api_url"], &Value::from(&*facts.native))?;
        json.set(&["language_models", "ollama", "available_models"], &Value::from(models))?;
        Ok(json.text())
    };
    let mut steps = vec![format!("Choose {} in the agent panel.", facts.model)];
    if let Some(key) = &facts.key {
        steps.push(format!("Zed keeps keys outside of its settings: enter it for Ollama in the agent's settings, or export OLLAMA_API_KEY={key}"));
    }
    plan(path, change, steps)
}

/// A custom endpoint in VS Code's list of language models (VS Code 1.122 and later).
///
/// Source: `microsoft/vscode`, below `extensions/copilot`: `src/extension/byok/vscode-node/customEndpointProvider.ts`
/// at 0081284, and the required fields of a model in `package.json` at 0024ccf.
fn copilot(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| Ok(places.application("Code")?.join("User").join("chatLanguageModels.json")))?;
    let url = format!("{}/chat/completions", facts.openai);
    let models: Vec<Value> = facts
        .models
        .iter()
        .map(|model| {
            let context = model.context.unwrap_or(8192);
            json!({
                "id": model.name,
                "name": model.name,
                "url": url,
                "toolCalling": model.tools,
                "vision": model.vision,
                "thinking": model.thinking,
                "maxInputTokens": context - answer(context),
                "maxOutputTokens": answer(context),
            })
        })
        .collect();
    let entry = json!({
        "name": "farllama",
        "vendor": "customendpoint",
        "apiKey": facts.some_key(),
        "apiType": "chat-completions",
        "models": models,
    });
    let change = |text: &str| {
        let json = Json::read(text)?;
        let mut entry = entry.clone();
        // What was chosen in VS Code for these models.
        if let Some(chosen) = json.find("name", &entry).and_then(|mut known| known.get_mut("settings").map(Value::take))
        {
            entry["settings"] = chosen;
        }
        json.put("name", &entry)?;
        Ok(json.text())
    };
    let steps = vec![
        format!("Choose {} in the chat's list of models. VS Code reads the file when it starts.", facts.model),
        format!(
            "In older versions: \"github.copilot.chat.byok.ollamaEndpoint\": \"{}\" in settings.json, then \"Manage Models\" → Ollama",
            facts.native
        ),
    ];
    plan(path, change, steps)
}

/// Cline's list of providers, which its CLI and the extensions built on the same core read.
///
/// Source: npm `cline` 3.0.65 and its `@cline/core` 0.0.86: the paths, the schema, and the file that `cline auth
/// --provider openai-compatible` writes. Older extensions keep their settings in the editor's store, where only they
/// can change them.
fn cline(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    const PROVIDER: &str = "openai-compatible";
    let path = places.file(|| {
        if let Some(own) = places.variable("CLINE_PROVIDER_SETTINGS_PATH") {
            return Ok(own);
        }
        let data = match (places.variable("CLINE_DATA_DIR"), places.variable("CLINE_DIR")) {
            (Some(data), _) => data,
            (None, Some(own)) => own.join("data"),
            (None, None) => places.home()?.join(".cline").join("data"),
        };
        Ok(data.join("settings").join("providers.json"))
    })?;
    let mut settings = json!({
        "provider": PROVIDER,
        "apiKey": facts.some_key(),
        "model": facts.model,
        "baseUrl": facts.openai,
    });
    if let Some(tokens) = facts.context() {
        settings["contextWindow"] = tokens.into();
    }
    let change = |text: &str| {
        let json = Json::read(text)?;
        if text.trim().is_empty() {
            json.set(&["version"], &Value::from(1))?;
        }
        json.set(&["lastUsedProvider"], &Value::from(PROVIDER))?;
        // The time of a change, which is none if the settings are there already.
        if json.get(&["providers", PROVIDER, "settings"]).as_ref() != Some(&settings) {
            let now = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string();
            let entry = json!({"settings": settings, "updatedAt": now, "tokenSource": "manual"});
            json.set(&["providers", PROVIDER], &entry)?;
        }
        Ok(json.text())
    };
    let context = facts.context().map_or_else(|| "what the model has".to_owned(), |tokens| tokens.to_string());
    let vision = facts.chosen().is_some_and(|model| model.vision);
    let steps = vec![
        "Use it: cline".to_owned(),
        "In an extension that does not show this provider, enter it in Cline's settings:".to_owned(),
        "  API Provider           OpenAI Compatible".to_owned(),
        format!("  Base URL               {}", facts.openai),
        format!("  API Key                {}", facts.some_key()),
        format!("  Model ID               {}", facts.model),
        format!("  Context Window Size    {context}"),
        format!("  Supports Images        {}", if vision { "yes" } else { "no" }),
    ];
    plan(path, change, steps)
}

/// A provider in opencode's settings.
fn opencode(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| {
        let folder = places.settings()?.join("opencode");
        let commented = folder.join("opencode.jsonc");
        Ok(if commented.exists() { commented } else { folder.join("opencode.json") })
    })?;
    let models: serde_json::Map<String, Value> = facts
        .models
        .iter()
        .map(|model| {
            let mut entry = json!({
                "name": model.name,
                "tool_call": model.tools,
                "reasoning": model.thinking,
                "attachment": model.vision,
            });
            if let Some(tokens) = model.context {
                entry["limit"] = json!({"context": tokens, "output": answer(tokens)});
            }
            (model.name.clone(), entry)
        })
        .collect();
    let provider = json!({
        "npm": "@ai-sdk/openai-compatible",
        "name": "farllama",
        "options": {"baseURL": facts.openai, "apiKey": facts.some_key()},
        "models": models,
    });
    let change = |text: &str| {
        let json = Json::read(text)?;
        if text.trim().is_empty() {
            json.set(&["$schema"], &Value::from("https://opencode.ai/config.json"))?;
        }
        json.set(&["provider", "farllama"], &provider)?;
        json.set(&["model"], &Value::from(format!("farllama/{}", facts.model)))?;
        Ok(json.text())
    };
    plan(path, change, vec!["Use it: opencode".to_owned()])
}

/// Keys of aider's settings, and how large its model's context is.
fn aider(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| Ok(places.home()?.join(".aider.conf.yml")))?;
    let metadata = path.with_file_name(".aider.model.metadata.json");
    let model = format!("openai/{}", facts.model);
    let pairs = [
        ("openai-api-base", facts.openai.clone()),
        ("openai-api-key", facts.some_key().to_owned()),
        ("model", model.clone()),
        ("weak-model", model.clone()),
    ];
    let mut plan = plan(path, |text| Ok(yaml::set(text, &pairs)), vec!["Use it: aider".to_owned()])?;
    if let Some(tokens) = facts.context() {
        let json = Json::read(&read(&metadata)?).map_err(|error| format!("{}: {error}", metadata.display()))?;
        let entry = json!({
            "max_input_tokens": tokens,
            "max_output_tokens": answer(tokens),
            "litellm_provider": "openai",
            "mode": "chat",
        });
        json.set(&[&model], &entry).map_err(|error| format!("{}: {error}", metadata.display()))?;
        plan.files.push((metadata, json.text()));
    }
    Ok(plan)
}

/// Environment variables: Open WebUI keeps everything else in its database.
///
/// Source: PyPI `open-webui` 0.12.4, `open_webui/config.py`.
fn open_webui(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    // A container reaches this machine under another name.
    let inside = |url: &str| {
        ["127.0.0.1", "localhost", "[::1]"]
            .iter()
            .fold(url.to_owned(), |url, own| url.replace(own, "host.docker.internal"))
    };
    let variables = [
        ("ENABLE_OLLAMA_API", "false".to_owned()),
        ("ENABLE_OPENAI_API", "true".to_owned()),
        ("OPENAI_API_BASE_URL", facts.openai.clone()),
        ("OPENAI_API_KEY", facts.some_key().to_owned()),
        ("DEFAULT_MODELS", facts.model.clone()),
        ("TASK_MODEL_EXTERNAL", facts.model.clone()),
    ];
    let mut steps = vec![
        "Open WebUI reads these variables at its first start; later they are in Admin Settings → Connections."
            .to_owned(),
    ];
    let Some(path) = places.file.clone() else {
        steps.extend(variables.iter().map(|(name, value)| format!("  {name}={value}")));
        steps.push("In a container:".to_owned());
        steps.push(format!(
            "  docker run -d -p 3000:8080 --add-host=host.docker.internal:host-gateway -e ENABLE_OLLAMA_API=false \
             -e OPENAI_API_BASE_URL={} -e OPENAI_API_KEY={} -v open-webui:/app/backend/data ghcr.io/open-webui/open-webui:main",
            inside(&facts.openai),
            facts.some_key()
        ));
        steps.push("Add --file ENV_FILE to write them into a file for --env-file.".to_owned());
        return Ok(Plan { files: Vec::new(), steps });
    };
    let change = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (name, value) in &variables {
            let line = format!("{name}={value}");
            match lines.iter_mut().find(|known| known.split('=').next() == Some(*name)) {
                Some(known) => *known = line,
                None => lines.push(line),
            }
        }
        Ok(lines.join("\n") + "\n")
    };
    if inside(&facts.openai) != facts.openai {
        steps.push(format!(
            "A container (--env-file) reaches this machine as host.docker.internal: for one, add --url {}, and let farllama listen on its \
             network, with keys (local.host, auth.enabled).",
            inside(&facts.native)
        ));
    }
    plan(path, change, steps)
}

/// Models in the list of the program `llm`.
fn llm(facts: &Facts, places: &Places<'_>) -> Result<Plan, String> {
    let path = places.file(|| {
        let own = places.variable("LLM_USER_PATH");
        let folder = own.map_or_else(|| places.application("io.datasette.llm"), Ok)?;
        Ok(folder.join("extra-openai-models.yaml"))
    })?;
    let mut lines = Vec::new();
    for model in &facts.models {
        lines.push(format!("- model_id: {}", yaml::quoted(&format!("farllama/{}", model.name))));
        lines.push(format!("  model_name: {}", yaml::quoted(&model.name)));
        lines.push(format!("  api_base: {}", yaml::quoted(&facts.openai)));
        if facts.key.is_some() {
            lines.push("  api_key_name: farllama".to_owned());
        }
        for (name, can) in [("supports_tools", model.tools), ("vision", model.vision), ("reasoning", model.thinking)] {
            if can {
                lines.push(format!("  {name}: true"));
            }
        }
        lines.push("  supports_schema: true".to_owned());
    }
    let mut steps = vec![format!("Use it: llm -m farllama/{} 'Hello'", facts.model)];
    if let Some(key) = &facts.key {
        steps.push(format!("llm keeps keys outside of this file: llm keys set farllama --value {key}"));
    }
    plan(path, |text| yaml::add_to_list(text, &lines), steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(key: Option<&str>) -> Facts {
        let model = |name: &str, context, tools| Model {
            name: name.to_owned(),
            target: name.to_owned(),
            context,
            tools,
            in_force: true,
            vision: false,
            thinking: true,
        };
        Facts {
            native: "http://127.0.0.1:11434".to_owned(),
            openai: "http://127.0.0.1:11434/v1".to_owned(),
            key: key.map(str::to_owned),
            models: vec![model("qwen3:30b", Some(32_768), true), model("gemma3:4b", None, false)],
            model: "qwen3:30b".to_owned(),
        }
    }

    /// What `tool` gets in an empty home, and its text after a second time.
    fn planned(tool: &Tool, facts: &Facts) -> Plan {
        let home = tempfile::tempdir().unwrap();
        let environment = vec![("HOME".to_owned(), home.path().to_string_lossy().into_owned())];
        let places =
            Places { environment: &environment, file: (tool.name == "openwebui").then(|| home.path().join("env")) };
        let first = (tool.plan)(facts, &places).unwrap();
        for (path, text) in &first.files {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let second = (tool.plan)(facts, &places).unwrap();
        assert_eq!(first.files, second.files, "{} changes something twice", tool.name);
        first
    }

    #[test]
    fn every_tool_gets_url_model_context_and_key_and_nothing_twice() {
        for tool in ALL {
            let plan = planned(tool, &facts(Some("the-key")));
            let texts: String =
                plan.files.iter().map(|(_, text)| text.as_str()).chain(plan.steps.iter().map(String::as_str)).collect();
            for expected in ["http://127.0.0.1:11434", "qwen3:30b", "the-key"] {
                assert!(texts.contains(expected), "{} lacks {expected}: {texts}", tool.name);
            }
            // Open WebUI, Claude Code and llm have no setting for it.
            let reported = ["32768", "24576"].iter().any(|tokens| texts.contains(tokens));
            assert_eq!(reported, !matches!(tool.name, "openwebui" | "claude" | "llm"), "{}: {texts}", tool.name);
            let keyless = planned(tool, &facts(None));
            assert!(!keyless.files.iter().any(|(_, text)| text.contains("the-key")), "{}", tool.name);
        }
    }

    #[test]
    fn what_is_written_is_what_each_format_is() {
        let named = |name: &str| ALL.iter().find(|tool| tool.name == name).unwrap();
        let first = |name: &str| planned(named(name), &facts(None)).files.remove(0).1;
        let codex: toml_edit::DocumentMut = first("codex").parse().unwrap();
        assert_eq!(codex["model_context_window"].as_integer(), Some(32_768));
        assert_eq!(codex["model_providers"]["farllama"]["wire_api"].as_str(), Some("responses"));
        assert!(codex["model_providers"]["farllama"].get("env_key").is_none());
        let json = |name: &str| serde_json::from_str::<Value>(&first(name)).unwrap();
        assert_eq!(json("claude")["env"]["ANTHROPIC_BASE_URL"], "http://127.0.0.1:11434");
        assert_eq!(json("zed")["language_models"]["ollama"]["available_models"][0]["max_tokens"], 32_768);
        assert_eq!(json("copilot")[0]["models"][0]["maxInputTokens"], 24_576);
        assert_eq!(json("opencode")["provider"]["farllama"]["models"]["qwen3:30b"]["limit"]["context"], 32_768);
        let cline = json("cline");
        let provider = &cline["providers"]["openai-compatible"];
        assert_eq!((&cline["version"], &cline["lastUsedProvider"]), (&json!(1), &json!("openai-compatible")));
        assert_eq!(
            (&provider["settings"]["contextWindow"], &provider["tokenSource"]),
            (&json!(32_768), &json!("manual"))
        );
        assert!(provider["updatedAt"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert!(first("aider").contains("model: \"openai/qwen3:30b\""));
        assert!(first("continue").starts_with("name: farllama\n"));
        assert!(first("llm").contains("- model_id: \"farllama/qwen3:30b\"\n  model_name: \"qwen3:30b\"\n"));
    }

    #[test]
    fn what_was_chosen_in_vs_code_stays_and_other_providers_of_cline_do() {
        let home = tempfile::tempdir().unwrap();
        let planned = |name: &str, text: &str| {
            let file = home.path().join(name);
            std::fs::write(&file, text).unwrap();
            let places = Places { environment: &[], file: Some(file) };
            let tool = ALL.iter().find(|tool| tool.name == name).unwrap();
            let text = (tool.plan)(&facts(None), &places).unwrap().files.remove(0).1;
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let chosen = json!({"qwen3:30b": {"reasoningEffort": "low"}});
        let other = json!({"name": "other", "vendor": "ollama"});
        let list = json!([other, {"name": "farllama", "vendor": "customendpoint", "models": [], "settings": chosen}]);
        let copilot = planned("copilot", &list.to_string());
        assert_eq!(
            (&copilot[0], &copilot[1]["settings"], copilot[1]["models"].as_array().unwrap().len()),
            (&other, &chosen, 2)
        );
        let anthropic = json!({"settings": {"provider": "anthropic"}, "updatedAt": "2026-01-01T00:00:00Z"});
        let cline =
            planned("cline", &json!({"version": 1, "modes": {}, "providers": {"anthropic": anthropic}}).to_string());
        assert_eq!(cline["providers"]["anthropic"], anthropic);
    }

    #[test]
    fn what_stands_in_a_file_stays() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("settings.json");
        std::fs::write(&file, "{\n  // mine\n  \"theme\": \"One Dark\",\n}\n").unwrap();
        let places = Places { environment: &[], file: Some(file) };
        let plan = zed(&facts(None), &places).unwrap();
        assert!(plan.files[0].1.contains("// mine\n  \"theme\": \"One Dark\","), "{}", plan.files[0].1);
    }
}
