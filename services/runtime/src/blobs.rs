//! Files in object storage: a folder by default, or a store that speaks S3.

mod folder;
mod unfinished;
mod upload;

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::http::Method;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    Attribute, Attributes, ObjectStore, ObjectStoreExt, PutMultipartOptions,
    aws::{AmazonS3, AmazonS3Builder},
    local::LocalFileSystem,
    multipart::MultipartStore,
    path::Path as Key,
    signer::Signer,
};

use millrace_domain::{JobId, Provider, files};

pub use self::{unfinished::Unfinished, upload::Upload};

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
    S3 { s3: Arc<AmazonS3>, unfinished: unfinished::Lister },
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
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                let s3 = builder.clone().build().context("the AWS_* variables do not make an S3 store")?;
                let s3 = Arc::new(s3);
                let unfinished = unfinished::Lister::new(&builder, s3.clone())?;
                Ok(Self { store: s3.clone(), place: Place::S3 { s3, unfinished } })
            }
        }
    }

    /// The kind of store.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        match self.place {
            Place::Folder(_) => Provider::Local,
            Place::S3 { .. } => Provider::S3,
        }
    }

    /// Begins an upload to `key`. Nobody sees anything there before it is complete.
    ///
    /// # Errors
    /// When the store cannot be reached or does not take it.
    pub async fn begin(&self, key: &str, labels: &Labels) -> anyhow::Result<Upload> {
        let key = Key::parse(key).with_context(|| format!("{key:?} is no key"))?;
        let refused = "the store does not begin an upload";
        match &self.place {
            // A folder keeps no attributes; what a browser is told of its files comes from the job's state.
            Place::Folder(_) => Ok(Upload { id: None, parts: self.store.put_multipart(&key).await.context(refused)? }),
            Place::S3 { s3, .. } => {
                let attributes = Attributes::from_iter([
                    (Attribute::ContentType, labels.content_type.clone()),
                    (Attribute::ContentDisposition, labels.content_disposition.clone()),
                ]);
                let options = PutMultipartOptions { attributes, ..Default::default() };
                let id = s3.create_multipart_opts(&key, options).await.context(refused)?;
                let parts = Box::new(upload::S3Parts::new(s3.clone(), key, id.clone()));
                Ok(Upload { id: Some(id), parts })
            }
        }
    }

    /// Aborts an upload that somebody else has begun; one that is not there counts as aborted. In a folder there is
    /// nothing to abort: [`Blobs::remove`] finds what an upload has left.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn abort(&self, key: &str, id: &str) -> anyhow::Result<()> {
        let Place::S3 { s3, .. } = &self.place else { return Ok(()) };
        match s3.abort_multipart(&Key::parse(key)?, &id.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            // Some stores say so of one that is not there.
            Err(error @ object_store::Error::PermissionDenied { .. }) => {
                tracing::warn!(key, %error, "upload is gone or may not be aborted; set a rule in the bucket that \
                aborts it");
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("the upload of {key} could not be aborted")),
        }
    }

    /// Removes each file of a job that is `over` by its key, also what uploads to a folder have left half done. Returns
    /// how many there were.
    ///
    /// # Errors
    /// When the store cannot be reached; it may have removed some.
    pub async fn remove(&self, id: &JobId, over: impl Fn(&str) -> bool + Send + 'static) -> anyhow::Result<usize> {
        let prefix = files::folder(id);
        if let Place::Folder(root) = &self.place {
            let root = root.clone();
            let removed = tokio::task::spawn_blocking(move || folder::remove(&root, &prefix, &over)).await?;
            return removed.context("what is left of a job could not be removed");
        }
        let mut removed = 0;
        let mut listed = self.store.list(Some(&Key::parse(&prefix)?));
        while let Some(file) = listed.try_next().await.context("the store does not list its files")? {
            let key = file.location.as_ref();
            if over(key) {
                self.delete(key).await.with_context(|| format!("{key} could not be removed"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The uploads that were begun and neither completed nor aborted, some thousands at most. A folder has none: what
    /// they leave there is among its files.
    ///
    /// # Errors
    /// When the store cannot be reached, or does not list them.
    pub async fn unfinished(&self) -> anyhow::Result<Vec<Unfinished>> {
        match &self.place {
            Place::Folder(_) => Ok(Vec::new()),
            Place::S3 { unfinished, .. } => unfinished.list().await,
        }
    }

    /// Keys of files of jobs, `max` at most: from the one after `from` to the last and on from the first, so that each
    /// comes up sometime. In a folder also what uploads have left half done.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn keys(&self, from: &str, max: usize) -> anyhow::Result<Vec<String>> {
        if let Place::Folder(root) = &self.place {
            let (root, from) = (root.clone(), from.to_owned());
            let keys = tokio::task::spawn_blocking(move || folder::keys(&root, &from, max)).await?;
            return keys.context("the files cannot be listed");
        }
        let (prefix, from) = (Key::from(files::FOLDER), Key::parse(from)?);
        let after = self.store.list_with_offset(Some(&prefix), &from).map_ok(|file| file.location);
        let before = self.store.list(Some(&prefix)).map_ok(|file| file.location);
        let before = before.try_take_while(|key| std::future::ready(Ok(*key <= from)));
        let keys = after.chain(before).take(max).map_ok(String::from).try_collect();
        keys.await.context("the store does not list its files")
    }

    /// An address under which anybody can fetch the file by `method` for `valid`; `None` where the store has none (a
    /// folder).
    ///
    /// # Errors When there are no credentials to sign with.
    pub async fn signed_url(&self, method: Method, key: &str, valid: Duration) -> anyhow::Result<Option<url::Url>> {
        match &self.place {
            Place::Folder(_) => Ok(None),
            Place::S3 { s3, .. } => Ok(Some(s3.signed_url(method, &Key::parse(key)?, valid).await?)),
        }
    }

    /// The file's path, where files are in a folder.
    ///
    /// # Errors
    /// When the key would leave the folder.
    pub fn path(&self, key: &str) -> anyhow::Result<Option<PathBuf>> {
        match &self.place {
            Place::S3 { .. } => Ok(None),
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
