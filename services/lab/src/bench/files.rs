//! The open-file limit of the bench's processes: each client takes one file at either end.

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs beside those of its clients.
const RESERVED: usize = 200;

/// Raises the open-file limit of this process and its children to the system's maximum; returns how many clients that
/// allows.
///
/// # Errors
/// When the limit is too low for `needed` clients in one process.
pub fn clients_max(needed: usize) -> anyhow::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let files = getrlimit(Resource::Nofile).current.and_then(|files| files.try_into().ok()).unwrap_or(usize::MAX);
    let clients = files.saturating_sub(RESERVED);
    if clients < needed {
        bail!(
            "a process may open {files} files here, too few for {needed} clients: raise the hard limit (ulimit -Hn), \
            to {} at least, \
             or use fewer clients",
            needed + RESERVED
        );
    }
    Ok(clients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_clients_than_files_are_refused_with_what_to_do() {
        assert!(clients_max(0).unwrap() > 0);
        let error = clients_max(usize::MAX - RESERVED).unwrap_err().to_string();
        assert!(error.contains("ulimit -Hn"), "{error}");
    }
}
