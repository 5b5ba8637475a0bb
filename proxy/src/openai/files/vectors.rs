//! How a vector of files is checked: whatever `client.json` asks, `error.json` is the refusal.

use futures_util::FutureExt;

use crate::vectors::Case;

pub(crate) fn check(case: &mut Case) {
    assert!(case.input("client.json").is_some());
    case.refusal(&super::refuse().now_or_never().unwrap());
}
