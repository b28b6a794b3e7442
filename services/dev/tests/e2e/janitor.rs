//! The janitor removes files and uploads in the store that belong to no job, and keeps all others.

use std::path::Path;

use millrace_harness::wait::until;

use crate::stack::{JOB_MAX, Options, Stack};

fn put(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "what a dead worker has left").unwrap();
}

#[tokio::test]
async fn files_of_attempts_that_are_over_go_and_those_of_jobs_that_live_or_that_nobody_knows_stay() {
    let env = vec![("MILLRACE_JANITOR_MINUTES".to_owned(), "0.005".to_owned())];
    let stack = Stack::start_with(Options { env, ..Default::default() }).await;
    let files = stack.folder.path().join("files");
    let done = stack.end_of("/video.mp4").await;
    let (done, link) = (done["jobId"].as_str().unwrap().to_owned(), done["downloadUrl"].as_str().unwrap().to_owned());
    let failed = stack.end_of("/missing.mp4").await["jobId"].as_str().unwrap().to_owned();
    let running = stack.submit("/stall.mp4").await;
    until("the job starts", JOB_MAX, async || stack.status(&running).await["attempt"] == 1).await;
    let goes = [format!("{done}/1/other.mp4"), format!("{done}/1/video.mp4#7"), format!("{failed}/1/video.mp4")];
    let stays = [format!("{running}/1/video.mp4#1"), "of-nobody/1/video.mp4".to_owned(), "read.me".to_owned()];
    for file in goes.iter().chain(&stays) {
        put(&files.join("jobs").join(file));
    }
    let exists = |file: &String| files.join("jobs").join(file).exists();
    until("what dead workers have left goes", JOB_MAX, async || !goes.iter().any(exists)).await;
    for file in &stays {
        assert!(exists(file), "{file} is gone");
    }
    assert_eq!(reqwest::get(&link).await.unwrap().status(), 200, "{link}");
    stack.verify();
}
