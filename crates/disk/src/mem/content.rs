//! Bytes of one file in memory, and which of them a power cut may undo.
//!
//! # Invariants
//!
//! 1. `live` holds what readers see; mappings show the same pages.
//! 2. A sector whose bytes differ from what the last successful sync made durable has an entry in `unsynced`, oldest
//!    version first. A sector without entry is durable as it is.
//! 3. `lengths` holds the durable length first and the live one last.
//! 4. After a failed sync the sectors it covered stay `lost`: a later sync does not make them durable, because the
//!    kernel has dropped them from its list of dirty pages. Writing them again heals them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::random::Random;
use crate::map;

/// What a device writes whole or not at all.
pub(super) const SECTOR: u64 = 512;
/// What a file system allocates at once.
pub(super) const BLOCK: u64 = 4096;
/// Versions kept per sector between two syncs; of more, the middle ones are forgotten.
const VERSIONS_MAX: usize = 4;
const CHUNK: usize = 64 * 1024;

type Sector = [u8; SECTOR as usize];

#[derive(Clone, Debug)]
struct Unsynced {
    /// `None` stands for zeros.
    versions: Vec<Option<Box<Sector>>>,
    lost: bool,
}

/// Contents of one file.
#[derive(Debug)]
pub(super) struct Content {
    live: File,
    len: u64,
    lengths: Vec<u64>,
    unsynced: BTreeMap<u64, Unsynced>,
    /// One bit per block that takes room.
    blocks: Vec<u64>,
}

