//! HTTP on the clients' port, below the calls: hyper and its bounds, the origins that are allowed, and the errors.

pub mod server;
mod resumed;
pub mod keep_alive;
pub mod origin;
pub mod problem;
