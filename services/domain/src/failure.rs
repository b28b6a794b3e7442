//! Why jobs fail: stable codes, sentences for people, and whether trying again can help.

use crate::event::Failure;

macro_rules! failure_kinds {
    ($($(#[$doc:meta])* $name:ident, $code:literal, $retryable:literal, $sentence:literal;)*) => {
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

            /// Whether the same submission might succeed later.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
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
    SourceNotFound, "source_not_found", false,
        "There is nothing at that address (any more). Check the address.";
    /// 401 or 403.
    SourceForbidden, "source_forbidden", false,
        "The site refuses to hand out this video. It may be private, need a login, or not be available here.";
    /// 429.
    SourceRateLimited, "source_rate_limited", true,
        "The site has had too many requests and refuses more for now. Try again later.";
    /// 5xx, refused, reset, no name, no route, no answer in time.
    SourceUnavailable, "source_unavailable", true,
        "The site could not be reached or did not answer properly. Try again later.";
    /// The download began and could not be brought to its end.
    SourceBroken, "source_broken", true,
        "The download broke off and could not be continued. Try again later.";
    /// A page without a video, or a site that the downloader does not know.
    Unsupported, "unsupported", false,
        "No video was found at that address. Give the address of the video, or of the page that shows it.";
    /// The source is a live stream.
    LiveStream, "live_stream", false,
        "This is a live stream. It can be downloaded once it has ended.";
    /// What arrived holds neither picture nor sound.
    NotMedia, "not_media", false,
        "What was downloaded is neither video nor sound.";
    /// The downloader failed in a way that has no kind of its own.
    DownloadFailed, "download_failed", true,
        "The download failed.";
    /// The object store refused the file or could not be reached.
    StorageFailed, "storage_failed", true,
        "The file was downloaded, but it could not be stored. Try again later.";
    /// The worker has no room, no downloader, or another fault of its own.
    WorkerFailed, "worker_failed", true,
        "Something went wrong on our side. Try again later.";
    /// The worker died or was cut off; only in `retrying`.
    WorkerLost, "worker_lost", true,
        "The worker was lost. Another one starts over.";
    /// The worker was told to stop; only in `retrying`.
    WorkerStopped, "worker_stopped", true,
        "The worker was stopped. Another one starts over.";
    /// Too many workers were lost on this job.
    TooManyAttempts, "too_many_attempts", false,
        "The job was given up after it had brought down its workers several times.";
    /// A person ended the job.
    Canceled, "canceled", false,
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
        Failure { code: self.code().into(), message: message.into(), retryable: self.retryable() }.bounded()
    }
}
