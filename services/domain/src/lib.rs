//! The pure core of Millrace: what a job is, which events it may go through, and what clients receive.
//!
//! Nothing here reads a clock, draws a random number or does I/O; time and entropy are arguments. The modules stand in
//! the order in which a job meets them: its id, its submission, the subjects it is written to; the events, the decision
//! that makes an event, its execution and its append; the fold that turns events into state, the wire message, the
//! stored file.

pub mod ids;
pub mod submission;
pub mod subjects;

pub mod event;
pub mod failure;
pub mod retry;
pub mod decide;
pub mod execution;
pub mod append;

pub mod fold;
pub mod state;
pub mod wire;
pub mod close;
pub mod files;

pub mod limits;

pub use decide::{Command, Refusal, decide};
pub use event::{Event, EventBody, Provider, Undecodable, VideoInfo};
pub use fold::{Entry, fold, fold_all};
pub use ids::JobId;
pub use state::{JobState, Stage, Status};
pub use submission::{Quality, SourceUrl, Submission};
