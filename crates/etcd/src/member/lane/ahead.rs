//! Reading ahead of a compaction, so that the member thread does not wait for the disk.
//!
//! A compaction that has a hash to make reads all old records. What was written long ago may not be in memory any more,
//! and whoever touches it waits for the disk, page by page: a member thread that does so takes no requests meanwhile. So
//! a thread of its own, which lives for a moment, touches each piece first; the compaction's steps wait for it instead.
//!
//! It is a hint and nothing else: a piece may be thrown out of memory again before its step comes, or a received
//! database may have taken the file's place. Then the step waits for the disk as it would have without.

use mvcc::Revision;

use super::Lane;
use crate::member::handle::MemberInput;

/// Bytes of records per piece: some hundred milliseconds of steps.
const PIECE_BYTES: usize = 8 << 20;

/// How far the file has been read ahead of the compaction under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Ahead {
    #[default]
    Nothing,
    /// A thread is at it; no step is due before it answers.
    Asked,
    /// Up to this record.
    To(Revision),
    /// To its end.
    All,
}

impl Lane {
    /// Whether the next step of the compaction finds in memory what it reads; if not, sees to it.
    pub(super) fn is_read_ahead(&mut self) -> bool {
        let Some(next) = self.applier.store().compaction_reads_from() else {
            self.ahead = Ahead::Nothing;
            return true;
        };
        match self.ahead {
            Ahead::All => return true,
            Ahead::To(to) if next < to => return true,
            Ahead::Asked => {
                // Another compaction may have been asked for since, or a database received.
                self.compaction_due = None;
                return false;
            }
            Ahead::Nothing | Ahead::To(_) => {}
        }
        let (view, shared) = (self.applier.store().view(), self.shared.clone());
        let read = move || {
            // An error is met again, and told, by the step that reads the same.
            let to = view.read_ahead(next, PIECE_BYTES).unwrap_or(None);
            shared.member.push(MemberInput::ReadAhead(to));
        };
        // Without a thread to spare the step reads for itself.
        if std::thread::Builder::new().name("read-ahead".into()).spawn(read).is_err() {
            return true;
        }
        (self.ahead, self.compaction_due) = (Ahead::Asked, None);
        false
    }

    /// A piece is in memory: the compaction goes on.
    pub(super) fn read_ahead(&mut self, to: Option<Revision>) {
        self.ahead = to.map_or(Ahead::All, Ahead::To);
        // Under an installation nothing is due; its end looks for itself.
        if self.installing.is_none() {
            self.compaction_due = Some(self.shared.now().mono_ns);
        }
    }
}
