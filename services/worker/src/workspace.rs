//! The folders of running downloads: one per attempt, within one per worker process.
//!
//! A process holds a lock on its folder; the kernel releases it when the process ends in any way. The next worker on
//! the same work folder handles the folders that no living process holds: it kills the processes that still run there,
//! takes over the parts that a retry can resume from, and removes the rest.
//!
//! A part is kept for the next attempt at its job, until the job has begun elsewhere or has ended (`sweep`), or until
//! the part is too old or there are too many. The name of a folder shows whether it is in use or kept; only a rename
//! changes that, so two attempts never use the same folder.

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
/// Prefix of a folder whose lock is not held yet.
const MAKING: &str = "new-";
/// Prefix of a folder that tests whether the work folder is writable.
const PROBE: &str = "probe-";

/// This process's folder.
pub struct Workspace {
    folder: PathBuf,
    _lock: File,
}

/// The state of the work folder's disk.
pub struct Room {
    /// Free bytes, if the system reports them.
    pub bytes: Option<u64>,
    /// Why no download can begin, as text for the operator: nothing can be written, or there is too little room.
    pub shortage: Option<String>,
}

/// One attempt's folder; removed on drop.
pub struct Scratch {
    id: JobId,
    attempt: u32,
    folder: PathBuf,
}

impl Workspace {
    /// Creates a folder for this process, takes over the parts of dead workers, and removes their other files.
    pub fn open(work_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(work_dir)?;
        let work_dir = work_dir.canonicalize()?;
        // Create it under a name that other workers do not remove, until the lock is held.
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

    /// Checks the disk: its free bytes, and whether the folder is writable.
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

    /// Creates a folder for one attempt: with the kept part of an earlier attempt at the job, or empty.
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

    /// Keeps an attempt's folder for the next attempt, if it can resume from it.
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

    /// Takes over the folder of a dead worker. Ignores a folder without a lock file, which is foreign, and one that is
    /// being created.
    fn inherit(&self, folder: &Path) {
        let is_new = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(MAKING));
        let age = fs::metadata(folder).and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if is_new && age.is_none_or(|age| age < WORK_FOLDER_MAKING_MAX) {
            return;
        }
        // Hold the lock until the folder is removed: of two workers that start at once, only one takes it over.
        let lock = File::open(folder.join(LOCK));
        match &lock {
            Ok(lock) if lock.try_lock().is_err() => return,
            // The worker that made it was killed before it had a lock.
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
    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Removes the folder.
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
