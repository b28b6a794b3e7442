//! What a folder of files needs beside `object_store`, which does not show what uploads have left half done: files whose
//! names end in `#` and a number, and folders without a file.

use std::{fs, io, path::Path};

/// Removes each file under `root/prefix` that is `over` by its key, and the folders that become empty. Returns how many
/// there were.
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
    // It fails where something is left.
    let _ = fs::remove_dir(&folder);
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
