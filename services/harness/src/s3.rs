//! An S3-compatible server inside this process, which checks signatures: `s3s` over a temporary folder.

mod unfinished;

use std::{net::SocketAddr, path::Path};

use anyhow::Context;
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::serving::Serving;

/// The access key that the server accepts.
pub const ACCESS_KEY: &str = "test-access-key";
/// The secret key that the server accepts.
pub const SECRET_KEY: &str = "test-secret-key";
/// The bucket that exists from the start.
pub const BUCKET: &str = "videos";
/// The region to sign for.
pub const REGION: &str = "us-east-1";

/// A fault of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 503 and does nothing.
    Unavailable,
    /// Accepts requests and answers none; processes them once the fault is over, if the client is still connected.
    Hangs,
}

/// An S3 server with one empty bucket, on its own thread. Dropping it closes every connection and removes its files.
pub struct S3Server {
    // Dropped before the folder, so that no request writes to it while it is removed.
    serving: Serving,
    root: TempDir,
    fault: watch::Sender<Option<Fault>>,
}

impl S3Server {
    /// Starts a server on a free port of 127.0.0.1.
    pub fn start() -> anyhow::Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("millrace-s3-")
            .tempdir()
            .context("cannot make a temporary folder for S3")?;
        std::fs::create_dir(root.path().join(BUCKET))?;
        let files = FileSystem::new(root.path())
            .map_err(|error| anyhow::anyhow!("the S3 server cannot use its folder: {error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        service.set_route(unfinished::ListUploads(root.path().to_owned()));
        let service = service.build();
        let fault = watch::Sender::new(None);
        let faults = fault.subscribe();
        let serving = Serving::start("S3 server", SocketAddr::from(([127, 0, 0, 1], 0)), async move |listener| {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, faults) = (service.clone(), faults.clone());
                let service = service_fn(move |request| answer(service.clone(), faults.clone(), request));
                // Ends with its connection, or with the runtime of this server.
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        })?;
        Ok(Self { serving, root, fault })
    }

    /// The endpoint for clients, `http://127.0.0.1:<port>`, with path-style addresses.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.serving.address())
    }

    /// The address on which it listens.
    pub fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// Sets a fault, which lasts until `None` is set.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.fault.send_replace(fault);
    }

    /// The folder of the bucket's files: an object's key is its path in it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }
}

async fn answer(
    service: S3Service,
    mut faults: watch::Receiver<Option<Fault>>,
    request: Request<Incoming>,
) -> Result<Response<s3s::Body>, s3s::HttpError> {
    // An error means that the server is gone, and its clients with it.
    let _ = faults.wait_for(|fault| *fault != Some(Fault::Hangs)).await;
    if *faults.borrow() == Some(Fault::Unavailable) {
        let mut response =
            Response::new(s3s::Body::from(String::from("<Error><Code>ServiceUnavailable</Code></Error>")));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(response);
    }
    service.call(request.map(s3s::Body::from)).await
}
