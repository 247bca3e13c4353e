//! Watching: who is told of which change, in which order, and when nothing has happened.
//!
//! A [`Hub`] belongs to one thread and serves the watch streams of that thread. It is told of every revision's
//! [`EventBatch`](crate::EventBatch), shared with all other hubs, and reads history from a [`View`](crate::View)
//! for watchers that are behind; it takes no lock. What is to be sent comes out as [`HubOutput`]s, to be sent in
//! the order in which they came out; they share the encoded events, so holding them back is cheap.
//!
//! Reading order: this file, `hub.rs` (who is where), `group.rs` (live events), `catch_up.rs` (history),
//! `events.rs` (the bytes), `interval.rs`, `fragment.rs`.

mod catch_up;
mod events;
mod fragment;
mod group;
mod hub;
mod interval;
mod slots;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
pub use fragment::fragments;
pub use hub::Hub;

use crate::RangeEnd;

/// A hash map whose order is the same in every run; none is iterated over where order could show.
type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

/// The watch id of a progress notification that speaks for its whole stream.
pub const WHOLE_STREAM: i64 = -1;

/// What a new watcher wants.
#[derive(Clone, Debug)]
pub struct WatchSpec {
    /// The stream it is on: any number that the caller tells its streams by.
    pub stream: u64,
    /// The id it wants; 0 to be given one.
    pub id: i64,
    /// The key, or the first of the range. Empty means the key of one zero byte.
    pub key: Bytes,
    /// Where the range ends.
    pub end: RangeEnd,
    /// The first revision it wants events of; 0 for whatever comes after now.
    pub start_revision: i64,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
    /// Add to every event what the key was before.
    pub prev_kv: bool,
    /// Tell it the revision now and then when it has no events.
    pub progress_notify: bool,
    /// It can take one response in several parts.
    pub fragment: bool,
}

/// Why a watcher was not created. Its stream lives on, and no id was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The start revision is negative.
    Compacted,
    /// The range ends at or before its key.
    EmptyRange,
    /// The id is in use on the stream.
    DuplicateId,
}

impl CreateError {
    /// The cancel reason that clients see.
    pub fn message(self) -> &'static str {
        match self {
            CreateError::Compacted => api::error::ErrorCode::Compacted.message(),
            CreateError::EmptyRange => api::error::cancel_reason::EMPTY_RANGE,
            CreateError::DuplicateId => api::error::cancel_reason::DUPLICATE_ID,
        }
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for CreateError {}

/// Something to send on a stream.
#[derive(Clone, Debug)]
pub struct HubOutput {
    /// The stream.
    pub stream: u64,
    /// One response goes out for each of these ids, alike but for the id.
    pub watch_ids: Arc<[i64]>,
    /// What the response says.
    pub kind: Kind,
}

/// What a response says.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Events: never empty, in revision order, every revision whole.
    Events {
        /// For the header: the revision of live events, or the store's when history was read.
        revision: i64,
        /// Encoded `mvccpb.Event`s, previous values included where asked for.
        events: Arc<[Bytes]>,
        /// The watcher can take the response in parts; see [`fragments`].
        fragment: bool,
    },
    /// The watcher needs history that compaction has taken; it gets nothing more. Its id stays in use until it is
    /// cancelled. The response has no revision in its header and no reason.
    Compacted {
        /// The store's compact revision.
        compact_revision: i64,
    },
    /// Every event up to this revision has come out before. [`WHOLE_STREAM`] as id speaks for all watchers.
    Progress {
        /// For the header.
        revision: i64,
    },
}

/// How many of what a hub has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// Streams with a watcher, or that had one.
    pub streams: usize,
    /// Watchers, cancelled ones that still hold their id not included.
    pub watchers: usize,
    /// Watchers that are behind, whether they read history or wait for their stream.
    pub slow: usize,
}

/// What a watcher wants of each event and response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Options {
    no_put: bool,
    no_delete: bool,
    prev_kv: bool,
    progress_notify: bool,
    fragment: bool,
}

impl Options {
    fn of(spec: &WatchSpec) -> Options {
        let WatchSpec { no_put, no_delete, prev_kv, progress_notify, fragment, .. } = *spec;
        Options { no_put, no_delete, prev_kv, progress_notify, fragment }
    }

    /// Watchers of one variant are sent the same bytes.
    fn variant(self) -> usize {
        usize::from(self.no_put) | usize::from(self.no_delete) << 1 | usize::from(self.prev_kv) << 2
    }
}

/// How many variants there are.
const VARIANTS: usize = 8;
