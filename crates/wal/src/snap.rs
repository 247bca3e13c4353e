//! Snapshot files beside the log: `TERM-INDEX.snap` (raft's snapshot) and `INDEX.snap.db` (a database received from the
//! leader, not yet in use). Names and bytes are etcd's; see `docs/formats/snap.md`.
//!
//! # What counts
//!
//! 1. A `.snap` file counts only if the log has a record of it: the file is written before the record, so a file
//!    without one is what a crash in between left.
//! 2. Files appear under their names whole: they are written and synced under a name beginning with `tmp`, then
//!    renamed, then the directory is synced. Names beginning with `tmp` are removed at start, by Go too.
//! 3. A file that cannot be read is renamed to `.broken`, and the next older one is tried.

use std::path::{Path, PathBuf};

use api::raftpb;
use api::walpb;
use api::wire::{self, Fields, Value};
use bytes::Bytes;
use disk::{Disk, File, OpenMode};

use crate::record::{put_always, put_conf_state};
use crate::segment::{BROKEN_SUFFIX, parse_hex, parse_pair};
use crate::{Error, Result};

/// Suffix of raft snapshots.
pub const SUFFIX: &str = ".snap";
/// Suffix of received databases.
pub const DB_SUFFIX: &str = ".snap.db";
const PRELIMINARY_PREFIX: &str = "tmp";
/// What defragmentation in Go leaves behind when it is interrupted.
const DEFRAG_PREFIX: &str = "db.tmp";
const SNAP_MODE: u32 = 0o666;
const DB_MODE: u32 = 0o600;
/// Names tried for a preliminary file before something else must be wrong.
const PRELIMINARY_NAMES_MAX: u32 = 10_000;

/// Name of a raft snapshot.
pub fn file_name(term: u64, index: u64) -> String {
    format!("{term:016x}-{index:016x}{SUFFIX}")
}

/// Term and index of a raft snapshot's name.
pub fn parse_file_name(name: &str) -> Option<(u64, u64)> {
    parse_pair(name.strip_suffix(SUFFIX)?)
}

/// Name of a received database.
pub fn db_file_name(index: u64) -> String {
    format!("{index:016x}{DB_SUFFIX}")
}

/// Index of a received database's name.
pub fn parse_db_file_name(name: &str) -> Option<u64> {
    parse_hex(name.strip_suffix(DB_SUFFIX)?)
}

/// Encodes the content of a `.snap` file.
pub fn encode(snapshot: &raftpb::Snapshot) -> Vec<u8> {
    let mut metadata = Vec::new();
    let known = snapshot.metadata.clone().unwrap_or_default();
    let mut conf_state = Vec::new();
    put_conf_state(&known.conf_state.unwrap_or_default(), &mut conf_state);
    wire::put_message(1, &conf_state, &mut metadata);
    put_always(2, known.index.unwrap_or(0), &mut metadata);
    put_always(3, known.term.unwrap_or(0), &mut metadata);

    let data = snapshot.data.as_deref().unwrap_or_default();
    let mut inner = Vec::with_capacity(data.len() + metadata.len() + 16);
    wire::put_message(1, data, &mut inner);
    wire::put_message(2, &metadata, &mut inner);

    let mut file = Vec::with_capacity(inner.len() + 16);
    put_always(1, u64::from(crc32c::crc32c(&inner)), &mut file);
    wire::put_message(2, &inner, &mut file);
    file
}

/// Decodes the content of a `.snap` file; an error is a sentence about what is wrong with it.
///
/// # Errors
/// It is empty, not in the format, or its checksum is wrong.
pub fn decode(bytes: &Bytes) -> std::result::Result<raftpb::Snapshot, String> {
    if bytes.is_empty() {
        return Err("the snapshot file is empty".to_owned());
    }
    let (mut crc, mut data): (u32, &[u8]) = (0, &[]);
    for field in Fields::new(bytes) {
        let field = field.map_err(|error| error.to_string())?;
        match (field.number, field.value) {
            (1, Value::Varint(value)) => crc = value as u32,
            (2, Value::Bytes(value)) => data = value,
            _ => {}
        }
    }
    if data.is_empty() || crc == 0 {
        return Err("the snapshot file holds no snapshot".to_owned());
    }
    let computed = crc32c::crc32c(data);
    if computed != crc {
        return Err(format!("crc mismatch: expected: {crc:x} computed: {computed:x}"));
    }
    wire::decode(bytes.slice_ref(data)).map_err(|error| error.to_string())
}

