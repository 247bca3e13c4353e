//! All stored records as one ordered whole: file, then frozen buffer, then active buffer.

use crate::error::{Error, Result};
use crate::schema::Bucket;
use crate::write_buf::BufView;
use crate::{Revision, event::Arena};
use bytes::Bytes;

/// The records of one moment, borrowed from a view or from the store.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) active: &'a BufView,
    pub(crate) frozen: Option<&'a BufView>,
    pub(crate) file: &'a bolt::View,
}

/// One record of the key bucket.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) revision: Revision,
    pub(crate) tombstone: bool,
    /// Encoded `mvccpb.KeyValue`.
    pub(crate) value: &'a [u8],
}

impl<'a> Records<'a> {
    /// The buffer that would hold `revision`; `None` when it would be in the file.
    fn buffer(&self, revision: Revision) -> Option<&'a BufView> {
        let holds = |buffer: &&BufView| buffer.first().is_some_and(|first| first <= revision);
        Some(self.active).filter(holds).or_else(|| self.frozen.filter(holds))
    }

    /// The record of a put, in place.
    pub(crate) fn get(&self, revision: Revision) -> Result<Option<&'a [u8]>> {
        match self.buffer(revision) {
            Some(buffer) => Ok(buffer.get(revision).map(|value| &value[..])),
            None => Ok(self.file.get_by_directory(&revision.key())?),
        }
    }

    /// The record of a put that the index knows.
    pub(crate) fn must_get(&self, revision: Revision) -> Result<&'a [u8]> {
        self.get(revision)?.ok_or_else(|| Error::missing(revision))
    }

    /// The record of a put, kept: shared where a buffer holds it, else copied out of the file.
    pub(crate) fn get_owned(&self, revision: Revision, arena: &mut Arena) -> Result<Option<Bytes>> {
        match self.buffer(revision) {
            Some(buffer) => Ok(buffer.get(revision).cloned()),
            None => Ok(self.file.get_by_directory(&revision.key())?.map(|value| arena.copy(value))),
        }
    }

    /// Says that the record will be asked for soon.
    pub(crate) fn prefetch(&self, revision: Revision) {
        if self.buffer(revision).is_none() {
            self.file.prefetch(&revision.key());
        }
    }

    /// Visits all records from `from` on in revision order, dead ones that are not yet gone included, until the
    /// visitor says false.
    pub(crate) fn walk(&self, from: Revision, visit: &mut dyn FnMut(Stored<'a>) -> bool) -> Result<()> {
        if !self.walk_file(from, visit)? {
            return Ok(());
        }
        for buffer in self.frozen.into_iter().chain([self.active]) {
            for at in buffer.lower_bound(from)..buffer.records.len() {
                let record = buffer.records.get(at);
                let (revision, tombstone) = (record.revision(), record.tombstone);
                if !visit(Stored { revision, tombstone, value: &record.value }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn walk_file(&self, from: Revision, visit: &mut dyn FnMut(Stored<'a>) -> bool) -> Result<bool> {
        let Some(bucket) = self.file.bucket(Bucket::Key.name())? else { return Ok(true) };
        let mut cursor = bucket.cursor();
        let mut entry = cursor.seek(&from.key())?;
        while let Some((key, value)) = entry {
            let Some((revision, tombstone)) = Revision::from_key(key) else {
                return Err(Error::Corrupt(format!("key {key:02x?} in the key bucket is not a revision")));
            };
            if !visit(Stored { revision, tombstone, value }) {
                return Ok(false);
            }
            entry = cursor.next()?;
        }
        Ok(true)
    }
}
