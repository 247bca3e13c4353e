//! A disk in memory, for tests: it can fail, fill up, tear and forget, always the same way for the same seed.
//!
//! A [`MemDisk`] is a handle; clones share the disk. Four kinds of harm can be done to it:
//!
//! - an operation fails: [`MemDisk::fail_after`] (one), [`MemDisk::fail_from`] (that one and all later ones, as after
//!   a crash). A failed write leaves half its bytes, a failed sync leaves its bytes unsynced for good;
//! - a sync lies: [`MemDisk::skip_sync`], to see whether a test would notice if the code forgot it;
//! - it is full: [`MemDisk::set_capacity`];
//! - the power goes: [`MemDisk::snapshot_after_crash`] gives a disk as it may look afterwards, and leaves this one
//!   as it is, so that one run can be cut at every point.
//!
//! The fault model is the strict one of POSIX: a file whose directory was not synced may be gone although its bytes
//! were synced.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::{Disk, Error, File, LockKind, Mapping, Metadata, OpenMode, Result, map};

mod content;
mod random;
mod tree;

use random::Random;
use tree::{Node, NodeId, Tree};

#[derive(Clone, Copy, Debug)]
struct Fault {
    at: u64,
    lasting: bool,
    kind: io::ErrorKind,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    operations: u64,
    syncs: u64,
    /// The value of `syncs` whose sync does nothing.
    skipped_sync: Option<u64>,
    fault: Option<Fault>,
    capacity: Option<u64>,
    handles: u64,
    /// (node, kind, handle) of every lock held.
    locks: Vec<(NodeId, LockKind, u64)>,
}

impl State {
    /// Counts an operation; `Err` when it is the one to fail.
    fn begin(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.fault {
            Some(fault) if self.operations == fault.at || (fault.lasting && self.operations > fault.at) => {
                Err(io::Error::from(fault.kind))
            }
            _ => Ok(()),
        }
    }

    /// Counts a sync that succeeds; `false` when it is to do nothing.
    fn count_sync(&mut self) -> bool {
        self.syncs += 1;
        self.skipped_sync != Some(self.syncs)
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(1 << 50, |capacity| capacity.saturating_sub(self.tree.allocated()))
    }
}

/// A disk in memory; clones share it.
#[derive(Clone)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemDisk").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

impl Default for MemDisk {
    fn default() -> MemDisk {
        MemDisk::new()
    }
}

impl MemDisk {
    /// An empty disk without faults and without limit.
    pub fn new() -> MemDisk {
        MemDisk::of(Tree::new(), None)
    }

    fn of(tree: Tree, capacity: Option<u64>) -> MemDisk {
        let state = State {
            tree,
            operations: 0,
            syncs: 0,
            skipped_sync: None,
            fault: None,
            capacity,
            handles: 0,
            locks: Vec::new(),
        };
        MemDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere has not broken the disk.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Operations begun so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Syncs of files and directories that succeeded so far.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Lets the `n`-th operation from now fail (1 is the next one), and only that one.
    pub fn fail_after(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        state.fault = Some(Fault { at: state.operations + n, lasting: false, kind });
    }

    /// Lets the `n`-th operation from now and all later ones fail.
    pub fn fail_from(&self, n: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        state.fault = Some(Fault { at: state.operations + n, lasting: true, kind });
    }

    /// Takes a fault back; `true` when it had struck.
    pub fn clear_fault(&self) -> bool {
        let mut state = self.state();
        let operations = state.operations;
        state.fault.take().is_some_and(|fault| operations >= fault.at)
    }

    /// Lets the `n`-th sync from now (of a file or directory, 1 is the next one) report success and do nothing.
    pub fn skip_sync(&self, n: u64) {
        let mut state = self.state();
        state.skipped_sync = Some(state.syncs + n);
    }

    /// Limits what all files together may allocate; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes allocated by all files.
    pub fn used_bytes(&self) -> u64 {
        self.state().tree.allocated()
    }

    /// The disk as a power cut now may leave it: of unsynced sectors, lengths and names some survive, chosen by the
    /// seed. Seed 0 loses all of them, seed 1 keeps all. No lock, no fault; the capacity stays.
    pub fn snapshot_after_crash(&self, seed: u64) -> MemDisk {
        self.survivor(Some(&mut Random::new(seed)))
    }

    /// The disk as the end of the process leaves it: everything written is there, no lock is held.
    pub fn snapshot_after_kill(&self) -> MemDisk {
        self.survivor(None)
    }

    fn survivor(&self, random: Option<&mut Random>) -> MemDisk {
        let state = self.state();
        let tree = state.tree.survivor(random).expect("memory for a copy of the disk");
        MemDisk::of(tree, state.capacity)
    }
}

fn named<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::new(operation, path, source))
}

