//! What happened, as watches of all keys from revision 1 tell it, and the state that follows from it.
//!
//! Invariants, checked as events arrive:
//! - Every revision from 2 on arrives, whole, once, in order: etcd makes no revision without an event.
//! - Version, create revision and modification revision of every event follow from the events before it.

use std::collections::BTreeMap;
use std::ops::Bound;

use api::mvccpb::event::EventType;
use api::mvccpb::{Event, KeyValue};
use bytes::Bytes;

/// A key at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// Where this life of the key began.
    pub created: i64,
    /// Its last change.
    pub modified: i64,
    /// Changes in this life.
    pub version: i64,
    /// Its value.
    pub value: Bytes,
    /// Its lease, 0 for none.
    pub lease: i64,
}

/// One change of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A key got a value.
    Put {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// The lease, 0 for none.
        lease: i64,
    },
    /// A key went away.
    Delete {
        /// The key.
        key: Bytes,
    },
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct History {
    /// Changes of revision 2, 3, ...
    revisions: Vec<Vec<Change>>,
    /// Every state that a key was in, by the revision it began with; `None` is deleted.
    keys: BTreeMap<Bytes, Vec<(i64, Option<KeyState>)>>,
}

impl History {
    /// The newest revision that arrived.
    pub fn last(&self) -> i64 {
        self.revisions.len() as i64 + 1
    }

    /// Changes of a revision that arrived.
    pub fn changes(&self, revision: i64) -> &[Change] {
        usize::try_from(revision - 2).ok().and_then(|at| self.revisions.get(at)).map_or(&[], Vec::as_slice)
    }

    /// A key as it was at a revision.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyState> {
        let states = self.keys.get(key)?;
        let after = states.partition_point(|(since, _)| *since <= revision);
        states[..after].last().and_then(|(_, state)| state.as_ref())
    }

    /// All keys of a range as they were at a revision. An empty end is one key, `"\0"` is all from `key` on.
    pub fn range_at(&self, key: &[u8], end: &[u8], revision: i64) -> Vec<(&Bytes, &KeyState)> {
        let upper = match end {
            [] => Bound::Included(key),
            [0] => Bound::Unbounded,
            end => Bound::Excluded(end),
        };
        self.keys
            .range::<[u8], _>((Bound::Included(key), upper))
            .filter_map(|(name, _)| Some((name, self.at(name, revision)?)))
            .collect()
    }

    /// Keys attached to a lease at a revision.
    pub fn attached_at(&self, lease: i64, revision: i64) -> Vec<Bytes> {
        let all = self.range_at(b"\0", b"\0", revision);
        all.into_iter().filter(|(_, state)| state.lease == lease).map(|(key, _)| key.clone()).collect()
    }

    /// Takes the events of one answer of the only watch. `may_lack_previous` excuses a missing `prev_kv`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn push(&mut self, events: &[Event], may_lack_previous: bool) -> Result<(), String> {
        self.take(self.last() + 1, events, may_lack_previous).map(drop)
    }

    /// Takes the events of one answer of one of several watches, which has delivered everything before revision
    /// `next`: what no other has delivered becomes history, and all else must be the same again. Gives the revision
    /// that comes next.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn take(&mut self, mut next: i64, events: &[Event], may_lack_previous: bool) -> Result<i64, String> {
        let mut rest = events;
        while let Some(first) = rest.first() {
            let revision = first.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision != next {
                return Err(format!("watch: event of revision {revision} after revision {}", next - 1));
            }
            let same = |event: &Event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision);
            let count = rest.iter().take_while(|event| same(event)).count();
            if revision <= self.last() {
                self.compare(&rest[..count], revision, may_lack_previous)?;
            } else {
                let mut changes = Vec::with_capacity(count);
                for event in &rest[..count] {
                    changes.push(self.one(event, revision, may_lack_previous)?);
                }
                self.revisions.push(changes);
            }
            next += 1;
            rest = &rest[count..];
        }
        Ok(next)
    }

    /// Compares all events of a revision with those that another watch delivered.
    fn compare(&self, events: &[Event], revision: i64, may_lack_previous: bool) -> Result<(), String> {
        let known = self.changes(revision);
        if events.len() != known.len() {
            return Err(format!("watch: revision {revision} is {events:?}, another watch had {known:?}"));
        }
        for (event, change) in events.iter().zip(known) {
            let kv = event.kv.as_ref().ok_or("watch: event without key")?;
            let is_same = match change {
                Change::Put { key, .. } => {
                    event.r#type == EventType::Put as i32 && kv.key == key && self.at(key, revision) == Some(&state_of(kv))
                }
                Change::Delete { key } => event.r#type == EventType::Delete as i32 && kv.key == key,
            };
            if !is_same {
                return Err(format!("watch: revision {revision} holds {event:?}, another watch had {change:?}"));
            }
            check_previous(event.prev_kv.as_ref(), self.at(&kv.key, revision - 1), may_lack_previous)
                .map_err(|what| format!("watch: revision {revision}: {:?}: {what}", kv.key))?;
        }
        Ok(())
    }

    fn one(&mut self, event: &Event, revision: i64, may_lack_previous: bool) -> Result<Change, String> {
        let kv = event.kv.as_ref().ok_or("watch: event without key")?;
        let before = self.at(&kv.key, revision).cloned();
        if before.as_ref().is_some_and(|state| state.modified == revision) {
            return Err(format!("watch: {:?} changed twice in revision {revision}", kv.key));
        }
        check_previous(event.prev_kv.as_ref(), before.as_ref(), may_lack_previous)
            .map_err(|what| format!("watch: revision {revision}: {:?}: {what}", kv.key))?;
        if event.r#type == EventType::Delete as i32 {
            if before.is_none() {
                return Err(format!("watch: revision {revision} deletes {:?}, which is not there", kv.key));
            }
            self.keys.entry(kv.key.clone()).or_default().push((revision, None));
            return Ok(Change::Delete { key: kv.key.clone() });
        }
        let state = state_of(kv);
        let (created, version) = before.map_or((revision, 1), |state| (state.created, state.version + 1));
        if (state.created, state.version) != (created, version) {
            let key = &kv.key;
            return Err(format!("watch: revision {revision}: {key:?} is {state:?}, not ({created}, {version})"));
        }
        self.keys.entry(kv.key.clone()).or_default().push((revision, Some(state)));
        Ok(Change::Put { key: kv.key.clone(), value: kv.value.clone(), lease: kv.lease })
    }

    /// Compares an answer of a range read with the state that follows from the events.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_range(&self, what: &str, key: &[u8], end: &[u8], revision: i64, answer: &[KeyValue]) -> Result<(), String> {
        let expected = self.range_at(key, end, revision);
        for (kv, (name, state)) in answer.iter().zip(&expected) {
            if kv.key != **name || state_of(kv) != **state {
                return Err(format!("{what}: at {revision}: {kv:?} was read, {name:?} is {state:?}"));
            }
        }
        if answer.len() != expected.len() {
            let (got, want) = (answer.len(), expected.len());
            return Err(format!("{what}: at {revision}: {got} keys were read, there are {want}"));
        }
        Ok(())
    }
}

