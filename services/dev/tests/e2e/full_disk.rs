//! The disk on which a worker keeps downloads in flight is full: users and operators see it, and the job continues once
//! there is room.

use std::time::Duration;

use millrace_harness::{
    disk::{Disk, may_mount},
    processes::Service,
    wait::until,
};
use serde_json::Value;

use crate::stack::{JOB_MAX, Stack};

const MIB: u64 = 1024 * 1024;
/// More free space than a worker requires before it takes a job, and less than the video.
const TOO_LITTLE: u64 = 17 * MIB;
const ROOM: &str = "millrace_worker_work_room_bytes";

/// A system whose only worker has its own small disk, and the worker's admin address; in drop order.
struct Small {
    worker: Service,
    admin: String,
    disk: Disk,
    stack: Stack,
}

impl Small {
    async fn start() -> Self {
        let stack = Stack::queue_only().await;
        let work = stack.folder.path().join("work");
        std::fs::create_dir(&work).unwrap();
        let disk = Disk::mount(&work, 64 * MIB).unwrap();
        let (mut worker, admin) = stack.spawn_worker("work", &[]);
        worker.wait_ready(&admin, Duration::from_secs(30)).await.unwrap();
        Self { worker, admin, disk, stack }
    }

    /// Waits until the worker is not ready for lack of room; returns its message.
    async fn refuses(&self) -> String {
        let mut said = String::new();
        until("the worker is not ready", JOB_MAX, async || {
            let answer = reqwest::get(format!("{}/readyz", self.admin)).await.unwrap();
            let status = answer.status();
            said = answer.text().await.unwrap();
            status == 503 && said.contains("is full")
        })
        .await;
        said
    }

    /// Fills the disk except for this many bytes, and waits until the worker has checked it.
    async fn looks_again_with(&self, rest: u64) {
        self.disk.fill(rest).unwrap();
        #[allow(clippy::cast_precision_loss)]
        let rest = rest as f64;
        until("the worker looks for room", JOB_MAX, async || Stack::metric_at(&self.admin, ROOM).await <= rest).await;
    }
}

#[tokio::test]
async fn a_download_that_finds_the_disk_full_is_tried_again_with_the_reason_and_completes_once_there_is_room() {
    if !may_mount() {
        return;
    }
    let small = Small::start().await;
    let (stack, disk) = (&small.stack, &small.disk);
    for path in ["/video.mp4", "/page.html"] {
        disk.fill(TOO_LITTLE).unwrap();
        let id = stack.submit(path).await;
        let mut watcher = stack.watch(&id);
        let retrying = loop {
            let data = watcher.next_json(JOB_MAX).await.unwrap()["data"].clone();
            assert_ne!(data["status"], "failed", "{data}");
            if data["stage"] == "retrying" {
                break data;
            }
        };
        assert_eq!(retrying["errorCode"], "worker_full", "{retrying}");
        let history = stack.api.get(&format!("/api/download/{id}/events")).await.text();
        assert!(history.lines().any(|line| line.contains("retrying") && line.contains("no room")), "{history}");
        assert!(retrying["retryAt"].is_string(), "{retrying}");
        let (log, work) = (small.worker.log_tail(), stack.folder.path().join("work"));
        let told = log.lines().find(|line| line.contains("attempt failed: no room"));
        let told = told.unwrap_or_else(|| panic!("the log does not report it: {log}"));
        assert!(told.contains(work.to_str().unwrap()) && told.contains("--work-dir"), "{told}");

        disk.empty().unwrap();
        let end = stack.watch_to_end(&mut watcher).await.pop().unwrap();
        assert_eq!(end["status"], "completed", "{end}");
        assert!(end["attempt"].as_u64() >= Some(2), "{end}");
    }
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn a_worker_whose_disk_is_full_takes_no_job_and_says_so_until_there_is_room() {
    if !may_mount() {
        return;
    }
    let mut small = Small::start().await;
    small.disk.fill(3 * MIB).unwrap();
    let told = small.refuses().await;
    assert!(told.contains(small.stack.folder.path().join("work").to_str().unwrap()), "{told}");
    let id = small.stack.submit("/video.mp4").await;
    let mut watcher = small.stack.watch(&id);
    let queued: Value = watcher.next_json(JOB_MAX).await.unwrap();
    assert_eq!(queued["data"]["stage"], "queued", "{queued}");
    // At each check it could take the job; by its last check, it has finished the others.
    for rest in [2 * MIB, MIB, 0] {
        small.looks_again_with(rest).await;
    }
    assert_eq!(small.stack.queued().await, (1, 0), "the job was handed out");
    assert_eq!(small.stack.status(&id).await["stage"], "queued");

    small.disk.empty().unwrap();
    let end = small.stack.watch_to_end(&mut watcher).await.pop().unwrap();
    assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &1.into()), "{end}");
    small.worker.wait_ready(&small.admin, Duration::from_secs(30)).await.unwrap();
    small.stack.verify();
}
