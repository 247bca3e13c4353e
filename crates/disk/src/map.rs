//! Mapped files and the system calls that the standard library lacks: all `unsafe` of the repository.
//!
//! # Why it is sound
//!
//! 1. A mapping is made once, with its whole reserve of addresses, and unmapped only when its owner is dropped;
//!    a slice borrows the owner, so no slice outlives the addresses. Growth of the file needs no new mapping.
//! 2. The mapping is `PROT_READ`: nothing is written through it.
//! 3. Slices are handed out only inside the reserve (asserted). Touching bytes beyond the end of the *file* raises
//!    SIGBUS, which ends the process but reads nothing foreign; staying below the end is the caller's promise.
//! 4. Bytes of a live slice must not change. The kernel cannot enforce that; the caller promises it (the engine
//!    pins pages and never writes a pinned one).
//! 5. Every other call here passes a file descriptor that the borrowed `std::fs::File` keeps open, and pointers
//!    to locals that outlive the call.
#![allow(unsafe_code, reason = "the one file that talks to the kernel by pointer")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use crate::{Advice, Mapping};

/// A read-only shared mapping of one file.
#[derive(Debug)]
pub struct FileMapping {
    address: NonNull<u8>,
    reserve: usize,
}

// SAFETY: the addresses are read-only and belong to this value alone until drop; see the list above.
unsafe impl Send for FileMapping {}
// SAFETY: as above: shared reading needs no synchronisation.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Maps `file` with room for `reserve` bytes (rounded up to whole pages, at least one). The file may be
    /// shorter, and may be closed afterwards.
    pub fn new(file: &File, reserve: u64) -> io::Result<FileMapping> {
        let page = page_size();
        let reserve = usize::try_from(reserve.max(1))
            .ok()
            .and_then(|bytes| bytes.checked_next_multiple_of(page))
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserve,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast::<u8>()).expect("the kernel does not map address zero");
        Ok(FileMapping { address, reserve })
    }

    fn check(&self, offset: u64, len: usize) -> usize {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.reserve),
            "mapping: range {offset}+{len} lies outside the {} reserved bytes",
            self.reserve
        );
        start
    }
}

impl Mapping for FileMapping {
    fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let start = self.check(offset, len);
        // SAFETY: inside the reserve (checked), which stays mapped as long as `self`; bytes stay unchanged by the
        // caller's promise.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().add(start), len) }
    }

    fn advise(&self, offset: u64, len: u64, advice: Advice) {
        let reserve = self.reserve as u64;
        let start = offset.min(reserve) / page_size() as u64 * page_size() as u64;
        let end = offset.saturating_add(len).min(reserve);
        if start >= end {
            return;
        }
        let advice = match advice {
            Advice::Random => libc::MADV_RANDOM,
            Advice::Sequential => libc::MADV_SEQUENTIAL,
            Advice::Normal => libc::MADV_NORMAL,
            Advice::WillNeed => libc::MADV_WILLNEED,
        };
        // SAFETY: the range is ours and page-aligned at its start; none of these advices changes its contents. A
        // refusal costs speed only, so the result is of no interest.
        let _ = unsafe {
            libc::madvise(self.address.as_ptr().add(start as usize).cast(), (end - start) as usize, advice)
        };
    }

    #[inline]
    fn prefetch(&self, offset: u64, len: usize) {
        const LINE: usize = 64;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start.checked_add(len).is_none_or(|end| end > self.reserve) {
            return;
        }
        for at in (start..start + len).step_by(LINE) {
            prefetch_line(self.address.as_ptr().wrapping_add(at));
        }
    }
}

/// Asks for the cache line at `address`; no access, so any address is allowed.
#[inline]
fn prefetch_line(address: *const u8) {
    // SAFETY: a prefetch reads and writes nothing that the program can see, and never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: the very range that mmap returned; no slice of it can be alive.
        let failed = unsafe { libc::munmap(self.address.as_ptr().cast(), self.reserve) };
        debug_assert_eq!(failed, 0, "munmap of our own mapping");
    }
}

/// The kernel's page size in bytes.
pub(crate) fn page_size() -> usize {
    // SAFETY: no pointers.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).expect("the system has a page size")
}

fn offset_of(value: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))
}

/// Repeats a system call that a signal interrupted.
fn retry(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
    loop {
        if call() == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// `fallocate(2)` without flags: blocks are reserved, the length grows.
pub(crate) fn fallocate(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (offset_of(offset)?, offset_of(len)?);
    // SAFETY: no pointers.
    retry(|| unsafe { libc::fallocate64(file.as_raw_fd(), 0, offset, len) })
}

/// `sync_file_range(2)`: starts the write and waits for it.
pub(crate) fn write_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (offset_of(offset)?, offset_of(len)?);
    let flags =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: no pointers.
    retry(|| unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) })
}

/// `flock(2)`, exclusive, without waiting.
pub(crate) fn flock(file: &File) -> io::Result<()> {
    // SAFETY: no pointers.
    retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

/// `fcntl(F_OFD_SETLK)`: exclusive lock of the whole file, without waiting.
pub(crate) fn lock_open_file_description(file: &File) -> io::Result<()> {
    // SAFETY: `flock` is plain numbers, for which zero is a value.
    let mut lock: libc::flock64 = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: `lock` outlives the call.
    retry(|| unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) })
}

/// Bytes that an ordinary process can still allocate on the file system that holds `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `statvfs` is plain numbers, for which zero is a value.
    let mut answer: libc::statvfs64 = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers outlive the call.
    retry(|| unsafe { libc::statvfs64(path.as_ptr(), &raw mut answer) })?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

/// A file that exists in memory only.
pub(crate) fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a constant with its end mark.
    let descriptor = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}
