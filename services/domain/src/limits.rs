//! The bounds of the system that more than one part knows. Sizes are in bytes unless the name says otherwise.

use std::time::Duration;

/// Longest job id, in characters. Frozen: front ends rely on it.
pub const JOB_ID_CHARS_MAX: usize = 64;
/// Longest address that a submission may name; browsers and proxies cut longer ones.
pub const URL_BYTES_MAX: usize = 4096;
/// Largest body of an HTTP request.
pub const HTTP_BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Largest event: what the stream accepts as one message.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Longest title, in characters; the rest is cut.
pub const TITLE_CHARS_MAX: usize = 300;
/// Longest thumbnail address; a longer one is left out.
pub const THUMBNAIL_BYTES_MAX: usize = 2048;
/// Longest stem of a stored file's name, in characters; the rest is cut.
pub const FILE_STEM_CHARS_MAX: usize = 120;
/// Longest error sentence, in characters; the rest is cut.
pub const ERROR_CHARS_MAX: usize = 500;

/// Largest frame that a WebSocket client may send.
pub const WS_FRAME_BYTES_MAX: usize = 4 * 1024;
/// How many messages a WebSocket client may send within [`WS_RATE_WINDOW`].
pub const WS_MESSAGES_PER_WINDOW_MAX: u32 = 20;
/// How many frames of any kind, pongs and parts of messages too, a WebSocket client may send within [`WS_RATE_WINDOW`].
pub const WS_FRAMES_PER_WINDOW_MAX: u32 = 100;
/// How often one socket is read before the others have their turn.
pub const WS_READS_PER_TURN_MAX: u32 = 4;
/// How many connections a loop of sockets takes before its sockets have their turn.
pub const ACCEPTS_PER_TURN_MAX: u32 = 32;
/// The window of the message rate.
pub const WS_RATE_WINDOW: Duration = Duration::from_secs(10);
/// How often the server pings a WebSocket client.
pub const WS_PING_INTERVAL: Duration = Duration::from_secs(25);
/// A WebSocket client that sends nothing, not even a pong, for so long is closed.
pub const WS_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a socket waits for a job that nobody has submitted.
pub const UNKNOWN_JOB_WAIT: Duration = Duration::from_secs(60);
/// How long a client that claims to have seen more than the log has waits until the log's leader is believed: one that
/// was just elected may not have everything yet.
pub const SINCE_DOUBT: Duration = Duration::from_secs(2);
/// How long a socket stays open after the job's final state was sent.
pub const FINISHED_JOB_LINGER: Duration = Duration::from_secs(30);
/// How long one write to a client may take before the client counts as gone.
pub const CLIENT_WRITE_MAX: Duration = Duration::from_secs(30);

/// How long the body of a request may take.
pub const HTTP_BODY_MAX: Duration = Duration::from_secs(10);
/// How long the answer to a WebSocket handshake waits for the job's state, to be sent together with it.
pub const HANDSHAKE_HOLD_MAX: Duration = Duration::from_millis(20);
/// From a connection's accept, or the first byte of a further request, to the end of the request's headers.
pub const HTTP_HEAD_MAX: Duration = Duration::from_secs(5);
/// How long a connection is kept for its next request.
pub const HTTP_KEEP_ALIVE_MAX: Duration = Duration::from_secs(60);
/// Largest head of an HTTP request; hyper takes no less than 8 KiB.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes that the kernel holds for a client beside those under way to it. More waits with us, where a newer state
/// replaces an older one; the kernel would take megabytes for a client that does not read.
pub const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of control frames, and of a frame that was begun, that wait for one WebSocket client.
pub const CLIENT_CONTROL_BYTES_MAX: usize = 16 * 1024;
/// Headers of a WebSocket handshake that a loop of sockets answers by itself; more than any browser or proxy sends.
pub const WS_HANDSHAKE_HEADERS_MAX: usize = 64;
/// Connections at once that are told that there is no place for them; more are closed without a word, since each takes
/// a file descriptor meanwhile.
pub const REFUSALS_IN_FLIGHT_MAX: usize = 64;
/// How long it may take to tell one.
pub const REFUSAL_MAX: Duration = Duration::from_secs(2);
/// What is read of one before it is closed.
pub const REFUSAL_READ_BYTES_MAX: u64 = 64 * 1024;
/// File descriptors of an edge for everything but clients: NATS, files that are served, those who are refused.
pub const FILES_RESERVED: usize = 200;
/// How long a WebSocket client may take to answer our close.
pub const CLOSE_ANSWER_MAX: Duration = Duration::from_secs(2);
/// Connections that the kernel holds for us until they are accepted.
pub const LISTEN_BACKLOG: u32 = 4096;

