//! What an attempt has downloaded of a file, for the next one to go on from.
//!
//! The downloader goes on from any `.part` file that it finds and asks no question (it sends no `If-Range`): it would
//! append the end of one version of a file to the beginning of another. A record beside the part therefore holds which
//! version it is of, and how much of it surely is. A part goes on only where the source shows that it still has this
//! version; where anything is in doubt the download starts over: no strong validator, another address or format, a
//! stream of fragments, picture and sound from two files.
//!
//! The record is absent while it is not known whether the downloader adds to the part what belongs to it, so a worker
//! that is killed then leaves a part that is not used.

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
/// How the downloader's file is named, and what it adds while it is not complete. See the template in `command`.
const STEM: &str = "media.";
const UNFINISHED: &str = ".part";

/// The file that the downloader has chosen, as far as it can tell one from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    /// Without the query, in which many sites sign anew for each who asks.
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
    /// So many bytes of the part are of this version.
    bytes: u64,
}

/// What the download may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// It goes on.
    On,
    /// It goes on from so many bytes of before, now that the source has shown that it has the same file. Told once.
    Resumed(u64),
    /// It has gone on from what may be another file. What it says of its progress means nothing yet.
    Unproven,
    /// What is there is of several versions: it must start over.
    Over,
}

/// The part of one run of the downloader.
pub(crate) struct Part<'a> {
    request: Request<'a>,
    /// What is there of before, until it is known to be of the file that the source has now.
    before: Option<Record>,
    source: Option<Source>,
    /// Bytes at the last progress.
    bytes: Option<u64>,
}

/// Whether a folder holds something to go on from.
pub fn is_in(folder: &Path) -> bool {
    folder.join(RECORD).is_file()
}

impl<'a> Part<'a> {
    /// Of a folder with whatever an attempt at the same job has left. Only what can be gone on from stays in it.
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

    /// Where it is.
    pub(crate) const fn folder(&self) -> &'a Path {
        self.request.folder
    }

    /// The downloader has chosen a file; `None` for one that it cannot go on with.
    pub(crate) fn choose(&mut self, source: Option<Source>) -> Course {
        self.source = source;
        match &self.before {
            Some(before) if self.source.as_ref() != Some(&before.source) => Course::Over,
            Some(_) => Course::Unproven,
            None => Course::On,
        }
    }

    /// The downloader has so many bytes, and has had these replies, but for those since it last said so.
    pub(crate) fn advance(&mut self, told: Told<'_>, bytes: u64) -> Course {
        let course = self.course(told);
        let last = self.bytes.replace(bytes);
        match (course, told, last) {
            (Course::Unproven, ..) | (_, Told::Version { .. }, None) => {}
            // What was there at the last time is of replies that are known now; less than that is of one that may not
            // be.
            (Course::On | Course::Resumed(_), Told::Version { validator, .. }, Some(last)) if last <= bytes => {
                self.write(validator, last);
            }
            _ => self.forget(),
        }
        course
    }

    /// The downloader has ended by itself: no reply is missing. `file` is what it has made, if anything.
    pub(crate) fn end(&mut self, told: Told<'_>, file: Option<&Path>) -> Course {
        let course = self.course(told);
        match (course, told) {
            // The source was not asked for the file, so what was there is as it was.
            (Course::Unproven, _) if file.is_none() => self.restore(),
            (Course::Unproven, _) => return Course::Over,
            (Course::On | Course::Resumed(_), Told::Version { validator, .. }) => {
                // Another length is of a file that was worked on after its download.
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
            // Replies to several files, as of a stream.
            (_, None) if self.source.is_none() => Course::On,
            (Told::Changed, _) => Course::Over,
            (_, None) => Course::On,
            (Told::Nothing, Some(_)) => Course::Unproven,
            (Told::Version { validator, of_part }, Some(before)) if *validator == before.validator => {
                let bytes = before.bytes;
                self.before = None;
                // The whole has taken the part's place.
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

    /// All or nothing. Where there is no room the record of before stays, which tells of fewer bytes.
    fn store(&self, record: &Record) {
        let folder = self.request.folder;
        let new = folder.join(RECORD_NEW);
        let stored = serde_json::to_vec(record).map_err(io::Error::from);
        let stored = stored.and_then(|json| fs::write(&new, json)).and_then(|()| fs::rename(&new, folder.join(RECORD)));
        if let Err(error) = stored {
            tracing::debug!(folder = %folder.display(), %error, "cannot record part");
        }
    }

    fn forget(&self) {
        let _ = fs::remove_file(self.request.folder.join(RECORD));
    }
}

/// What can be gone on from, and its file, cut to what is surely of one version. The record is removed.
fn reusable(request: &Request<'_>) -> Option<(Record, PathBuf)> {
    let path = request.folder.join(RECORD);
    let mut record: Record = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    fs::remove_file(path).ok()?;
    let (file, complete) = media_in(request.folder)?;
    let length = file.metadata().ok()?.len();
    // A part that is shorter was begun anew.
    let fits = record.url == *request.url && record.quality == request.quality && length >= record.bytes;
    let total = record.validator.bytes_total.filter(|total| fits && (record.bytes..).contains(total))?;
    // Of a complete file the source is asked for the last byte, since it must be asked for something.
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

/// The only file of the downloader's, and whether it is complete by its name.
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
