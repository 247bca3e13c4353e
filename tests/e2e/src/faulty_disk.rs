//! A disk in memory whose n-th operation of a kind fails: any operation, a write, a sync.
//!
//! [`disk::mem::MemDisk`] knows what a failure leaves behind (half of a write, a sync whose bytes are lost for good); this
//! decides which operation it is, and remembers what was hit.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use disk::mem::MemDisk;
use disk::{Disk, File, LockKind, Mapping, Metadata, OpenMode, Result};
use parking_lot::Mutex;

/// Which operations are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Every one.
    Any,
    /// What takes room: writes, reservations, new files, renames.
    Write,
    /// Syncs of files and directories.
    Sync,
}

#[derive(Debug)]
struct Plan {
    class: Class,
    left: u64,
    kind: ErrorKind,
    struck: Option<String>,
}

/// See the head of this file. Clones share everything.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    mem: MemDisk,
    plan: Arc<Mutex<Plan>>,
}

impl FaultyDisk {
    /// The `n`-th operation of a class (1 is the first) fails, once.
    pub fn new(mem: MemDisk, class: Class, n: u64, kind: ErrorKind) -> FaultyDisk {
        FaultyDisk { mem, plan: Arc::new(Mutex::new(Plan { class, left: n, kind, struck: None })) }
    }

    /// The operation that failed, and on what.
    pub fn struck(&self) -> Option<String> {
        self.plan.lock().struck.clone()
    }

    fn count(&self, class: Class, what: &str, path: &Path) {
        let mut plan = self.plan.lock();
        if plan.left == 0 || plan.class != Class::Any && plan.class != class {
            return;
        }
        plan.left -= 1;
        if plan.left == 0 {
            plan.struck = Some(format!("{what} {}", path.display()));
            self.mem.fail_after(1, plan.kind);
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, how: OpenMode, mode: u32) -> Result<Box<dyn File>> {
        let class = if matches!(how, OpenMode::Read | OpenMode::ReadWrite) { Class::Any } else { Class::Write };
        self.count(class, "open", path);
        let file = self.mem.open(path, how, mode)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), file }))
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> Result<()> {
        self.count(Class::Write, "create directory", path);
        self.mem.create_dir_all(path, mode)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        self.count(Class::Any, "list", path);
        self.mem.read_dir(path)
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        self.count(Class::Any, "stat", path);
        self.mem.metadata(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.count(Class::Write, "rename", from);
        self.mem.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.count(Class::Any, "remove", path);
        self.mem.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.count(Class::Any, "remove", path);
        self.mem.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        self.count(Class::Sync, "sync", path);
        self.mem.sync_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64> {
        self.count(Class::Any, "statvfs", path);
        self.mem.free_bytes(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    file: Box<dyn File>,
}

impl FaultyFile {
    fn count(&self, class: Class, what: &str) {
        self.disk.count(class, what, self.file.path());
    }
}

impl File for FaultyFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn len(&self) -> Result<u64> {
        self.count(Class::Any, "stat");
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.count(Class::Any, "read");
        self.file.read_at(buf, offset)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.count(Class::Any, "read");
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.count(Class::Write, "write");
        self.file.write_all_at(buf, offset)
    }

    fn sync_data(&self) -> Result<()> {
        self.count(Class::Sync, "sync");
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        self.count(Class::Sync, "sync");
        self.file.sync_all()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.count(Class::Write, "truncate");
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.count(Class::Write, "allocate");
        self.file.allocate(offset, len)
    }

    fn start_write_back(&self, offset: u64, len: u64) -> Result<()> {
        self.count(Class::Any, "write back");
        self.file.start_write_back(offset, len)
    }

    fn allocated_bytes(&self) -> Result<u64> {
        self.count(Class::Any, "stat");
        self.file.allocated_bytes()
    }

    fn try_lock(&self, kind: LockKind) -> Result<bool> {
        self.count(Class::Any, "lock");
        self.file.try_lock(kind)
    }

    fn map(&self, reserve: u64) -> Result<Arc<dyn Mapping>> {
        self.count(Class::Any, "map");
        self.file.map(reserve)
    }
}
