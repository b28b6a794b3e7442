//! The sample site serves what a video site serves, and fails as one does.

use std::{path::PathBuf, time::Duration};

use data_encoding::HEXLOWER;
use millrace_harness::{
    checkout,
    media::{MediaFiles, MediaServer, MediaSpec, PATHS},
    tools::ffmpeg,
};
use reqwest::{Response, StatusCode};
use sha2::{Digest, Sha256};

/// Small, so that it is made quickly; made once for all tests here.
fn spec() -> MediaSpec {
    MediaSpec { video_bytes: 1_000_000, duration_s: 4, height: 180, hls_heights: vec![120, 240], hls_duration_s: 4 }
}

fn make(spec: &MediaSpec) -> MediaFiles {
    let (ffmpeg, _) = ffmpeg(&checkout(), &mut |words| eprintln!("{words}")).unwrap();
    MediaFiles::make(&PathBuf::from(env!("CARGO_TARGET_TMPDIR")), &ffmpeg, spec).unwrap()
}

fn start() -> MediaServer {
    MediaServer::start(&make(&spec()), "127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn get(site: &MediaServer, path: &str, headers: &[(&str, &str)]) -> Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request =
        headers.iter().fold(client.get(site.url(path)), |request, (name, value)| request.header(*name, *value));
    request.send().await.unwrap()
}

#[test]
fn the_default_video_has_about_the_size_asked_for_and_is_made_once() {
    let files = make(&MediaSpec::default());
    let meta = files.video().metadata().unwrap();
    assert!((15_000_000..25_000_000).contains(&meta.len()), "{}", meta.len());
    assert_eq!(make(&MediaSpec::default()), files);
    assert_eq!(files.video().metadata().unwrap().modified().unwrap(), meta.modified().unwrap());
}

#[test]
fn an_impossible_spec_is_refused() {
    let spec = MediaSpec { height: 181, ..spec() };
    assert!(MediaFiles::make(&std::env::temp_dir(), &PathBuf::from("ffmpeg"), &spec).is_err());
}

#[tokio::test]
async fn the_video_is_whole_and_its_hash_and_tag_match() {
    let site = start();
    let response = get(&site, "/video.mp4", &[]).await;
    let etag = response.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["content-type"], "video/mp4");
    assert_eq!(response.content_length(), Some(site.video_size()));
    let bytes = response.bytes().await.unwrap();
    assert_eq!(HEXLOWER.encode(&Sha256::digest(&bytes)), site.video_sha256());
    assert_eq!(get(&site, "/video.mp4", &[("if-none-match", &etag)]).await.status(), StatusCode::NOT_MODIFIED);
    let head =
        reqwest::Client::builder().no_proxy().build().unwrap().head(site.url("/video.mp4")).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], site.video_size().to_string());
    assert_eq!(site.requests("/video.mp4"), 3);
}

#[tokio::test]
async fn a_range_gives_that_part_and_is_remembered() {
    let site = start();
    let whole = get(&site, "/video.mp4", &[]).await.bytes().await.unwrap();
    let response = get(&site, "/video.mp4", &[("range", "bytes=1000-1999")]).await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.headers()["content-range"], format!("bytes 1000-1999/{}", whole.len()));
    assert_eq!(response.bytes().await.unwrap(), whole[1000..2000]);
    assert_eq!(
        get(&site, "/video.mp4", &[("range", "bytes=99999999-")]).await.status(),
        StatusCode::RANGE_NOT_SATISFIABLE
    );
    assert_eq!(site.ranges("/video.mp4"), ["bytes=1000-1999", "bytes=99999999-"]);
}

#[tokio::test]
async fn a_rate_limited_video_comes_slowly_and_whole() {
    let site = start();
    let start = std::time::Instant::now();
    let bytes = get(&site, "/video.mp4?rate=2000000", &[]).await.bytes().await.unwrap();
    let expected = Duration::from_secs_f64(site.video_size() as f64 / 2_000_000.0);
    // A lower bound only: a busy machine may take longer.
    assert!(start.elapsed() >= expected.mul_f64(0.9), "{:?}", start.elapsed());
    assert_eq!(HEXLOWER.encode(&Sha256::digest(&bytes)), site.video_sha256());
}

#[tokio::test]
async fn a_dying_video_breaks_off_at_half_also_for_ranges() {
    let site = start();
    let size = usize::try_from(site.video_size()).unwrap();
    for (from, sent_expected) in [(0, size / 2), (size / 4, size / 2 - size / 4), (size / 2, 0), (size - 1, 0)] {
        let mut response = get(&site, "/dies.mp4", &[("range", &format!("bytes={from}-"))]).await;
        assert_eq!(response.content_length(), Some((size - from) as u64));
        let mut sent = 0;
        let ended = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => sent += chunk.len(),
                ended => break ended,
            }
        };
        assert!(ended.is_err());
        assert_eq!(sent, sent_expected);
    }
}