/// Frames that wait for one client of server-sent events; when more are due, only the newest stays.
pub const CLIENT_FRAMES_PENDING_MAX: usize = 16;
/// How long an edge gathers first watches for one batched snapshot request.
pub const SNAPSHOT_BATCH_WINDOW: Duration = Duration::from_micros(300);
/// Batched snapshot requests of an edge under way at once.
pub const SNAPSHOT_BATCHES_IN_FLIGHT_MAX: usize = 4;
/// Events that an edge remembers having heard, of whatever job: with them it knows which states of the bucket are the
/// newest without asking the log. A few seconds' worth.
pub const RECENT_EVENTS: usize = 32_768;
/// States that must be wanted for it to be worth a question how far the projector is.
pub const RECENT_STATES_MIN: usize = 16;
/// Shortest time between two such questions.
pub const PROJECTED_REFRESH: Duration = Duration::from_secs(1);
/// For how long the answer is used: no longer than it takes until the sweep finds what nobody saw lost.
pub const PROJECTED_AGE_MAX: Duration = SWEEP_INTERVAL;
/// Jobs of one batched snapshot request that are read of the log's leader at once.
pub const LEADER_READS_IN_FLIGHT_MAX: usize = 16;
/// Jobs of one batched snapshot request whose events are read at once.
pub const TAILS_IN_FLIGHT_MAX: usize = 16;
/// How long the bucket of states may take before jobs are folded from the log instead.
pub const BUCKET_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often an edge asks the log whether it has heard everything, and for the last sequence of a job that is quiet.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(3);
/// How often a quiet job is asked for at that interval, which then doubles.
pub const SWEEPS_FREQUENT: u32 = 3;
/// Longest time between two questions for a quiet job.
pub const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(96);
/// How long a message that is in the log may be on its way to an edge.
pub const SWEEP_GRACE: Duration = Duration::from_millis(200);
/// Pause before a failed snapshot load is tried again.
pub const SNAPSHOT_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// For how long a signed address of a stored file is valid.
pub const SIGNED_URL_VALID: Duration = Duration::from_secs(15 * 60);
/// How long a client is asked to wait when the log is not available, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 5;

/// Events that an edge holds back for one job while it loads the job's snapshot; on overflow it loads again.
pub const FEED_PENDING_MAX: usize = 256;
/// Jobs in one batched snapshot request. The server answers up to 1,024 subjects; a job has two.
pub const SNAPSHOT_BATCH_MAX: usize = 512;
/// Events fetched by one batched read of a job's history.
pub const HISTORY_BATCH_MAX: usize = 256;
/// How long the connection to NATS may be lost before requests of clients are refused instead of waiting for it.
pub const NATS_LOST_MAX: Duration = Duration::from_secs(1);
/// How long one request to NATS may take.
pub const NATS_REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long a service that starts waits for JetStream to answer. Longer than a cluster takes to start.
pub const JETSTREAM_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks whether JetStream answers.
pub const JETSTREAM_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// For how long an append whose outcome is unknown is repeated. Longer than a leader election (6 to 8 s).
pub const APPEND_RETRY_MAX: Duration = Duration::from_secs(20);
/// So often in a row, with the time of an append that is given up between them, a leader must say that it knows nothing
/// of a job of which it had something before. One that was just elected may say so once.
pub const ABSENCES_BELIEVED: u32 = 2;
/// Pause before an append is first repeated; it doubles.
pub const APPEND_PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause before an append is repeated.
pub const APPEND_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause before a state change that the log has no room for is sent again.
pub const NO_ROOM_PAUSE: Duration = Duration::from_secs(2);
/// How often a command is decided anew after somebody else's event came first.
pub const DECIDE_ATTEMPTS_MAX: u32 = 8;

