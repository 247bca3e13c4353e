//! History for watchers that are behind: the events of past transactions, read from records in bounded pieces.

use crate::error::Result;
use crate::event::{Arena, Event, EventBatch};
use crate::kv::KeyValue;
use crate::range::decode;
use crate::records::{Records, Stored};
use crate::{Error, Revision};

/// A piece of history.
#[derive(Debug)]
pub struct History {
    /// Transactions in order, each whole.
    pub batches: Vec<EventBatch>,
    /// The first transaction that was not looked at: where to go on.
    pub next: i64,
}

/// Records that are looked at in one piece at most, wanted or not, transactions not being split.
const RECORDS_MAX: usize = 20_000;
/// What is longer than this is mostly a value: it costs a copy, not work.
const LARGE_BYTES: usize = 16 << 10;
/// Bytes of a long value that count as one: a few of the longest values then still come as one piece, as in etcd.
const LARGE_SHARE: usize = 32;

/// What an event of this length takes from the budget of a piece.
fn cost(len: usize) -> usize {
    len.min(LARGE_BYTES) + len.saturating_sub(LARGE_BYTES) / LARGE_SHARE
}

/// Reads whole transactions from `from` to `to`, about `budget` bytes of them; see [`LARGE_SHARE`].
pub(crate) fn read(
    records: Records<'_>,
    from: i64,
    to: i64,
    budget: usize,
    wanted: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<History> {
    let mut reader = Reader {
        arena: Arena::default(),
        batches: Vec::new(),
        bytes: 0,
        seen: 0,
        last: from - 1,
        next: to + 1,
    };
    let mut failed = None;
    records.walk(Revision::new(from.max(0), 0), &mut |stored| {
        if stored.revision.main > to {
            return false;
        }
        if stored.revision.main > reader.last && (reader.bytes > budget || reader.seen >= RECORDS_MAX) {
            reader.next = stored.revision.main;
            return false;
        }
        match reader.take(stored, wanted) {
            Ok(()) => true,
            Err(error) => {
                failed = Some(error);
                false
            }
        }
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(History { batches: reader.batches, next: reader.next.max(from) }),
    }
}

struct Reader {
    arena: Arena,
    batches: Vec<EventBatch>,
    bytes: usize,
    seen: usize,
    last: i64,
    next: i64,
}

impl Reader {
    fn take(&mut self, stored: Stored<'_>, wanted: &mut dyn FnMut(&[u8]) -> bool) -> Result<()> {
        let Stored { revision, tombstone, value } = stored;
        self.seen += 1;
        self.last = revision.main;
        let not_a_key = |_| Error::Corrupt(format!("revision {revision} is not an encoded key"));
        let key = KeyValue::key_of(value).map_err(not_a_key)?;
        if !wanted(key) {
            return Ok(());
        }
        let event = if tombstone {
            Event::delete(&mut self.arena, key, revision.main).0
        } else {
            Event::stored_put(&mut self.arena, value, &decode(value, revision)?)
        };
        self.bytes += cost(event.encoded.len());
        match self.batches.last_mut() {
            Some(batch) if batch.revision == revision.main => batch.events.push(event),
            _ => self.batches.push(EventBatch { revision: revision.main, events: vec![event] }),
        }
        Ok(())
    }
}
