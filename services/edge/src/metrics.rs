//! The edge's metrics.

use std::borrow::Cow;

use http::StatusCode;
use millrace_runtime::metrics::{IntCounter, IntCounterBy, IntGauge, Label};

use crate::websocket::close;

millrace_runtime::metrics! {
    /// What the edge counts.
    pub struct Metrics in "millrace_edge" {
        /// Connections that were answered with 503 or closed at once, because too many are open in total or from one
        /// address.
        pub connections_refused: IntCounter,
        /// Connections closed because the headers of a request did not arrive in time.
        pub heads_timed_out: IntCounter,
        /// WebSockets open now.
        pub sockets: IntGauge,
        /// WebSockets opened.
        pub sockets_opened: IntCounter,
        /// WebSockets closed, by close code: 1005 if the client's close frame had no code, 1006 if there was no close
        /// frame, `other` for any code that is not listed.
        pub sockets_closed: IntCounterBy<CloseCode>,
        /// Status frames written to sockets, without those replaced by a newer state.
        pub frames_sent: IntCounter,
        /// Jobs with at least one client on this edge.
        pub jobs_watched: IntGauge,
        /// Events received from the live feed, of watched jobs and all others.
        pub events_heard: IntCounter,
        /// Gaps detected in the live feed of watched jobs.
        pub gaps: IntCounter,
        /// Watched jobs whose last sequence was read from the log because they were quiet, or after a gap.
        pub quiet_jobs_asked: IntCounter,
        /// Lost events that only the sweep found.
        pub sweep_finds: IntCounter,
        /// Batches of states loaded.
        pub snapshot_batches: IntCounter,
        /// Loads of states that failed.
        pub snapshot_failures: IntCounter,
        /// HTTP responses, by status; 101 is an accepted WebSocket handshake.
        pub requests: IntCounterBy<Status>,
    }
}

/// The close code of a WebSocket. Clients choose theirs, so all codes but those of [`close::counted`] count as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// One of [`close::counted`].
    Expected(u16),
    /// Any other.
    Other,
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        if close::is_counted(code) { Self::Expected(code) } else { Self::Other }
    }
}

impl Label for CloseCode {
    const NAME: &'static str = "code";

    fn all() -> impl IntoIterator<Item = Self> {
        close::counted().into_iter().map(Self::Expected).chain([Self::Other])
    }

    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Expected(code) => code.to_string().into(),
            Self::Other => "other".into(),
        }
    }
}

/// The status of an HTTP response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub StatusCode);

impl Label for Status {
    const NAME: &'static str = "status";

    fn all() -> impl IntoIterator<Item = Self> {
        [
            StatusCode::SWITCHING_PROTOCOLS,
            StatusCode::OK,
            StatusCode::ACCEPTED,
            StatusCode::NO_CONTENT,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::FOUND,
            StatusCode::NOT_MODIFIED,
            StatusCode::BAD_REQUEST,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::CONFLICT,
            StatusCode::PRECONDITION_FAILED,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::RANGE_NOT_SATISFIABLE,
            StatusCode::UNPROCESSABLE_ENTITY,
            StatusCode::UPGRADE_REQUIRED,
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            StatusCode::INTERNAL_SERVER_ERROR,
            StatusCode::SERVICE_UNAVAILABLE,
        ]
        .map(Self)
    }

    fn text(&self) -> Cow<'_, str> {
        self.0.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use millrace_domain::close;
    use serde_json::Value;

    use super::{CloseCode, Label, Status};
    use crate::websocket::close::Closing;

    #[test]
    fn close_codes_that_clients_invent_count_as_one() {
        let text = |closing: Closing| CloseCode::from(closing.code()).text().into_owned();
        assert_eq!(text(Closing::Ours(close::UNKNOWN_JOB)), "4404");
        assert_eq!(text(Closing::Theirs(Some(1001))), "1001");
        assert_eq!(text(Closing::Theirs(None)), "1005");
        for code in [1003, 1011, 3000, 4999, u16::MAX] {
            assert_eq!(text(Closing::Theirs(Some(code))), "other");
        }
    }

    #[test]
    fn every_status_of_the_openapi_document_is_shown_from_the_start() {
        let document = include_str!("../../../schemas/openapi.json");
        let document: Value = serde_json::from_str(document).unwrap();
        let operations = document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap());
        let responses = operations.filter_map(|(_, operation)| operation.get("responses")?.as_object());
        let statuses: Vec<_> = responses.flat_map(|responses| responses.keys()).collect();
        let listed: Vec<_> = Status::all().into_iter().map(|status| status.text().into_owned()).collect();
        assert!(statuses.len() > listed.len());
        for status in statuses {
            assert!(listed.contains(status), "{status} is not listed");
        }
    }
}
