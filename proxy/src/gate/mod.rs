//! Who may pass.

pub(crate) mod origin;
