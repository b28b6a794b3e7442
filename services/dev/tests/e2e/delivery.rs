//! A job from its address to its link, message by message.

use serde_json::{Value, json};

use crate::{
    stack::{JOB_MAX, Stack, files_under},
    support::{STEPS, sha256, steps},
};

/// Slow enough for several progress messages, fast enough for a test: about 5 s.
const RATE: u64 = 4_000_000;

#[tokio::test]
async fn a_job_goes_through_every_step_and_the_link_gives_the_sources_bytes() {
    let stack = Stack::start().await;
    let id = stack.submit(&format!("/video.mp4?rate={RATE}")).await;
    let mut watcher = stack.watch(&id);
    let statuses = stack.watch_to_end(&mut watcher).await;

    assert_contract(&statuses, &id);
    let progress = progress_of(&statuses);
    for step in [5, 10, 90, 92, 98, 100] {
        assert!(progress.contains(&step), "{step} % was skipped: {progress:?}");
    }
    let downloading = progress.iter().filter(|p| (15..=89).contains(*p)).count();
    assert!(downloading >= 3, "only {downloading} messages while downloading: {progress:?}");

    let end = statuses.last().unwrap();
    assert_eq!(end["status"], "completed");
    assert_eq!(end["storageProvider"], "local");
    assert_eq!(end["fileSize"], stack.media.video_size());
    assert_eq!(end["videoInfo"]["quality"], "360p", "{end}");
    assert_eq!(end["videoInfo"]["duration"], 20, "{end}");
    let url = end["downloadUrl"].as_str().expect("a link");
    assert_eq!(url, format!("{}/api/download/{id}/file", stack.api.base));
    let file = stack.api.get(&format!("/api/download/{id}/file")).await;
    assert_eq!(file.status, 200);
    assert_eq!(sha256(&file.body), stack.media.video_sha256());
    assert_eq!(file.header("content-type"), "video/mp4");
    assert!(file.header("content-disposition").starts_with("attachment; filename=\""), "{:?}", file.headers);

    let part = stack.api.get_with(&format!("/api/download/{id}/file"), &[("range", "bytes=100-199")]).await;
    assert_eq!((part.status, part.body.as_slice()), (206, &file.body[100..200]));

    let beyond = stack.api.get_with(&format!("/api/download/{id}/file"), &[("range", "bytes=999999999-")]).await;
    assert_eq!((beyond.status, beyond.json()["code"].as_str()), (416, Some("range_not_satisfiable")));
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", file.body.len()));

    let tag = file.header("etag");
    for (validator, expected) in
        [(tag, 206), (file.header("last-modified"), 206), ("\"another\"", 200), ("W/\"x\"", 200)]
    {
        let headers = [("range", "bytes=100-199"), ("if-range", validator)];
        let answer = stack.api.get_with(&format!("/api/download/{id}/file"), &headers).await;
        let length = if expected == 206 { 100 } else { file.body.len() };
        assert_eq!((answer.status, answer.body.len()), (expected, length), "If-Range: {validator}");
    }
    let other = stack.api.get_with(&format!("/api/download/{id}/file"), &[("if-match", "\"another\"")]).await;
    assert_eq!((other.status, other.json()["code"].as_str()), (412, Some("precondition_failed")));

    let status = stack.status(&id).await;
    assert_eq!(&status, end, "HTTP and WebSocket report the same");
    assert_history(&stack, &id, end).await;
    let stored = files_under(&stack.folder.path().join("files"));
    assert_eq!(stored.len(), 1);
    assert!(stored[0].to_string_lossy().contains(&format!("/jobs/{id}/1/")), "{stored:?}");
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn a_page_with_a_video_on_it_is_downloaded_with_its_title() {
    let stack = Stack::start().await;
    let end = stack.end_of("/page.html").await;
    assert_eq!(end["status"], "completed", "{end}");
    assert!(end["videoInfo"]["title"].as_str().is_some_and(|title| !title.is_empty()), "{end}");
    assert!(end["videoInfo"]["thumbnail"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1")), "{end}");
    let file = stack.api.get(&format!("/api/download/{}/file", end["jobId"].as_str().unwrap())).await;
    assert_eq!(sha256(&file.body), stack.media.video_sha256());
    stack.verify();
}

#[tokio::test]
async fn quality_picks_the_best_format_that_is_not_above_it() {
    let stack = Stack::start().await;
    let url = stack.media.url("/hls/master.m3u8");
    for (quality, expected) in [(json!("480p"), "480p"), (json!("700p"), "480p"), (Value::Null, "720p")] {
        let id = stack.submit_with(json!({"url": url, "quality": quality})).await;
        let mut watcher = stack.watch(&id);
        let statuses = stack.watch_to_end(&mut watcher).await;
        assert_contract(&statuses, &id);
        let end = statuses.last().unwrap();
        assert_eq!(end["status"], "completed", "{end}");
        assert_eq!(end["videoInfo"]["quality"], expected, "asked for {quality}: {end}");
    }
    stack.assert_no_leftovers();
    stack.verify();
}

/// Asserts the contract for any job's messages.
fn assert_contract(statuses: &[Value], id: &str) {
    for pair in statuses.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        assert!(before["seq"].as_u64() < after["seq"].as_u64(), "seq must rise: {before} {after}");
        if before["attempt"] == after["attempt"] {
            assert!(before["progress"].as_u64() <= after["progress"].as_u64(), "progress fell: {before} {after}");
        }
    }
    for status in statuses {
        assert_eq!(status["jobId"], id);
        let progress = status["progress"].as_u64().unwrap();
        assert_eq!(status.get("videoInfo").is_some(), progress >= 10, "videoInfo is there from 10 on: {status}");
        assert_eq!(status.get("downloadUrl").is_some(), status["status"] == "completed", "{status}");
        assert_eq!(status.get("storageProvider").is_some(), progress >= 90, "{status}");
        assert!(!status.to_string().contains("null"), "{status}");
    }
}

fn progress_of(statuses: &[Value]) -> Vec<u64> {
    statuses.iter().map(|status| status["progress"].as_u64().unwrap()).collect()
}

async fn assert_history(stack: &Stack, id: &str, end: &Value) {
    let history = stack.api.get(&format!("/api/download/{id}/events")).await;
    assert_eq!(history.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = history.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps(&lines), STEPS);
    assert_eq!(lines.last().unwrap()["seq"], end["seq"]);
    assert_eq!(lines[1]["worker"], "worker-under-test");
}

#[tokio::test]
async fn many_jobs_at_once_all_reach_their_links() {
    let stack = Stack::start().await;
    let mut watchers = Vec::new();
    for _ in 0..4 {
        let id = stack.submit("/video.mp4").await;
        watchers.push(stack.watch(&id));
    }
    for watcher in &mut watchers {
        let end = tokio::time::timeout(JOB_MAX, stack.watch_to_end(watcher)).await.expect("in time").pop().unwrap();
        assert_eq!(end["status"], "completed", "{end}");
    }
    stack.assert_no_leftovers();
    stack.verify();
}
