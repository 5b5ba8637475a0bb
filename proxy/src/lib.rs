//! farllama: a local Ollama and an OpenAI server in front of a remote Ollama.

pub mod config;

pub use config::Config;
