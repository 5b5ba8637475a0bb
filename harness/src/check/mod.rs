//! Scenario files: finds, reads and validates them, and describes their language for editors.

mod explain;
pub mod fmt;
pub mod json_schema;
pub mod library;
pub mod load;
mod validate;
pub mod warn;
