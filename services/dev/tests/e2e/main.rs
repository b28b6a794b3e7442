//! The whole system as its users have it: real processes, a real nats-server, a real HTTP source with real media, a
//! WebSocket client that is not ours. Every HTTP answer is held against `schemas/openapi.json` and every message
//! against its schema; at the end of each test the projected states are held against the log by `cargo dev verify`.

mod api;
mod bucket_away;
mod cancel;
mod crowd;
mod delivery;
mod drain;
mod failures;
#[cfg(all(feature = "failpoints", feature = "s3"))]
mod fences;
mod fleet;
mod full_disk;
mod full_log;
mod handshake;
mod heard;
mod hostile;
mod http;
mod janitor;
#[cfg(all(feature = "failpoints", feature = "s3"))]
mod kills;
mod log_away;
mod resume;
mod retention;
mod retries;
#[cfg(feature = "s3")]
mod s3;
mod stack;
mod support;
mod watching;
