//! The website: the response of each path.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread::JoinHandle,
};

use anyhow::Context;
use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::sync::SetOnce;

use super::{
    files::MediaFiles,
    pages,
    response::{Entity, Fault, Manner, Version, respond},
    throttle::End,
};
use crate::serving::Serving;

/// The site's paths, some with a query, each with a short description. The index page `/` shows them.
///
/// `?rate=BYTES_PER_SECOND` slows a response down; a page and a playlist pass it on to their links. Each response has
/// its own rate. `?fails=N` answers the first N requests for that address with 503, or with `&status=CODE`;
/// `&retry_after=SECONDS` adds a `Retry-After`. `?breaks=N` breaks off the first N responses for that address in the
/// middle of the file. `?version=date` sends a file's time of change instead of its entity tag, `none` neither;
/// `?ranges=none` answers a `Range` with the whole file.
pub const PATHS: [(&str, &str); 14] = [
    ("/video.mp4", "a video file"),
    ("/video.mp4?rate=1000000", "the same at 1 MB/s: watch the progress, or cancel it"),
    ("/page.html", "a page with a title and a video in it"),
    ("/page.html?rate=2000000", "the same, at 2 MB/s"),
    ("/hls/master.m3u8", "a stream in several sizes"),
    ("/hls/master.m3u8?rate=200000", "the same, at 200 kB/s"),
    ("/article.html", "a page without a video: fails, as unsupported"),
    ("/missing.mp4", "fails with 404"),
    ("/forbidden.mp4", "fails with 403"),
    ("/unavailable.mp4", "fails with 503"),
    ("/video.mp4?fails=2", "fails with 503, twice: watch the retries"),
    ("/dies.mp4", "breaks off in the middle, every time"),
    ("/stall.mp4", "begins, and then hangs"),
    ("/thumb.jpg", "a picture"),
];

/// A website with media, on its own thread. Dropping it closes every connection at once.
pub struct MediaServer {
    // The server's own state is shared: dropping `serving` ends its other users.
    site: Arc<Later>,
    serving: Serving,
    maker: Option<JoinHandle<()>>,
}

/// The site, or the reason why it cannot be made, once either is known.
type Later = SetOnce<Result<Site, String>>;

struct Site {
    /// Files that are sent unchanged, by path.
    entities: RwLock<BTreeMap<String, Entity>>,
    video_sha256: String,
    video_size: u64,
    seen: Mutex<BTreeMap<String, Seen>>,
    /// How often each address with `?fails=` or `?breaks=` has failed.
    failed: Mutex<BTreeMap<String, u64>>,
}

/// The requests for one path.
#[derive(Clone, Debug, Default)]
struct Seen {
    requests: u64,
    ranges: Vec<String>,
}

/// How many `Range` headers are remembered for each path.
const RANGES_KEPT_MAX: usize = 100;
/// How many addresses with `?fails=` or `?breaks=` are remembered.
const FAILED_KEPT_MAX: usize = 1000;

#[derive(Deserialize)]
struct Params {
    rate: Option<u64>,
    fails: Option<u64>,
    status: Option<u16>,
    retry_after: Option<u64>,
    breaks: Option<u64>,
    #[serde(default)]
    version: Version,
    ranges: Option<String>,
}

impl MediaServer {
    /// Serves `files`, which are read into memory, at `address`; port 0 means any free one.
    pub fn start(files: &MediaFiles, address: SocketAddr) -> anyhow::Result<Self> {
        let site = Arc::new(Later::new_with(Some(Ok(Site::load(files)?))));
        Ok(Self { serving: serve(&site, address)?, site, maker: None })
    }

