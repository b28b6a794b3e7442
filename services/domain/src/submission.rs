//! What a person submits: an address and, optionally, a quality.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::URL_BYTES_MAX;

/// The body of `POST /api/download`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Submission {
    /// The address of the video, or of a page with a video on it.
    pub url: SourceUrl,
    /// The best quality wanted; if absent, the best available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

/// An `http` or `https` address with a host and without a password, at most 4,096 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[Hh][Tt][Tt][Pp][Ss]?://", "maxLength" = URL_BYTES_MAX))]
pub struct SourceUrl(String);

/// Why an address is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSourceUrl {
    /// More than 4,096 bytes.
    #[error("the address is longer than {URL_BYTES_MAX} bytes; give a shorter one")]
    TooLong,
    /// No absolute URL.
    #[error("that is no web address: give one that begins with http:// or https://")]
    Malformed,
    /// `file:`, `ftp:`, `ytsearch:` and all other schemes.
    #[error("only http:// and https:// addresses can be downloaded, this one is {0}:")]
    Scheme(String),
    /// `https://user:password@host/`: the password would be in a log that many can read.
    #[error("the address holds a user name or password; give one without")]
    Credentials,
}

impl SourceUrl {
    /// The address as it may be logged: queries and fragments hold tokens.
    #[must_use]
    pub fn without_query(&self) -> &str {
        self.0.split(['?', '#']).next().unwrap_or_default()
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SourceUrl {
    type Err = InvalidSourceUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() > URL_BYTES_MAX {
            return Err(InvalidSourceUrl::TooLong);
        }
        let url = url::Url::parse(text).map_err(|_| InvalidSourceUrl::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(InvalidSourceUrl::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidSourceUrl::Credentials);
        }
        // The parsed form: without control characters and with the host in its canonical spelling. It may be longer.
        let text = String::from(url);
        if text.len() > URL_BYTES_MAX { Err(InvalidSourceUrl::TooLong) } else { Ok(Self(text)) }
    }
}

impl TryFrom<String> for SourceUrl {
    type Error = InvalidSourceUrl;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SourceUrl> for String {
    fn from(url: SourceUrl) -> Self {
        url.0
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The greatest wanted picture height, written like `1080p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[1-9][0-9]{1,3}p$"))]
pub struct Quality(u16);

/// The text is not a quality.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quality is a picture height like 720p or 1080p, from 16p to 8640p; leave it out for the best there is")]
pub struct InvalidQuality;

impl Quality {
    /// The height in pixels.
    #[must_use]
    pub const fn height(self) -> u16 {
        self.0
    }
}

impl FromStr for Quality {
    type Err = InvalidQuality;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_suffix('p').ok_or(InvalidQuality)?;
        let canonical = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse() {
            Ok(height @ 16..=8640) if canonical => Ok(Self(height)),
            _ => Err(InvalidQuality),
        }
    }
}

impl TryFrom<String> for Quality {
    type Error = InvalidQuality;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Quality> for String {
    fn from(quality: Quality) -> Self {
        quality.to_string()
    }
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}p", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_are_taken() {
        let parse = |text: &str| text.parse::<SourceUrl>();
        let signed = parse("https://example.org/video.mp4?token=secret#t=1").unwrap();
        assert_eq!(signed.without_query(), "https://example.org/video.mp4");
        assert_eq!(parse("file:///etc/passwd"), Err(InvalidSourceUrl::Scheme("file".into())));
        assert_eq!(parse("ytsearch:cats"), Err(InvalidSourceUrl::Scheme("ytsearch".into())));
        assert_eq!(parse("--exec=rm"), Err(InvalidSourceUrl::Malformed));
        assert_eq!(parse("http://"), Err(InvalidSourceUrl::Malformed));
        assert_eq!(parse("https://me:secret@example.org/"), Err(InvalidSourceUrl::Credentials));
        assert_eq!(parse(&format!("http://a/{}", "x".repeat(5000))), Err(InvalidSourceUrl::TooLong));
        assert_eq!(parse(" HTTP://Example.org/a b ").unwrap().as_str(), "http://example.org/a%20b");
    }

    #[test]
    fn a_quality_is_a_height_with_a_p() {
        assert_eq!("1080p".parse::<Quality>().unwrap().height(), 1080);
        for bad in ["", "p", "1080", "best", "-1p", "+720p", "0720p", "99999p", "1p", "720p "] {
            assert_eq!(bad.parse::<Quality>(), Err(InvalidQuality), "{bad}");
        }
    }
}
