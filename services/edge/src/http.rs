//! HTTP on the clients' port, below the routes: hyper and its bounds, the allowed origins, and the errors.

pub mod server;
mod resumed;
pub mod keep_alive;
pub mod origin;
pub mod problem;
