//! The small buckets, whole in memory: leases, users, roles, members, alarms, the meta keys.
//!
//! A view must be able to keep its state of them for next to nothing, while leases come and go by the hundred
//! thousand. So each is a sorted list of sorted chunks, both shared; a change copies one chunk and, if a view
//! holds the old state, the list of chunks.
//!
//! Invariants:
//! - no chunk is empty; keys ascend inside a chunk and from one chunk to the next, each key once
//! - a chunk has at most `CHUNK_KEYS` keys

use crate::schema::Bucket;
use bytes::Bytes;
use std::sync::Arc;

/// Keys in a chunk at most: copying this many pairs is the price of a change.
const CHUNK_KEYS: usize = 64;

type Chunk = Vec<(Bytes, Bytes)>;

/// A sorted map that is copied piece by piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct SideMap {
    chunks: Arc<Vec<Arc<Chunk>>>,
    len: usize,
}

impl SideMap {
    /// The chunk that holds `key` or would hold it; nothing when the map is empty.
    fn chunk_of(&self, key: &[u8]) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk[0].0[..] <= *key);
        if self.chunks.is_empty() { None } else { Some(after.saturating_sub(1)) }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Bytes> {
        let chunk = &self.chunks[self.chunk_of(key)?];
        let at = chunk.binary_search_by(|(k, _)| k[..].cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(k, v)| (k, v)))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sets the key, or takes it away; tells whether the map is now another.
    pub(crate) fn set(&mut self, key: Bytes, value: Option<Bytes>) -> bool {
        match value {
            Some(value) => self.insert(key, value),
            None => self.remove(&key),
        }
    }

    fn insert(&mut self, key: Bytes, value: Bytes) -> bool {
        let Some(at) = self.chunk_of(&key) else {
            self.chunks = Arc::new(vec![Arc::new(vec![(key, value)])]);
            self.len = 1;
            return true;
        };
        match self.chunks[at].binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(found) => {
                if self.chunks[at][found].1 == value {
                    return false;
                }
                Arc::make_mut(&mut Arc::make_mut(&mut self.chunks)[at])[found].1 = value;
            }
            Err(place) => {
                let chunks = Arc::make_mut(&mut self.chunks);
                let chunk = Arc::make_mut(&mut chunks[at]);
                chunk.insert(place, (key, value));
                self.len += 1;
                if chunk.len() > CHUNK_KEYS {
                    let right = chunk.split_off(CHUNK_KEYS / 2);
                    chunks.insert(at + 1, Arc::new(right));
                }
            }
        }
        true
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let Some(at) = self.chunk_of(key) else { return false };
        let Ok(found) = self.chunks[at].binary_search_by(|(k, _)| k[..].cmp(key)) else { return false };
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        chunk.remove(found);
        self.len -= 1;
        if chunk.is_empty() {
            chunks.remove(at);
        }
        true
    }
}

/// All small buckets.
#[derive(Clone, Debug, Default)]
pub(crate) struct SideBuckets {
    maps: [SideMap; Bucket::ALL.len() - 1],
}

impl SideBuckets {
    /// The bucket's map. The key bucket is not small.
    pub(crate) fn map(&self, bucket: Bucket) -> &SideMap {
        assert_ne!(bucket, Bucket::Key, "the key bucket is not kept in memory");
        &self.maps[bucket as usize - 1]
    }

    pub(crate) fn map_mut(&mut self, bucket: Bucket) -> &mut SideMap {
        assert_ne!(bucket, Bucket::Key, "the key bucket is not kept in memory");
        &mut self.maps[bucket as usize - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pairs(map: &SideMap) -> Vec<(Bytes, Bytes)> {
        map.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn equals_a_tree_map_and_old_states_stay(
            changes in prop::collection::vec((0u16..400, prop::option::weighted(0.7, any::<u8>())), 0..600),
        ) {
            let mut map = SideMap::default();
            let mut model = BTreeMap::new();
            let mut kept = Vec::new();
            for (at, (key, value)) in changes.into_iter().enumerate() {
                let key = Bytes::copy_from_slice(&key.to_be_bytes());
                let value = value.map(|v| Bytes::copy_from_slice(&[v]));
                let before = model.clone();
                match &value {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(&key),
                };
                prop_assert_eq!(map.set(key.clone(), value.clone()), before != model);
                prop_assert_eq!(map.get(&key), value.as_ref());
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.chunks.iter().all(|chunk| (1..=CHUNK_KEYS).contains(&chunk.len())));
                if at % 50 == 0 {
                    kept.push((map.clone(), model.clone()));
                }
            }
            kept.push((map, model));
            for (map, model) in kept {
                prop_assert_eq!(pairs(&map), model.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
