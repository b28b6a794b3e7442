//! Which pages may use the API: an allow-list, for HTTP and WebSocket alike.
//!
//! Browsers send `Origin` with every request that a page of another origin could abuse; a request without it does not
//! come from such a page and passes.

use std::{collections::HashSet, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use url::Url;

use super::problem::ApiError;

/// The allow-list.
#[derive(Clone)]
pub struct Origins(Arc<HashSet<String>>);

impl Origins {
    /// The given origins and the public base URL's own; for a page on this machine, both as `localhost` and
    /// `127.0.0.1`.
    #[must_use]
    pub fn new(public_base_url: &str, allowed: Vec<String>) -> Self {
        let mut own: Vec<_> = Url::parse(public_base_url).into_iter().collect();
        let other_name = own.first().and_then(|url| match url.host_str() {
            Some("localhost") => Some((url.clone(), "127.0.0.1")),
            Some("127.0.0.1") => Some((url.clone(), "localhost")),
            _ => None,
        });
        own.extend(other_name.and_then(|(mut url, name)| url.set_host(Some(name)).ok().map(|()| url)));
        let own = own.into_iter().map(|url| url.origin().ascii_serialization());
        Self(Arc::new(allowed.into_iter().chain(own).collect()))
    }

    /// Whether pages of `origin` may use the API.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.0.contains(origin))
    }

    /// Checks that a request with an `Origin` comes from an allowed page.
    ///
    /// # Errors
    /// [`ApiError::OriginNotAllowed`], with the origin.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        match headers.get(header::ORIGIN) {
            Some(origin) if !self.allows(origin) => {
                let origin = origin.to_str().unwrap_or("an unreadable origin").chars().take(200).collect();
                Err(ApiError::OriginNotAllowed(origin))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses requests from pages that are not allowed.
pub async fn admit(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    match origins.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_itself_is_allowed_and_on_this_machine_by_both_of_its_names() {
        let allows = |base: &str, origin: &str| {
            Origins::new(base, vec!["https://app.example".into()]).allows(&HeaderValue::from_str(origin).unwrap())
        };
        for origin in ["http://localhost:3201", "http://127.0.0.1:3201", "https://app.example"] {
            assert!(allows("http://localhost:3201", origin) && allows("http://127.0.0.1:3201", origin), "{origin}");
        }
        for origin in ["http://localhost:3202", "https://localhost:3201", "http://localhost:3201.example", "null"] {
            assert!(!allows("http://localhost:3201", origin), "{origin}");
        }
        assert!(!allows("https://video.example", "https://localhost"));
    }
}
