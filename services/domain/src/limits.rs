//! The system's bounds that more than one part uses. Sizes are in bytes unless the name says otherwise.

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
/// Reads from one socket before the loop turns to the others.
pub const WS_READS_PER_TURN_MAX: u32 = 4;
/// Connections that a loop of sockets accepts before it turns to its sockets.
pub const ACCEPTS_PER_TURN_MAX: u32 = 32;
/// The window of the message rate.
pub const WS_RATE_WINDOW: Duration = Duration::from_secs(10);
/// How often the server pings a WebSocket client.
pub const WS_PING_INTERVAL: Duration = Duration::from_secs(25);
/// The edge closes a WebSocket client that sends nothing, not even a pong, for this long.
pub const WS_SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a socket waits for a job without a submission.
pub const UNKNOWN_JOB_WAIT: Duration = Duration::from_secs(60);
/// How long a client that claims to have seen more than the log has waits before the edge trusts the log's leader: a
/// newly elected leader may not have everything yet.
pub const SINCE_DOUBT: Duration = Duration::from_secs(2);
/// How long a socket stays open after the job's final state was sent.
pub const FINISHED_JOB_LINGER: Duration = Duration::from_secs(30);
/// How long one write to a client may take before the client counts as gone.
pub const CLIENT_WRITE_MAX: Duration = Duration::from_secs(30);

/// How long the body of a request may take.
pub const HTTP_BODY_MAX: Duration = Duration::from_secs(10);
/// How long the response to a WebSocket handshake waits for the job's state, to be sent together with it.
pub const HANDSHAKE_HOLD_MAX: Duration = Duration::from_millis(20);
/// From a connection's accept, or the first byte of a further request, to the end of the request's headers.
pub const HTTP_HEAD_MAX: Duration = Duration::from_secs(5);
/// How long a connection is kept for its next request.
pub const HTTP_KEEP_ALIVE_MAX: Duration = Duration::from_secs(60);
/// Largest head of an HTTP request; hyper takes no less than 8 KiB.
pub const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes that the kernel holds for a client beside those in flight to it. The edge holds the rest, where a newer state
/// replaces an older one; the kernel would hold megabytes for a client that does not read.
pub const UNSENT_BYTES_MAX: u32 = 16 * 1024;
/// Bytes of control frames, and of a frame that was begun, that are pending for one WebSocket client.
pub const CLIENT_CONTROL_BYTES_MAX: usize = 16 * 1024;
/// Headers of a WebSocket handshake that a loop of sockets answers itself; more than any browser or proxy sends.
pub const WS_HANDSHAKE_HEADERS_MAX: usize = 64;
/// Connections at once that get a response that the edge is full; further ones are closed without a response, since
/// each takes a file descriptor meanwhile.
pub const REFUSALS_IN_FLIGHT_MAX: usize = 64;
/// How long the refusal of one connection may take.
pub const REFUSAL_MAX: Duration = Duration::from_secs(2);
/// Bytes read from a refused connection before it is closed.
pub const REFUSAL_READ_BYTES_MAX: u64 = 64 * 1024;
/// File descriptors of an edge for everything but clients: NATS, served files, refused connections.
pub const FILES_RESERVED: usize = 200;
/// How long a WebSocket client may take to answer the edge's close frame.
pub const CLOSE_ANSWER_MAX: Duration = Duration::from_secs(2);
/// Connections that the kernel holds until the edge accepts them.
pub const LISTEN_BACKLOG: u32 = 4096;

