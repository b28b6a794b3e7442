//! Properties of the domain that hold for every history, well-formed or not.
//!
//! `generate` makes the input: events, garbage and the steps of a job's life. `log` is the stream in memory, with the
//! expected sequences that JetStream checks. The other modules state the properties.

mod contract;
mod deciding;
mod folding;
mod generate;
mod log;
mod reading;
