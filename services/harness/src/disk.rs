//! A small disk that a test may fill.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::namespace;

const BLOCK: usize = 64 * 1024;

/// A separate file system (tmpfs), mounted on a folder. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts a file system of this many bytes on an existing folder.
    pub fn mount(path: &Path, bytes: u64) -> anyhow::Result<Self> {
        let size = format!("size={bytes}");
        let mut command = Command::new("mount");
        let output = command.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output().context("no mount")?;
        if !output.status.success() {
            bail!("mounts are not permitted here: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Self(path.to_owned()))
    }

    /// The file that fills the disk.
    pub fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Free bytes.
    pub fn room(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.0)?;
        Ok(disk.f_bavail * disk.f_frsize)
    }

    /// Fills the disk until at most `rest` bytes are free.
    pub fn fill(&self, rest: u64) -> io::Result<()> {
        let mut file = File::options().create(true).append(true).open(self.ballast())?;
        let block = [0; BLOCK];
        loop {
            let over = self.room()?.saturating_sub(rest);
            let bytes = usize::try_from(over).unwrap_or(BLOCK).min(BLOCK);
            match file.write(&block[..bytes]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes the ballast.
    pub fn empty(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// Whether the calling test may mount, and should continue. If not, the test has just run in its own namespace, where
/// it may mount. Call it on the test's own thread.
///
/// # Panics
/// When the test failed there, or the namespace cannot be made.
#[must_use]
pub fn may_mount() -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Err(error) = Disk::mount(folder.path(), 1024 * 1024) else { return true };
    assert!(!namespace::is_inside(), "{error:#}, not even in the test's own namespace");
    namespace::run_again("--mount");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_takes_what_it_has_room_for_and_no_more() {
        if !may_mount() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::mount(folder.path(), 1024 * 1024).unwrap();
        disk.fill(300_000).unwrap();
        assert!((200_000..=300_000).contains(&disk.room().unwrap()));
        disk.fill(0).unwrap();
        let error = fs::write(folder.path().join("more"), [1; 5000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.empty().unwrap();
        fs::write(folder.path().join("more"), [1; 5000]).unwrap();
        drop(disk);
        assert!(!folder.path().join("more").exists());
    }
}