/// Frames pending for one client of server-sent events; when more are due, only the newest stays.
pub const CLIENT_FRAMES_PENDING_MAX: usize = 16;
/// How long an edge collects first watches for one batched snapshot request.
pub const SNAPSHOT_BATCH_WINDOW: Duration = Duration::from_micros(300);
/// Batched snapshot requests of an edge in flight at once.
pub const SNAPSHOT_BATCHES_IN_FLIGHT_MAX: usize = 4;
/// Recent events of all jobs that an edge remembers: with them it knows which states in the bucket are the newest
/// without reading from the log. A few seconds' worth.
pub const RECENT_EVENTS: usize = 32_768;
/// An edge reads the projector's position only for at least this many wanted states.
pub const RECENT_STATES_MIN: usize = 16;
/// Shortest time between two reads of the projector's position.
pub const PROJECTED_REFRESH: Duration = Duration::from_secs(1);
/// For how long the position is used: no longer than the sweep takes to find a lost message.
pub const PROJECTED_AGE_MAX: Duration = SWEEP_INTERVAL;
/// Jobs of one batched snapshot request that are read from the log's leader at once.
pub const LEADER_READS_IN_FLIGHT_MAX: usize = 16;
/// Jobs of one batched snapshot request whose events are read at once.
pub const TAILS_IN_FLIGHT_MAX: usize = 16;
/// How long the state bucket may take before jobs are folded from the log instead.
pub const BUCKET_WAIT_MAX: Duration = Duration::from_secs(2);
/// How often an edge reads the log's last sequence, to detect lost messages, and the last sequence of a quiet job.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(3);
/// How many times a quiet job is checked at that interval, which then doubles.
pub const SWEEPS_FREQUENT: u32 = 3;
/// Longest time between two checks of a quiet job.
pub const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(96);
/// How long a message in the log may take to reach an edge.
pub const SWEEP_GRACE: Duration = Duration::from_millis(200);
/// Pause before a failed snapshot load is repeated.
pub const SNAPSHOT_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a signed address of a stored file is valid.
pub const SIGNED_URL_VALID: Duration = Duration::from_secs(15 * 60);
/// The `Retry-After` that a client gets when the log is unavailable, in seconds.
pub const RETRY_AFTER_SECONDS: u64 = 5;

/// Events that an edge holds back for one job while it loads the job's snapshot; on overflow it loads again.
pub const FEED_PENDING_MAX: usize = 256;
/// Jobs in one batched snapshot request. The server answers up to 1,024 subjects; a job has two.
pub const SNAPSHOT_BATCH_MAX: usize = 512;
/// Events fetched by one batched read of a job's history.
pub const HISTORY_BATCH_MAX: usize = 256;
/// Messages read from the leader before a stale replica is asked again.
pub const LEADER_BATCH_MAX: usize = 64;
/// How long the connection to NATS may be lost before the edge refuses clients' requests instead of waiting for it.
pub const NATS_LOST_MAX: Duration = Duration::from_secs(1);
/// How long one request to NATS may take.
pub const NATS_REQUEST_MAX: Duration = Duration::from_secs(5);
/// How long a starting service waits for JetStream to respond. Longer than a cluster takes to start.
pub const JETSTREAM_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two checks whether JetStream responds.
pub const JETSTREAM_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long an append with an unknown outcome is repeated. Longer than a leader election (6 to 8 s).
pub const APPEND_RETRY_MAX: Duration = Duration::from_secs(20);
/// A job that had entries counts as gone after this many reads in a row in which the leader has no entry of it, with an
/// abandoned append between them. A newly elected leader may report that once.
pub const ABSENCES_BELIEVED: u32 = 2;
/// Pause before an append is first repeated; it doubles.
pub const APPEND_PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause before an append is repeated.
pub const APPEND_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause before a state change is sent again while the log has no room.
pub const NO_ROOM_PAUSE: Duration = Duration::from_secs(2);
/// How many times a command is decided, if the events of other writers come first.
pub const DECIDE_ATTEMPTS_MAX: u32 = 8;

