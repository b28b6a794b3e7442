//! An S3-compatible server inside this process, which checks signatures: `s3s` over a temporary folder.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;

use crate::serving::Serving;

/// The access key that the server takes.
pub const ACCESS_KEY: &str = "test-access-key";
/// The secret key that the server takes.
pub const SECRET_KEY: &str = "test-secret-key";
/// The bucket that is there from the start.
pub const BUCKET: &str = "videos";
/// The region to sign for.
pub const REGION: &str = "us-east-1";

/// An S3 server with one empty bucket, on a thread of its own. Dropped, it closes every connection and its files are removed.
pub struct S3Server {
    // Before the folder: nothing may write to it any more when it is removed.
    serving: Serving,
    root: TempDir,
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
        let service = service.build();
        let serving = Serving::start("S3 server", SocketAddr::from(([127, 0, 0, 1], 0)), async move |listener| {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                // Ends with its connection, or with the runtime of this server.
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
                });
            }
        })?;
        Ok(Self { serving, root })
    }

    /// The endpoint for clients, `http://127.0.0.1:<port>`, with path-style addresses.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.serving.address())
    }

    /// The folder of the bucket's files: an object's key is its path in it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }
}
