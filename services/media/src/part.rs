//! The part of a file that an attempt has downloaded, for the next attempt to resume from.
//!
//! The downloader resumes any `.part` file that it finds, without a check (it sends no `If-Range`): it would append the
//! end of one version of a file to the beginning of another. A record beside the part therefore holds its version, and
//! how many of its bytes surely belong to that version. A download resumes only if the source shows that it still has
//! this version. In any doubt it starts over: no strong validator, another address or format, a stream of fragments,
//! picture and sound from two files.
//!
//! The record is absent while it is unknown whether the downloader appends bytes of the same version, so the part of a
//! worker that is killed then is not used.

pub(crate) mod validator;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use millrace_domain::submission::{Quality, SourceUrl};
use serde::{Deserialize, Serialize};

use self::validator::{Told, Validator};
use crate::request::Request;

const RECORD: &str = "part.json";
const RECORD_NEW: &str = "part.json.new";
/// The stem of the downloader's file, and its suffix while it is incomplete. See the template in `command`.
const STEM: &str = "media.";
const UNFINISHED: &str = ".part";

/// Identifies the file that the downloader has chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Without the query, which many sites sign anew for each request.
    pub(crate) address: String,
    pub(crate) format: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    url: SourceUrl,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
    source: Source,
    validator: Validator,
    /// How many bytes of the part belong to this version.
    bytes: u64,
}

/// What the download may do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// Continue.
    On,
    /// Continue after this many bytes of an earlier attempt: the source has shown that it has the same file. Returned
    /// once.
    Resumed(u64),
    /// Continue, but what was resumed may be another file: do not report progress yet.
    Unproven,
    /// Start over: the folder holds bytes of several versions.
    Over,
}

/// The part of one run of the downloader.
pub(crate) struct Part<'a> {
    request: Request<'a>,
    /// The record of an earlier attempt, until the source has shown that it still has this version.
    before: Option<Record>,
    source: Option<Source>,
    /// Bytes at the last report of progress.
    bytes: Option<u64>,
}

/// Whether a folder holds a part to resume from.
pub fn is_in(folder: &Path) -> bool {
    folder.join(RECORD).is_file()
}

impl<'a> Part<'a> {
    /// Opens the request's folder, which may hold the files of an earlier attempt, and removes all but a usable part.
    pub(crate) fn open(request: Request<'a>) -> io::Result<Self> {
        let before = reusable(&request);
        let kept = before.as_ref().map(|(_, path)| path.as_path());
        for entry in fs::read_dir(request.folder)? {
            let path = entry?.path();
            if Some(&*path) != kept {
                if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
            }
        }
        Ok(Self { request, before: before.map(|(record, _)| record), source: None, bytes: None })
    }

