//! `GET /`: the web page.

use axum::{
    http::header,
    response::{Html, IntoResponse},
};

/// The page is one file, built into the binary.
const INDEX: &str = include_str!("../../../web/index.html");

/// The page loads nothing from other origins except pictures.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src http: https: data:; connect-src 'self' ws: wss:; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// The page.
pub async fn index() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(INDEX))
}
