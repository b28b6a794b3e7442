//! Real media and a real website that serves it, with faults on request.
//!
//! [`MediaFiles::make`] lets ffmpeg make the files, once; [`MediaServer::start`] serves them over HTTP on the paths in
//! [`PATHS`].

mod files;
mod pages;
mod response;
mod server;
mod throttle;

pub use files::{MediaFiles, MediaSpec};
pub use server::{MediaServer, PATHS};
