//! Named points at which a test stops this process: `MILLRACE_FAILPOINT=before_ack` kills it by SIGKILL when it reaches
//! the point, `before_ack:3` the third time, and `before_ack=stop` freezes it by SIGSTOP instead.
//!
//! Without the feature `failpoints`, as in every release, nothing is compiled in.

/// Every point, in the order in which a job reaches it. A test iterates over this list.
pub const POINTS: &[&str] = &[
    // Claim.
    "delivered",
    "before_retrying",
    "after_retrying",
    "before_started",
    "after_started",
    // Download.
    "before_info",
    "after_info",
    "before_progress",
    "after_progress",
    "before_downloaded",
    "after_downloaded",
    // Upload.
    "before_clean_up",
    "after_clean_up",
    "before_create_upload",
    "after_create_upload",
    "before_uploading",
    "after_uploading",
    "between_parts",
    "before_complete_upload",
    "after_complete_upload",
    "before_uploaded",
    "after_uploaded",
    // End.
    "before_completed",
    "after_completed",
    "before_failed",
    "after_failed",
    "before_ack",
    "after_ack",
];

/// The process has come to a point.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn reach(_point: &str) {}

/// The process is about to append an event.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn before(_body: &millrace_domain::EventBody) {}

/// The process has appended an event.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn after(_body: &millrace_domain::EventBody) {}

#[cfg(feature = "failpoints")]
pub use on::{after, before, reach};

#[cfg(feature = "failpoints")]
mod on {
    use std::{
        sync::{
            LazyLock,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use millrace_domain::EventBody;
    use rustix::process::{Signal, getpid, kill_process};

    use super::POINTS;

    const STOP_TAKES_MAX: Duration = Duration::from_millis(200);

    struct Armed {
        point: String,
        passes_left: AtomicU32,
        signal: Signal,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let given = std::env::var("MILLRACE_FAILPOINT").ok().filter(|given| !given.is_empty())?;
        let (place, signal) = match given.split_once('=') {
            Some((place, "stop")) => (place, Signal::STOP),
            Some(_) => panic!("MILLRACE_FAILPOINT={given}: only `=stop` is known"),
            None => (given.as_str(), Signal::KILL),
        };
        let (point, pass) = place.split_once(':').unwrap_or((place, "1"));
        assert!(POINTS.contains(&point), "MILLRACE_FAILPOINT={given}: no such point");
        let passes_left = AtomicU32::new(pass.parse().expect("MILLRACE_FAILPOINT: the pass is a number"));
        Some(Armed { point: point.to_owned(), passes_left, signal })
    });

    /// The process has come to a point.
    pub fn reach(point: &str) {
        debug_assert!(POINTS.contains(&point), "{point} is not in the list");
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.point == point) else { return };
        if armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            eprintln!("failpoint {point}");
            kill_process(getpid(), armed.signal).expect("a process may signal itself");
            // SIGKILL ends every thread before it returns; SIGSTOP may reach this one a moment later.
            std::thread::sleep(STOP_TAKES_MAX);
        }
    }

    /// The process is about to append an event.
    pub fn before(body: &EventBody) {
        around("before", body);
    }

    /// The process has appended an event.
    pub fn after(body: &EventBody) {
        around("after", body);
    }

    fn around(when: &str, body: &EventBody) {
        let tag = match body {
            EventBody::Started { .. } => "started",
            EventBody::Info { .. } => "info",
            EventBody::Progress(_) => "progress",
            EventBody::Downloaded { .. } => "downloaded",
            EventBody::Uploading { .. } => "uploading",
            EventBody::Uploaded(_) => "uploaded",
            EventBody::Completed => "completed",
            EventBody::Failed(_) => "failed",
            EventBody::Retrying { .. } => "retrying",
            _ => return,
        };
        reach(&format!("{when}_{tag}"));
    }
}
