//! The harness: YAML scenarios, run through the real OpenAI client and raw HTTP, judged by what the client understood,
//! what crossed the wire, and what reached the upstream.
//!
//! `scenario` (what) → `backend` (where) → `call` (how) → `expect` (verdict) → `report` (view).

pub mod backend;
pub mod call;
pub mod cli;
pub mod expect;
mod interrupt;
pub mod mutants;
pub mod report;
pub mod run;
pub mod scenario;
pub mod smoke;