    /// The request's folder.
    pub(crate) const fn folder(&self) -> &'a Path {
        self.request.folder
    }

    /// The downloader has chosen a file; `None` for one that cannot be resumed.
    pub(crate) fn choose(&mut self, source: Option<Source>) -> Course {
        self.source = source;
        match &self.before {
            Some(before) if self.source.as_ref() != Some(&before.source) => Course::Over,
            Some(_) => Course::Unproven,
            None => Course::On,
        }
    }

    /// The downloader reports `bytes`. `told` covers the replies before the report; newer ones may be missing.
    pub(crate) fn advance(&mut self, told: Told<'_>, bytes: u64) -> Course {
        let course = self.course(told);
        let last = self.bytes.replace(bytes);
        match (course, told, last) {
            (Course::Unproven, ..) | (_, Told::Version { .. }, None) => {}
            // The bytes of the last report belong to replies that are known now. Fewer bytes than then come from a
            // newer reply, which may not be known.
            (Course::On | Course::Resumed(_), Told::Version { validator, .. }, Some(last)) if last <= bytes => {
                self.write(validator, last);
            }
            _ => self.forget(),
        }
        course
    }

    /// The downloader has ended by itself, so no reply is missing. `file` is its result, if any.
    pub(crate) fn end(&mut self, told: Told<'_>, file: Option<&Path>) -> Course {
        let course = self.course(told);
        match (course, told) {
            // The downloader did not request the file, so the part is unchanged.
            (Course::Unproven, _) if file.is_none() => self.restore(),
            (Course::Unproven, _) => return Course::Over,
            (Course::On | Course::Resumed(_), Told::Version { validator, .. }) => {
                // If the length differs, the file was processed after its download.
                let path = file.map(Path::to_path_buf).or_else(|| Some(media_in(self.request.folder)?.0));
                let bytes = path.and_then(|path| path.metadata().ok()).map_or(0, |meta| meta.len());
                let usable = file.is_none() || Some(bytes) == validator.bytes_total;
                if usable { self.write(validator, bytes) } else { self.forget() }
            }
            _ => self.forget(),
        }
        course
    }

    fn course(&mut self, told: Told<'_>) -> Course {
        match (told, &self.before) {
            // Replies for several files, as for a stream.
            (_, None) if self.source.is_none() => Course::On,
            (Told::Changed, _) => Course::Over,
            (_, None) => Course::On,
            (Told::Nothing, Some(_)) => Course::Unproven,
            (Told::Version { validator, of_part }, Some(before)) if *validator == before.validator => {
                let bytes = before.bytes;
                self.before = None;
                // If it is the whole file, it has replaced the part.
                if of_part { Course::Resumed(bytes) } else { Course::On }
            }
            (_, Some(_)) => Course::Over,
        }
    }

    fn write(&self, validator: &Validator, bytes: u64) {
        let Some(source) = self.source.clone().filter(|_| bytes > 0) else { return self.forget() };
        let Request { url, quality, .. } = self.request;
        self.store(&Record { url: url.clone(), quality, source, validator: validator.clone(), bytes });
    }

    fn restore(&self) {
        if let Some(before) = &self.before {
            self.store(before);
        }
    }

    /// Writes all or nothing. If there is no room, the earlier record stays, which counts fewer bytes.
    fn store(&self, record: &Record) {
        let folder = self.request.folder;
        let new = folder.join(RECORD_NEW);
        let stored = serde_json::to_vec(record).map_err(io::Error::from);
        let stored = stored.and_then(|json| fs::write(&new, json)).and_then(|()| fs::rename(&new, folder.join(RECORD)));
        if let Err(error) = stored {
            tracing::debug!(folder = %folder.display(), %error, "cannot write the record of a part");
        }
    }

    fn forget(&self) {
        let _ = fs::remove_file(self.request.folder.join(RECORD));
    }
}

/// The usable record and its file, which is truncated to the bytes that surely belong to the version. Removes the
/// record.
fn reusable(request: &Request<'_>) -> Option<(Record, PathBuf)> {
    let path = request.folder.join(RECORD);
    let mut record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    fs::remove_file(path).ok()?;
    let (file, complete) = media_in(request.folder)?;
    let length = file.metadata().ok()?.len();
    // A shorter part was started over.
    let fits = record.url == *request.url && record.quality == request.quality && length >= record.bytes;
    let total = record.validator.bytes_total.filter(|total| fits && (record.bytes..).contains(total))?;
    // Of a complete file the downloader requests the last byte again, since it must request something.
    record.bytes = record.bytes.min(total.checked_sub(1)?);
    fs::OpenOptions::new().write(true).open(&file).and_then(|file| file.set_len(record.bytes)).ok()?;
    if !complete {
        return Some((record, file));
    }
    let mut unfinished = file.clone().into_os_string();
    unfinished.push(UNFINISHED);
    fs::rename(file, &unfinished).ok()?;
    Some((record, unfinished.into()))
}

/// The downloader's only file, and whether its name says that it is complete.
fn media_in(folder: &Path) -> Option<(PathBuf, bool)> {
    let mut found = None;
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        if let Some(extension) = name.strip_prefix(STEM).filter(|_| entry.file_type().is_ok_and(|kind| kind.is_file()))
        {
            let complete = !extension.contains('.');
            let unfinished = extension.strip_suffix(UNFINISHED).is_some_and(|extension| !extension.contains('.'));
            if found.is_some() || !(complete || unfinished) {
                return None;
            }
            found = Some((entry.path(), complete));
        }
    }
    found
}

#[cfg(test)]
mod tests;
