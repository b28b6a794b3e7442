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
    /// A bucket; its other settings come from the `AWS_*` variables.
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

/// The headers with which a browser receives a file.
#[derive(Clone, Debug)]
pub struct Labels {
    /// MIME type.
    pub content_type: String,
    /// The whole `Content-Disposition` header.
    pub content_disposition: String,
}

/// The size and hash of a stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

impl Blobs {
    /// Opens the store. Creates the folder; does not check whether a bucket can be reached.
    ///
    /// # Errors
    /// When the folder cannot be created or the `AWS_*` variables are inconsistent.
    pub fn open(location: &Location) -> anyhow::Result<Self> {
        match location {
            Location::Folder(folder) => {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot create the storage folder {}", folder.display()))?;
                let folder = folder.canonicalize()?;
                let store = LocalFileSystem::new_with_prefix(&folder)?.with_automatic_cleanup(true);
                Ok(Self { store: Arc::new(store), place: Place::Folder(folder) })
            }
            Location::S3 { bucket } => {
                let builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
                let s3 = builder.clone().build().context("cannot open an S3 store with the given AWS_* variables")?;
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

    /// Begins an upload to `key`. The file is invisible until the upload is complete.
    ///
    /// # Errors
    /// When the store cannot be reached or refuses the upload.
    pub async fn begin(&self, key: &str, labels: &Labels) -> anyhow::Result<Upload> {
        let key = Key::parse(key).with_context(|| format!("{key:?} is not a key"))?;
        let refused = "cannot begin an upload in the store";
        match &self.place {
            // A folder keeps no attributes; the headers of its files come from the job's state.
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

    /// Aborts an upload that another worker has begun; one that does not exist counts as aborted. In a folder there is
    /// nothing to abort: [`Blobs::remove`] finds what an upload has left.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn abort(&self, key: &str, id: &str) -> anyhow::Result<()> {
        let Place::S3 { s3, .. } = &self.place else { return Ok(()) };
        match s3.abort_multipart(&Key::parse(key)?, &id.to_owned()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            // Some stores return this for an upload that does not exist.
            Err(error @ object_store::Error::PermissionDenied { .. }) => {
                tracing::warn!(key, %error, "upload does not exist, or permission to abort it is missing; add a bucket \
                rule that aborts unfinished uploads");
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("cannot abort the upload of {key}")),
        }
    }

    /// Removes each file of a job for whose key `over` returns true, including what unfinished uploads left in a
    /// folder. Returns the number of removed files.
    ///
    /// # Errors
    /// When the store cannot be reached; some files may be gone.
    pub async fn remove(&self, id: &JobId, over: impl Fn(&str) -> bool + Send + 'static) -> anyhow::Result<usize> {
        let prefix = files::folder(id);
        if let Place::Folder(root) = &self.place {
            let root = root.clone();
            let removed = tokio::task::spawn_blocking(move || folder::remove(&root, &prefix, &over)).await?;
            return removed.context("cannot remove the files of a job");
        }
        let mut removed = 0;
        let mut listed = self.store.list(Some(&Key::parse(&prefix)?));
        while let Some(file) = listed.try_next().await.context("cannot list the files of the store")? {
            let key = file.location.as_ref();
            if over(key) {
                self.delete(key).await.with_context(|| format!("cannot remove {key}"))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The uploads that were begun and neither completed nor aborted, at most some thousands. A folder has none: what
    /// they leave there is among its files.
    ///
    /// # Errors
    /// When the store cannot be reached, or refuses to list them.
    pub async fn unfinished(&self) -> anyhow::Result<Vec<Unfinished>> {
        match &self.place {
            Place::Folder(_) => Ok(Vec::new()),
            Place::S3 { unfinished, .. } => unfinished.list().await,
        }
    }

    /// Keys of jobs' files, `max` at most: from the one after `from` to the last, then from the first, so that repeated
    /// calls reach every key. In a folder also what unfinished uploads left.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn keys(&self, from: &str, max: usize) -> anyhow::Result<Vec<String>> {
        if let Place::Folder(root) = &self.place {
            let (root, from) = (root.clone(), from.to_owned());
            let keys = tokio::task::spawn_blocking(move || folder::keys(&root, &from, max)).await?;
            return keys.context("cannot list the files of the store");
        }
        let (prefix, from) = (Key::from(files::FOLDER), Key::parse(from)?);
        let after = self.store.list_with_offset(Some(&prefix), &from).map_ok(|file| file.location);
        let before = self.store.list(Some(&prefix)).map_ok(|file| file.location);
        let before = before.try_take_while(|key| std::future::ready(Ok(*key <= from)));
        let keys = after.chain(before).take(max).map_ok(String::from).try_collect();
        keys.await.context("cannot list the files of the store")
    }

    /// An address at which any client can fetch the file by `method` for `valid`; `None` if the store has no such
    /// addresses (a folder).
    ///
    /// # Errors
    /// When there are no credentials to sign with.
    pub async fn signed_url(&self, method: Method, key: &str, valid: Duration) -> anyhow::Result<Option<url::Url>> {
        match &self.place {
            Place::Folder(_) => Ok(None),
            Place::S3 { s3, .. } => Ok(Some(s3.signed_url(method, &Key::parse(key)?, valid).await?)),
        }
    }

    /// The file's path, if files are in a folder.
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

    /// Removes a file; one that does not exist counts as removed.
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
