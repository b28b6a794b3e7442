//! A site with content that the harness's site does not have.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

use crate::trial::LOOPBACK;

/// Status, MIME type and bytes by path. Every other path is 404.
#[derive(Clone, Default)]
pub struct Site(BTreeMap<String, (StatusCode, &'static str, Bytes)>);

/// A site that is being served until it is dropped.
pub struct Running {
    address: SocketAddr,
    requests: Requests,
    task: tokio::task::JoinHandle<()>,
}

type Requests = Arc<Mutex<BTreeMap<String, u32>>>;

impl Site {
    pub fn add(&mut self, path: &str, content_type: &'static str, bytes: impl Into<Bytes>) -> &mut Self {
        self.0.insert(path.to_owned(), (StatusCode::OK, content_type, bytes.into()));
        self
    }

    pub fn add_status(&mut self, path: &str, status: u16) -> &mut Self {
        self.0.insert(path.to_owned(), (StatusCode::from_u16(status).unwrap(), "text/plain", Bytes::new()));
        self
    }

    /// Adds the files of a folder; `edit` is given each playlist's text.
    pub fn add_folder(&mut self, prefix: &str, folder: &Path, edit: impl Fn(String) -> String) -> &mut Self {
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            let path = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
            let bytes = std::fs::read(entry.path()).unwrap();
            if path.ends_with(".m3u8") {
                self.add(&path, "application/vnd.apple.mpegurl", edit(String::from_utf8(bytes).unwrap()));
            } else {
                self.add(&path, "application/octet-stream", bytes);
            }
        }
        self
    }

    pub async fn start(&mut self) -> Running {
        let requests = Requests::default();
        let router = Router::new().fallback(answer).with_state((self.clone(), Arc::clone(&requests)));
        let listener = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Running { address, requests, task }
    }
}

/// An address with `?slow` takes a quarter of a second.
async fn answer(State((site, requests)): State<(Site, Requests)>, uri: Uri) -> Response {
    *requests.lock().unwrap().entry(uri.path().to_owned()).or_default() += 1;
    if uri.query() == Some("slow") {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    match site.0.get(uri.path()) {
        Some((status, content_type, bytes)) => {
            (*status, [(CONTENT_TYPE, *content_type)], bytes.clone()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Running {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self, path: &str) -> u32 {
        self.requests.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}