impl Content {
    pub(super) fn new() -> io::Result<Content> {
        Ok(Content {
            live: map::memory_file()?,
            len: 0,
            lengths: vec![0],
            unsynced: BTreeMap::new(),
            blocks: Vec::new(),
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.live
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated(&self) -> u64 {
        self.blocks.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() * BLOCK
    }

    /// Bytes of new blocks that a write or reservation of the range would take.
    pub(super) fn blocks_missing(&self, offset: u64, len: u64) -> u64 {
        let range = offset / BLOCK..offset.saturating_add(len).div_ceil(BLOCK);
        let known = range.start..range.end.min(self.blocks.len() as u64 * 64);
        let there = known.filter(|&block| self.has_block(block)).count() as u64;
        (range.end - range.start - there).saturating_mul(BLOCK)
    }

    fn has_block(&self, block: u64) -> bool {
        self.blocks.get((block / 64) as usize).is_some_and(|word| word & (1 << (block % 64)) != 0)
    }

    fn take_blocks(&mut self, offset: u64, len: u64) {
        for block in offset / BLOCK..(offset + len).div_ceil(BLOCK) {
            let word = (block / 64) as usize;
            if self.blocks.len() <= word {
                self.blocks.resize(word + 1, 0);
            }
            self.blocks[word] |= 1 << (block % 64);
        }
    }

    fn drop_blocks_from(&mut self, first: u64) {
        self.blocks.truncate(first.div_ceil(64) as usize);
        if !first.is_multiple_of(64)
            && let Some(word) = self.blocks.get_mut((first / 64) as usize)
        {
            *word &= (1 << (first % 64)) - 1;
        }
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let there = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        self.live.read_exact_at(&mut buf[..there], offset)?;
        Ok(there)
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let step = (CHUNK - (at % CHUNK as u64) as usize).min(buf.len() - done);
            self.write_chunk(&buf[done..done + step], at)?;
            done += step;
        }
        Ok(())
    }

    fn write_chunk(&mut self, buf: &[u8], offset: u64) -> io::Result<()> {
        let start = offset / SECTOR * SECTOR;
        let end = (offset + buf.len() as u64).next_multiple_of(SECTOR);
        let mut old = vec![0; (end - start) as usize];
        self.read(&mut old, start)?;
        let head = (offset - start) as usize;
        let is_same = old[head..head + buf.len()] == *buf;
        let mut new = [0; SECTOR as usize];
        for (nth, old) in old.chunks_exact(SECTOR as usize).enumerate() {
            // Of the buffer, what falls into this sector.
            let from = nth * SECTOR as usize;
            let (begin, end) = (head.max(from), (head + buf.len()).min(from + SECTOR as usize));
            new.copy_from_slice(old);
            new[begin - from..end - from].copy_from_slice(&buf[begin - head..end - head]);
            self.note(start / SECTOR + nth as u64, old, &new);
        }
        let grown = offset + buf.len() as u64;
        // Zeros over what was never written take no memory, and logs are filled with them ahead.
        if !is_same {
            self.live.write_all_at(buf, offset)?;
        } else if grown > self.len {
            self.live.set_len(grown)?;
        }
        self.take_blocks(offset, buf.len() as u64);
        self.grown_to(grown);
        Ok(())
    }

    fn note(&mut self, sector: u64, old: &[u8], new: &[u8]) {
        if let Some(known) = self.unsynced.get_mut(&sector) {
            known.lost = false;
            if old != new {
                known.versions.push(boxed(old));
                if known.versions.len() > VERSIONS_MAX {
                    known.versions.remove(1);
                }
            }
        } else if old != new {
            self.unsynced.insert(sector, Unsynced { versions: vec![boxed(old)], lost: false });
        }
    }

    fn grown_to(&mut self, end: u64) {
        if end > self.len {
            self.len = end;
            self.note_len();
        }
    }

    fn note_len(&mut self) {
        self.lengths.push(self.len);
        if self.lengths.len() > VERSIONS_MAX {
            self.lengths.remove(1);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let mut at = len;
        while at < self.len {
            let start = at / SECTOR * SECTOR;
            let end = (start + CHUNK as u64).min(self.len.next_multiple_of(SECTOR));
            let mut old = vec![0; (end - start) as usize];
            self.read(&mut old, start)?;
            for (nth, old) in old.chunks_exact(SECTOR as usize).enumerate() {
                let sector = start / SECTOR + nth as u64;
                let kept = len.saturating_sub(sector * SECTOR).min(SECTOR) as usize;
                let mut new = [0; SECTOR as usize];
                new[..kept].copy_from_slice(&old[..kept]);
                self.note(sector, old, &new);
            }
            at = end;
        }
        self.live.set_len(len)?;
        self.drop_blocks_from(len.div_ceil(BLOCK));
        if len != self.len {
            self.len = len;
            self.note_len();
        }
        Ok(())
    }

    pub(super) fn allocate(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset + len;
        if end > self.len {
            self.live.set_len(end)?;
        }
        self.take_blocks(offset, len);
        self.grown_to(end);
        Ok(())
    }

    pub(super) fn synced(&mut self) {
        self.unsynced.retain(|_, sector| sector.lost);
        self.lengths = vec![self.len];
    }

    pub(super) fn sync_failed(&mut self) {
        for sector in self.unsynced.values_mut() {
            sector.lost = true;
        }
    }

    /// What a power cut leaves: every unsynced sector in one of its versions, the length one of those since the last
    /// sync.
    pub(super) fn after_crash(&self, random: &mut Random) -> io::Result<Content> {
        let mut survivor = self.after_kill()?;
        let len = self.lengths[random.below(self.lengths.len())];
        survivor.live.set_len(len)?;
        for (&sector, known) in &self.unsynced {
            let pick = random.below(known.versions.len() + 1);
            let start = sector * SECTOR;
            if pick == known.versions.len() || start >= len {
                continue; // the newest version, or cut off
            }
            let zeros = [0; SECTOR as usize];
            let old = known.versions[pick].as_deref().unwrap_or(&zeros);
            survivor.live.write_all_at(&old[..(len - start).min(SECTOR) as usize], start)?;
        }
        survivor.len = len;
        survivor.lengths = vec![len];
        survivor.drop_blocks_from(len.div_ceil(BLOCK));
        Ok(survivor)
    }

    /// What the end of the process leaves: everything, all of it regarded as durable.
    pub(super) fn after_kill(&self) -> io::Result<Content> {
        let mut copy = Content::new()?;
        copy.live.set_len(self.len)?;
        let mut buf = vec![0; CHUNK];
        let mut at = 0;
        while at < self.len {
            let count = self.read(&mut buf, at)?;
            if !is_zero(&buf[..count]) {
                copy.live.write_all_at(&buf[..count], at)?;
            }
            at += count as u64;
        }
        copy.len = self.len;
        copy.lengths = vec![self.len];
        copy.blocks = self.blocks.clone();
        Ok(copy)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

fn boxed(sector: &[u8]) -> Option<Box<Sector>> {
    (!is_zero(sector)).then(|| Box::new(sector.try_into().expect("cut into whole sectors")))
}
