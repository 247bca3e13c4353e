//! A disk that calls a hook after every operation that changes a file, so that a test can look at what a crash
//! there would leave.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use disk::mem::MemDisk;
use disk::{Disk, File, LockKind, Mapping, Metadata, OpenMode, Result};

type Hook = Arc<dyn Fn(&MemDisk) + Send + Sync>;

/// A [`MemDisk`] that is watched.
#[derive(Clone)]
pub(crate) struct Traced {
    pub(crate) disk: MemDisk,
    pub(crate) hook: Hook,
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

#[derive(Debug)]
struct TracedFile {
    file: Box<dyn File>,
    disk: Traced,
}

impl TracedFile {
    fn after<T>(&self, result: Result<T>) -> Result<T> {
        (self.disk.hook)(&self.disk.disk);
        result
    }
}

impl Disk for Traced {
    fn open(&self, path: &Path, how: OpenMode, mode: u32) -> Result<Box<dyn File>> {
        Ok(Box::new(TracedFile { file: self.disk.open(path, how, mode)?, disk: self.clone() }))
    }
    fn create_dir_all(&self, path: &Path, mode: u32) -> Result<()> {
        self.disk.create_dir_all(path, mode)
    }
    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.disk.read_dir(path)
    }
    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.disk.metadata(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.disk.sync_dir(path)
    }
    fn free_bytes(&self, path: &Path) -> Result<u64> {
        self.disk.free_bytes(path)
    }
}

impl File for TracedFile {
    fn path(&self) -> &Path {
        self.file.path()
    }
    fn len(&self) -> Result<u64> {
        self.file.len()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.after(self.file.write_all_at(buf, offset))
    }
    fn sync_data(&self) -> Result<()> {
        self.after(self.file.sync_data())
    }
    fn sync_all(&self) -> Result<()> {
        self.after(self.file.sync_all())
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.after(self.file.set_len(len))
    }
    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.after(self.file.allocate(offset, len))
    }
    fn start_write_back(&self, offset: u64, len: u64) -> Result<()> {
        self.file.start_write_back(offset, len)
    }
    fn allocated_bytes(&self) -> Result<u64> {
        self.file.allocated_bytes()
    }
    fn try_lock(&self, kind: LockKind) -> Result<bool> {
        self.file.try_lock(kind)
    }
    fn map(&self, reserve: u64) -> Result<Arc<dyn Mapping>> {
        self.file.map(reserve)
    }
}