/// Writes a raft snapshot, durably. The log's record of it must come after.
///
/// # Errors
/// The disk refuses; a `.snap` of the same name is then as it was.
pub fn save(disk: &dyn Disk, dir: &Path, snapshot: &raftpb::Snapshot) -> Result<PathBuf> {
    let metadata = snapshot.metadata.clone().unwrap_or_default();
    let (term, index) = (metadata.term.unwrap_or(0), metadata.index.unwrap_or(0));
    assert!(index > 0, "an empty snapshot is not saved");
    let name = file_name(term, index);
    let mut received = Preliminary::create(disk, dir, SNAP_MODE)?;
    received.write(&encode(snapshot))?;
    received.finish(&name)
}

/// Reads a raft snapshot.
///
/// # Errors
/// [`Error::Corrupt`]: it is no whole snapshot; the disk refuses.
pub fn load(disk: &dyn Disk, path: &Path) -> Result<raftpb::Snapshot> {
    let file = disk.open(path, OpenMode::Read, 0)?;
    let len = usize::try_from(file.len()?)
        .map_err(|_| Error::corrupt(path, 0, "the snapshot file is larger than memory"))?;
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    decode(&Bytes::from(bytes)).map_err(|what| Error::corrupt(path, 0, what))
}

/// The newest snapshot that can be read and that the log has a record of (all, if `records` is `None`: for tools that
/// have no log). Files that cannot be read are renamed to `.broken`.
///
/// # Errors
/// The disk refuses.
pub fn load_newest(
    disk: &dyn Disk,
    dir: &Path,
    records: Option<&[walpb::Snapshot]>,
) -> Result<Option<raftpb::Snapshot>> {
    let mut names: Vec<(u64, u64)> =
        names(disk, dir)?.iter().filter_map(|name| parse_file_name(name)).collect();
    names.sort_unstable();
    for (term, index) in names.into_iter().rev() {
        let path = dir.join(file_name(term, index));
        match load(disk, &path) {
            Ok(snapshot) => {
                let metadata = snapshot.metadata.as_ref();
                let index = metadata.and_then(|known| known.index).unwrap_or(0);
                let term = metadata.and_then(|known| known.term).unwrap_or(0);
                let counts = records.is_none_or(|records| {
                    records
                        .iter()
                        .any(|record| record.index.unwrap_or(0) == index && record.term.unwrap_or(0) == term)
                });
                if counts {
                    return Ok(Some(snapshot));
                }
            }
            Err(Error::Corrupt { .. }) => {
                let mut aside = path.clone().into_os_string();
                aside.push(BROKEN_SUFFIX);
                disk.rename(&path, Path::new(&aside))?;
                disk.sync_dir(dir)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn names(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>> {
    if disk.metadata(dir)?.is_none() {
        return Ok(Vec::new());
    }
    Ok(disk.read_dir(dir)?)
}

/// Removes the oldest files until `max` raft snapshots and `max` received databases are left (0: keeps all). A database
/// above `in_use`, the index that the database in use has reached, stays whatever their number: it may be one that raft
/// has taken and that has yet to be installed. Returns the names removed.
///
/// # Errors
/// The disk refuses.
pub fn purge(disk: &dyn Disk, dir: &Path, max: usize, in_use: u64) -> Result<Vec<String>> {
    let names = names(disk, dir)?;
    let mut removed = Vec::new();
    if max == 0 {
        return Ok(removed);
    }
    let raft = names.iter().filter(|name| parse_file_name(name).is_some());
    let databases = names.iter().filter(|name| parse_db_file_name(name).is_some());
    // Names of one kind sort by age.
    for kind in [raft.collect::<Vec<_>>(), databases.collect()] {
        let surplus = kind[..kind.len().saturating_sub(max)].iter();
        let may_go = surplus.filter(|name| parse_db_file_name(name).is_none_or(|index| index <= in_use));
        removed.extend(may_go.map(|name| (*name).clone()));
    }
    remove(disk, dir, &removed)?;
    Ok(removed)
}

/// Removes received databases older than a snapshot that the database in use covers. Returns the names removed.
///
/// # Errors
/// The disk refuses.
pub fn release_dbs(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Vec<String>> {
    let names = names(disk, dir)?;
    let is_older = |name: &&String| parse_db_file_name(name).is_some_and(|found| found < index);
    let removed: Vec<String> = names.iter().filter(is_older).cloned().collect();
    remove(disk, dir, &removed)?;
    Ok(removed)
}

/// Removes what an interrupted process left: preliminary files, ours and Go's. Returns the names removed.
///
/// # Errors
/// The disk refuses.
pub fn clean(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>> {
    let names = names(disk, dir)?;
    let is_left = |name: &&String| name.starts_with(PRELIMINARY_PREFIX) || name.starts_with(DEFRAG_PREFIX);
    let removed: Vec<String> = names.iter().filter(is_left).cloned().collect();
    remove(disk, dir, &removed)?;
    Ok(removed)
}

fn remove(disk: &dyn Disk, dir: &Path, names: &[String]) -> Result<()> {
    for name in names {
        disk.remove_file(&dir.join(name))?;
    }
    if !names.is_empty() {
        disk.sync_dir(dir)?;
    }
    Ok(())
}

/// Whether the database received with this snapshot is there.
///
/// # Errors
/// The disk refuses.
pub fn received_db(disk: &dyn Disk, dir: &Path, index: u64) -> Result<Option<PathBuf>> {
    let path = dir.join(db_file_name(index));
    Ok(disk.metadata(&path)?.map(|_| path))
}

/// A database on its way from the leader to `INDEX.snap.db`. Dropped before [`ReceivedDb::finish`], it is removed.
#[derive(Debug)]
pub struct ReceivedDb<'a>(Preliminary<'a>);

impl<'a> ReceivedDb<'a> {
    /// Begins an empty one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn create(disk: &'a dyn Disk, dir: &Path) -> Result<ReceivedDb<'a>> {
        Ok(ReceivedDb(Preliminary::create(disk, dir, DB_MODE)?))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Error::NoSpace`], or the disk refuses.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Gives it its name, durably. One of that name that is there already is as good, and is kept.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self, index: u64) -> Result<PathBuf> {
        if let Some(path) = received_db(self.0.disk, &self.0.dir, index)? {
            // Its name may not be durable yet.
            self.0.disk.sync_dir(&self.0.dir)?;
            return Ok(path);
        }
        self.0.finish(&db_file_name(index))
    }
}

/// A file that is not yet to be seen under its name.
#[derive(Debug)]
struct Preliminary<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    path: PathBuf,
    file: Box<dyn File>,
    len: u64,
    is_named: bool,
}

impl<'a> Preliminary<'a> {
    fn create(disk: &'a dyn Disk, dir: &Path, mode: u32) -> Result<Preliminary<'a>> {
        let mut last = None;
        for number in 0..PRELIMINARY_NAMES_MAX {
            let path = dir.join(format!("{PRELIMINARY_PREFIX}{number:04}"));
            match disk.open(&path, OpenMode::CreateNew, mode) {
                Ok(file) => {
                    let dir = dir.to_path_buf();
                    return Ok(Preliminary { disk, dir, path, file, len: 0, is_named: false });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => last = Some(error),
                Err(error) => return Err(no_space(error)),
            }
        }
        Err(last.expect("at least one name was tried").into())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, self.len).map_err(no_space)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn finish(mut self, name: &str) -> Result<PathBuf> {
        self.file.sync_data().map_err(no_space)?;
        let path = self.dir.join(name);
        self.disk.rename(&self.path, &path).map_err(no_space)?;
        self.is_named = true;
        self.disk.sync_dir(&self.dir)?;
        Ok(path)
    }
}

fn no_space(error: disk::Error) -> Error {
    if error.is_no_space() { Error::NoSpace(error) } else { Error::Disk(error) }
}

impl Drop for Preliminary<'_> {
    fn drop(&mut self) {
        if !self.is_named {
            // The name is removed at the next start anyway; an error here has nobody to go to.
            let _ = self.disk.remove_file(&self.path);
        }
    }
}
