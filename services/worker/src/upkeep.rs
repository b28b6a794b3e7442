//! Removes what is no longer needed from the object store and the log.
//!
//! [`cleaning`] removes what finished attempts have stored, when a delivery refers to their job. [`janitor`] searches
//! the store itself for remains that no delivery refers to. [`retention`] removes whole jobs that ended long ago.

pub mod cleaning;
pub mod janitor;
pub mod retention;
