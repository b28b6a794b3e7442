//! Lists the unfinished uploads of an S3 store by ListMultipartUploads, which `object_store` does not offer: it signs
//! the request and sends it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use axum::http::{Method, Request};
use jiff::Timestamp;
use object_store::{
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
    client::{ClientConfigKey, ClientOptions, HttpClient, HttpConnector, HttpRequestBody, ReqwestConnector},
    path::Path as Key,
    signer::{SignedUrlOptions, Signer},
};
use serde::Deserialize;

use millrace_domain::{
    files,
    limits::{UNFINISHED_UPLOADS_MAX, UNFINISHED_UPLOADS_PAGE_MAX},
};

/// How long the signature of a request is valid.
const VALID: Duration = Duration::from_secs(60);
/// The keys of the store's configuration that concern connections.
const OF_CONNECTIONS: [ClientConfigKey; 7] = [
    ClientConfigKey::AllowHttp,
    ClientConfigKey::AllowInvalidCertificates,
    ClientConfigKey::ConnectTimeout,
    ClientConfigKey::ProxyCaCertificate,
    ClientConfigKey::ProxyExcludes,
    ClientConfigKey::ProxyUrl,
    ClientConfigKey::Timeout,
];

/// An upload that was begun, and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The key of its file.
    pub key: String,
    /// The store's id of the upload.
    pub id: String,
    /// When it was begun, by the store's clock.
    pub begun: Timestamp,
}

/// Lists the uploads of a store.
#[derive(Clone)]
pub(super) struct Lister {
    s3: Arc<AmazonS3>,
    http: HttpClient,
}

impl Lister {
    pub(super) fn new(builder: &AmazonS3Builder, s3: Arc<AmazonS3>) -> anyhow::Result<Self> {
        let mut options = ClientOptions::new();
        for key in OF_CONNECTIONS {
            if let Some(value) = builder.get_config_value(&AmazonS3ConfigKey::Client(key)) {
                options = options.with_config(key, value);
            }
        }
        Ok(Self { s3, http: ReqwestConnector::default().connect(&options)? })
    }

    /// The unfinished uploads of all jobs, in the order of their keys, at most [`UNFINISHED_UPLOADS_MAX`].
    pub(super) async fn list(&self) -> anyhow::Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.page(after.as_ref()).await?;
            let more = page.more && !page.uploads.is_empty();
            found.extend(page.uploads.into_iter().map(Unfinished::from));
            if !more || found.len() >= UNFINISHED_UPLOADS_MAX {
                return Ok(found);
            }
            after = Some((page.next_key, page.next_id));
        }
    }

    async fn page(&self, after: Option<&(String, String)>) -> anyhow::Result<Page> {
        let mut query = vec![
            ("uploads", String::new()),
            ("prefix", format!("{}/", files::FOLDER)),
            ("max-uploads", UNFINISHED_UPLOADS_PAGE_MAX.to_string()),
        ];
        if let Some((key, id)) = after {
            query.extend([("key-marker", key.clone()), ("upload-id-marker", id.clone())]);
        }
        let query = SignedUrlOptions::default().with_query(query);
        let url = self.s3.signed_url_opts(Method::GET, &Key::default(), VALID, &query).await?;
        let request = Request::get(url.as_str()).body(HttpRequestBody::empty())?;
        let response = self.http.execute(request).await.context("cannot reach the store")?;
        let status = response.status();
        let body = response.into_body().bytes().await?;
        let body = String::from_utf8_lossy(&body);
        if !status.is_success() {
            let why = quick_xml::de::from_str::<Refusal>(&body).map_or_else(|_| body.into_owned(), |it| it.code);
            bail!("cannot list the unfinished uploads of the store: {status} {why}");
        }
        quick_xml::de::from_str(&body).context("cannot decode the store's list of unfinished uploads")
    }
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "Code")]
    code: String,
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "Upload", default)]
    uploads: Vec<Item>,
    #[serde(rename = "IsTruncated", default)]
    more: bool,
    #[serde(rename = "NextKeyMarker", default)]
    next_key: String,
    #[serde(rename = "NextUploadIdMarker", default)]
    next_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    key: String,
    upload_id: String,
    initiated: Timestamp,
}

impl From<Item> for Unfinished {
    fn from(Item { key, upload_id: id, initiated: begun }: Item) -> Self {
        Self { key, id, begun }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Amazon documents it.
    const ANSWER: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Bucket>videos</Bucket>
  <KeyMarker></KeyMarker>
  <UploadIdMarker></UploadIdMarker>
  <NextKeyMarker>jobs/b/1/video.mp4</NextKeyMarker>
  <NextUploadIdMarker>two</NextUploadIdMarker>
  <MaxUploads>2</MaxUploads>
  <IsTruncated>true</IsTruncated>
  <Upload>
    <Key>jobs/a/1/x&amp;y.mp4</Key>
    <UploadId>one</UploadId>
    <Initiator><ID>i</ID><DisplayName>n</DisplayName></Initiator>
    <Owner><ID>o</ID></Owner>
    <StorageClass>STANDARD</StorageClass>
    <Initiated>2026-11-10T20:48:33.000Z</Initiated>
  </Upload>
  <Upload>
    <Key>jobs/b/1/video.mp4</Key>
    <UploadId>two</UploadId>
    <Initiated>2026-11-10T20:49:33.000Z</Initiated>
  </Upload>
</ListMultipartUploadsResult>"#;

    #[test]
    fn an_answer_tells_each_upload_and_where_the_next_page_begins() {
        let page: Page = quick_xml::de::from_str(ANSWER).unwrap();
        assert!(page.more);
        assert_eq!((page.next_key.as_str(), page.next_id.as_str()), ("jobs/b/1/video.mp4", "two"));
        let uploads: Vec<_> = page.uploads.into_iter().map(Unfinished::from).collect();
        let begun = "2026-11-10T20:48:33Z".parse().unwrap();
        assert_eq!(uploads[0], Unfinished { key: "jobs/a/1/x&y.mp4".into(), id: "one".into(), begun });
        assert_eq!(uploads.len(), 2);
    }

    #[test]
    fn an_answer_without_an_upload_is_the_last_one() {
        let page: Page = quick_xml::de::from_str("<R><IsTruncated>false</IsTruncated></R>").unwrap();
        assert!(!page.more && page.uploads.is_empty());
    }
}
