//! Repair of a torn last write: put the segment aside, cut it behind its last good record.
//!
//! Only what the decoder calls torn gets here: bytes that were never synced, so nobody was promised anything about
//! them. The copy `NAME.broken` is for people; nothing reads it again.

use std::path::Path;

use disk::{Disk, File};

use crate::segment::BROKEN_SUFFIX;
use crate::{Error, Result, wal};

/// Cuts a segment at `offset`, where its last good record ends.
pub(crate) fn cut_torn_tail(disk: &dyn Disk, path: &Path, file: &dyn File, offset: u64) -> Result<()> {
    let len = file.len()?;
    assert!(offset <= len, "records end inside the file");
    let mut aside = path.as_os_str().to_owned();
    aside.push(BROKEN_SUFFIX);
    match wal::copy(disk, file, len, Path::new(&aside)) {
        Ok(()) => disk.sync_dir(path.parent().unwrap_or(Path::new("")))?,
        // The start must not depend on a copy that nothing needs: a full disk would keep a member down for good.
        Err(Error::Disk(error)) if error.is_no_space() => disk.remove_file(Path::new(&aside))?,
        Err(error) => return Err(error),
    }
    file.set_len(offset)?;
    file.sync_data()?;
    Ok(())
}
