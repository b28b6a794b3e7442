//! All errors of the HTTP API, and the one place where each becomes a response (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use millrace_domain::{
    Refusal,
    limits::{HTTP_BODY_BYTES_MAX, HTTP_BODY_MAX, HTTP_HEAD_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, RETRY_AFTER_SECONDS},
    submission::{InvalidQuality, InvalidSourceUrl},
    wire::Problem,
};
use millrace_runtime::{direct::ReadError, jobs::ExecuteError};

const PROBLEM: &str = "application/problem+json";

/// Why the edge refuses a request.
#[derive(Debug)]
pub enum ApiError {
    NoSuchPath,
    MethodNotAllowed,
    UpgradeRequired,
    MalformedHandshake,
    InvalidJobId,
    InvalidSince,
    InvalidIdempotencyKey,
    IdempotencyKeyReused,
    UnsupportedMediaType,
    BodyTooLarge,
    BodyTooSlow,
    MalformedBody(String),
    InvalidUrl(InvalidSourceUrl),
    MissingUrl,
    InvalidQuality(InvalidQuality),
    OriginNotAllowed(String),
    UnknownJob,
    AlreadyEnded(Refusal),
    NotEnded(Refusal),
    NotCompleted,
    FileGone,
    /// `If-Match` or `If-Unmodified-Since`.
    PreconditionFailed,
    RangeNotSatisfiable {
        file_size: u64,
    },
    /// Only for a connection's first request, before hyper reads it.
    HeadTooLarge,
    MalformedRequest,
    TooManyConnections,
    /// The log or the state bucket does not answer; the text is only logged.
    LogUnavailable(String),
    /// The log has no room; the text is only logged.
    NoRoom(String),
    StorageUnavailable(String),
    Stopping,
}

