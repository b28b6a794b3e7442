//! ListMultipartUploads, which `s3s-fs` lacks, derived from the files that it keeps for each upload.

use std::path::PathBuf;

use data_encoding::BASE64URL_NOPAD;
use hyper::{HeaderMap, Method, Uri, http::Extensions};
use s3s::{Body, S3Request, S3Response, S3Result, route::S3Route};

/// Answers `GET /<bucket>/?uploads` as S3 does, from the folder of the server.
pub struct ListUploads(pub PathBuf);

#[async_trait::async_trait]
impl S3Route for ListUploads {
    fn is_match(&self, method: &Method, uri: &Uri, _headers: &HeaderMap, _extensions: &mut Extensions) -> bool {
        let query = uri.query().unwrap_or_default();
        method == Method::GET && query.split('&').any(|pair| pair == "uploads" || pair == "uploads=")
    }

    async fn call(&self, request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        let bucket = request.uri.path().trim_matches('/').to_owned();
        let query = request.uri.query().unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find_map(|(key, value)| (key == name).then(|| value.into_owned())).unwrap_or_default()
        };
        let (prefix, after) = (value("prefix"), (value("key-marker"), value("upload-id-marker")));
        let max = value("max-uploads").parse().unwrap_or(1000);
        let mut uploads: Vec<_> = self.uploads(&bucket).into_iter().filter(|it| it.0.starts_with(&prefix)).collect();
        uploads.sort_unstable();
        uploads.retain(|(key, id, _)| (key, id) > (&after.0, &after.1));
        let more = uploads.len() > max;
        uploads.truncate(max);
        let mut answer = format!("<ListMultipartUploadsResult><IsTruncated>{more}</IsTruncated>");
        if let Some((key, id, _)) = uploads.last().filter(|_| more) {
            answer += &format!("<NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>");
        }
        for (key, id, begun) in uploads {
            answer +=
                &format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{begun}</Initiated></Upload>");
        }
        answer += "</ListMultipartUploadsResult>";
        Ok(S3Response::new(Body::from(answer)))
    }
}

impl ListUploads {
    /// Key, id and time of creation of each upload.
    fn uploads(&self, bucket: &str) -> Vec<(String, String, String)> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let files: Vec<_> = entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry))).collect();
        let of_bucket = format!(".bucket-{}.object-", BASE64URL_NOPAD.encode(bucket.as_bytes()));
        let upload = |(name, entry): &(String, std::fs::DirEntry)| {
            let (key, id) = name.strip_prefix(&of_bucket)?.strip_suffix(".metadata.json")?.split_once(".upload-")?;
            // The key's file may outlive the upload's own file, which is decisive.
            files.iter().find(|(name, _)| *name == format!(".upload-{id}.json"))?;
            let key = String::from_utf8(BASE64URL_NOPAD.decode(key.as_bytes()).ok()?).ok()?;
            let begun = jiff::Timestamp::try_from(entry.metadata().ok()?.modified().ok()?).ok()?;
            Some((key, id.to_owned(), begun.to_string()))
        };
        files.iter().filter_map(upload).collect()
    }
}