/// Longest line that a worker reads from a tool; a longer one is cut.
pub const TOOL_LINE_BYTES_MAX: usize = 256 * 1024;
/// Lines of a tool's error output that are kept to explain a failure.
pub const TOOL_STDERR_LINES_MAX: usize = 40;
/// A process gets so long between SIGTERM and SIGKILL.
pub const TOOL_TERMINATE_GRACE: Duration = Duration::from_millis(500);
/// How long a killed process may take to vanish before it is left to the system, with a line in the log.
pub const TOOL_VANISH_MAX: Duration = Duration::from_secs(2);
/// How long the downloader waits for a silent server, each time that it tries.
pub const TOOL_SOCKET_SILENCE_MAX: Duration = Duration::from_secs(20);
/// How often the downloader tries again by itself: for a file, and for each fragment of a stream.
pub const TOOL_RETRIES_MAX: u32 = 3;
/// How often a file is downloaded from its beginning in one attempt, where the source changes it on the way.
pub const MIXED_RUNS_MAX: u32 = 2;
/// How long before a reply a file must have changed last so that the time tells its version. Two changes in one second,
/// and clocks that differ, are not to be mistaken.
pub const LAST_MODIFIED_AGE_MIN: Duration = Duration::from_secs(60);
/// How long a part of a file is kept for the next attempt after the last byte was added.
pub const PARTS_KEPT_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// Parts that a worker keeps; of more, the oldest go.
pub const PARTS_KEPT_MAX: usize = 16;
/// Bytes of all parts that a worker keeps; of more, the oldest go.
pub const PARTS_KEPT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// How often a worker looks whether the jobs of the parts that it keeps still need them.
pub const PARTS_SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// How long it may take to look a last time before the worker stops.
pub const PARTS_LAST_SWEEP_MAX: Duration = Duration::from_secs(2);
/// How long looking into a downloaded file may take.
pub const TOOL_PROBE_MAX: Duration = Duration::from_secs(30);
/// How long a tool may take to tell its version; a cold disk is slow.
pub const TOOL_VERSION_MAX: Duration = Duration::from_secs(20);
/// How often a running attempt looks whether its job was canceled or taken over.
pub const ATTEMPT_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest time between two progress events of one attempt.
pub const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// A worker takes no job while there is less room than this in its work folder: hardly a video would fit.
pub const WORK_ROOM_MIN: u64 = 16 * 1024 * 1024;
/// Longest time that a worker takes to make its folder at its start; one that is older and not finished is a dead
/// worker's.
pub const WORK_FOLDER_MAKING_MAX: Duration = Duration::from_secs(60);
/// How often a worker without room looks whether there is some again.
pub const WORK_ROOM_INTERVAL: Duration = Duration::from_secs(2);
/// State changes of an attempt that wait for the log; an attempt has fewer than this.
pub const ATTEMPT_OUTBOX_MAX: usize = 16;
/// How many attempts of a job may fail before it ends, where nobody has configured it.
pub const ATTEMPTS_MAX: u32 = 5;
/// How many workers a job may cost before it ends, where nobody has configured it.
pub const WORKERS_LOST_MAX: u32 = 10;
/// Longest pause before the first retry; each further one may be [`RETRY_GROWTH`] times as long.
pub const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// By how much the longest pause grows with each failure.
pub const RETRY_GROWTH: u32 = 3;
/// Shortest pause before any retry.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause before any retry, but for what the source itself asks for.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest `Retry-After` of a source that is waited for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest pause before a job that could not be claimed is delivered again.
pub const CLAIM_RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two looks for jobs that have expired.
pub const RETENTION_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest time between two looks for jobs that have expired.
pub const RETENTION_INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);
/// Bytes of one part of a multipart upload. Stores refuse parts under 5 MiB and more than 10,000 parts.
pub const UPLOAD_PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts of one upload under way at once.
pub const UPLOAD_PARTS_IN_FLIGHT_MAX: usize = 4;

/// Unfinished uploads of a store that are looked at in one go; the rest comes the next time.
pub const UNFINISHED_UPLOADS_MAX: usize = 10_000;
/// Unfinished uploads that a store is asked for at once; S3 tells no more.
pub const UNFINISHED_UPLOADS_PAGE_MAX: usize = 1000;
/// Files of a store that are looked at in one go, from a place that chance decides.
pub const JANITOR_FILES_MAX: usize = 10_000;
/// An unfinished upload of a job that the log does not know is aborted so long after its begin, and not before: it may
/// be another installation's.
pub const UNKNOWN_UPLOAD_AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Messages that the projector folds at once.
pub const PROJECTOR_WINDOW_MESSAGES_MAX: usize = 1024;
/// Messages that a rebuild folds at once: more, since the newest state of a job stands for all before it.
pub const REBUILD_WINDOW_MESSAGES_MAX: usize = 8192;
/// How long the projector waits for more messages before it writes what it has.
pub const PROJECTOR_WINDOW: Duration = Duration::from_millis(5);
/// How often a projector asks a replica of the log again that is behind.
pub const PROJECTOR_READ_TRIES_MAX: u32 = 20;
/// How often a projector looks how much of the log waits.
pub const PROJECTOR_LAG_INTERVAL: Duration = Duration::from_secs(2);
/// States that the projector keeps in memory between windows.
pub const PROJECTOR_CACHE_JOBS_MAX: usize = 20_000;
/// How long the projector waits for the quarantine to take the messages of a window that cannot be read. Well below
/// the consumer's `ack_wait`, or the window is delivered again.
pub const QUARANTINE_WAIT_MAX: Duration = Duration::from_secs(1);
/// The same while the quarantine has not taken the ones before: the log must not wait for it again and again.
pub const QUARANTINE_WAIT_AWAY_MAX: Duration = Duration::from_millis(200);
/// State writes under way at once.
pub const PROJECTOR_WRITES_IN_FLIGHT_MAX: usize = 256;

/// Cuts `text` after `chars_max` characters, marking the cut by an ellipsis.
#[must_use]
pub fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}
