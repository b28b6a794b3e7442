//! A worker that is frozen past its lease, and wakes up while another worker runs its job.

use std::time::Duration;

use millrace_harness::wait::{holds_within, until};

use crate::{
    kills::check_file,
    stack::{JOB_MAX, Options, Stack, files_under},
};

fn is_frozen(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
}

const FENCED: &str = r#"millrace_worker_attempts_total{outcome="fenced"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_wakes_up_past_its_lease_leaves_the_job_to_its_successor() {
    let options = Options { without_worker: true, lease: Some(Duration::from_secs(3)), ..Default::default() };
    let stack = Stack::start_with(options).await;
    for point in ["before_completed", "between_parts", "after_progress"] {
        let id = stack.submit("/video.mp4?rate=5000000").await;
        let (first, admin) = stack.spawn_worker("first", &[("MILLRACE_FAILPOINT", &format!("{point}=stop"))]);
        until("the first worker freezes", JOB_MAX, async || is_frozen(first.pid())).await;
        let (second, _) = stack.spawn_worker("second", &[]);
        let begun = holds_within(JOB_MAX / 3, async || stack.status(&id).await["attempt"] == 2).await;
        assert!(begun, "{point}: the second worker does not begin: {}", second.log_tail());

        first.resume();
        until("the first worker is fenced", JOB_MAX, async || Stack::metric_at(&admin, FENCED).await == 1.0).await;
        let left = stack.left_in("first");
        assert!(left.is_empty(), "{point}: {left:?}");
        assert_eq!(stack.tools_in("first"), 0, "{point}: processes are left");
        assert_eq!(stack.status(&id).await["status"], "processing", "{point}: too late to see");
        assert_eq!(
            stack.queued().await,
            (0, 1),
            "{point}: the first worker has acknowledged the second one's delivery"
        );

        // Both would take the next job.
        drop(first);
        until("the job is done", JOB_MAX, async || stack.queued().await == (0, 0)).await;
        let stored = files_under(&stack.folder.path().join("files/jobs").join(&id));
        check_file(&stack, &id, &stored, &vec![point]).await;
        drop(second);
    }
    stack.verify();
}
