//! The mock over raw sockets, held to recordings of real servers.
//!
//! One program for all files: each test program links every dependency, which costs time and over 100 MB of disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]

mod answers;
mod cli;
mod docs;
mod http;
mod server;
mod transfer;
mod truth;

#[path = "truth/recording.rs"]
mod recording;
#[path = "truth/registry.rs"]
mod registry;
mod support;
