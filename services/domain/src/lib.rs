//! The pure core of Millrace: what a job is, which events it may go through, and what clients are told.
//!
//! Nothing here reads a clock, draws a random number or does I/O; time and entropy are arguments.
//! The modules stand in the order in which a job meets them: an id, the subject it is written to, the
//! events, the decision that makes an event, the fold that turns events into state, the wire message.

pub mod append;
pub mod decide;
pub mod event;
pub mod execution;
pub mod failure;
pub mod files;
pub mod fold;
pub mod ids;
pub mod limits;
pub mod retry;
pub mod state;
pub mod subjects;
pub mod submission;
pub mod wire;

pub use decide::{Command, Refusal, decide};
pub use event::{Event, EventBody, Provider, Undecodable, VideoInfo};
pub use fold::{Entry, fold, fold_all};
pub use ids::JobId;
pub use state::{JobState, Stage, Status};
pub use submission::{Quality, SourceUrl, Submission};