impl ApiError {
    /// The status and the code of the response. Codes are frozen once released.
    const fn kind(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no_such_path"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::UpgradeRequired => (StatusCode::UPGRADE_REQUIRED, "upgrade_required"),
            Self::MalformedHandshake => (StatusCode::BAD_REQUEST, "malformed_handshake"),
            Self::InvalidJobId => (StatusCode::BAD_REQUEST, "invalid_job_id"),
            Self::InvalidSince => (StatusCode::BAD_REQUEST, "invalid_since"),
            Self::InvalidIdempotencyKey => (StatusCode::BAD_REQUEST, "invalid_idempotency_key"),
            Self::IdempotencyKeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
            Self::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, "body_too_slow"),
            Self::MalformedBody(_) => (StatusCode::BAD_REQUEST, "malformed_body"),
            Self::InvalidUrl(_) | Self::MissingUrl => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_url"),
            Self::InvalidQuality(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_quality"),
            Self::OriginNotAllowed(_) => (StatusCode::FORBIDDEN, "origin_not_allowed"),
            Self::UnknownJob => (StatusCode::NOT_FOUND, "unknown_job"),
            Self::AlreadyEnded(_) => (StatusCode::CONFLICT, "already_ended"),
            Self::NotEnded(_) => (StatusCode::CONFLICT, "not_ended"),
            Self::NotCompleted => (StatusCode::CONFLICT, "not_completed"),
            Self::FileGone => (StatusCode::NOT_FOUND, "file_gone"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Self::RangeNotSatisfiable { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable"),
            Self::HeadTooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large"),
            Self::MalformedRequest => (StatusCode::BAD_REQUEST, "malformed_request"),
            Self::TooManyConnections => (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections"),
            Self::LogUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "log_unavailable"),
            Self::NoRoom(_) => (StatusCode::SERVICE_UNAVAILABLE, "no_room"),
            Self::StorageUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        }
    }

    /// The status of the response.
    pub const fn status(&self) -> StatusCode {
        self.kind().0
    }

    fn body(&self) -> Vec<u8> {
        let (status, code) = self.kind();
        let problem = Problem {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: self.detail(),
            code: code.into(),
        };
        serde_json::to_vec(&problem).expect("a problem has string keys only")
    }

    /// The response in bytes, for a connection that has no valid request and is closed after it.
    pub fn last_answer(&self) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        let retry = match status {
            StatusCode::SERVICE_UNAVAILABLE => format!("retry-after: {RETRY_AFTER_SECONDS}\r\n"),
            _ => String::new(),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\n{retry}connection: close\r\ncontent-type: {PROBLEM}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    fn detail(&self) -> String {
        match self {
            Self::NoSuchPath => "There is nothing at this path. Jobs are submitted by POST /api/download.".into(),
            Self::MethodNotAllowed => "This path does not take that method.".into(),
            Self::UpgradeRequired => {
                "This is a WebSocket endpoint: connect with a WebSocket client, by ws:// or wss://.".into()
            }
            Self::MalformedHandshake => {
                "The WebSocket handshake lacks Sec-WebSocket-Key or has a version other than 13.".into()
            }
            Self::InvalidJobId => format!("{}.", sentence(&millrace_domain::ids::InvalidJobId.to_string())),
            Self::InvalidSince => "`since` is the `seq` of a status message, a whole number.".into(),
            Self::InvalidIdempotencyKey => format!(
                "An Idempotency-Key has 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters; a random \
                 UUID is a good one."
            ),
            Self::IdempotencyKeyReused => {
                "This Idempotency-Key was used for another submission. Use a new key for a new submission.".into()
            }
            Self::UnsupportedMediaType => "Send JSON, with the header Content-Type: application/json.".into(),
            Self::BodyTooSlow => format!("The body did not come within {} seconds.", HTTP_BODY_MAX.as_secs()),
            Self::BodyTooLarge => format!("The body is larger than {HTTP_BODY_BYTES_MAX} bytes."),
            Self::MalformedBody(why) => format!("The body is not JSON as expected, {{\"url\": \"https://…\"}}: {why}."),
            Self::InvalidUrl(error) => format!("{}.", sentence(&error.to_string())),
            Self::MissingUrl => "The field `url` is missing: give the address of the video as a string.".into(),
            Self::InvalidQuality(error) => format!("{}.", sentence(&error.to_string())),
            Self::OriginNotAllowed(origin) => {
                format!("Pages of {origin} may not use this API. The operator can allow them by --allowed-origins.")
            }
            Self::UnknownJob => "There is no job of this id.".into(),
            Self::AlreadyEnded(refusal) | Self::NotEnded(refusal) => format!("{}.", sentence(&refusal.to_string())),
            Self::NotCompleted => "The job has no file, since it is not completed.".into(),
            Self::FileGone => "The file has been removed from the storage.".into(),
            Self::PreconditionFailed => "The file is another one than the request asks for.".into(),
            Self::HeadTooLarge => format!("The head of the request is larger than {HTTP_HEAD_BYTES_MAX} bytes."),
            Self::MalformedRequest => "This is no HTTP/1.1 request.".into(),
            Self::TooManyConnections => "Too many connections are open. Try again in a few seconds.".into(),
            Self::RangeNotSatisfiable { file_size } => {
                format!("The file has {file_size} bytes; the range is beyond them.")
            }
            Self::LogUnavailable(_) => {
                "The job log cannot be reached at the moment. Try again in a few seconds; with an Idempotency-Key a \
                 repeat is safe."
                    .into()
            }
            Self::NoRoom(_) => {
                "There is no room in the job log at the moment, so nothing was stored. The operator has to make some; \
                 try again later."
                    .into()
            }
            Self::StorageUnavailable(_) => {
                "The storage cannot be reached at the moment. Try again in a few seconds.".into()
            }
            Self::Stopping => "This server is about to stop. Connect again.".into(),
        }
    }
}

/// Capitalizes an error text for clients.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.kind();
        match &self {
            Self::LogUnavailable(why) | Self::StorageUnavailable(why) => {
                tracing::warn!(why, code, "request failed");
            }
            Self::NoRoom(why) => tracing::error!(
                why,
                code,
                "request refused: NATS has no room; free space on its disk, or raise max_file_store"
            ),
            _ => {}
        }
        let mut response = (status, self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if let Self::RangeNotSatisfiable { file_size } = self
            && let Ok(range) = HeaderValue::from_str(&format!("bytes */{file_size}"))
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        response
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::LogUnavailable(error.to_string())
    }
}

impl From<ExecuteError> for ApiError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Refused(Refusal::Unknown) => Self::UnknownJob,
            ExecuteError::Refused(refusal @ Refusal::NotEnded(_)) => Self::NotEnded(refusal),
            ExecuteError::Refused(refusal) => Self::AlreadyEnded(refusal),
            ExecuteError::NoRoom(why) => Self::NoRoom(why),
            ExecuteError::Unavailable(why) | ExecuteError::Rejected(why) => Self::LogUnavailable(why),
        }
    }
}
