//! Downloads that resume an earlier one, and downloads that must not.

use std::sync::Arc;

use millrace_domain::{failure::FailureKind, limits::TOOL_RETRIES_MAX};
use millrace_harness::media::MediaServer;
use millrace_media::{MediaError, Step, can_be_resumed};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::trial::{Trial, assert_fails, ffmpeg, files, sha256, sha256_of};

/// The downloader requests an address once to examine it, and then as often as its retries allow: all of these break
/// off.
fn broken(more: &str) -> String {
    format!("/video.mp4?breaks={}{more}", 1 + 1 + TOOL_RETRIES_MAX)
}

fn original() -> Vec<u8> {
    std::fs::read(files().video()).unwrap()
}

/// Another video: other bytes throughout, except the ones that players read first.
fn other() -> Vec<u8> {
    let mut bytes = original();
    let from = bytes.len() / 4;
    bytes.iter_mut().skip(from).step_by(500).for_each(|byte| *byte = !*byte);
    bytes
}

/// The original with a box at its end that players pass over.
fn longer() -> Vec<u8> {
    [&other()[..], &[0, 0, 0, 16], b"free", &[0; 8]].concat()
}

/// A trial whose first attempt has broken off in the middle.
async fn broken_off(path: &str) -> Trial {
    let mut trial = Trial::new();
    assert_fails(trial.download(path, None).await, FailureKind::SourceBroken);
    trial.again();
    trial
}

/// Bytes to resume from: about half of the file, since the bytes in flight at the break are lost.
fn kept_bytes(trial: &Trial) -> u64 {
    assert!(can_be_resumed(trial.folder.path()));
    trial.folder.path().join("media.mp4.part").metadata().unwrap().len()
}

/// The number of requests with a range, and the last range.
fn ranges(trial: &Trial) -> (usize, Option<String>) {
    let ranges = trial.site.ranges("/video.mp4");
    (ranges.len(), ranges.last().cloned())
}

#[tokio::test]
async fn a_download_that_broke_off_goes_on_where_it_was() {
    for version in ["", "&version=date"] {
        let mut trial = broken_off(&broken(version)).await;
        let ((before, _), kept) = (ranges(&trial), kept_bytes(&trial));
        assert!(kept > trial.site.video_size() / 4, "{kept}");
        let media = trial.download(&broken(version), None).await.unwrap();
        assert_eq!(ranges(&trial), (before + 1, Some(format!("bytes={kept}-"))));
        assert_eq!((sha256(&media.path), trial.resumed), (trial.site.video_sha256().to_owned(), Some(kept)));
        assert!(trial.progress[0].downloaded_bytes > kept, "{:?}", trial.progress);
    }
}

#[tokio::test]
async fn a_download_that_was_stopped_goes_on_where_it_was() {
    let mut trial = Trial::new();
    let url = trial.site.url("/video.mp4?rate=2000000");
    for attempt in 1..=2 {
        let (cancel, size) = (CancellationToken::new(), trial.site.video_size());
        let far = |step: &Step| {
            if let Step::Progress(progress) = step
                && progress.downloaded_bytes > size / 4 * attempt
            {
                cancel.cancel();
            }
        };
        assert_eq!(trial.download_with(&url, None, &cancel, far).await, Err(MediaError::Canceled));
        assert!(can_be_resumed(trial.folder.path()), "attempt {attempt}");
        assert_eq!(trial.resumed.is_some(), attempt == 2);
        trial.again();
    }
    let media = trial.download_url(&url, None).await.unwrap();
    assert!(trial.resumed.unwrap() > media.size / 4, "{:?}", trial.resumed);
    assert_eq!(sha256(&media.path), trial.site.video_sha256());
}

#[tokio::test]
async fn a_file_that_has_changed_in_between_is_downloaded_as_a_whole() {
    for (version, changed) in [("", other()), ("", longer()), ("&version=date", longer()), ("", short())] {
        let mut trial = broken_off(&broken(version)).await;
        trial.site.replace("/video.mp4", changed.clone());
        let media = trial.download(&broken(version), None).await.unwrap();
        assert_eq!((sha256(&media.path), trial.resumed), (sha256_of(&changed), None), "{} bytes", changed.len());
    }
}

