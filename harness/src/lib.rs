//! The harness: YAML scenarios, run through the real OpenAI client and raw HTTP, judged by what the client understood,
//! what crossed the wire, and what reached the upstream.
//!
//! `scenario` (what) → `backend` (where) → `call` (how) → `expect` (verdict) → `report` (view). `check` reads scenario
//! files, `run` brings the five together. A module uses only modules before it in that order; `tests/layers.rs` checks
//! it.

pub mod backend;
pub mod bench_tools;
pub mod call;
pub mod check;
pub mod cli;
pub mod compare;
pub mod doctor;
pub mod exit;
pub mod expect;
pub mod finding;
mod limit;
pub mod mutants;
pub mod net;
mod process;
pub mod proof;
mod recorder;
pub mod report;
pub mod run;
pub mod scenario;
pub mod smoke;
pub mod text;