#[tokio::test]
async fn a_stalling_video_sends_a_quarter_and_hangs_until_the_site_is_dropped() {
    let site = start();
    let mut response = get(&site, "/stall.mp4", &[]).await;
    let quarter = site.video_size() / 4;
    let mut sent = 0;
    while sent < quarter {
        sent += response.chunk().await.unwrap().unwrap().len() as u64;
    }
    assert_eq!(sent, quarter);
    assert!(tokio::time::timeout(Duration::from_millis(200), response.chunk()).await.is_err());
    drop(site);
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn the_playlists_lead_to_segments_and_pass_the_rate_on() {
    let site = start();
    let first_address =
        |text: String| text.lines().find(|line| !line.is_empty() && !line.starts_with('#')).unwrap().to_owned();
    let master = get(&site, "/hls/master.m3u8?rate=5000000", &[]).await.text().await.unwrap();
    let playlist = first_address(master);
    assert_eq!(playlist, "120p/index.m3u8?rate=5000000");
    let segment = first_address(get(&site, &format!("/hls/{playlist}"), &[]).await.text().await.unwrap());
    assert_eq!(segment, "0.ts?rate=5000000");
    let response = get(&site, &format!("/hls/120p/{segment}"), &[]).await;
    assert_eq!(response.headers()["content-type"], "video/mp2t");
    assert_eq!(response.bytes().await.unwrap()[0], 0x47);
}

#[tokio::test]
async fn every_listed_path_gives_the_status_that_it_should() {
    let site = start();
    let index = get(&site, "/", &[]).await.text().await.unwrap();
    for (path, _) in PATHS {
        let expected = match path {
            "/missing.mp4" => StatusCode::NOT_FOUND,
            "/forbidden.mp4" => StatusCode::FORBIDDEN,
            "/unavailable.mp4" | "/video.mp4?fails=2" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        assert_eq!(get(&site, path, &[]).await.status(), expected, "{path}");
        assert!(index.contains(&site.url(path)), "{path}");
    }
    let page = get(&site, "/page.html?rate=7", &[]).await.text().await.unwrap();
    assert!(page.contains("<title>A sample video</title>") && page.contains("src=\"/video.mp4?rate=7\""), "{page}");
}

#[tokio::test]
async fn a_request_waits_for_media_that_are_being_made() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let later = move || {
        wait.recv()?;
        Ok(make(&spec()))
    };
    let site = MediaServer::start_later(later, "127.0.0.1:0".parse().unwrap()).unwrap();
    let answer = get(&site, "/video.mp4", &[]);
    let early = tokio::time::timeout(Duration::from_millis(200), answer);
    assert!(early.await.is_err(), "an answer before the media are there");
    go.send(()).unwrap();
    let answer = get(&site, "/video.mp4", &[]).await;
    assert_eq!(answer.bytes().await.unwrap().len() as u64, site.video_size());
}

#[tokio::test]
async fn media_that_cannot_be_made_give_503_with_the_reason() {
    let later = || anyhow::bail!("no ffmpeg here");
    let site = MediaServer::start_later(later, "127.0.0.1:0".parse().unwrap()).unwrap();
    let answer = get(&site, "/video.mp4", &[]).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().await.unwrap().contains("no ffmpeg here"));
}

#[tokio::test]
async fn a_path_fails_as_often_as_it_is_told_to_and_then_works() {
    let site = start();
    for _ in 0..2 {
        let refused = get(&site, "/video.mp4?fails=2&status=429&retry_after=7", &[]).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()["retry-after"], "7");
    }
    assert_eq!(get(&site, "/video.mp4?fails=2&status=429&retry_after=7", &[]).await.status(), StatusCode::OK);
    let other = get(&site, "/thumb.jpg?fails=1", &[]).await;
    assert_eq!((other.status(), other.headers().get("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, None));
}

#[tokio::test]
async fn an_address_breaks_off_as_often_as_it_is_told_to_and_then_works() {
    let site = start();
    for _ in 0..2 {
        assert!(get(&site, "/video.mp4?breaks=2", &[]).await.bytes().await.is_err());
    }
    let whole = get(&site, "/video.mp4?breaks=2", &[]).await.bytes().await.unwrap();
    assert_eq!(whole.len() as u64, site.video_size());
}

#[tokio::test]
async fn a_site_tells_of_versions_and_ranges_as_it_is_told_to_and_files_can_be_replaced() {
    let site = start();
    let range = [("range", "bytes=1-2")];
    for (query, tag, date, status) in [
        ("", true, false, 206),
        ("?version=date", false, true, 206),
        ("?version=none", false, false, 206),
        ("?ranges=none", true, false, 200),
    ] {
        let answer = get(&site, &format!("/video.mp4{query}"), &range).await;
        let has = |name: &str| answer.headers().contains_key(name);
        assert_eq!((has("etag"), has("last-modified"), answer.status().as_u16()), (tag, date, status), "{query}");
    }
    let before = get(&site, "/video.mp4", &[]).await;
    site.replace("/video.mp4", b"other".to_vec());
    let after = get(&site, "/video.mp4", &[]).await;
    assert_ne!(before.headers()["etag"], after.headers()["etag"]);
    assert_eq!(after.bytes().await.unwrap(), "other");
}
