//! One installer at a time, across processes.

use std::{fs::File, path::Path};

use anyhow::Context;

/// Waits for the lock of `folder` and holds it until dropped. The system releases it if the process dies.
pub(super) fn hold(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let file =
        File::create(&path).with_context(|| format!("cannot make {}; make its folder writable", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}; put the checkout on a local disk", path.display()))?;
    Ok(file)
}
