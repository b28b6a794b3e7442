//! The whole system as its users have it: real processes, a real nats-server, a real HTTP source with real media, a
//! WebSocket client that is not ours. Every HTTP answer is held against `schemas/openapi.json` and every message
//! against its schema; at the end of each test the projected states are held against the log by `millrace verify`.
//!
//! # On a busy machine
//!
//! A test waits for an event (`harness::wait`), with a bound that only a broken system reaches: `JOB_MAX` for what a
//! worker does, `SOON` for an answer. A busy machine makes these tests slow, not red. A pause is in a test only where
//! time is what it is about: a client that is slow, a connection that rests, the span of an outage, the pace of a load.
//!
//! Three tests, here and in the projector's crate, hold a time to a bound. Where they fail on a machine that did other
//! things as well, run them alone before you look for a cause:
//!
//! * `crowd.rs`: latency beside a thousand deaf sockets. A second edge without the crowd is the control: what the
//!   machine does to both is allowed to both, and the best of three windows counts.
//! * `drain.rs`: closes spread over the drain. It measures for how long it was itself not run, and widens its window by
//!   that.
//! * `projector/tests/projection/failover.rs`: a standby takes over within 3 s; it allows 5 s, and a processor that is
//!   not given to the standby for 2 s makes it fail.

mod api;
mod bucket_away;
mod cancel;
mod crowd;
mod delivery;
mod drain;
mod failures;
mod fences;
mod fleet;
mod full_disk;
mod full_log;
mod handshake;
mod heard;
mod hostile;
mod http;
mod janitor;
mod kills;
mod log_away;
mod metrics;
mod resume;
mod retention;
mod retries;
mod s3;
mod stack;
mod support;
mod watching;
