//! The real downloader against real sites: what arrives, what each failure is called, and what is left behind.

mod resume;
mod site;
mod trial;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use millrace_domain::failure::FailureKind;
use millrace_media::{Bounds, MediaError, Request, Step, ToolError, Tools, download};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    site::Site,
    trial::{LOOPBACK, Trial, assert_fails, ffmpeg, files, height, processes_in, sha256, tools},
};

/// Most time that a canceled download takes to stop.
const STOP_MAX: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_tools_tell_their_versions() {
    let versions = tools().check().await.unwrap();
    assert!(versions.yt_dlp.starts_with("20") && !versions.ffmpeg.is_empty() && !versions.ffprobe.is_empty());
}

#[tokio::test]
async fn a_missing_an_old_and_a_wrong_tool_are_told_apart() {
    let folder = TempDir::new().unwrap();
    let old = folder.path().join("yt-dlp");
    std::fs::write(&old, "#!/bin/sh\necho 2026.10.25\n").unwrap();
    std::fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let check = async |tools: Tools| tools.check().await.unwrap_err();
    let error = check(Tools { yt_dlp: old, ..tools().clone() }).await;
    assert!(matches!(&error, ToolError::TooOld { .. }), "{error}");
    let error = check(Tools { ffprobe: "/nowhere/ffprobe".into(), ..tools().clone() }).await;
    assert!(matches!(&error, ToolError::Missing { name: "ffprobe", .. }), "{error}");
    let error = check(Tools { ffmpeg: tools().ffprobe.clone(), ..tools().clone() }).await;
    assert!(matches!(&error, ToolError::Broken { name: "ffmpeg", .. }), "{error}");
}

#[tokio::test]
async fn a_direct_video_arrives_byte_by_byte_with_rising_progress() {
    let mut trial = Trial::new();
    let media = trial.download("/video.mp4?rate=2000000", None).await.unwrap();
    assert_eq!(sha256(&media.path), trial.site.video_sha256());
    assert_eq!(media.path.parent().unwrap(), trial.folder.path());
    assert_eq!((media.size, &*media.extension, &*media.content_type), (trial.site.video_size(), "mp4", "video/mp4"));
    // The source reports neither; the file has both.
    assert_eq!((media.info.duration, media.info.quality.as_deref()), (Some(8), Some("360p")));
    assert_eq!(trial.info.unwrap().title.as_deref(), Some("video"));
    assert!(trial.progress.len() >= 4, "{:?}", trial.progress);
    let last = trial.progress.last().unwrap();
    assert_eq!((last.downloaded_bytes, last.total_bytes), (media.size, Some(media.size)));
    assert!(
        trial.progress.iter().any(|progress| progress.bytes_per_second.is_some() && progress.eta_seconds.is_some())
    );
}

#[tokio::test]
async fn a_page_gives_the_video_in_it_with_title_and_thumbnail() {
    let mut trial = Trial::new();
    let media = trial.download("/page.html", None).await.unwrap();
    assert_eq!(sha256(&media.path), trial.site.video_sha256());
    let info = trial.info.unwrap();
    assert_eq!(info.title.as_deref(), Some("A sample video"));
    assert_eq!(info.thumbnail, Some(trial.site.url("/thumb.jpg")));
}

#[tokio::test]
async fn a_page_with_several_videos_gives_the_first() {
    let page = r#"<html><title>Two</title><video src="/first.mp4"></video><video src="/second.mp4"></video></html>"#;
    let mut site = Site::default();
    site.add("/two.html", "text/html", page).add("/first.mp4", "video/mp4", std::fs::read(files().video()).unwrap());
    let site = site.start().await;
    Trial::new().download_url(&site.url("/two.html"), None).await.unwrap();
    assert_eq!((site.requests("/first.mp4") > 0, site.requests("/second.mp4")), (true, 0));
}

#[tokio::test]
async fn a_stream_comes_in_the_quality_asked_for() {
    for (wanted, expected) in [(Some("480p"), "480p"), (Some("479p"), "240p"), (Some("100p"), "240p"), (None, "720p")] {
        let mut trial = Trial::new();
        let media = trial.download("/hls/master.m3u8", wanted).await.unwrap();
        let info = trial.info.unwrap();
        assert_eq!(info.quality.as_deref(), Some(expected), "{wanted:?}");
        assert_eq!((media.info, &*media.content_type), (info, "video/mp4"));
        assert_eq!(height(&media.path), expected);
        let last = trial.progress.last().unwrap();
        assert_eq!(Some(last.downloaded_bytes), last.total_bytes);
    }
}

#[tokio::test]
async fn a_stream_of_unknown_size_is_taken_whatever_the_quality() {
    let mut trial = Trial::new();
    let media = trial.download("/hls/720p/index.m3u8", Some("480p")).await.unwrap();
    assert_eq!((trial.info.unwrap().quality, media.info.quality.as_deref()), (None, Some("720p")));
}

