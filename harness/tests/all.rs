//! The harness as a library and as a program.
//!
//! One program for all files: each test program links every dependency, which costs time and over 100 MB of disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a test may start what it likes")]

mod action;
mod bench_tools;
mod cli;
mod compare;
mod conformance;
mod container;
mod doctor;
mod doctor_reach;
mod doctor_traps;
mod judging;
mod language;
mod layers;
mod mutate;
mod record;
mod smoke;
mod stored_objects;
mod target;
