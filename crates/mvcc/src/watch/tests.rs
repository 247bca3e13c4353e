//! The hub on a real store: cases of the watch semantics by their ids, and random runs against a list of events.

mod cases;
mod model;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use disk::Disk;
use disk::mem::MemDisk;
use prost::Message;

use super::*;
use crate::{EventBatch, Store, View};

/// What a client saw of an output.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Events { id: i64, revision: i64, events: Vec<String> },
    Compacted { id: i64, compact_revision: i64 },
    Progress { id: i64, revision: i64 },
}

/// A store with a hub, and nobody else.
struct Bench {
    db: bolt::Db,
    store: Store,
    hub: Hub,
    /// Batches the hub has not been told of.
    queued: Vec<Arc<EventBatch>>,
    out: Vec<HubOutput>,
}

impl Bench {
    fn new() -> Bench {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let options = bolt::Options { directory_bucket: Some(b"key"), ..bolt::Options::default() };
        let db = bolt::Db::open(&disk, Path::new("/db"), options).unwrap();
        let (store, _) = Store::restore(db.reader().view()).unwrap();
        let hub = Hub::new(&store.view());
        Bench { db, store, hub, queued: Vec::new(), out: Vec::new() }
    }

    fn view(&self) -> View {
        self.store.view()
    }

    /// Runs a transaction of puts (with a value) and deletes; the hub is not told.
    fn apply(&mut self, changes: &[(&str, Option<&str>)]) {
        let mut txn = self.store.write();
        for (key, value) in changes {
            match value {
                Some(value) => {
                    txn.put(key.as_bytes(), value.as_bytes(), 0, false).unwrap();
                }
                None => {
                    txn.delete_range(key.as_bytes(), &RangeEnd::Single, false).unwrap();
                }
            }
        }
        self.queued.extend(txn.end());
    }

    /// Tells the hub of everything.
    fn deliver(&mut self) {
        let view = self.view();
        for batch in std::mem::take(&mut self.queued) {
            self.hub.publish(&batch, &view, &mut self.out).unwrap();
        }
    }

    fn put(&mut self, key: &str, value: &str) {
        self.apply(&[(key, Some(value))]);
        self.deliver();
    }

    fn delete(&mut self, key: &str) {
        self.apply(&[(key, None)]);
        self.deliver();
    }

    fn compact(&mut self, revision: i64) {
        self.store.schedule_compaction(revision).unwrap();
        while self.store.is_compacting() {
            self.store.compaction_step(100).unwrap();
        }
    }

    /// All that is applied goes to the file.
    fn flush(&mut self) {
        if let Some(batch) = self.store.freeze_all() {
            self.db.commit(&batch).unwrap();
            self.store.committed(self.db.reader().view());
        }
    }

    fn create(&mut self, spec: WatchSpec) -> std::result::Result<i64, CreateError> {
        let view = self.view();
        self.hub.create(spec, &view)
    }

    fn watch(&mut self, stream: u64, key: &str, start_revision: i64) -> i64 {
        self.create(WatchSpec { start_revision, ..spec(stream, key) }).unwrap()
    }

    fn catch_up(&mut self) {
        let view = self.view();
        while self.hub.catch_up(&view, 1 << 20, &mut self.out).unwrap() {}
    }

    fn ask_progress(&mut self, stream: u64) {
        let view = self.view();
        self.hub.request_progress(stream, &view, &mut self.out);
    }

    fn tick(&mut self, stream: u64) -> Vec<Seen> {
        self.hub.progress_tick(stream, &mut self.out);
        self.seen()
    }

    /// What has come out since the last time, on any stream.
    fn seen(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for output in self.out.drain(..) {
            for id in output.watch_ids.iter().copied() {
                seen.push(match &output.kind {
                    Kind::Events { revision, events, .. } => {
                        Seen::Events { id, revision: *revision, events: events.iter().map(shown).collect() }
                    }
                    Kind::Compacted { compact_revision } => {
                        Seen::Compacted { id, compact_revision: *compact_revision }
                    }
                    Kind::Progress { revision } => Seen::Progress { id, revision: *revision },
                });
            }
        }
        seen
    }
}

fn spec(stream: u64, key: &str) -> WatchSpec {
    WatchSpec {
        stream,
        id: 0,
        key: Bytes::copy_from_slice(key.as_bytes()),
        end: RangeEnd::Single,
        start_revision: 0,
        no_put: false,
        no_delete: false,
        prev_kv: false,
        progress_notify: false,
        fragment: false,
    }
}

fn before(end: &str) -> RangeEnd {
    RangeEnd::Before(Bytes::copy_from_slice(end.as_bytes()))
}

/// An event as text: `put a=1 @3` or `del a @6`, and ` was 0` with a previous value.
fn shown(event: &Bytes) -> String {
    let event = api::mvccpb::Event::decode(event.clone()).unwrap();
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let kv = event.kv.unwrap();
    let mut shown = if event.r#type == api::mvccpb::event::EventType::Put as i32 {
        format!("put {}={} @{}", text(&kv.key), text(&kv.value), kv.mod_revision)
    } else {
        format!("del {} @{}", text(&kv.key), kv.mod_revision)
    };
    if let Some(previous) = event.prev_kv {
        assert_eq!(previous.key, kv.key);
        assert!(previous.mod_revision < kv.mod_revision);
        shown += &format!(" was {}", text(&previous.value));
    }
    shown
}

fn events(id: i64, revision: i64, events: &[&str]) -> Seen {
    Seen::Events { id, revision, events: events.iter().map(ToString::to_string).collect() }
}
