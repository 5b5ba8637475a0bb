//! The HTTP client that every request of the harness goes out through.

use std::time::Duration;

/// How long an unused connection is reused: less than what servers allow, so that a request never meets a connection that the server
/// is about to close. llama.cpp's server closes after 5 s (`Keep-Alive: timeout=5`, seen with xllamacpp 2026.10.11549), uvicorn too.
const REUSE_WITHIN: Duration = Duration::from_secs(2);

/// Returns a client for calls: no proxy from the environment, no redirects, nothing decompressed.
///
/// # Errors
/// Fails if TLS cannot be set up.
pub fn client() -> reqwest::Result<reqwest::Client> {
    let redirects = reqwest::redirect::Policy::none();
    reqwest::Client::builder().no_proxy().redirect(redirects).pool_idle_timeout(REUSE_WITHIN).build()
}
