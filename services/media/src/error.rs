//! Why there is no file.

use std::time::Duration;

use millrace_domain::{
    failure::FailureKind,
    limits::{ERROR_CHARS_MAX, cut},
};

use crate::process::RunError;

/// Why there is no file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The token was canceled.
    #[error("canceled")]
    Canceled,
    /// The download failed.
    #[error("{}: {}", .0.kind.code(), .0.detail)]
    Failed(Reason),
}

/// Why a download failed: the kind, and the downloader's own message for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// What clients see.
    pub kind: FailureKind,
    /// For the log; may contain text from the source.
    pub detail: String,
    /// How long the source wants to be left alone, if it has said so.
    pub retry_after: Option<Duration>,
}

impl Reason {
    pub(crate) fn new(kind: FailureKind, detail: &str) -> Self {
        Self { kind, detail: cut(detail, ERROR_CHARS_MAX), retry_after: None }
    }
}

impl MediaError {
    /// What clients see.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Canceled => FailureKind::Canceled,
            Self::Failed(reason) => reason.kind,
        }
    }

    /// How long the source wants to be left alone, if it has said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Canceled => None,
            Self::Failed(reason) => reason.retry_after,
        }
    }
}

impl From<Reason> for MediaError {
    fn from(reason: Reason) -> Self {
        Self::Failed(reason)
    }
}

impl From<RunError> for MediaError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Canceled => Self::Canceled,
            RunError::Io(error) => Self::Failed(Reason::new(FailureKind::WorkerFailed, &error.to_string())),
        }
    }
}
