//! The data folder: locked by one `up` at a time, with a one-sentence error when it is unusable.

use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// A data folder, locked until this is dropped.
#[derive(Debug)]
pub struct Data {
    root: PathBuf,
    /// Locked. The system releases it when this process ends, however it ends.
    _lock: File,
}

impl Data {
    /// Makes the folder if it does not exist, and locks it.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        make_folder(root)?;
        let root = root.canonicalize().with_context(|| unusable(root))?;
        let lock = lock(&root.join("lock"), &root)?;
        let data = Self { root, _lock: lock };
        for folder in [data.nats(), data.files(), data.work()] {
            make_folder(&folder)?;
            tempfile::tempfile_in(&folder).with_context(|| unusable(&folder))?;
        }
        Ok(data)
    }

    /// The data folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// nats-server's folder, with the log and the states.
    pub fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }

    /// The finished files.
    pub fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// Downloads in flight; no file in it outlives a stop.
    pub fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The streams that nats-server has stored here. nats-server skips a stream that it cannot read, and only logs a
    /// line.
    pub fn streams(&self) -> BTreeSet<String> {
        let Ok(entries) = std::fs::read_dir(self.nats().join("jetstream/$G/streams")) else { return BTreeSet::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect()
    }
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    if path.exists() && !path.is_dir() {
        bail!(
            "the data folder {} is not a folder; move that file away, or choose another folder with --data",
            path.display()
        );
    }
    std::fs::create_dir_all(path).with_context(|| unusable(path))
}

fn unusable(path: &Path) -> String {
    format!("cannot write to the data folder {}; make it writable, or choose another one with --data", path.display())
}

/// The lock file contains the holder's process id, which another `up` prints in its error.
fn lock(path: &Path, folder: &Path) -> anyhow::Result<File> {
    let mut file = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .open(path)
        .with_context(|| unusable(folder))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another `cargo dev up` (process {}) runs on {}; stop it, or choose another folder with --data and \
                other ports",
                holder.trim(),
                folder.display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error)
                .with_context(|| format!("cannot lock {}; put the data folder on a local disk", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .with_context(|| unusable(folder))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_use_is_refused_with_the_process_that_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = Data::open(folder.path()).unwrap();
        let error = Data::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        Data::open(folder.path()).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for place in ["data", "data/nats"] {
            let file = folder.path().join(place);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, "x").unwrap();
            let error = Data::open(&folder.path().join("data")).unwrap_err().to_string();
            assert!(error.contains(place) && error.contains("--data"), "{error}");
            std::fs::remove_file(&file).unwrap();
        }
    }
}
