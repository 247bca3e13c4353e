//! The operating system's file system.
//!
//! Linux only, as the locks (`F_OFD_SETLK`), `fallocate` and `sync_file_range` are.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Disk, Error, File, LockKind, Mapping, Metadata, OpenMode, Result, map};

/// Files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl OsDisk {
    /// The only one there is.
    pub fn new() -> OsDisk {
        OsDisk
    }
}

fn named<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::new(operation, path, source))
}

/// A relative name without a directory lies in `.`.
fn directory(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, how: OpenMode, mode: u32) -> Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(how != OpenMode::Read).mode(mode);
        match how {
            OpenMode::Read | OpenMode::ReadWrite => {}
            OpenMode::Create => _ = options.create(true),
            OpenMode::CreateNew => _ = options.create_new(true),
            OpenMode::Truncate => _ = options.create(true).truncate(true),
        }
        let file = named("open", path, options.open(path))?;
        Ok(Box::new(OsFile { file, path: path.to_path_buf() }))
    }

    fn create_dir_all(&self, path: &Path, mode: u32) -> Result<()> {
        let made = fs::DirBuilder::new().recursive(true).mode(mode).create(directory(path));
        named("create directory", path, made)
    }

    fn read_dir(&self, path: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in named("list", path, fs::read_dir(directory(path)))? {
            let entry = named("list", path, entry)?;
            // A name that is no text is none of ours; its replacement text is none of ours either.
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        match fs::metadata(directory(path)) {
            Ok(found) => Ok(Some(Metadata {
                len: found.len(),
                is_dir: found.is_dir(),
                mode: found.permissions().mode() & 0o7777,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::new("stat", path, error)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        named("rename", from, fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        named("remove", path, fs::remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> Result<()> {
        named("remove directory", path, fs::remove_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        let opened = named("open directory", path, fs::File::open(directory(path)))?;
        named("sync directory", path, opened.sync_all())
    }

    fn free_bytes(&self, path: &Path) -> Result<u64> {
        named("statvfs", path, map::free_bytes(directory(path)))
    }
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
    path: PathBuf,
}

impl OsFile {
    fn named<T>(&self, operation: &'static str, result: io::Result<T>) -> Result<T> {
        named(operation, &self.path, result)
    }

    /// For file systems without `fallocate`: zeros are written where the file did not reach yet. Blocks of holes
    /// below the old end stay unreserved there.
    fn allocate_by_writing(&self, old: u64, end: u64) -> io::Result<()> {
        const STEP: u64 = 256 * 1024;
        let zeros = vec![0; STEP as usize];
        let mut at = old;
        while at < end {
            let step = STEP.min(end - at);
            self.file.write_all_at(&zeros[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }
}

/// Whether the file system or kernel does not know the call at all.
fn is_unknown_call(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

impl File for OsFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        self.named("stat", self.file.metadata().map(|found| found.len()))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::new("read", &self.path, error)),
            }
        }
        Ok(done)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.named("read", self.file.read_exact_at(buf, offset))
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.named("write", self.file.write_all_at(buf, offset))
    }

    fn sync_data(&self) -> Result<()> {
        self.named("sync", self.file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.named("sync", self.file.sync_all())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.named("truncate", self.file.set_len(len))
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        let old = self.len()?;
        let end = offset.saturating_add(len);
        let done = match map::fallocate(&self.file, offset, len) {
            Err(error) if is_unknown_call(&error) => self.allocate_by_writing(old, end),
            done => done,
        };
        if done.is_err() && self.len()? > old {
            // Some file systems keep what they had reserved before they ran out.
            self.set_len(old)?;
        }
        self.named("allocate", done)
    }

    fn start_write_back(&self, offset: u64, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(()); // zero would mean "to the end of the file"
        }
        match map::write_back(&self.file, offset, len) {
            Err(error) if is_unknown_call(&error) => Ok(()),
            done => self.named("write back", done),
        }
    }

    fn allocated_bytes(&self) -> Result<u64> {
        // st_blocks counts units of 512 bytes whatever the file system's block size is.
        self.named("stat", self.file.metadata().map(|found| found.blocks() * 512))
    }

    fn try_lock(&self, kind: LockKind) -> Result<bool> {
        let taken = match kind {
            LockKind::Flock => map::flock(&self.file),
            LockKind::OpenFileDescription => match map::lock_open_file_description(&self.file) {
                // Kernels and file systems without such locks: Go falls back to flock too.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => map::flock(&self.file),
                taken => taken,
            },
        };
        match taken {
            Ok(()) => Ok(true),
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    || error.raw_os_error() == Some(libc::EACCES) =>
            {
                Ok(false)
            }
            Err(error) => Err(Error::new("lock", &self.path, error)),
        }
    }

    fn map(&self, reserve: u64) -> Result<Arc<dyn Mapping>> {
        let mapping = self.named("map", map::FileMapping::new(&self.file, reserve))?;
        Ok(Arc::new(mapping))
    }
}
