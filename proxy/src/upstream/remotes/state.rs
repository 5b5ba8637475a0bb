//! What is known of one remote.

use crate::openai::upstream_request::context::Grown;

/// What is known of one remote.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// How far the contexts of its models have grown.
    pub(crate) grown: Grown,
}
