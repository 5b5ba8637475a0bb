//! The proxy between raw sockets, and the program as a user starts it.
//!
//! One program for all files: each test program links every dependency, which costs time and over 100 MB of disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]

mod admin;
mod background;
mod batches;
mod big_bodies;
mod bridge;
mod cancellation;
mod choices;
mod cli;
mod compressed;
mod context;
mod endpoints;
mod files;
mod gate;
mod hostile;
mod image_urls;
mod leaks;
mod limits;
mod log;
mod messages;
mod mixed;
mod models;
mod parameters;
mod passthrough;
mod quota;
mod reaching;
mod refusals;
mod reloads;
mod remotes;
mod responses;
mod setup;
mod ssh;
mod store;
mod streams;
mod tls;
mod tool_choice;
mod traces;
mod upstream;
mod versions;
mod websocket;

#[path = "support/program.rs"]
mod program;
#[path = "support/redis.rs"]
mod redis;
mod support;
