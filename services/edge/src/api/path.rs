//! Parameters in a request's path.

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use millrace_domain::JobId;

use crate::http::problem::ApiError;

/// The job id of a path.
pub struct Id(pub JobId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path: Path<String> = Path::from_request_parts(parts, state).await.map_err(|_| ApiError::InvalidJobId)?;
        path.parse().map(Self).map_err(|_| ApiError::InvalidJobId)
    }
}
