//! yt-dlp: how it is called, and what it says.

pub(crate) mod command;
pub(crate) mod session;
pub(crate) mod protocol;
pub(crate) mod progress;
mod traffic;
pub(crate) mod classify;
