//! Parts of downloads that wait for the next attempt at their job.

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

/// How the name of a folder ends that nobody uses: `<job>.<attempt>.kept`.
const KEPT: &str = "kept";

/// A folder that is kept.
#[derive(Debug)]
pub struct Kept {
    /// The job.
    pub id: JobId,
    /// The attempt that has left it.
    pub attempt: u32,
    path: PathBuf,
    /// Of all files in it.
    bytes: u64,
    /// When the last byte was added.
    written: SystemTime,
}

impl Kept {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Workspace {
    /// All that is kept, the newest first, one for each job.
    pub fn kept(&self) -> Vec<Kept> {
        self.all_kept().0
    }

    /// Removes what is kept, unless an attempt uses it by now.
    pub fn remove_kept(&self, kept: &Kept) {
        match remove(&kept.path) {
            Ok(()) => tracing::debug!(job = %kept.id, bytes = kept.bytes, "removed kept part"),
            Err(error) => {
                tracing::warn!(folder = %kept.path.display(), %error, "cannot remove kept part")
            }
        }
    }

    /// Removes all that is kept: something of this machine's has failed, and it may be that there is no room.
    pub fn make_room(&self) {
        let (kept, older) = self.all_kept();
        kept.iter().chain(&older).for_each(|kept| self.remove_kept(kept));
    }

    /// Removes what is too much or too old.
    pub(super) fn bound_kept(&self) {
        let (kept, mut too_many) = self.all_kept();
        let (mut count, mut bytes) = (0, 0_u64);
        for kept in kept {
            count += 1;
            bytes = bytes.saturating_add(kept.bytes);
            // A time to come is of a clock that was put back.
            let old = kept.written.elapsed().is_ok_and(|age| age > PARTS_KEPT_AGE_MAX);
            if old || count > PARTS_KEPT_MAX || bytes > PARTS_KEPT_BYTES_MAX {
                too_many.push(kept);
            }
        }
        too_many.iter().for_each(|kept| self.remove_kept(kept));
    }

    /// Takes over the parts of a folder in which nothing runs any more, as far as that can be known.
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

    /// What is kept, and what was kept of the same jobs before.
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
        // Removed in between, perhaps.
        let Ok(meta) = entry.and_then(|entry| entry.metadata()) else { continue };
        bytes += meta.len();
        written = written.max(meta.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    }
    Some(Kept { id, attempt, path, bytes, written })
}