#[tokio::test]
async fn picture_and_sound_from_two_files_make_one_video_and_one_progress() {
    let mut site = Site::default();
    for (stream, name) in [("0:v", "v"), ("0:a", "a")] {
        let folder = TempDir::new().unwrap();
        let segments = format!("{name}%d.ts");
        let video = files().video();
        let input = ["-i", video.to_str().unwrap(), "-map", stream, "-c", "copy", "-f", "hls", "-hls_time", "1"];
        let output = ["-hls_playlist_type", "vod", "-hls_segment_filename", &segments, &format!("{name}.m3u8")];
        ffmpeg(folder.path(), &[&input[..], &output].concat());
        site.add_folder("", folder.path(), |playlist| playlist.replace(".ts", ".ts?slow"));
    }
    let master = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aud\",NAME=\"en\",DEFAULT=YES,URI=\"a.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=3000000,RESOLUTION=640x360,CODECS=\"avc1.42c01f,mp4a.40.2\",AUDIO=\"aud\"\n\
        v.m3u8\n";
    let site = site.add("/master.m3u8", "application/vnd.apple.mpegurl", master).start().await;
    let mut trial = Trial::new();
    let media = trial.download_url(&site.url("/master.m3u8"), None).await.unwrap();
    assert!(site.requests("/a0.ts") > 0);
    assert_eq!((&*media.extension, &*media.content_type, &*height(&media.path)), ("mp4", "video/mp4", "360p"));
    // `Trial` has checked that it only rises; it also must not be at its end as soon as the picture is there.
    let ends = trial.progress.iter().filter(|progress| Some(progress.downloaded_bytes) == progress.total_bytes).count();
    assert!(ends <= 2 && trial.progress.len() > 4, "{:?}", trial.progress);
}

#[tokio::test]
async fn each_way_to_fail_has_its_kind() {
    for (path, expected) in [
        ("/missing.mp4", FailureKind::SourceNotFound),
        ("/forbidden.mp4", FailureKind::SourceForbidden),
        ("/unavailable.mp4", FailureKind::SourceUnavailable),
        ("/article.html", FailureKind::Unsupported),
        ("/thumb.jpg", FailureKind::NotMedia),
    ] {
        assert_fails(Trial::new().download(path, None).await, expected);
    }
    let mut trial = Trial::new();
    let free = TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    for (url, expected) in [
        (format!("http://{free}/v.mp4"), FailureKind::SourceUnavailable),
        ("http://nowhere.invalid/v.mp4".to_owned(), FailureKind::SourceUnavailable),
        (trial.site.url("/video.mp4").replace("http:", "https:"), FailureKind::SourceUnavailable),
    ] {
        assert_fails(trial.download_url(&url, None).await, expected);
    }
}

