//! The whole system as users run it: real processes, a real nats-server, a real HTTP source with real media, a foreign
//! WebSocket client. The tests check every HTTP answer against `schemas/openapi.json` and every message against its
//! schema; at the end of each test `millrace verify` checks the projected states against the log.
//!
//! # On a busy machine
//!
//! A test waits for an event (`harness::wait`), with a bound that only a broken system reaches: `JOB_MAX` for what a
//! worker does, `SOON` for an answer. A busy machine makes these tests slow, not red. A test pauses only where time is
//! its subject: a slow client, an idle connection, the length of an outage, the pace of a load.
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