/// A video that is shorter than what was downloaded of the original.
fn short() -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let video = files().video();
    let input = ["-i", video.to_str().unwrap(), "-t", "1", "-c", "copy"];
    ffmpeg(folder.path(), &[&input[..], &["short.mp4"]].concat());
    let bytes = std::fs::read(folder.path().join("short.mp4")).unwrap();
    assert!(bytes.len() < original().len() / 2);
    bytes
}

#[tokio::test]
async fn a_file_that_changes_while_the_downloader_tries_again_is_downloaded_as_a_whole() {
    let mut trial = Trial::new();
    let site = Arc::clone(&trial.site);
    let begun = |step: &Step| {
        if matches!(step, Step::Progress(_)) {
            site.replace("/video.mp4", other());
        }
    };
    // The file breaks off once; the rest would be another one's.
    let url = trial.site.url("/video.mp4?breaks=2&rate=2000000");
    let media = trial.download_with(&url, None, &CancellationToken::new(), begun).await.unwrap();
    assert_eq!(trial.site.ranges("/video.mp4").len(), 1);
    assert_eq!(sha256(&media.path), sha256_of(&other()));
}

#[tokio::test]
async fn what_a_source_without_versions_has_sent_is_not_used() {
    let mut trial = broken_off(&broken("&version=none")).await;
    assert!(!can_be_resumed(trial.folder.path()));
    let (before, _) = ranges(&trial);
    let media = trial.download(&broken("&version=none"), None).await.unwrap();
    assert_eq!((ranges(&trial).0, trial.resumed), (before, None));
    assert_eq!(sha256(&media.path), trial.site.video_sha256());
}

#[tokio::test]
async fn a_source_that_sends_the_whole_to_whoever_asks_for_a_part_is_taken_at_its_word() {
    let mut trial = broken_off(&broken("&ranges=none")).await;
    let (before, _) = ranges(&trial);
    let media = trial.download(&broken("&ranges=none"), None).await.unwrap();
    assert_eq!((ranges(&trial).0, trial.resumed), (before + 1, None));
    assert_eq!(sha256(&media.path), trial.site.video_sha256());
}

#[tokio::test]
async fn of_a_file_that_could_not_be_stored_only_the_last_byte_is_downloaded_again() {
    let mut trial = Trial::new();
    let stored = trial.download("/video.mp4", None).await.unwrap();
    trial.again();
    let media = trial.download("/video.mp4", None).await.unwrap();
    let last = stored.size - 1;
    assert_eq!((ranges(&trial), trial.resumed), ((1, Some(format!("bytes={last}-"))), Some(last)));
    assert_eq!((sha256(&media.path), media), (trial.site.video_sha256().to_owned(), stored));
}

#[tokio::test]
async fn a_stream_starts_over() {
    let mut trial = Trial::new();
    let url = trial.site.url("/hls/240p/index.m3u8?rate=100000");
    let cancel = CancellationToken::new();
    let begun = |step: &Step| {
        if matches!(step, Step::Progress(_)) {
            cancel.cancel();
        }
    };
    assert_eq!(trial.download_with(&url, None, &cancel, begun).await, Err(MediaError::Canceled));
    assert!(!can_be_resumed(trial.folder.path()));
    trial.again();
    trial.download("/hls/240p/index.m3u8", None).await.unwrap();
    assert_eq!(trial.resumed, None);
}

#[tokio::test]
async fn a_part_outlives_an_attempt_that_does_not_get_to_the_file() {
    let mut trial = broken_off(&broken("")).await;
    let (url, address, kept) = (trial.site.url(&broken("")), trial.site.address(), kept_bytes(&trial));
    // The site goes away and comes back.
    trial.site = Trial::new().site;
    assert_fails(trial.download_url(&url, None).await, FailureKind::SourceUnavailable);
    assert_eq!(kept_bytes(&trial), kept);
    trial.again();
    trial.site = Arc::new(MediaServer::start(&files(), address).unwrap());
    // The new site breaks off again.
    assert_fails(trial.download_url(&url, None).await, FailureKind::SourceBroken);
    assert_eq!(trial.resumed, Some(kept));
}
