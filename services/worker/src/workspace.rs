//! The folders of downloads under way: one per attempt, in one per worker process.
//!
//! A process holds a lock on its folder, which the kernel releases however the process ends; the next worker on the
//! same work folder kills what still runs in a folder that no living process holds, takes over the parts that a retry
//! can go on from, and removes the rest.
//!
//! A part is kept for its job, whichever attempt comes next, until the job has begun elsewhere or has ended (`sweep`),
//! or until it is too old or there are too many. A folder is in use or kept, by its name; only a rename makes it the
//! other, so two attempts never use the same one.

mod orphans;
mod parts;
pub mod sweep;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use millrace_domain::{
    JobId,
    limits::{WORK_FOLDER_MAKING_MAX, WORK_ROOM_MIN},
};
use millrace_media as media;

const LOCK: &str = "lock";
/// How the name of a folder begins whose lock is not held yet.
const MAKING: &str = "new-";
/// A folder that shows whether something can be written.
const PROBE: &str = "probe-";

/// This process's folder.
pub struct Workspace {
    folder: PathBuf,
    _lock: File,
}

/// What a look at the disk of the work folder has shown.
pub struct Room {
    /// Bytes that are free, as far as the system says.
    pub bytes: Option<u64>,
    /// Why no download can be begun, for people: nothing can be written, or there is hardly any room.
    pub shortage: Option<String>,
}

/// One attempt's folder; removed on drop.
pub struct Scratch {
    id: JobId,
    attempt: u32,
    folder: PathBuf,
}

impl Workspace {
    /// Makes a folder for this process, takes over the parts of dead ones and removes what else they have left.
    pub fn open(work_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(work_dir)?;
        let work_dir = work_dir.canonicalize()?;
        // Under a name that nobody removes until the lock is held.
        let name = format!("{:016x}", rand::random::<u64>());
        let (making, folder) = (work_dir.join(format!("{MAKING}{name}")), work_dir.join(name));
        fs::create_dir(&making)?;
        let lock = File::create_new(making.join(LOCK))?;
        lock.lock()?;
        fs::rename(&making, &folder)?;
        let workspace = Self { folder, _lock: lock };
        for entry in fs::read_dir(&work_dir)? {
            let path = entry?.path();
            if path != workspace.folder {
                workspace.inherit(&path);
            }
        }
        workspace.bound_kept();
        Ok(workspace)
    }

    /// Looks at the disk: its room, and whether the folder can be written to.
    pub fn room(&self) -> Room {
        let bytes = rustix::fs::statvfs(&self.folder).ok().map(|disk| disk.f_bavail * disk.f_frsize);
        let folder = self.folder.parent().unwrap_or(&self.folder).display();
        let shortage = match bytes {
            Some(bytes) if bytes < WORK_ROOM_MIN => Some(format!(
                "the disk of the work folder {folder} is full, {bytes} bytes are free: make room there, or give the \
                 worker another folder by --work-dir"
            )),
            _ => self.write_error().map(|error| {
                format!(
                    "nothing can be written to the work folder {folder}: {error}. Make it writable, or give the worker \
                     another one by --work-dir, and restart it"
                )
            }),
        };
        Room { bytes, shortage }
    }

    fn write_error(&self) -> Option<io::Error> {
        let probe = self.folder.join(format!("{PROBE}{:016x}", rand::random::<u64>()));
        fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)).err()
    }

    /// A folder for one attempt: with what an earlier one at the job has left to go on from, or empty.
    pub fn scratch(&self, id: &JobId, attempt: u32) -> io::Result<Scratch> {
        let folder = self.folder.join(format!("{id}.{attempt}"));
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let kept = self.kept().into_iter().find(|kept| kept.id == *id);
        if kept.is_none_or(|kept| fs::rename(kept.path(), &folder).is_err()) {
            fs::create_dir(&folder)?;
        }
        Ok(Scratch { id: id.clone(), attempt, folder })
    }

    /// Keeps an attempt's folder for the next attempt if that can go on from it.
    pub fn keep(&self, scratch: Scratch) {
        if media::can_be_resumed(scratch.path()) {
            let path = self.path_of_kept(&scratch.id, scratch.attempt);
            match fs::rename(scratch.path(), path) {
                Ok(()) => tracing::debug!(job = %scratch.id, "keeping part for the next attempt"),
                Err(error) => tracing::warn!(job = %scratch.id, %error, "cannot keep part"),
            }
            self.bound_kept();
        }
    }

    /// A folder without a lock file is none of ours, and one that is being made is left alone.
    fn inherit(&self, folder: &Path) {
        let is_new = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(MAKING));
        let age = fs::metadata(folder).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if is_new && age.is_none_or(|age| age < WORK_FOLDER_MAKING_MAX) {
            return;
        }
        // Held until the folder is gone: of two workers that start at once, one takes it over.
        let lock = File::open(folder.join(LOCK));
        match &lock {
            Ok(lock) if lock.try_lock().is_err() => return,
            // Whoever was making it was killed before it had a lock.
            Err(_) if !is_new => return,
            _ => {}
        }
        let emptied =
            orphans::kill_in(folder).and_then(|()| self.adopt_parts(folder)).and_then(|()| fs::remove_dir_all(folder));
        match emptied {
            Ok(()) => tracing::info!(folder = %folder.display(), "removed folder of a dead worker"),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove folder of a dead worker")
            }
        }
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // The next worker on the work folder takes over what is kept.
        if self.kept().is_empty() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes it.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove download folder");
        }
    }
}

/// Removes a folder that may be gone already.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
