//! The folders of downloads under way: one per attempt, in one per worker process.
//!
//! A process holds a lock on its folder, which the kernel releases however the process ends; the next worker on the
//! same work folder kills what still runs in a folder that no living process holds, and removes it.

mod orphans;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use millrace_domain::{JobId, limits::WORK_ROOM_MIN};

const LOCK: &str = "lock";
/// How the name of a folder begins whose lock is not held yet.
const MAKING: &str = "new-";

/// This process's folder.
pub struct Workspace {
    folder: PathBuf,
    _lock: File,
}

/// One attempt's folder; removed on drop.
pub struct Scratch(PathBuf);

impl Workspace {
    /// Removes what dead processes have left and makes a folder for this one.
    pub fn open(work_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(work_dir)?;
        let work_dir = work_dir.canonicalize()?;
        for entry in fs::read_dir(&work_dir)? {
            remove_if_dead(&entry?.path());
        }
        // Under a name that nobody removes until the lock is held.
        let name = format!("{:016x}", rand::random::<u64>());
        let (making, folder) = (work_dir.join(format!("{MAKING}{name}")), work_dir.join(name));
        fs::create_dir(&making)?;
        let lock = File::create_new(making.join(LOCK))?;
        lock.lock()?;
        fs::rename(&making, &folder)?;
        Ok(Self { folder, _lock: lock })
    }

    /// Bytes that are free on its disk.
    pub fn room(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.folder)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Why no download can be begun, for people: there is hardly any room.
    pub fn shortage(&self) -> Option<String> {
        let room = self.room().ok().filter(|room| *room < WORK_ROOM_MIN)?;
        let folder = self.folder.parent().unwrap_or(&self.folder).display();
        Some(format!(
            "the disk of the work folder {folder} is full, {room} bytes are free: make room there, or give the worker another folder by --work-dir"
        ))
    }

    /// An empty folder for one attempt.
    pub fn scratch(&self, id: &JobId, attempt: u32) -> io::Result<Scratch> {
        let folder = self.folder.join(format!("{id}.{attempt}"));
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&folder)?,
        }
        Ok(Scratch(folder))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(folder = %self.0.display(), %error, "a download's folder could not be removed");
        }
    }
}

/// A folder without a lock file is none of ours, and one that is being made is left alone.
fn remove_if_dead(folder: &Path) {
    if folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(MAKING)) {
        return;
    }
    let Ok(lock) = File::open(folder.join(LOCK)) else { return };
    if lock.try_lock().is_ok() {
        match orphans::kill_in(folder).and_then(|()| fs::remove_dir_all(folder)) {
            Ok(()) => tracing::info!(folder = %folder.display(), "removed what a dead worker has left"),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "cannot remove what a dead worker has left")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_workers_folder_is_removed_and_a_living_ones_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let living = Workspace::open(dir.path()).unwrap();
        let dead = dir.path().join("dead");
        fs::create_dir(&dead).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        fs::write(dead.join("media.mp4.part"), "x").unwrap();
        let other = Workspace::open(dir.path()).unwrap();
        assert!(!dead.exists() && living.folder.exists() && other.folder.exists());
        drop((living, other));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_scratch_folder_is_empty_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(dir.path()).unwrap();
        let id: JobId = "a".parse().unwrap();
        let scratch = workspace.scratch(&id, 1).unwrap();
        fs::write(scratch.path().join("x"), "x").unwrap();
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }
}