    /// Listens at `address` at once, while `make` makes the files on its own thread. Requests wait until the files
    /// exist; if `make` fails, the site answers them with 503 and the reason.
    ///
    /// Dropping the server waits for `make` to return.
    pub fn start_later(
        make: impl FnOnce() -> anyhow::Result<MediaFiles> + Send + 'static,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        let site = Arc::new(Later::new());
        let serving = serve(&site, address)?;
        let made = Arc::clone(&site);
        let maker = std::thread::Builder::new().name("sample media".to_owned()).spawn(move || {
            let site = make().and_then(|files| Site::load(&files)).map_err(|error| format!("{error:#}\n"));
            // Only this thread sets it.
            let _ = made.set(site);
        })?;
        Ok(Self { site, serving, maker: Some(maker) })
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// The URL of a path, such as `/video.mp4?rate=1000000`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// The SHA-256 of `/video.mp4`, in lowercase hex; empty until the video exists.
    pub fn video_sha256(&self) -> &str {
        self.site().map_or("", |site| &site.video_sha256)
    }

    /// The size of `/video.mp4` in bytes; 0 until the video exists.
    pub fn video_size(&self) -> u64 {
        self.site().map_or(0, |site| site.video_size)
    }

    /// Replaces a file by other bytes with their own tag. [`MediaServer::video_sha256`] and
    /// [`MediaServer::video_size`] still describe the original.
    ///
    /// # Panics
    /// When no file exists under that path.
    pub fn replace(&self, path: &str, bytes: Vec<u8>) {
        let site = self.site().expect("the site is there");
        let mut entities = site.entities.write().unwrap_or_else(PoisonError::into_inner);
        let entity = entities.get_mut(path).expect("a file to replace");
        *entity = Entity { etag: etag(&bytes), bytes: bytes.into(), ..*entity };
    }

    /// The number of requests for this path (without its query), of any method.
    pub fn requests(&self, path: &str) -> u64 {
        self.seen(path).requests
    }

    /// The `Range` headers of the first 100 requests for this path that had one.
    pub fn ranges(&self, path: &str) -> Vec<String> {
        self.seen(path).ranges
    }

    fn site(&self) -> Option<&Site> {
        self.site.get()?.as_ref().ok()
    }

    fn seen(&self, path: &str) -> Seen {
        self.site().and_then(|site| site.seen().get(path).cloned()).unwrap_or_default()
    }
}

impl Drop for MediaServer {
    fn drop(&mut self) {
        if let Some(maker) = self.maker.take() {
            let _ = maker.join();
        }
    }
}

fn serve(site: &Arc<Later>, address: SocketAddr) -> anyhow::Result<Serving> {
    let router = Router::new().fallback(answer).with_state(Arc::clone(site));
    Serving::start("sample site", address, async move |listener| {
        // It ends only when dropped: `serve` itself returns no error.
        let _ = axum::serve(listener, router).await;
    })
}

impl Site {
    fn load(files: &MediaFiles) -> anyhow::Result<Self> {
        let video = entity(&files.video())?;
        let mut entities = BTreeMap::new();
        for path in ["/video.mp4", "/dies.mp4", "/stall.mp4"] {
            entities.insert(path.to_owned(), video.clone());
        }
        entities.insert("/thumb.jpg".to_owned(), entity(&files.thumb())?);
        load_folder(&files.hls(), "/hls", &mut entities)?;
        Ok(Self {
            entities: RwLock::new(entities),
            video_sha256: video.etag.trim_matches('"').to_owned(),
            video_size: video.bytes.len() as u64,
            seen: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    fn entity(&self, path: &str) -> Option<Entity> {
        self.entities.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, path: &str, headers: &HeaderMap) {
        let mut seen = self.seen();
        let known = self.entity(path).is_some() || PATHS.iter().any(|(known, _)| *known == path) || path == "/";
        let entry = seen.entry(if known { path } else { "other" }.to_owned()).or_default();
        entry.requests += 1;
        if let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok())
            && entry.ranges.len() < RANGES_KEPT_MAX
        {
            entry.ranges.push(range.to_owned());
        }
    }

    /// Whether this address has failed fewer than `times` times; if so, counts one more failure.
    fn fails(&self, uri: &Uri, times: u64) -> bool {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() > FAILED_KEPT_MAX {
            failed.clear();
        }
        let count = failed.entry(uri.to_string()).or_default();
        let fails = *count < times;
        *count += u64::from(fails);
        fails
    }
}

fn load_folder(folder: &Path, prefix: &str, entities: &mut BTreeMap<String, Entity>) -> anyhow::Result<()> {
    for entry in folder.read_dir().with_context(|| format!("cannot read {}; make the media again", folder.display()))? {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            load_folder(&entry.path(), &path, entities)?;
        } else {
            entities.insert(path, entity(&entry.path())?);
        }
    }
    Ok(())
}

fn entity(path: &Path) -> anyhow::Result<Entity> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}; make the media again", path.display()))?;
    let content_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("mp4") => "video/mp4",
        Some("m3u8") => "application/vnd.apple.mpegurl",
        Some("ts") => "video/mp2t",
        Some("jpg") => "image/jpeg",
        _ => "application/octet-stream",
    };
    Ok(Entity { etag: etag(&bytes), bytes: bytes.into(), content_type })
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", HEXLOWER.encode(&Sha256::digest(bytes)))
}

