//! Keys with all their versions, and what each revision changed.

use std::collections::BTreeMap;

use api::{etcdserverpb as pb, mvccpb};
use bytes::Bytes;

/// One version of one key.
#[derive(Clone, Debug)]
struct Version {
    main: i64,
    /// `None` for a deletion.
    kv: Option<mvccpb::KeyValue>,
}

/// One event, and what the key was before the revision.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) kind: mvccpb::event::EventType,
    pub(crate) kv: mvccpb::KeyValue,
    pub(crate) before: Option<mvccpb::KeyValue>,
}

/// Changes of a revision in the making.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) main: i64,
    list: Vec<Change>,
}

impl Changes {
    /// The revision that reads of the same transaction see.
    pub(crate) fn revision(&self) -> i64 {
        if self.list.is_empty() { self.main - 1 } else { self.main }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Keys {
    versions: BTreeMap<Bytes, Vec<Version>>,
    pub(crate) revision: i64,
    /// By revision; places 0 and 1 are empty.
    events: Vec<Vec<Change>>,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys { versions: BTreeMap::new(), revision: 1, events: vec![Vec::new(), Vec::new()] }
    }
}

/// Whether an interval of a request holds a key.
pub(crate) fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

impl Keys {
    /// What a revision changed.
    pub(crate) fn events_of(&self, revision: i64) -> &[Change] {
        self.events.get(revision as usize).map_or(&[], Vec::as_slice)
    }

    /// A key as of a revision.
    pub(crate) fn at(&self, key: &[u8], revision: i64) -> Option<&mvccpb::KeyValue> {
        let versions = self.versions.get(key)?;
        let after = versions.partition_point(|version| version.main <= revision);
        versions[..after].last()?.kv.as_ref()
    }

    /// All keys of an interval as of a revision.
    pub(crate) fn range(&self, start: &[u8], end: &[u8], revision: i64) -> Vec<&mvccpb::KeyValue> {
        if end.is_empty() {
            return self.at(start, revision).into_iter().collect();
        }
        self.versions
            .range(Bytes::copy_from_slice(start)..)
            .map(|(key, _)| key)
            .take_while(|key| in_range(key, start, end))
            .filter_map(|key| self.at(key, revision))
            .collect()
    }

    pub(crate) fn begin(&self) -> Changes {
        Changes { main: self.revision + 1, list: Vec::new() }
    }

    /// Ends a transaction: it was a revision if it changed anything.
    pub(crate) fn end(&mut self, changes: Changes) {
        if !changes.list.is_empty() {
            self.revision = changes.main;
            self.events.push(changes.list);
        }
    }

    fn push(&mut self, changes: &mut Changes, change: Change) {
        let version = Version {
            main: changes.main,
            kv: (change.kind == mvccpb::event::EventType::Put).then(|| change.kv.clone()),
        };
        self.versions.entry(change.kv.key.clone()).or_default().push(version);
        changes.list.push(change);
    }

    /// Puts a key; what it was before comes back.
    pub(crate) fn put(&mut self, changes: &mut Changes, put: &pb::PutRequest) -> Option<mvccpb::KeyValue> {
        let now = self.at(&put.key, changes.main).cloned();
        let old = self.at(&put.key, changes.main - 1).cloned();
        let kv = mvccpb::KeyValue {
            key: put.key.clone(),
            create_revision: now.as_ref().map_or(changes.main, |kv| kv.create_revision),
            mod_revision: changes.main,
            version: now.as_ref().map_or(1, |kv| kv.version + 1),
            value: put.value.clone(),
            lease: put.lease,
        };
        // A key that is made anew has no past, not even one that ended in the same transaction.
        let before = old.filter(|_| kv.version > 1);
        self.push(changes, Change { kind: mvccpb::event::EventType::Put, kv, before });
        now
    }

    /// Deletes a key; what it was comes back.
    pub(crate) fn delete(&mut self, changes: &mut Changes, key: &Bytes) -> Option<mvccpb::KeyValue> {
        let now = self.at(key, changes.main).cloned()?;
        let old = self.at(key, changes.main - 1).cloned();
        let kv = mvccpb::KeyValue { key: key.clone(), mod_revision: changes.main, ..Default::default() };
        self.push(changes, Change { kind: mvccpb::event::EventType::Delete, kv, before: old });
        Some(now)
    }
}