fn state_of(kv: &KeyValue) -> KeyState {
    KeyState {
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        value: kv.value.clone(),
        lease: kv.lease,
    }
}

fn check_previous(previous: Option<&KeyValue>, before: Option<&KeyState>, may_lack: bool) -> Result<(), String> {
    match (previous, before) {
        (None, None) => Ok(()),
        (None, Some(_)) if may_lack => Ok(()),
        (Some(previous), Some(before)) if state_of(previous) == *before => Ok(()),
        (previous, before) => Err(format!("prev_kv is {previous:?}, the key was {before:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, revision: i64, created: i64, version: i64) -> Event {
        let kv = KeyValue {
            key: key.into(),
            value: "v".into(),
            mod_revision: revision,
            create_revision: created,
            version,
            lease: 0,
        };
        Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: None }
    }

    fn delete(key: &'static str, revision: i64) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, ..KeyValue::default() };
        Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None }
    }

    fn of(events: &[Event]) -> Result<History, String> {
        let mut history = History::default();
        history.push(events, true).map(|()| history)
    }

    #[test]
    fn states_follow_from_events() {
        let history = of(&[put("a", 2, 2, 1), put("a", 3, 2, 2), put("b", 3, 3, 1), delete("a", 4)]).unwrap();
        assert_eq!(history.last(), 4);
        assert_eq!(history.at(b"a", 3).map(|state| state.version), Some(2));
        assert_eq!(history.at(b"a", 4), None);
        assert_eq!(history.range_at(b"\0", b"\0", 3).len(), 2);
        assert_eq!(history.changes(3).len(), 2);
        assert!(history.check_range("read", b"b", b"", 4, &[]).is_err(), "a key is missing");
        let kv = put("b", 3, 3, 1).kv.unwrap();
        assert_eq!(history.check_range("read", b"a", b"c", 4, std::slice::from_ref(&kv)), Ok(()));
        let other = KeyValue { version: 2, ..kv };
        assert!(history.check_range("read", b"a", b"c", 4, &[other]).is_err(), "another version");
    }

    #[test]
    fn a_second_watch_says_the_same() {
        let events = [put("a", 2, 2, 1), put("b", 2, 2, 1), put("a", 3, 2, 2), delete("a", 4)];
        let mut history = of(&events[..3]).unwrap();
        assert_eq!(history.take(2, &events[..2], true), Ok(3));
        assert_eq!(history.take(3, &events[2..], true), Ok(5), "it is the first to see revision 4");
        assert_eq!(history.last(), 4);
        assert!(history.take(2, &events[..1], true).is_err(), "half a revision");
        assert!(history.take(2, &events[2..], true).is_err(), "a gap");
        assert!(history.take(3, &[put("a", 3, 2, 3)], true).is_err(), "another version");
        assert!(history.take(4, &[put("a", 4, 2, 3)], true).is_err(), "no deletion");
    }

    #[test]
    fn lost_doubled_and_wrong_events_are_seen() {
        assert!(of(&[put("a", 3, 3, 1)]).is_err(), "revision 2 is lost");
        assert!(of(&[put("a", 2, 2, 1), put("a", 2, 2, 2)]).is_err(), "one key twice in a revision");
        assert!(of(&[put("a", 2, 2, 1), put("b", 3, 3, 1), put("a", 2, 2, 1)]).is_err(), "back in time");
        assert!(of(&[put("a", 2, 2, 1), put("a", 3, 3, 1)]).is_err(), "created again");
        assert!(of(&[delete("a", 2)]).is_err(), "nothing to delete");
        let mut history = of(&[put("a", 2, 2, 1)]).unwrap();
        assert!(history.push(&[put("a", 3, 2, 2)], false).is_err(), "no prev_kv");
    }
}