/// Longest line that a worker reads from a tool; a longer one is cut.
pub const TOOL_LINE_BYTES_MAX: usize = 256 * 1024;
/// Lines of a tool's error output that are kept to explain a failure.
pub const TOOL_STDERR_LINES_MAX: usize = 40;
/// Time between SIGTERM and SIGKILL to a process.
pub const TOOL_TERMINATE_GRACE: Duration = Duration::from_millis(500);
/// How long a killed process may take to vanish before the worker logs it and leaves it to the system.
pub const TOOL_VANISH_MAX: Duration = Duration::from_secs(2);
/// How long the downloader waits for a silent server, in each try.
pub const TOOL_SOCKET_SILENCE_MAX: Duration = Duration::from_secs(20);
/// How many times the downloader itself retries: a file, and each fragment of a stream.
pub const TOOL_RETRIES_MAX: u32 = 3;
/// How many times one attempt downloads a file from its beginning, if the source changes it meanwhile.
pub const MIXED_RUNS_MAX: u32 = 2;
/// How long before a reply a file must have changed last for the time to identify its version. Two changes within one
/// second, and clocks that differ, must not be mistaken for one version.
pub const LAST_MODIFIED_AGE_MIN: Duration = Duration::from_secs(60);
/// How long a part of a file is kept for the next attempt after its last byte was added.
pub const PARTS_KEPT_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// Parts that a worker keeps; beyond that, it removes the oldest.
pub const PARTS_KEPT_MAX: usize = 16;
/// Bytes of all parts that a worker keeps; beyond that, it removes the oldest.
pub const PARTS_KEPT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
/// How often a worker checks whether the jobs of its kept parts still need them.
pub const PARTS_SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// How long the last such check may take before the worker stops.
pub const PARTS_LAST_SWEEP_MAX: Duration = Duration::from_secs(2);
/// How long the probe of a downloaded file may take.
pub const TOOL_PROBE_MAX: Duration = Duration::from_secs(30);
/// How long a tool may take to report its version; a cold disk is slow.
pub const TOOL_VERSION_MAX: Duration = Duration::from_secs(20);
/// How often a running attempt checks whether its job was canceled or taken over.
pub const ATTEMPT_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Shortest time between two progress events of one attempt.
pub const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(250);
/// A worker takes no job while its work folder has less room than this, which is too little for most videos.
pub const WORK_ROOM_MIN: u64 = 16 * 1024 * 1024;
/// Longest time that a starting worker takes to make its folder; an older, unfinished folder belongs to a dead worker.
pub const WORK_FOLDER_MAKING_MAX: Duration = Duration::from_secs(60);
/// How often a worker without room checks for room.
pub const WORK_ROOM_INTERVAL: Duration = Duration::from_secs(2);
/// State changes of an attempt that are pending for the log; an attempt has fewer than this.
pub const ATTEMPT_OUTBOX_MAX: usize = 16;
/// How many attempts of a job may fail before it ends, unless configured.
pub const ATTEMPTS_MAX: u32 = 5;
/// How many workers a job may lose before it ends, unless configured.
pub const WORKERS_LOST_MAX: u32 = 10;
/// Longest pause before the first retry; before each further one it may be [`RETRY_GROWTH`] times as long.
pub const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// By how much the longest pause grows with each failure.
pub const RETRY_GROWTH: u32 = 3;
/// Shortest pause before any retry.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause before any retry, without the source's `Retry-After`.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Longest `Retry-After` of a source that a retry waits for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest pause before a job that could not be claimed is delivered again.
pub const CLAIM_RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Shortest time between two scans for expired jobs.
pub const RETENTION_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest time between two scans for expired jobs.
pub const RETENTION_INTERVAL_MAX: Duration = Duration::from_secs(10 * 60);
/// Bytes of one part of a multipart upload. Stores refuse parts under 5 MiB and more than 10,000 parts.
pub const UPLOAD_PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts of one upload in flight at once.
pub const UPLOAD_PARTS_IN_FLIGHT_MAX: usize = 4;

/// Unfinished uploads of a store that one scan reads; the rest follows in the next scan.
pub const UNFINISHED_UPLOADS_MAX: usize = 10_000;
/// Unfinished uploads per page; S3 returns no more.
pub const UNFINISHED_UPLOADS_PAGE_MAX: usize = 1000;
/// Files of a store that one scan reads, from a random starting point.
pub const JANITOR_FILES_MAX: usize = 10_000;
/// An unfinished upload of a job that the log does not know is aborted only at this age: it may belong to another
/// installation.
pub const UNKNOWN_UPLOAD_AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Messages that the projector folds at once.
pub const PROJECTOR_WINDOW_MESSAGES_MAX: usize = 1024;
/// Messages that a rebuild folds at once: more than the projector, since it writes only the newest state of a job.
pub const REBUILD_WINDOW_MESSAGES_MAX: usize = 8192;
/// How long the projector waits for more messages before it writes a window.
pub const PROJECTOR_WINDOW: Duration = Duration::from_millis(5);
/// How many times a projector reads from the log again when a replica is behind.
pub const PROJECTOR_READ_TRIES_MAX: u32 = 20;
/// How often a projector measures how many entries of the log are pending.
pub const PROJECTOR_LAG_INTERVAL: Duration = Duration::from_secs(2);
/// States that the projector keeps in memory between windows.
pub const PROJECTOR_CACHE_JOBS_MAX: usize = 20_000;
/// How long the projector waits for the quarantine to store the undecodable messages of a window. Well below the
/// consumer's `ack_wait`, or the window is delivered again.
pub const QUARANTINE_WAIT_MAX: Duration = Duration::from_secs(1);
/// The same wait while the quarantine has not stored the previous messages, so that the log does not wait for it
/// repeatedly.
pub const QUARANTINE_WAIT_AWAY_MAX: Duration = Duration::from_millis(200);
/// State writes in flight at once.
pub const PROJECTOR_WRITES_IN_FLIGHT_MAX: usize = 256;

/// Cuts `text` to `chars_max` characters, the last of which is then an ellipsis.
#[must_use]
pub fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}
