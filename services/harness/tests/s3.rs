//! The S3 server stores objects, and refuses unknown credentials.

use std::time::Duration;

use millrace_harness::s3::{ACCESS_KEY, BUCKET, REGION, S3Server, SECRET_KEY};
use object_store::{
    ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::Signer,
};

fn store(server: &S3Server, secret_key: &str) -> AmazonS3 {
    AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_allow_http(true)
        .with_region(REGION)
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(secret_key)
        .build()
        .unwrap()
}

#[tokio::test]
async fn what_is_put_is_there_also_on_disk_and_through_a_signed_url() {
    let server = S3Server::start().unwrap();
    let store = store(&server, SECRET_KEY);
    let key = Path::from("jobs/one.mp4");
    store.put(&key, "content".into()).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "content");
    assert_eq!(std::fs::read(server.root().join(BUCKET).join("jobs/one.mp4")).unwrap(), b"content");

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = store.signed_url(reqwest::Method::GET, &key, Duration::from_secs(60)).await.unwrap();
    assert_eq!(client.get(url.clone()).send().await.unwrap().text().await.unwrap(), "content");
    let tampered = url.as_str().replace("one.mp4", "two.mp4");
    assert_eq!(client.get(tampered).send().await.unwrap().status(), reqwest::StatusCode::FORBIDDEN);

    let create = PutOptions::from(PutMode::Create);
    let error = store.put_opts(&key, "other".into(), create).await.unwrap_err();
    assert!(matches!(error, object_store::Error::AlreadyExists { .. }), "{error}");
}

#[tokio::test]
async fn a_multipart_upload_comes_together_and_an_aborted_one_leaves_nothing() {
    let server = S3Server::start().unwrap();
    let store = store(&server, SECRET_KEY);
    let content = vec![7_u8; 12 * 1024 * 1024];
    let key = Path::from("big");
    let mut upload = WriteMultipart::new(store.put_multipart(&key).await.unwrap());
    upload.write(&content);
    upload.finish().await.unwrap();
    assert_eq!(store.head(&key).await.unwrap().size, content.len() as u64);
    assert!(store.get(&key).await.unwrap().bytes().await.unwrap() == content);

    let gone = Path::from("gone");
    let mut upload = WriteMultipart::new(store.put_multipart(&gone).await.unwrap());
    upload.write(&content);
    upload.abort().await.unwrap();
    assert!(store.head(&gone).await.is_err());
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_dropping_removes_the_files() {
    let server = S3Server::start().unwrap();
    let error = store(&server, "wrong").put(&Path::from("key"), "content".into()).await.unwrap_err();
    assert!(
        error.to_string().contains("SignatureDoesNotMatch")
            || matches!(error, object_store::Error::PermissionDenied { .. }),
        "{error}"
    );
    let root = server.root().to_owned();
    drop(server);
    assert!(!root.exists());
}