impl MemDisk {
    fn open_node(state: &mut State, path: &Path, how: OpenMode, mode: u32) -> io::Result<NodeId> {
        state.begin()?;
        let found = state.tree.find(path)?;
        match (found, how) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            _ => {}
        }
        let node = match found {
            Some(node) => node,
            None => state.tree.create_file(path, mode)?,
        };
        // The kernel lets a directory be opened for reading; nobody here wants one as a file.
        if matches!(state.tree.node(node), Node::Directory(..)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if how == OpenMode::Truncate {
            state.tree.content_mut(node).set_len(0)?;
        }
        *state.tree.open.entry(node).or_insert(0) += 1;
        state.handles += 1;
        Ok(node)
    }
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, how: OpenMode, mode: u32) -> Result<Box<dyn File>> {
        let mut state = self.state();
        let node = named("open", path, MemDisk::open_node(&mut state, path, how, mode))?;
        let handle = state.handles;
        let writable = how != OpenMode::Read;
        Ok(Box::new(MemFile { disk: self.clone(), node, handle, writable, path: path.to_path_buf() }))
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> Result<()> {
        let mut state = self.state();
        let made = state.begin().and_then(|()| state.tree.create_dir_all(path, mode));
        named("create directory", path, made)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        let mut state = self.state();
        let found = state.begin().and_then(|()| state.tree.find(path));
        match named("list", path, found)?.map(|node| state.tree.node(node)) {
            Some(Node::Directory(directory, _)) => Ok(directory.entries.keys().cloned().collect()),
            Some(Node::File(..)) => named("list", path, Err(io::ErrorKind::NotADirectory.into())),
            None => named("list", path, Err(io::ErrorKind::NotFound.into())),
        }
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        let mut state = self.state();
        let found = state.begin().and_then(|()| state.tree.find(path));
        Ok(named("stat", path, found)?.map(|node| match state.tree.node(node) {
            Node::Directory(_, mode) => Metadata { len: 0, is_dir: true, mode: *mode },
            Node::File(content, mode) => Metadata { len: content.len(), is_dir: false, mode: *mode },
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state();
        let done = state.begin().and_then(|()| state.tree.rename(from, to));
        named("rename", from, done)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let done = state.begin().and_then(|()| state.tree.remove(path, false));
        named("remove", path, done)
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let done = state.begin().and_then(|()| state.tree.remove(path, true));
        named("remove directory", path, done)
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let mut state = self.state();
        let done = state.begin().and_then(|()| match state.tree.find(path)? {
            Some(_) if !state.count_sync() => Ok(()),
            _ => state.tree.sync_dir(path),
        });
        named("sync directory", path, done)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64> {
        let mut state = self.state();
        named("statvfs", path, state.begin())?;
        Ok(state.room())
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    node: NodeId,
    handle: u64,
    writable: bool,
    path: PathBuf,
}

impl MemFile {
    fn named<T>(&self, operation: &'static str, result: io::Result<T>) -> Result<T> {
        named(operation, &self.path, result)
    }

    fn begin_change(&self, state: &mut State) -> io::Result<()> {
        state.begin()?;
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.disk.state();
        let begun = state.begin();
        match &begun {
            Ok(()) if !state.count_sync() => {}
            Ok(()) => state.tree.content_mut(self.node).synced(),
            Err(_) => state.tree.content_mut(self.node).sync_failed(),
        }
        self.named("sync", begun)
    }

    /// As much of the buffer as there is room for.
    fn writable_part(&self, state: &State, len: usize, offset: u64) -> usize {
        let room = state.room();
        let content = state.tree.content(self.node);
        if content.blocks_missing(offset, len as u64) <= room {
            return len;
        }
        let mut fits = 0;
        while fits < len {
            let step = (content::BLOCK - (offset + fits as u64) % content::BLOCK).min((len - fits) as u64);
            if content.blocks_missing(offset, fits as u64 + step) > room {
                break;
            }
            fits += step as usize;
        }
        fits
    }
}

/// Half of a buffer, so that what is written ends where a sector ends: kernels stop between pages.
fn half_in_sectors(len: usize, offset: u64) -> usize {
    let end = (offset + len as u64 / 2) / content::SECTOR * content::SECTOR;
    end.saturating_sub(offset) as usize
}

impl File for MemFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        let mut state = self.disk.state();
        self.named("stat", state.begin())?;
        Ok(state.tree.content(self.node).len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut state = self.disk.state();
        let read = state.begin().and_then(|()| state.tree.content(self.node).read(buf, offset));
        self.named("read", read)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.read_at(buf, offset)?;
        if read < buf.len() {
            return self.named("read", Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        let mut state = self.disk.state();
        let fits = self.writable_part(&state, buf.len(), offset);
        let (part, outcome) = match self.begin_change(&mut state) {
            Ok(()) if fits < buf.len() => (fits, Err(io::ErrorKind::StorageFull.into())),
            Ok(()) => (fits, Ok(())),
            Err(error) if self.writable => (fits.min(half_in_sectors(buf.len(), offset)), Err(error)),
            Err(error) => (0, Err(error)),
        };
        let written = state.tree.content_mut(self.node).write(&buf[..part], offset);
        self.named("write", written.and(outcome))
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.disk.state();
        let done =
            self.begin_change(&mut state).and_then(|()| state.tree.content_mut(self.node).set_len(len));
        self.named("truncate", done)
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let mut state = self.disk.state();
        self.named("allocate", self.begin_change(&mut state))?;
        if state.tree.content(self.node).blocks_missing(offset, len) > state.room() {
            return self.named("allocate", Err(io::ErrorKind::StorageFull.into()));
        }
        self.named("allocate", state.tree.content_mut(self.node).allocate(offset, len))
    }

    fn start_write_back(&self, _offset: u64, _len: u64) -> Result<()> {
        let mut state = self.disk.state();
        self.named("write back", state.begin())
    }

    fn allocated_bytes(&self) -> Result<u64> {
        let mut state = self.disk.state();
        self.named("stat", state.begin())?;
        Ok(state.tree.content(self.node).allocated())
    }

    fn try_lock(&self, kind: LockKind) -> Result<bool> {
        let mut state = self.disk.state();
        self.named("lock", state.begin())?;
        let held = state.locks.iter().find(|(node, held, _)| *node == self.node && *held == kind);
        if let Some((_, _, holder)) = held {
            return Ok(*holder == self.handle);
        }
        state.locks.push((self.node, kind, self.handle));
        Ok(true)
    }

    fn map(&self, reserve: u64) -> Result<Arc<dyn Mapping>> {
        let mut state = self.disk.state();
        let mapped =
            state.begin().and_then(|()| map::FileMapping::new(state.tree.content(self.node).file(), reserve));
        Ok(Arc::new(self.named("map", mapped)?))
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        state.locks.retain(|(_, _, handle)| *handle != self.handle);
        if let Some(count) = state.tree.open.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                state.tree.open.remove(&self.node);
                state.tree.collect();
            }
        }
    }
}
