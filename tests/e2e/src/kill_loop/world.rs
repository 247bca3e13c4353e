//! What the load and the checks share.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::book::Book;
use crate::rpc::Link;

/// A hash of all up to a revision, with the compaction it was taken under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) revision: i64,
    pub(super) compacted: i64,
    pub(super) hash: u32,
}

/// How far compaction is known to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compaction {
    /// Nobody may compact now.
    pub(super) is_held: bool,
    /// The highest revision that was ever asked for.
    pub(super) asked: i64,
    /// The highest revision that was acknowledged.
    pub(super) done: i64,
}

/// Counts of what was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tallies {
    pub(super) reads: u64,
    pub(super) hashes: u64,
    pub(super) compactions: u64,
    pub(super) chores: u64,
}

#[derive(Clone, Debug, Default)]
struct Epoch {
    /// Where the server is; `None` while it is down.
    url: Option<String>,
    is_over: bool,
}

/// See the head of this file.
pub(super) struct World {
    book: Book,
    pub(super) hashes: Mutex<VecDeque<Hash>>,
    pub(super) compaction: Mutex<Compaction>,
    pub(super) tallies: Mutex<Tallies>,
    epoch: watch::Sender<Epoch>,
    /// Tasks that hold a connection of the present epoch.
    busy: AtomicUsize,
    is_go: AtomicBool,
}

/// Leave to use a server, until it goes down.
pub(super) struct Turn {
    pub(super) link: Link,
    world: Arc<World>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.world.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One task's view of the epochs.
pub(super) struct Turns {
    world: Arc<World>,
    epochs: watch::Receiver<Epoch>,
}

impl Turns {
    pub(super) fn new(world: &Arc<World>) -> Turns {
        Turns { world: world.clone(), epochs: world.epoch.subscribe() }
    }

    /// Waits until the server is up; `None` at the end of all.
    pub(super) async fn next(&mut self) -> Option<Turn> {
        loop {
            let (is_over, url) = {
                let epoch = self.epochs.borrow_and_update();
                // Counted while the epoch is locked: whoever ends it sees the count.
                if epoch.url.is_some() && !epoch.is_over {
                    self.world.busy.fetch_add(1, Ordering::SeqCst);
                }
                (epoch.is_over, epoch.url.clone())
            };
            match url {
                _ if is_over => return None,
                Some(url) => return Some(Turn { link: Link::new(&url), world: self.world.clone() }),
                None => drop(self.epochs.changed().await),
            }
        }
    }

    /// Waits until the server went down.
    pub(super) async fn down(&mut self) {
        drop(self.epochs.changed().await);
    }
}

impl Deref for World {
    type Target = Book;

    fn deref(&self) -> &Book {
        &self.book
    }
}

impl World {
    pub(super) fn new() -> Arc<World> {
        Arc::new(World {
            book: Book::default(),
            hashes: Mutex::default(),
            compaction: Mutex::new(Compaction { is_held: true, ..Compaction::default() }),
            tallies: Mutex::default(),
            epoch: watch::Sender::new(Epoch::default()),
            busy: AtomicUsize::new(0),
            is_go: AtomicBool::new(false),
        })
    }

    /// The server may be used. The number of operations that came before is returned: none of them is under way.
    pub(super) fn up(&self, url: String) -> usize {
        let cut = {
            let mut ledger = self.ledger.lock();
            ledger.write_off();
            ledger.len()
        };
        self.epoch.send_replace(Epoch { url: Some(url), is_over: false });
        cut
    }

    /// The server has ended: everybody lets go of it. Compaction is held until the checks have been made.
    pub(super) fn down(&self) {
        self.hold_compaction();
        self.epoch.send_replace(Epoch::default());
        while self.busy.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ledger.lock().write_off();
    }

    pub(super) fn finish(&self) {
        self.epoch.send_replace(Epoch { url: None, is_over: true });
    }

    pub(super) fn hold_compaction(&self) {
        self.compaction.lock().is_held = true;
    }

    pub(super) fn release_compaction(&self) {
        self.compaction.lock().is_held = false;
    }

    pub(super) fn is_go(&self) -> bool {
        self.is_go.load(Ordering::SeqCst)
    }

    pub(super) fn set_go(&self, is_go: bool) {
        self.is_go.store(is_go, Ordering::SeqCst);
    }

    pub(super) fn tallies(&self) -> Tallies {
        *self.tallies.lock()
    }
}
