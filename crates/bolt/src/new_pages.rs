//! Pages that a commit makes: where they go and what their bytes are, before anything is written.

use crate::alloc::{Extent, FreePages};

/// Pages asked of the allocator at once; what is left of a run goes back when the commit is built.
const RUN: u64 = 256;

/// A new page's place in the file and in the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Built {
    pub(crate) extent: Extent,
    /// Where its bytes begin in the buffer.
    pub(crate) at: usize,
}

/// The pages of one commit under construction. Nothing outside changes until the commit is written, so a commit
/// that cannot be built or has no room is forgotten with [`NewPages::abandon`].
pub(crate) struct NewPages {
    page_size: usize,
    free: FreePages,
    /// High-water mark of the old state. Like Go, a commit does not lower it, unless asked to.
    old_high_water: u64,
    high_water: u64,
    /// What is left of the run that pages are being taken from.
    run: Extent,
    /// Runs taken from `free`, to be given back when the commit is abandoned.
    taken: Vec<Extent>,
    /// Ends of runs that were too short for a page.
    left_over: Vec<Extent>,
    buffer: Vec<u8>,
    built: Vec<Built>,
    freed: Vec<Extent>,
}

/// A finished set of new pages.
pub(crate) struct Finished {
    pub(crate) free: FreePages,
    pub(crate) high_water: u64,
    pub(crate) buffer: Vec<u8>,
    pub(crate) built: Vec<Built>,
    pub(crate) freed: Vec<Extent>,
}

impl NewPages {
    pub(crate) fn new(
        mut free: FreePages,
        mut buffer: Vec<u8>,
        high_water: u64,
        page_size: usize,
    ) -> NewPages {
        free.rewind();
        buffer.clear();
        NewPages {
            page_size,
            free,
            old_high_water: high_water,
            high_water,
            run: Extent { start: 0, pages: 0 },
            taken: Vec::new(),
            left_over: Vec::new(),
            buffer,
            built: Vec::new(),
            freed: Vec::new(),
        }
    }

    pub(crate) fn page_size(&self) -> usize {
        self.page_size
    }

    /// High-water mark if the commit were finished now.
    pub(crate) fn high_water(&self) -> u64 {
        if self.is_at_end(self.run) { self.run.start } else { self.high_water }
    }

    /// Pages of the old state that would still be free, as far as they lie in long runs.
    pub(crate) fn free_in_runs(&self) -> u64 {
        self.free.in_runs()
    }

    /// Whether giving `run` back means not to grow so far.
    fn is_at_end(&self, run: Extent) -> bool {
        run.end() == self.high_water && run.start >= self.old_high_water
    }

    /// Records that the running commit no longer uses `extent` of the old state.
    pub(crate) fn free(&mut self, extent: Extent) {
        self.freed.push(extent);
    }

    /// Pages in a row that can be had now: at least `min`, at most `want`. They are taken by [`NewPages::add`].
    pub(crate) fn available(&mut self, min: u64, want: u64) -> u64 {
        if self.run.pages < min {
            self.put_back_run();
            let ask = RUN.max(want);
            self.run = match self.free.run(min, ask) {
                Some(extent) => {
                    self.taken.push(extent);
                    extent
                }
                None => {
                    let extent = Extent { start: self.high_water, pages: ask };
                    self.high_water += ask;
                    extent
                }
            };
        }
        self.run.pages.min(want)
    }

    fn put_back_run(&mut self) {
        let run = std::mem::replace(&mut self.run, Extent { start: 0, pages: 0 });
        if self.is_at_end(run) {
            self.high_water = run.start;
        } else if run.pages > 0 {
            self.left_over.push(run);
        }
    }

    /// Takes `pages` of what [`NewPages::available`] promised and lets `write` append the page's bytes, given its
    /// id; the rest of the last page is zeroed.
    pub(crate) fn add(&mut self, pages: u64, write: impl FnOnce(&mut Vec<u8>, u64)) -> u64 {
        assert!(pages > 0 && pages <= self.run.pages, "{pages} pages of a run of {}", self.run.pages);
        let id = self.run.start;
        self.run = Extent { start: id + pages, pages: self.run.pages - pages };
        let at = self.buffer.len();
        let end = at + pages as usize * self.page_size;
        write(&mut self.buffer, id);
        assert!(self.buffer.len() <= end, "page {id} longer than its {pages} pages");
        self.buffer.resize(end, 0);
        self.built.push(Built { extent: Extent { start: id, pages }, at });
        id
    }

    /// Forgets the commit; the free pages and the buffer are as they were.
    pub(crate) fn abandon(mut self) -> (FreePages, Vec<u8>) {
        for extent in self.taken {
            self.free.release(extent);
        }
        self.buffer.clear();
        (self.free, self.buffer)
    }

    /// Ends the building; from here on the commit is written or the database is given up. With `lower`, free pages
    /// at the end of the file are left out of it.
    pub(crate) fn finish(mut self, lower: bool) -> Finished {
        self.put_back_run();
        // Later runs may lie above earlier left-overs of the high-water mark, so they are free pages below it now.
        // A left-over that ends at the mark lowers it instead, in any order.
        self.left_over.sort_unstable();
        while let Some(last) = self.left_over.last().copied()
            && self.is_at_end(last)
        {
            self.high_water = last.start;
            self.left_over.pop();
        }
        for extent in self.left_over {
            self.free.release(extent);
        }
        if lower {
            let pages = self.free.trailing(self.high_water);
            self.high_water -= pages;
            self.free.take(Extent { start: self.high_water, pages });
        }
        Finished {
            free: self.free,
            high_water: self.high_water,
            buffer: self.buffer,
            built: self.built,
            freed: self.freed,
        }
    }
}
