//! The shell against a real nats-server, one for each test, and the services as processes.

mod jobs;
mod log;
mod log_outage;
mod no_room;
mod nats;
mod process;
mod provision;
mod provision_check;
mod queue;
mod snapshots;
mod support;
