//! What the documentation and the packages promise.
//!
//! One program for all files: each test program links every dependency, which costs time and over 100 MB of disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]

mod cli;
mod commands;
mod docs;
mod packages;
