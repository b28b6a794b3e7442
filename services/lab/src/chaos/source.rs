//! The source of the videos: small real mp4 files, each with unique bytes, sent at a steady rate.

use std::{net::SocketAddr, path::Path as FilePath, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::{Buf, Bytes};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

const CHUNKS_PER_S: u64 = 10;

/// The site. Dropping it stops the server.
pub struct Source {
    address: SocketAddr,
    video: Arc<Vec<u8>>,
    serving: JoinHandle<()>,
}

/// One video of the site, with a unique number.
#[derive(Clone, Copy, Debug)]
pub struct Video {
    pub number: u64,
    /// Approximate size.
    pub bytes: u64,
    pub bytes_per_second: u64,
    /// Whether yt-dlp downloads it instead of the fast downloader.
    pub real: bool,
}

impl Source {
    /// Serves videos made of the file `video`.
    pub async fn start(video: &FilePath) -> anyhow::Result<Self> {
        let video = Arc::new(std::fs::read(video).with_context(|| format!("cannot read {}", video.display()))?);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let routes = Router::new()
            .route("/{downloader}/{number}/{bytes}/{rate}/video.mp4", get(serve))
            .with_state(Arc::clone(&video));
        let serving = tokio::spawn(async move {
            // Never returns.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, video, serving })
    }

    /// The address of a video.
    pub fn url(&self, video: Video) -> String {
        let Video { number, bytes, bytes_per_second, real } = video;
        let downloader = if real { super::downloader::REAL } else { super::downloader::FAST };
        format!("http://{}/{downloader}/{number}/{bytes}/{bytes_per_second}/video.mp4", self.address)
    }

    /// An address without a video.
    pub fn missing(&self, number: u64) -> String {
        format!("http://{}/{}/{number}/missing.mp4", self.address, super::downloader::FAST)
    }

    /// The SHA-256 of the video's file.
    pub fn sha256(&self, video: Video) -> String {
        HEXLOWER.encode(&Sha256::digest(content(&self.video, video.number, video.bytes)))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Supports ranges: a worker may continue a download that a dead worker has left.
async fn serve(
    State(video): State<Arc<Vec<u8>>>,
    Path((_, number, bytes, rate)): Path<(String, u64, u64, u64)>,
    headers: HeaderMap,
) -> Response {
    let mut content = content(&video, number, bytes);
    let total = content.len();
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let from = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let from = from.filter(|from| *from < total);
    content.advance(from.unwrap_or(0));
    let headers = [
        (header::CONTENT_TYPE, "video/mp4".to_owned()),
        (header::CONTENT_LENGTH, content.len().to_string()),
        (header::ETAG, format!("\"{number}\"")),
    ];
    let body = Body::from_stream(slowly(content, rate.max(1)));
    match from {
        Some(from) => {
            let range = [(header::CONTENT_RANGE, format!("bytes {from}-{}/{total}", total - 1))];
            (StatusCode::PARTIAL_CONTENT, headers, range, body).into_response()
        }
        None => (headers, body).into_response(),
    }
}

fn slowly(content: Bytes, rate: u64) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    let chunk = usize::try_from(rate / CHUNKS_PER_S).unwrap_or(usize::MAX).max(1);
    let begun = Instant::now();
    futures::stream::unfold((content, 0), move |(mut left, sent)| async move {
        if left.is_empty() {
            return None;
        }
        let next = left.split_to(chunk.min(left.len()));
        let sent = sent + next.len() as u64;
        tokio::time::sleep_until(begun + Duration::from_millis(sent * 1000 / rate)).await;
        Some((Ok(next), (left, sent)))
    })
}

/// The video, filled up to about `bytes` by an mp4 box that players skip and that is unique to this number.
fn content(video: &[u8], number: u64, bytes: u64) -> Bytes {
    const HEAD: usize = 8;
    let room = usize::try_from(bytes).unwrap_or(0).saturating_sub(video.len() + HEAD);
    let filling = format!("video {number:020} ").into_bytes();
    let filling = filling.repeat(room / filling.len() + 1);
    let length = u32::try_from(HEAD + filling.len()).unwrap_or(u32::MAX);
    [video, &length.to_be_bytes(), b"free", &filling].concat().into()
}