async fn answer(
    State(site): State<Arc<Later>>,
    method: Method,
    uri: Uri,
    Query(params): Query<Params>,
    headers: HeaderMap,
) -> Response {
    let path = uri.path();
    let site = match site.wait().await {
        Ok(site) => site,
        Err(why) => return (StatusCode::SERVICE_UNAVAILABLE, why.clone()).into_response(),
    };
    site.note(path, &headers);
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    if params.fails.is_some_and(|times| site.fails(&uri, times)) {
        let status = params.status.and_then(|status| StatusCode::from_u16(status).ok());
        let mut refusal = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE).into_response();
        if let Some(seconds) = params.retry_after {
            refusal.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        return refusal;
    }
    let query = params.rate.map(|rate| format!("?rate={rate}")).unwrap_or_default();
    let page = |html: String| ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response();
    match path {
        "/" => page(pages::index(&origin(&headers), &PATHS)),
        "/page.html" => page(pages::video_page(&query)),
        "/article.html" => page(pages::article()),
        "/forbidden.mp4" => StatusCode::FORBIDDEN.into_response(),
        "/unavailable.mp4" => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => match site.entity(path) {
            Some(playlist) if path.ends_with(".m3u8") => {
                let text = pass_on(&playlist.bytes, &query);
                respond(&Entity { bytes: text, ..playlist }, &method, &headers, Manner::default())
            }
            Some(entity) => {
                let breaks = params.breaks.is_some_and(|times| site.fails(&uri, times));
                let manner = Manner {
                    rate: params.rate,
                    fault: fault(path, breaks, entity.bytes.len()),
                    version: params.version,
                    whole: params.ranges.as_deref() == Some("none"),
                };
                respond(&entity, &method, &headers, manner)
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

/// The fault of a path that serves the video.
fn fault(path: &str, breaks: bool, len: usize) -> Option<Fault> {
    match path {
        _ if breaks => Some(Fault { at: len / 2, end: End::Drop }),
        "/dies.mp4" => Some(Fault { at: len / 2, end: End::Drop }),
        "/stall.mp4" => Some(Fault { at: len / 4, end: End::Hang }),
        _ => None,
    }
}

/// The playlist with `query` at the end of each address in it.
fn pass_on(playlist: &Bytes, query: &str) -> Bytes {
    let text = String::from_utf8_lossy(playlist);
    let lines = text.lines().map(|line| match line {
        address if !address.is_empty() && !address.starts_with('#') => format!("{address}{query}\n"),
        other => format!("{other}\n"),
    });
    lines.collect::<String>().into()
}

fn origin(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
    if plain && !host.is_empty() { format!("http://{host}") } else { String::new() }
}
