//! A database file, opened by a tool.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bolt::{Db, Options};
use disk::Disk;
use disk::os::OsDisk;

use crate::cli::Exit;

/// How often a lock is tried for.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The disk of the operating system.
pub(crate) fn disk() -> Arc<dyn Disk> {
    Arc::new(OsDisk::new())
}

/// Opens a file that must be there, waiting for its lock; a wait of zero is without end.
pub(crate) fn open(path: &Path, read_only: bool, wait: Duration) -> Result<Db, Exit> {
    if let Err(error) = std::fs::metadata(path) {
        return Err(Exit::error(format!("stat {}: {}", path.display(), words_of(&error))));
    }
    let started = Instant::now();
    loop {
        let options = Options { read_only, ..Options::default() };
        match Db::open(&disk(), path, options) {
            Err(bolt::Error::Locked { .. }) if wait.is_zero() || started.elapsed() < wait => {
                std::thread::sleep(LOCK_POLL);
            }
            Err(bolt::Error::Locked { .. }) => {
                let text = format!("timeout: {} is in use by another process", path.display());
                return Err(Exit::error(text));
            }
            result => return result.map_err(Exit::error),
        }
    }
}

/// The words of an OS error as Go prints them.
pub(crate) fn words_of(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    text.to_lowercase()
}
