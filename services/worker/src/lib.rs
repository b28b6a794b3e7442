//! The worker: takes jobs, downloads and stores.

pub mod media;
