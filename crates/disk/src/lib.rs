//! The only door to the file system.
//!
//! What it is: three small traits, [`Disk`] (names), [`File`] (bytes) and [`Mapping`] (bytes as memory), an
//! implementation on the operating system ([`os::OsDisk`]) and one in memory that can fail, tear and forget
//! ([`mem::MemDisk`]). Everything below the process takes a `dyn Disk`; nothing else opens a file.
//!
//! What it must not know: any file format, that etcd exists, what time it is.
//!
//! Reading order: this file, `os.rs`, `map.rs` (all `unsafe` of the repository), `mem.rs` and what is under it.
//!
//! # What is durable after what
//!
//! - Bytes written with [`File::write_all_at`] are durable after [`File::sync_data`] returns; so is a length
//!   change. Before that, any subset of 512-byte sectors may survive a power cut.
//! - A created, renamed or removed name is durable after [`Disk::sync_dir`] on its directory returns.
//! - [`File::start_write_back`] promises nothing; it only evens out the load on the device.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub mod map;
pub mod mem;
pub mod os;

/// How [`Disk::open`] treats a name that exists, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must exist; reading only.
    Read,
    /// The file must exist; reading and writing.
    ReadWrite,
    /// Created when missing; reading and writing; contents kept.
    Create,
    /// Must not exist yet; reading and writing.
    CreateNew,
    /// Created when missing, emptied when present; reading and writing.
    Truncate,
}

/// The two kinds of lock that Go's etcd takes, so that a process of either kind keeps the other out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Open-file-description lock on the whole file (`F_OFD_SETLK`): log segments.
    OpenFileDescription,
    /// `flock(2)`: the database file.
    Flock,
}

/// What [`Disk::metadata`] tells of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes; meaningless for directories.
    pub len: u64,
    /// Whether the name is a directory.
    pub is_dir: bool,
    /// Permission bits (the low twelve bits of the mode).
    pub mode: u32,
}

/// What is expected of a range of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Single pages in no order: no read-ahead.
    Random,
    /// One page after the other.
    Sequential,
    /// The kernel's own judgement.
    Normal,
    /// The range is needed soon: start reading it.
    WillNeed,
}

/// An operation on the file system that failed: which, on what, and the system's reason.
pub struct Error {
    /// The operation, as a verb: `open`, `write`, `sync`.
    pub operation: &'static str,
    /// The name it was tried on.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl Error {
    /// An error of `operation` on `path`.
    pub fn new(operation: &'static str, path: &Path, source: io::Error) -> Error {
        Error { operation, path: path.to_path_buf(), source }
    }

    /// The kind of the system's reason.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether there was no room: disk or quota full.
    pub fn is_no_space(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.source)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The result of an operation on the file system.
pub type Result<T> = std::result::Result<T, Error>;

/// Names: what can be opened, listed, renamed and removed.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file; a created one gets the permission bits `mode` less the umask.
    fn open(&self, path: &Path, how: OpenMode, mode: u32) -> Result<Box<dyn File>>;
    /// Creates a directory and its missing parents with permission bits `mode`.
    fn create_dir_all(&self, path: &Path, mode: u32) -> Result<()>;
    /// The names in a directory, sorted; without `.` and `..`.
    fn read_dir(&self, path: &Path) -> Result<Vec<String>>;
    /// What the name is; `None` when there is no such name.
    fn metadata(&self, path: &Path) -> Result<Option<Metadata>>;
    /// Renames, replacing a file of the new name; durable after [`Disk::sync_dir`] of the directory.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<()>;
    /// Removes a directory with all it holds.
    fn remove_dir_all(&self, path: &Path) -> Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> Result<()>;
    /// Bytes that can still be allocated on the file system that holds `path`.
    fn free_bytes(&self, path: &Path) -> Result<u64>;
}

/// Creates a directory with its missing parents and makes all new names durable, which a sync of the last directory
/// alone would not do.
pub fn create_dir_durable(disk: &dyn Disk, path: &Path, mode: u32) -> Result<()> {
    let mut missing = Vec::new();
    for above in path.ancestors().filter(|above| !above.as_os_str().is_empty()) {
        if disk.metadata(above)?.is_some() {
            break;
        }
        missing.push(above);
    }
    if missing.is_empty() {
        return Ok(());
    }
    disk.create_dir_all(path, mode)?;
    for made in missing {
        disk.sync_dir(made.parent().unwrap_or(Path::new("")))?;
    }
    Ok(())
}

/// Bytes of one open file. All methods take `&self`: positions are arguments, so threads can share a file.
pub trait File: Send + Sync + fmt::Debug {
    /// The name it was opened under.
    fn path(&self) -> &Path;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Whether the length is zero.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Fills `buf`; an `UnexpectedEof` error when the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;
    /// Writes all of `buf`, growing the file when it ends before.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()>;
    /// Makes bytes and length durable (`fdatasync`).
    fn sync_data(&self) -> Result<()>;
    /// Makes bytes, length and metadata durable (`fsync`).
    fn sync_all(&self) -> Result<()>;
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Reserves blocks for the range and extends the length to its end if it was shorter. Afterwards writes
    /// into the range do not fail for lack of room. Fails with `StorageFull`, the old state intact.
    fn allocate(&self, offset: u64, len: u64) -> Result<()>;
    /// Starts writing the range to the device and waits until the device has it; no durability promised.
    fn start_write_back(&self, offset: u64, len: u64) -> Result<()>;
    /// Bytes that are really allocated on the device.
    fn allocated_bytes(&self) -> Result<u64>;
    /// Takes an exclusive lock without waiting; `Ok(false)` when somebody else holds it. Freed when the file is
    /// dropped.
    fn try_lock(&self, kind: LockKind) -> Result<bool>;
    /// Maps the file read-only with room for `reserve` bytes of addresses. The mapping follows later growth; bytes
    /// at or beyond the file's length must not be touched.
    fn map(&self, reserve: u64) -> Result<Arc<dyn Mapping>>;
}

/// A file as memory.
pub trait Mapping: Send + Sync + fmt::Debug {
    /// The bytes of a range. The caller promises that the range lies within the file and that nobody writes to
    /// those bytes while the slice lives; the engine keeps that promise by pinning pages.
    ///
    /// Panics when the range lies outside the reserved addresses.
    fn bytes(&self, offset: u64, len: usize) -> &[u8];
    /// Tells the kernel what is expected of a range; never fails.
    fn advise(&self, offset: u64, len: u64, advice: Advice);
    /// Asks the processor for the bytes of a range, without waiting for them. Only a hint, for any range.
    fn prefetch(&self, _offset: u64, _len: usize) {}
}

#[cfg(test)]
mod tests;
