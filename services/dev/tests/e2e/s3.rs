//! A job from submission to link, with an S3-compatible store.

use millrace_harness::s3::{ACCESS_KEY, BUCKET, REGION, S3Server, SECRET_KEY};

use crate::{
    stack::{Options, Stack, files_under},
    support::sha256,
};

/// A stack on a server's bucket.
pub fn options(s3: &S3Server) -> Options {
    let env = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ENDPOINT", s3.endpoint()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
    ];
    Options {
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        storage: Some(format!("s3://{BUCKET}")),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_job_ends_in_a_bucket_and_its_link_redirects_to_a_signed_address() {
    let s3 = S3Server::start().expect("an S3 server");
    let stack = Stack::start_with(options(&s3)).await;
    let end = stack.end_of("/page.html").await;
    assert_eq!((&end["status"], &end["storageProvider"]), (&"completed".into(), &"s3".into()), "{end}");
    let id = end["jobId"].as_str().unwrap();
    let redirect = stack.api.get(&format!("/api/download/{id}/file")).await;
    assert_eq!(redirect.status, 302);
    let signed = redirect.header("location");
    assert!(signed.starts_with(&s3.endpoint()) && signed.contains(&format!("jobs/{id}/1/")), "{signed}");
    let file = reqwest::get(signed).await.unwrap();
    assert_eq!(file.status(), 200);
    assert_eq!(file.headers()["content-type"], "video/mp4");
    assert!(file.headers()["content-disposition"].to_str().unwrap().starts_with("attachment;"));
    assert_eq!(sha256(file.bytes().await.unwrap()), stack.media.video_sha256());
    let path = format!("/api/download/{id}/file");
    let head = stack.api.request(reqwest::Method::HEAD, &path).send().await.unwrap();
    let head = reqwest::Client::new().head(head.headers()["location"].to_str().unwrap()).send().await.unwrap();
    assert_eq!(head.status(), 200, "an address is signed for one method");
    assert!(files_under(&stack.folder.path().join("files")).is_empty(), "nothing goes to a folder");
    stack.assert_no_leftovers();
    stack.verify();
}
