//! Events as watchers are sent them: some left out, some with the key's previous record.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::Options;
use crate::event::{Event, EventBatch, EventKind};
use crate::kv::{put_varint, varint_len};
use crate::{Error, Result, View};

/// The events of some revisions in order, and the previous records looked up so far. What is looked up or put
/// together here is shared by all watchers that want the same.
pub(super) struct EventList<'a> {
    events: Vec<(i64, &'a Event)>,
    with_previous: Vec<Option<Bytes>>,
}

impl<'a> EventList<'a> {
    pub(super) fn new(batches: &'a [EventBatch]) -> EventList<'a> {
        let events = batches.iter().flat_map(|batch| {
            let revision = batch.revision;
            batch.events.iter().map(move |event| (revision, event))
        });
        EventList { events: events.collect(), with_previous: Vec::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'a Event)> {
        self.events.iter().enumerate().map(|(index, (_, event))| (index as u32, *event))
    }

    pub(super) fn revision(&self, index: u32) -> i64 {
        self.events[index as usize].0
    }

    /// Looks up what the key of an event was before; watchers that want it can then be sent the event.
    ///
    /// Nothing is added to the first put of a key, nor where compaction has taken the record.
    pub(super) fn look_up(&mut self, index: u32, view: &View) -> Result<()> {
        self.with_previous.resize(self.events.len(), None);
        let known = &mut self.with_previous[index as usize];
        if known.is_some() {
            return Ok(());
        }
        let (revision, event) = self.events[index as usize];
        let previous = match event.kind {
            EventKind::Put if event.created => None,
            _ => match view.key_at(&event.key, revision - 1) {
                Err(Error::Compacted) => None,
                previous => previous?,
            },
        };
        *known = Some(match previous {
            Some(record) => with_previous(&event.encoded, &record),
            None => event.encoded.clone(),
        });
        Ok(())
    }

    /// Whether these options let an event through.
    pub(super) fn passes(&self, index: u32, options: Options) -> bool {
        match self.events[index as usize].1.kind {
            EventKind::Put => !options.no_put,
            EventKind::Delete => !options.no_delete,
        }
    }

    /// The events among `indexes` that these options let through. Previous records must have been looked up.
    pub(super) fn select(&self, indexes: impl Iterator<Item = u32>, options: Options) -> Arc<[Bytes]> {
        let bytes = |index: u32| {
            if options.prev_kv {
                self.with_previous[index as usize].clone().expect("looked up before")
            } else {
                self.events[index as usize].1.encoded.clone()
            }
        };
        indexes.filter(|index| self.passes(*index, options)).map(bytes).collect()
    }
}

/// Appends the key's previous record to an encoded event: `prev_kv` is the last field, number 3.
fn with_previous(event: &Bytes, record: &Bytes) -> Bytes {
    let len = event.len() + 1 + varint_len(record.len() as u64) + record.len();
    let mut out = BytesMut::with_capacity(len);
    out.put_slice(event);
    out.put_u8(0x1a);
    put_varint(&mut out, record.len() as u64);
    out.put_slice(record);
    out.freeze()
}
