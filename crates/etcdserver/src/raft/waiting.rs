//! Who waits for which entry: request id to reply address, with a deadline.
//!
//! The table is bounded in entries and bytes; a request that finds it full is answered "too many requests". A
//! request whose entry has not been applied in time is taken out and answered by the lane; its entry may still be
//! applied later, as with any etcd.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::effect::ReplyTo;
use crate::limits::{WAITING_BYTES_MAX, WAITING_MAX};

#[derive(Clone, Copy, Debug)]
struct Slot {
    reply_to: ReplyTo,
    since_ns: u64,
    bytes: u32,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    slots: HashMap<u64, Slot, FixedState>,
    bytes: u64,
    /// No slot is older than this; lets a look for late ones end before it begins.
    oldest_ns: u64,
}

impl Waiting {
    /// Whether one more request of this size fits.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.slots.len() < WAITING_MAX && self.bytes + bytes as u64 <= WAITING_BYTES_MAX
    }

    /// Someone waits for the entry with this request id.
    pub(crate) fn insert(&mut self, id: u64, reply_to: ReplyTo, now_ns: u64, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.slots.is_empty() {
            self.oldest_ns = now_ns;
        }
        let before = self.slots.insert(id, Slot { reply_to, since_ns: now_ns, bytes });
        assert!(before.is_none(), "request id {id:x} is used twice");
        self.bytes += u64::from(bytes);
    }

    /// Takes out who waits for this id.
    pub(crate) fn take(&mut self, id: u64) -> Option<ReplyTo> {
        let slot = self.slots.remove(&id)?;
        self.bytes -= u64::from(slot.bytes);
        Some(slot.reply_to)
    }

    /// Whether somebody waits for this id.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.slots.contains_key(&id)
    }

    /// Takes out everybody who waits longer than `timeout_ns`: ids, ascending, and when each began to wait.
    pub(crate) fn take_late(&mut self, now_ns: u64, timeout_ns: u64) -> Vec<(u64, ReplyTo, u64)> {
        let since = now_ns.saturating_sub(timeout_ns);
        if self.slots.is_empty() || self.oldest_ns > since || now_ns < timeout_ns {
            return Vec::new();
        }
        let mut late: Vec<u64> =
            self.slots.iter().filter(|(_, slot)| slot.since_ns <= since).map(|(id, _)| *id).collect();
        late.sort_unstable();
        let taken = late
            .into_iter()
            .filter_map(|id| {
                let slot = self.slots.remove(&id)?;
                self.bytes -= u64::from(slot.bytes);
                Some((id, slot.reply_to, slot.since_ns))
            })
            .collect();
        self.oldest_ns = self.slots.values().map(|slot| slot.since_ns).min().unwrap_or(now_ns);
        taken
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(stream: u32) -> ReplyTo {
        ReplyTo { thread: 0, connection: 0, stream }
    }

    #[test]
    fn late_requests_come_out_once_and_in_order() {
        let mut waiting = Waiting::default();
        for id in 1..=10u64 {
            waiting.insert(id, to(id as u32), id * 100, 10);
        }
        assert_eq!(waiting.take(3), Some(to(3)));
        assert_eq!(waiting.take(3), None);
        assert!(waiting.take_late(1_000, 1_000).is_empty());
        let late: Vec<u32> = waiting.take_late(1_500, 1_000).iter().map(|(_, reply, _)| reply.stream).collect();
        assert_eq!(late, [1, 2, 4, 5]);
        assert!(waiting.take_late(1_550, 1_000).is_empty());
        assert_eq!(waiting.len(), 5);
        assert!(!waiting.contains(5) && waiting.contains(6));
        assert_eq!(waiting.bytes, 50);
    }

    #[test]
    fn the_table_is_bounded_in_entries_and_bytes() {
        let mut waiting = Waiting::default();
        assert!(waiting.has_room(WAITING_BYTES_MAX as usize));
        waiting.insert(0, to(0), 0, WAITING_BYTES_MAX as usize - 5);
        assert!(waiting.has_room(5) && !waiting.has_room(6));
        waiting.take(0);
        for id in 0..WAITING_MAX as u64 {
            assert!(waiting.has_room(0));
            waiting.insert(id, to(0), 0, 0);
        }
        assert!(!waiting.has_room(0));
    }
}
