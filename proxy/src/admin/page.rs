//! The console, from the binary: one page, its style and its script. Nothing is fetched from elsewhere.

use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

/// The description of the API.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");

pub(crate) async fn index() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("console/index.html"))
}

pub(crate) async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("console/console.css"))
}

pub(crate) async fn script() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("console/console.js"))
}

pub(crate) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}
