//! Time and identity of a response, made once per request by the impure side and handed to pure code.

/// Time and identity, handed to pure code.
#[derive(Clone, Debug)]
pub(crate) struct Stamp {
    /// The id of the whole answer.
    pub(crate) id: String,
    /// 32 hex digits to make further ids of.
    pub(crate) random: String,
    /// Unix seconds.
    pub(crate) created: u64,
}
