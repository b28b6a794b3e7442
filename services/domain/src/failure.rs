//! Why jobs fail: stable codes, sentences for people, and whether trying again can help.

use Nature::{Permanent, Transient};

use crate::event::Failure;

/// Whether a failure lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// The same submission fails again: the job ends at once.
    Permanent,
    /// The same submission may succeed later: it is retried after a pause, see [`crate::retry`].
    Transient,
}

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $nature:ident, $sentence:literal;)*) => {
        /// The kinds of failure. Codes are frozen once released; sentences may be improved.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FailureKind { $($(#[$doc])* $name,)* }

        impl FailureKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Whether it lasts.
            #[must_use]
            pub const fn nature(self) -> Nature {
                match self { $(Self::$name => $nature,)* }
            }

            /// The sentence for people.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

failure_kinds! {
    /// 404 or 410, or the site says that it was removed.
    SourceNotFound, "source_not_found", Permanent,
        "There is nothing at that address (any more). Check the address.";
    /// 401 or 403, or the site protects the video.
    SourceForbidden, "source_forbidden", Permanent,
        "The site refuses to hand out this video. It may be private, need a login, or not be available here.";
    /// Private, or only for logged-in users.
    SourcePrivate, "source_private", Permanent,
        "The video is not public: it is private, or the site wants a login. Only public videos can be downloaded.";
    /// Not available in the worker's country.
    SourceGeoBlocked, "source_geo_blocked", Permanent,
        "The site does not offer this video in the country that we download from.";
    /// 429.
    SourceRateLimited, "source_rate_limited", Transient,
        "The site has had too many requests and refuses more for now. Try again later.";
    /// 5xx, connection refused or reset, no DNS name, no route, or a time-out.
    SourceUnavailable, "source_unavailable", Transient,
        "The site could not be reached or did not answer properly. Try again later.";
    /// The file address that the site gave has expired; a new attempt reads a new one.
    LinkExpired, "link_expired", Transient,
        "The site refused its own link to the file; it may have expired. Try again.";
    /// The download began and could not be completed.
    SourceBroken, "source_broken", Transient,
        "The download broke off and could not be continued. Try again later.";
    /// A page without a video, or a site that the downloader does not know.
    Unsupported, "unsupported", Permanent,
        "No video was found at that address. Give the address of the video, or of the page that shows it.";
    /// The source is a live stream.
    LiveStream, "live_stream", Permanent,
        "This is a live stream. It can be downloaded once it has ended.";
    /// The file has more bytes than the operator allows.
    TooLarge, "too_large", Permanent,
        "The file is larger than this service takes. Ask for a lower quality.";
    /// The video is longer than the operator allows.
    TooLong, "too_long", Permanent,
        "The video is longer than this service takes.";
    /// The downloaded file holds neither picture nor sound.
    NotMedia, "not_media", Permanent,
        "What was downloaded is neither video nor sound.";
    /// The downloader failed for a reason without a kind of its own.
    DownloadFailed, "download_failed", Transient,
        "The download failed.";
    /// The object store refused the file or could not be reached.
    StorageFailed, "storage_failed", Transient,
        "The file was downloaded, but it could not be stored. Try again later.";
    /// The worker's disk is full.
    WorkerFull, "worker_full", Transient,
        "There is no room for the file on the server that downloads it. It is tried again, and goes on once there is \
        room.";
    /// The worker has no downloader, or another defect of its own.
    WorkerFailed, "worker_failed", Transient,
        "Something went wrong on our side. Try again later.";
    /// The worker died or was cut off; only in `retrying`.
    WorkerLost, "worker_lost", Transient,
        "The worker was lost. Another one goes on.";
    /// The worker was asked to stop; only in `retrying`.
    WorkerStopped, "worker_stopped", Transient,
        "The worker was stopped. Another one goes on.";
    /// The job has lost too many workers and is not tried again.
    TooManyAttempts, "too_many_attempts", Permanent,
        "The job was given up after it had brought down its workers several times.";
    /// A person ended the job.
    Canceled, "canceled", Permanent,
        "The job was canceled.";
}

impl FailureKind {
    /// The failure with its own sentence.
    #[must_use]
    pub fn failure(self) -> Failure {
        self.because(self.sentence())
    }

    /// The failure with another sentence.
    #[must_use]
    pub fn because(self, message: impl Into<String>) -> Failure {
        Failure { code: self.code().into(), message: message.into(), retryable: self.nature() == Transient }.bounded()
    }
}
