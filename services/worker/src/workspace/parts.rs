//! Kept parts: downloads that wait for the next attempt at their job.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use millrace_domain::{
    JobId,
    limits::{PARTS_KEPT_AGE_MAX, PARTS_KEPT_BYTES_MAX, PARTS_KEPT_MAX},
};
use millrace_media as media;

use super::{Workspace, orphans, remove};

/// Suffix of a kept folder: `<job>.<attempt>.kept`.
const KEPT: &str = "kept";

/// A kept folder.
#[derive(Debug)]
pub struct Kept {
    /// The job.
    pub id: JobId,
    /// The attempt that left it.
    pub attempt: u32,
    path: PathBuf,
    /// The size of all files in it.
    bytes: u64,
    /// When the last byte was added.
    written: SystemTime,
}

impl Kept {
    /// The folder's path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Workspace {
    /// The newest kept part of each job, newest first.
    pub fn kept(&self) -> Vec<Kept> {
        self.all_kept().0
    }

    /// Removes a kept part, unless an attempt has taken it meanwhile.
    pub fn remove_kept(&self, kept: &Kept) {
        match remove(&kept.path) {
            Ok(()) => tracing::debug!(job = %kept.id, bytes = kept.bytes, "removed kept part"),
            Err(error) => {
                tracing::warn!(folder = %kept.path.display(), %error, "cannot remove kept part")
            }
        }
    }

    /// Removes all kept parts: this machine has failed an attempt, and its disk may be full.
    pub fn make_room(&self) {
        let (kept, older) = self.all_kept();
        kept.iter().chain(&older).for_each(|kept| self.remove_kept(kept));
    }

    /// Removes kept parts that are too old, too many or too large.
    pub(super) fn bound_kept(&self) {
        let (kept, mut too_many) = self.all_kept();
        let (mut count, mut bytes) = (0, 0_u64);
        for kept in kept {
            count += 1;
            bytes = bytes.saturating_add(kept.bytes);
            // A time in the future means that the clock was set back.
            let old = kept.written.elapsed().is_ok_and(|age| age > PARTS_KEPT_AGE_MAX);
            if old || count > PARTS_KEPT_MAX || bytes > PARTS_KEPT_BYTES_MAX {
                too_many.push(kept);
            }
        }
        too_many.iter().for_each(|kept| self.remove_kept(kept));
    }

    /// Takes over the parts in a dead worker's folder, if its processes can be found and are therefore ended.
    pub(super) fn adopt_parts(&self, folder: &Path) -> io::Result<()> {
        if !orphans::can_be_found() {
            return Ok(());
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if let Some((id, attempt, _)) = parse(&path).filter(|_| media::can_be_resumed(&path)) {
                tracing::info!(job = %id, attempt, "took over part of a dead worker");
                let kept = self.path_of_kept(&id, attempt);
                remove(&kept)?;
                fs::rename(path, kept)?;
            }
        }
        Ok(())
    }

    pub(super) fn path_of_kept(&self, id: &JobId, attempt: u32) -> PathBuf {
        self.folder.join(format!("{id}.{attempt}.{KEPT}"))
    }

    /// The newest kept part of each job, and the older ones.
    fn all_kept(&self) -> (Vec<Kept>, Vec<Kept>) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return (Vec::new(), Vec::new()) };
        let mut all: Vec<_> = entries.filter_map(|entry| read(entry.ok()?.path())).collect();
        all.sort_by_key(|kept| (std::cmp::Reverse(kept.written), std::cmp::Reverse(kept.attempt)));
        let mut seen = std::collections::HashSet::new();
        all.into_iter().partition(|kept| seen.insert(kept.id.clone()))
    }
}

/// The job, the attempt, and whether it is kept.
fn parse(path: &Path) -> Option<(JobId, u32, bool)> {
    let mut words = path.file_name()?.to_str()?.split('.');
    let (id, attempt) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let kept = match words.next() {
        None => false,
        Some(KEPT) => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some((id, attempt, kept))
}

fn read(path: PathBuf) -> Option<Kept> {
    let (id, attempt, true) = parse(&path)? else { return None };
    let (mut bytes, mut written) = (0, SystemTime::UNIX_EPOCH);
    for entry in fs::read_dir(&path).ok()? {
        // The entry may have been removed meanwhile.
        let Ok(meta) = entry.and_then(|entry| entry.metadata()) else { continue };
        bytes += meta.len();
        written = written.max(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    }
    Some(Kept { id, attempt, path, bytes, written })
}
