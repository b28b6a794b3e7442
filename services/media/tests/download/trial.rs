//! One download, with the checks that hold for every one of them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
};

use data_encoding::HEXLOWER;
use millrace_domain::{
    event::{Progress, VideoInfo},
    failure::FailureKind,
};
use millrace_harness::{
    checkout,
    media::{MediaFiles, MediaServer, MediaSpec},
};
use millrace_media::{Bounds, Media, MediaError, Request, Step, Tools, download};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let found = millrace_harness::tools::Tools::ensure(&checkout(), &mut |words| eprintln!("{words}")).unwrap();
        Tools { yt_dlp: found.yt_dlp, ffmpeg: found.ffmpeg, ffprobe: found.ffprobe }
    })
}

/// What the site is made of.
pub fn files() -> MediaFiles {
    let hls_heights = vec![240, 480, 720];
    let spec = MediaSpec { video_bytes: 4_000_000, duration_s: 8, height: 360, hls_heights, hls_duration_s: 8 };
    MediaFiles::make(Path::new(env!("CARGO_TARGET_TMPDIR")), &tools().ffmpeg, &spec).unwrap()
}

/// Runs ffmpeg in a folder.
pub fn ffmpeg(folder: &Path, arguments: &[&str]) {
    let mut command = Command::new(&tools().ffmpeg);
    command.current_dir(folder).args(["-nostdin", "-v", "error"]).args(arguments);
    assert!(command.status().unwrap().success());
}

/// The picture's height as reported by ffprobe, independent of our own code.
pub fn height(path: &Path) -> String {
    let mut command = Command::new(&tools().ffprobe);
    command
        .args(["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=height", "-of", "csv=p=0"])
        .arg(path);
    format!("{}p", String::from_utf8(command.output().unwrap().stdout).unwrap().trim())
}

pub fn sha256(path: &Path) -> String {
    sha256_of(&std::fs::read(path).unwrap())
}

pub fn sha256_of(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// The names of the living processes that work in a folder, found in /proc.
pub fn processes_in(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().unwrap();
    let entries = Path::new("/proc").read_dir().unwrap().flatten();
    entries
        .filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
        .map(|entry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned())
        .collect()
}

/// A site, an empty folder, and the steps that a download into it reported.
pub struct Trial {
    pub site: Arc<MediaServer>,
    pub folder: TempDir,
    pub info: Option<VideoInfo>,
    pub resumed: Option<u64>,
    pub progress: Vec<Progress>,
    pub bounds: Bounds,
}

impl Trial {
    pub fn new() -> Self {
        let site = Arc::new(MediaServer::start(&files(), LOOPBACK).unwrap());
        let folder = TempDir::new().unwrap();
        Self { site, folder, info: None, resumed: None, progress: vec![], bounds: Bounds::default() }
    }

    /// Forgets the steps, for the next attempt in the same folder.
    pub fn again(&mut self) {
        (self.info, self.resumed) = (None, None);
        self.progress.clear();
    }

    /// Downloads a path of the site.
    pub async fn download(&mut self, path: &str, quality: Option<&str>) -> Result<Media, MediaError> {
        let url = self.site.url(path);
        self.download_url(&url, quality).await
    }

    pub async fn download_url(&mut self, url: &str, quality: Option<&str>) -> Result<Media, MediaError> {
        self.download_with(url, quality, &CancellationToken::new(), |_| ()).await
    }

    pub async fn download_with(
        &mut self,
        url: &str,
        quality: Option<&str>,
        cancel: &CancellationToken,
        mut on_step: impl FnMut(&Step),
    ) -> Result<Media, MediaError> {
        let url = url.parse().unwrap();
        let quality = quality.map(|quality| quality.parse().unwrap());
        let request = Request { url: &url, quality, folder: self.folder.path(), proxy: None, bounds: self.bounds };
        let steps = |step| {
            on_step(&step);
            match step {
                Step::Info(info) => {
                    assert!(self.progress.is_empty() && self.info.is_none(), "the info comes once and first");
                    self.info = Some(info);
                }
                Step::Resumed(bytes) => {
                    assert!(
                        self.progress.is_empty() && self.resumed.is_none(),
                        "that it goes on is told once and first"
                    );
                    self.resumed = Some(bytes);
                }
                Step::Progress(progress) => self.progress.push(progress),
            }
        };
        let result = download(tools(), request, steps, cancel).await;
        assert_eq!(processes_in(self.folder.path()), Vec::<String>::new());
        assert_rising(&self.progress);
        result
    }
}

fn assert_rising(progress: &[Progress]) {
    for pair in progress.windows(2) {
        let [before, after] = [pair[0], pair[1]];
        assert!(after.downloaded_bytes >= before.downloaded_bytes, "{before:?} {after:?}");
        if let Some(total) = before.total_bytes {
            let total_after = after.total_bytes.expect("a total stays");
            assert!(after.downloaded_bytes * total >= before.downloaded_bytes * total_after, "{before:?} {after:?}");
        }
    }
}

#[track_caller]
pub fn assert_fails(result: Result<Media, MediaError>, expected: FailureKind) {
    match result {
        Err(MediaError::Failed(reason)) => {
            println!("{}: {}", reason.kind.code(), reason.detail);
            assert_eq!(reason.kind, expected, "{}", reason.detail);
            assert!(!reason.detail.is_empty());
        }
        other => panic!("{other:?}"),
    }
}