#[tokio::test]
async fn every_other_way_to_fail_has_its_kind_as_well() {
    let playlist = std::fs::read_to_string(files().hls().join("240p/index.m3u8")).unwrap();
    let playlist_type = "application/vnd.apple.mpegurl";
    let live = playlist.replace("#EXT-X-ENDLIST", "").replace("#EXT-X-PLAYLIST-TYPE:VOD", "");
    let embeds = |path: &str| format!(r#"<html><title>Page</title><video src="{path}"></video></html>"#);
    let mut site = Site::default();
    site.add("/live.m3u8", playlist_type, live)
        .add("/holey.m3u8", playlist_type, playlist.replace("2.ts", "gone.ts"))
        .add_folder("", &files().hls().join("240p"), |playlist| playlist)
        .add_status("/busy", 429)
        .add_status("/login", 401)
        .add_status("/gone", 410)
        .add("/embeds-gone.html", "text/html", embeds("/gone"))
        .add("/embeds-login.html", "text/html", embeds("/login"))
        .add("/embeds-busy.html", "text/html", embeds("/busy"))
        .add("/letters.mp4", "video/mp4", "this is not a video\n".repeat(1000))
        .add("/letters.txt", "application/octet-stream", "nor is this\n".repeat(1000))
        .add("/empty.mp4", "video/mp4", "");
    let site = site.start().await;
    for (path, expected) in [
        ("/live.m3u8", FailureKind::LiveStream),
        ("/holey.m3u8", FailureKind::SourceBroken),
        ("/busy", FailureKind::SourceRateLimited),
        ("/login", FailureKind::SourceForbidden),
        ("/gone", FailureKind::SourceNotFound),
        ("/embeds-gone.html", FailureKind::SourceNotFound),
        ("/embeds-login.html", FailureKind::LinkExpired),
        ("/embeds-busy.html", FailureKind::SourceRateLimited),
        ("/letters.mp4", FailureKind::NotMedia),
        ("/letters.txt", FailureKind::NotMedia),
        ("/empty.mp4", FailureKind::SourceBroken),
    ] {
        println!("{path}");
        assert_fails(Trial::new().download_url(&site.url(path), None).await, expected);
    }
}

#[tokio::test]
async fn what_a_source_asks_for_by_retry_after_is_told_with_the_failure() {
    let page = |path: &str| format!(r#"<html><title>Page</title><video src="{path}"></video></html>"#);
    let mut trial = Trial::new();
    let mut pages = Site::default();
    // Refused as a page, and as the file of a page that was there.
    let busy = "/video.mp4?fails=99&status=429&retry_after=7";
    let pages = pages.add("/page.html", "text/html", page(&trial.site.url(busy))).start().await;
    for url in [trial.site.url(busy), pages.url("/page.html")] {
        let Err(MediaError::Failed(reason)) = trial.download_url(&url, None).await else { panic!("{url}") };
        assert_eq!((reason.kind, reason.retry_after), (FailureKind::SourceRateLimited, Some(Duration::from_secs(7))));
        trial.info = None;
    }
    let url = trial.site.url("/video.mp4?fails=99&retry_after=30");
    let Err(MediaError::Failed(reason)) = trial.download_url(&url, None).await else { panic!() };
    assert_eq!((reason.kind, reason.retry_after), (FailureKind::SourceUnavailable, Some(Duration::from_secs(30))));
    let Err(MediaError::Failed(reason)) = trial.download("/unavailable.mp4", None).await else { panic!() };
    assert_eq!((reason.kind, reason.retry_after), (FailureKind::SourceUnavailable, None));
}

#[tokio::test]
async fn a_file_that_is_too_large_is_not_downloaded_to_its_end() {
    for (path, bytes_max) in [("/video.mp4?rate=2000000", 3_000_000), ("/hls/master.m3u8?rate=400000", 500_000)] {
        let mut trial = Trial::new();
        trial.bounds.bytes_max = bytes_max;
        assert_fails(trial.download(path, None).await, FailureKind::TooLarge);
        let downloaded = trial.progress.last().unwrap().downloaded_bytes;
        assert!(downloaded < bytes_max + 2_000_000 && downloaded < trial.site.video_size() / 2, "{path}: {downloaded}");
    }
    let mut trial = Trial::new();
    trial.bounds.bytes_max = trial.site.video_size();
    trial.download("/video.mp4", None).await.unwrap();
}

#[tokio::test]
async fn a_video_that_is_too_long_is_not_downloaded_where_the_source_says_so_and_not_kept_where_it_does_not() {
    let mut trial = Trial::new();
    trial.bounds.duration_max = Duration::from_secs(3);
    assert_fails(trial.download("/hls/master.m3u8", None).await, FailureKind::TooLong);
    assert_eq!((trial.progress.len(), trial.site.requests("/hls/720p/0.ts")), (0, 0));
    assert_fails(trial.download("/video.mp4", None).await, FailureKind::TooLong);
    trial.bounds.duration_max = Duration::from_secs(8);
    trial.info = None;
    trial.progress.clear();
    trial.download("/hls/master.m3u8", None).await.unwrap();
}

#[tokio::test]
async fn a_download_that_dies_half_way_is_broken() {
    let mut trial = Trial::new();
    assert_fails(trial.download("/dies.mp4?rate=2000000", None).await, FailureKind::SourceBroken);
    assert!(trial.site.requests("/dies.mp4") > 2, "the downloader tries again by itself");
    assert!(trial.progress.last().unwrap().downloaded_bytes <= trial.site.video_size() / 2);
}

#[tokio::test]
async fn a_worker_without_a_downloader_or_a_folder_is_at_fault_itself() {
    let trial = Trial::new();
    let url = trial.site.url("/video.mp4").parse().unwrap();
    let request =
        Request { url: &url, quality: None, folder: trial.folder.path(), proxy: None, bounds: Bounds::default() };
    let cancel = CancellationToken::new();
    let missing = Tools { yt_dlp: PathBuf::from("/nowhere/yt-dlp"), ..tools().clone() };
    assert_fails(download(&missing, request, |_| (), &cancel).await, FailureKind::WorkerFailed);
    let gone = Request { folder: Path::new("/nowhere"), ..request };
    assert_fails(download(tools(), gone, |_| (), &cancel).await, FailureKind::WorkerFailed);
    let silent = Tools { yt_dlp: PathBuf::from("/bin/false"), ..tools().clone() };
    assert_fails(download(&silent, request, |_| (), &cancel).await, FailureKind::DownloadFailed);
}

#[tokio::test]
async fn everything_goes_through_the_proxy_if_there_is_one() {
    let trial = Trial::new();
    let proxy = Site::default().start().await;
    let url = trial.site.url("/video.mp4").parse().unwrap();
    let request = Request {
        url: &url,
        quality: None,
        folder: trial.folder.path(),
        proxy: Some(&proxy.url("/")),
        bounds: Bounds::default(),
    };
    // This proxy answers every request with 404.
    assert_fails(download(tools(), request, |_| (), &CancellationToken::new()).await, FailureKind::SourceNotFound);
    assert_eq!(trial.site.requests("/video.mp4"), 0);
}

/// Cancels when the downloader has begun the file; no process may be left then.
async fn cancel_during(mut trial: Trial, url: &str) {
    let cancel = CancellationToken::new();
    let mut canceled_at = None;
    let folder = trial.folder.path().to_owned();
    let begun = |step: &Step| {
        if matches!(step, Step::Progress(_)) && canceled_at.is_none() {
            assert!(!processes_in(&folder).is_empty());
            canceled_at = Some(Instant::now());
            cancel.cancel();
        }
    };
    let result = trial.download_with(url, None, &cancel, begun).await;
    assert_eq!(result, Err(MediaError::Canceled));
    let took = canceled_at.unwrap().elapsed();
    assert!(took < STOP_MAX, "{took:?}");
    // No process writes to the folder any more: it can be removed.
    trial.folder.close().unwrap();
}

#[tokio::test]
async fn canceling_ends_every_download_within_two_seconds() {
    for path in ["/video.mp4?rate=100000", "/hls/master.m3u8?rate=100000", "/stall.mp4"] {
        let trial = Trial::new();
        let url = trial.site.url(path);
        cancel_during(trial, &url).await;
    }
}

/// An encrypted stream: the downloader leaves it to ffmpeg, a process of its own.
async fn encrypted() -> site::Running {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("key"), [7; 16]).unwrap();
    std::fs::write(folder.path().join("key-info"), "/key\nkey\n").unwrap();
    let video = files().video();
    let input =
        ["-i", video.to_str().unwrap(), "-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_playlist_type", "vod"];
    let output = ["-hls_key_info_file", "key-info", "-hls_segment_filename", "%d.ts", "index.m3u8"];
    ffmpeg(folder.path(), &[&input[..], &output].concat());
    let mut site = Site::default();
    site.add_folder("", folder.path(), |playlist| playlist.replace(".ts", ".ts?slow"));
    site.start().await
}

#[tokio::test]
async fn an_encrypted_stream_arrives() {
    let site = encrypted().await;
    let mut trial = Trial::new();
    let media = trial.download_url(&site.url("/index.m3u8"), None).await.unwrap();
    assert_eq!((&*media.content_type, &*height(&media.path)), ("video/mp4", "360p"));
    assert_eq!(media.info.duration, Some(8));
}

#[tokio::test]
async fn canceling_and_dropping_end_ffmpeg_as_well() {
    let site = encrypted().await;
    for drop_it in [false, true] {
        let mut trial = Trial::new();
        let folder = trial.folder.path().to_owned();
        let cancel = CancellationToken::new();
        let url = site.url("/index.m3u8");
        let running = trial.download_with(&url, None, &cancel, |_| ());
        let stop = async {
            // yt-dlp reports no progress here: wait for ffmpeg in the folder.
            while !processes_in(&folder).contains(&"ffmpeg".to_owned()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if !drop_it {
                cancel.cancel();
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = running => assert_eq!((drop_it, ended), (false, Err(MediaError::Canceled))),
            () = stop => {}
        }
        assert_eq!(processes_in(&folder), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_download_that_was_canceled_before_starts_nothing() {
    let mut trial = Trial::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let url = trial.site.url("/video.mp4");
    assert_eq!(trial.download_with(&url, None, &cancel, |_| ()).await, Err(MediaError::Canceled));
    assert_eq!(trial.site.requests("/video.mp4"), 0);
}

#[tokio::test]
async fn dropping_a_download_leaves_no_process() {
    let trial = Trial::new();
    let url = trial.site.url("/video.mp4?rate=100000").parse().unwrap();
    let request =
        Request { url: &url, quality: None, folder: trial.folder.path(), proxy: None, bounds: Bounds::default() };
    let (send, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let cancel = CancellationToken::new();
    let running = download(tools(), request, move |step| drop(send.send(step)), &cancel);
    tokio::select! {
        biased;
        ended = running => panic!("{ended:?}"),
        () = async { while !matches!(begun.recv().await, Some(Step::Progress(_))) {} } => {}
    }
    assert_eq!(processes_in(trial.folder.path()), Vec::<String>::new());
    trial.folder.close().unwrap();
}

#[test]
fn a_download_can_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    let url = "http://example.org/".parse().unwrap();
    let request =
        Request { url: &url, quality: None, folder: Path::new("/nowhere"), proxy: None, bounds: Bounds::default() };
    is_send(download(tools(), request, |_| (), &CancellationToken::new()));
}
