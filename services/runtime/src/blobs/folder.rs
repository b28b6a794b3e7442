//! Operations on a folder of files that `object_store` lacks: it does not show what unfinished uploads left, which are
//! files whose names end in `#` and a number, and folders without a file.

use std::{fs, io, path::Path};

use millrace_domain::files::FOLDER;

/// Removes each file under `root/prefix` for whose key `over` returns true, and the folders that become empty. Returns
/// the number of removed files.
pub fn remove(root: &Path, prefix: &str, over: &dyn Fn(&str) -> bool) -> io::Result<usize> {
    let folder = root.join(prefix);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let key = format!("{prefix}/{name}");
        if entry.file_type()?.is_dir() {
            removed += remove(root, &key, over)?;
        } else if over(&key) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => removed += 1,
            }
        }
    }
    // It fails if the folder is not empty.
    let _ = fs::remove_dir(&folder);
    Ok(removed)
}

/// Keys of jobs' files, including unfinished ones, `max` at most: from the job after `from` to the last, then from the
/// first.
pub fn keys(root: &Path, from: &str, max: usize) -> io::Result<Vec<String>> {
    let mut jobs = names(&root.join(FOLDER))?.into_iter().map(|job| format!("{FOLDER}/{job}")).collect::<Vec<_>>();
    jobs.sort_unstable();
    let first = jobs.partition_point(|job| job.as_str() <= from);
    jobs.rotate_left(first);
    let mut keys = Vec::new();
    let mut folders = jobs;
    folders.reverse();
    while let Some(folder) = folders.pop() {
        for name in names(&root.join(&folder))? {
            let key = format!("{folder}/{name}");
            if root.join(&key).is_dir() {
                folders.push(key);
            } else if keys.len() < max {
                keys.push(key);
            } else {
                return Ok(keys);
            }
        }
    }
    Ok(keys)
}

/// The names in a folder; none if the folder does not exist.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().into_string()));
    Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().filter_map(Result::ok).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_every_job_comes_up_from_wherever_the_look_begins() {
        let root = tempfile::tempdir().unwrap();
        for file in ["jobs/a/1/x.mp4#2", "jobs/b/1/x.mp4", "jobs/b/2/x.mp4", "jobs/c/1/x.mp4", "other/d/1/x.mp4"] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        fs::create_dir_all(root.path().join("jobs/e/1")).unwrap();
        let keys = keys(root.path(), "jobs/b", 9).unwrap();
        assert_eq!((keys[0].as_str(), keys[1].as_str(), keys.len()), ("jobs/c/1/x.mp4", "jobs/a/1/x.mp4#2", 4));
        assert_eq!(super::keys(root.path(), "jobs/b", 1).unwrap(), ["jobs/c/1/x.mp4"]);
        assert!(super::keys(&root.path().join("none"), "jobs/b", 9).unwrap().is_empty());
    }

    #[test]
    fn what_is_over_goes_with_its_folders_and_the_rest_stays() {
        let root = tempfile::tempdir().unwrap();
        for file in ["jobs/a/1/x.mp4#2", "jobs/a/1/y.mp4", "jobs/a/2/x.mp4", "jobs/b/1/x.mp4"] {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        assert_eq!(remove(root.path(), "jobs/a", &|key| key.starts_with("jobs/a/1/")).unwrap(), 2);
        assert!(!root.path().join("jobs/a/1").exists() && root.path().join("jobs/a/2/x.mp4").exists());
        assert_eq!(remove(root.path(), "jobs/b", &|_| true).unwrap(), 1);
        assert!(!root.path().join("jobs/b").exists() && root.path().join("jobs/a").exists());
        assert_eq!(remove(root.path(), "jobs/c", &|_| true).unwrap(), 0);
    }
}
