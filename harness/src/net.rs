//! The HTTP client that every request of the harness goes out through.

/// A client for calls: no proxy from the environment, no redirects, nothing decompressed.
///
/// # Errors
/// TLS cannot be set up.
pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()
}
