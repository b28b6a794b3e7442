//! Files in object storage: a folder by default, or a store that speaks S3.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use bytes::BytesMut;
use object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    local::LocalFileSystem,
    path::Path as Key,
    signer::Signer,
};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

use millrace_domain::{
    Provider,
    limits::{UPLOAD_PART_BYTES, UPLOAD_PARTS_IN_FLIGHT_MAX},
};

use crate::config::Setting;

/// `--storage`
pub const STORAGE: Setting = Setting::new(
    "storage",
    "FOLDER|s3://BUCKET",
    ".millrace/files",
    "Where files are kept: a folder shared by workers and edges, or an S3 bucket with the usual AWS_* variables \
     (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT, AWS_ALLOW_HTTP).",
);

/// Where files are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder.
    Folder(PathBuf),
    /// A bucket; the rest comes from the `AWS_*` variables.
    S3 {
        /// Its name.
        bucket: String,
    },
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once("://") {
            None => Ok(Self::Folder(text.into())),
            Some(("s3", bucket)) => {
                let bucket = bucket.trim_end_matches('/');
                if bucket.is_empty() || bucket.contains('/') {
                    return Err("write s3://BUCKET, without a path".into());
                }
                Ok(Self::S3 { bucket: bucket.into() })
            }
            Some((scheme, _)) => Err(format!("{scheme}:// is not supported: give a folder or s3://BUCKET")),
        }
    }
}

/// An open object store.
#[derive(Clone)]
pub struct Blobs {
    store: Arc<dyn ObjectStore>,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Folder(PathBuf),
    S3(Arc<AmazonS3>),
}

/// What a browser is told of a file.
#[derive(Clone, Debug)]
pub struct Labels {
    /// MIME type.
    pub content_type: String,
    /// The whole `Content-Disposition` header.
    pub content_disposition: String,
}

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes.
    pub size: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl Blobs {
    /// Opens the store. Makes the folder; does not look whether a bucket can be reached.
    ///
    /// # Errors
    /// When the folder cannot be made or the `AWS_*` variables do not fit together.
    pub fn open(location: &Location) -> anyhow::Result<Self> {
        match location {
            Location::Folder(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make the storage folder {}", folder.display()))?;
                let folder = folder.canonicalize()?;
                let store = LocalFileSystem::new_with_prefix(&folder)?.with_automatic_cleanup(true);
                Ok(Self { store: Arc::new(store), place: Place::Folder(folder) })
            }
            Location::S3 { bucket } => {
                let s3 = AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    .build()
                    .context("the AWS_* variables do not make an S3 store")?;
                let s3 = Arc::new(s3);
                Ok(Self { store: s3.clone(), place: Place::S3(s3) })
            }
        }
    }

    /// The kind of store.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self.place {
            Place::Folder(_) => Provider::Local,
            Place::S3(_) => Provider::S3,
        }
    }

    /// Puts the file at `path` under `key`, by multipart upload; hashes on the way. Canceled or failed, it aborts the
    /// upload; dropping the future does not.
    ///
    /// # Errors
    /// When the file cannot be read, the store does not take it, or `cancel` was cancelled.
    pub async fn put_file(
        &self,
        key: &str,
        path: &Path,
        labels: &Labels,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Receipt> {
        let key = Key::parse(key).with_context(|| format!("{key:?} is no key"))?;
        let file = tokio::fs::File::open(path).await.with_context(|| format!("cannot open {}", path.display()))?;
        // A folder keeps no attributes; what a browser is told of its files comes from the job's state.
        let attributes = match self.place {
            Place::Folder(_) => Attributes::new(),
            Place::S3(_) => Attributes::from_iter([
                (Attribute::ContentType, labels.content_type.clone()),
                (Attribute::ContentDisposition, labels.content_disposition.clone()),
            ]),
        };
        let options = PutMultipartOptions { attributes, ..Default::default() };
        let upload =
            self.store.put_multipart_opts(&key, options).await.context("the store does not begin an upload")?;
        send(file, upload, cancel).await
    }

    /// An address under which anybody can fetch the file for `valid`; `None` where the store has none (a folder).
    ///
    /// # Errors
    /// When there are no credentials to sign with.
    pub async fn signed_url(&self, key: &str, valid: Duration) -> anyhow::Result<Option<url::Url>> {
        match &self.place {
            Place::Folder(_) => Ok(None),
            Place::S3(s3) => Ok(Some(s3.signed_url(axum::http::Method::GET, &Key::parse(key)?, valid).await?)),
        }
    }

    /// The file's path, where files are in a folder.
    ///
    /// # Errors
    /// When the key would leave the folder.
    pub fn path(&self, key: &str) -> anyhow::Result<Option<PathBuf>> {
        match &self.place {
            Place::S3(_) => Ok(None),
            Place::Folder(folder) => {
                // `Key` refuses `..` and empty segments.
                let key = Key::parse(key)?;
                Ok(Some(folder.join(key.as_ref())))
            }
        }
    }

    /// Removes a file; one that is not there counts as removed.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn delete(&self, key: &str) -> anyhow::Result<()> {
        match self.store.delete(&Key::parse(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

async fn send(
    mut file: tokio::fs::File,
    upload: Box<dyn MultipartUpload>,
    cancel: &CancellationToken,
) -> anyhow::Result<Receipt> {
    let mut upload = WriteMultipart::new_with_chunk_size(upload, UPLOAD_PART_BYTES);
    let mut hash = Sha256::new();
    let mut size = 0;
    let sending = async {
        loop {
            let mut chunk = BytesMut::with_capacity(1024 * 1024);
            while chunk.len() < chunk.capacity() && file.read_buf(&mut chunk).await? > 0 {}
            if chunk.is_empty() {
                // The last parts, too, are waited for here, where a cancel ends the waiting.
                upload.wait_for_capacity(0).await.context("the store does not take a part")?;
                return Ok::<_, anyhow::Error>(());
            }
            hash.update(&chunk);
            size += chunk.len() as u64;
            upload.wait_for_capacity(UPLOAD_PARTS_IN_FLIGHT_MAX).await.context("the store does not take a part")?;
            upload.put(chunk.freeze());
        }
    };
    let sent = cancel.run_until_cancelled(sending).await.unwrap_or_else(|| Err(anyhow::anyhow!("canceled")));
    if let Err(error) = sent {
        // Nothing is cleaned up on drop; a store that does not answer keeps the parts until its own rule removes them.
        if let Err(error) = upload.abort().await {
            tracing::warn!(%error, "an unfinished upload could not be aborted");
        }
        return Err(error);
    }
    upload.finish().await.context("the store does not complete the upload")?;
    Ok(Receipt { size, sha256: data_encoding::HEXLOWER.encode(&hash.finalize()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_folder_or_a_bucket() {
        assert_eq!("data/files".parse(), Ok(Location::Folder("data/files".into())));
        assert_eq!("s3://videos".parse(), Ok(Location::S3 { bucket: "videos".into() }));
        for bad in ["s3://", "s3://videos/prefix", "gs://videos"] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_key_cannot_leave_the_folder() {
        let folder = std::env::temp_dir();
        let blobs = Blobs::open(&Location::Folder(folder.clone())).unwrap();
        for bad in ["../secret", "jobs/../../secret", "a//b"] {
            assert!(blobs.path(bad).is_err(), "{bad}");
        }
        assert_eq!(blobs.path("jobs/a/1/x.mp4").unwrap(), Some(folder.canonicalize().unwrap().join("jobs/a/1/x.mp4")));
    }
}
