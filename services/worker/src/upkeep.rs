//! What may be removed from the object store and the log, and when.
//!
//! [`cleaning`] removes what attempts that are over have stored, where a delivery leads to their job. [`janitor`]
//! searches the store itself for what no delivery leads to. [`retention`] removes whole jobs that ended long ago.

pub mod cleaning;
pub mod janitor;
pub mod retention;
