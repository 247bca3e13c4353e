//! Random batches, snapshots, cuts, restarts and power cuts against a list of entries.

use proptest::prelude::*;

use super::*;

/// What somebody may rely on, kept beside the log.
#[derive(Clone, Default, PartialEq)]
struct Model {
    entries: Vec<Entry>,
    hard_state: HardState,
    snapshots: Vec<u64>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for entry in &self.entries {
            let len = entry.data.as_ref().map_or(0, Bytes::len);
            write!(f, "{}@{}:{len} ", entry.index.unwrap(), entry.term.unwrap())?;
        }
        write!(f, "{:?} {:?}", self.hard_state, self.snapshots)
    }
}

impl Model {
    fn append(&mut self, entries: &[Entry], hard_state: &HardState) {
        if let Some(first) = entries.first() {
            self.entries.truncate(first.index.unwrap() as usize - 1);
            self.entries.extend_from_slice(entries);
        }
        self.hard_state = *hard_state;
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Entries of these sizes, going back by so many first.
    Append {
        back: u64,
        sizes: Vec<usize>,
        commits: bool,
    },
    Snapshot,
    Prepare(usize),
    Restart,
    PowerCut(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![4 => 0..60_usize, 3 => 0..700_usize, 1 => 0..5000_usize];
    let append = (prop_oneof![5 => Just(0), 1 => 0..4_u64], prop::collection::vec(size, 0..5), any::<bool>())
        .prop_map(|(back, sizes, commits)| Step::Append { back, sizes, commits });
    let step = prop_oneof![
        12 => append,
        1 => Just(Step::Snapshot),
        1 => (0..6_usize).prop_map(Step::Prepare),
        1 => Just(Step::Restart),
        2 => any::<u64>().prop_map(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..40)
}

/// The state of a test: the log, what was promised (synced), and what was only written.
struct Run {
    disk: MemDisk,
    wal: Wal,
    promised: Model,
    written: Vec<Model>,
    term: u64,
}

impl Run {
    fn now(&self) -> &Model {
        self.written.last().unwrap_or(&self.promised)
    }

    fn append(&mut self, back: u64, sizes: &[usize], commits: bool) {
        let mut now = self.now().clone();
        let last = now.entries.len() as u64;
        // Only what is not committed may be replaced, and only by entries of a later term.
        let commit = now.hard_state.commit.unwrap_or(0);
        let back = if sizes.is_empty() { 0 } else { back.min(last - commit) };
        self.term += u64::from(back > 0);
        let first = last - back + 1;
        let entries: Vec<Entry> = (first..)
            .zip(sizes)
            .map(|(index, &size)| entry(index, self.term, &vec![index as u8 | 1; size]))
            .collect();
        let last = first + entries.len() as u64 - 1;
        let hard_state = state(self.term, 1, if commits { last } else { commit });
        let encoded: Vec<_> = entries.iter().map(encoded).collect();
        let is_promise = now.hard_state.term != hard_state.term || now.hard_state.vote != hard_state.vote;
        now.append(&entries, &hard_state);
        let segments = self.wal.segments().count();
        self.wal.append(&encoded, Some(&hard_state), false).unwrap();
        let was_cut = self.wal.segments().count() > segments;
        self.written.push(now);
        if !entries.is_empty() || is_promise || was_cut {
            self.promise();
        }
    }

    fn promise(&mut self) {
        self.promised = self.now().clone();
        self.written.clear();
    }

    fn snapshot(&mut self) {
        let commit = self.now().hard_state.commit.unwrap_or(0);
        if commit > 0 {
            let term = self.now().entries[commit as usize - 1].term.unwrap();
            self.wal.save_snapshot(&snapshot(commit, term)).unwrap();
            let mut now = self.now().clone();
            now.snapshots.push(commit);
            self.written.push(now);
            self.promise();
        }
    }

    /// Goes on with this disk after the process has ended.
    fn restart(&mut self, disk: MemDisk) {
        let (wal, replay) = open(&disk, &beginning()).unwrap();
        let found = Model {
            entries: replay.entries,
            hard_state: replay.hard_state,
            snapshots: crate::snapshot_records(&disk, dir())
                .unwrap()
                .iter()
                .filter_map(|record| record.index.filter(|&index| index > 0))
                .collect(),
        };
        let candidates: Vec<&Model> = std::iter::once(&self.promised).chain(&self.written).collect();
        assert!(candidates.contains(&&found), "found {found:?}\namong {candidates:?}");
        let report = crate::verify(&disk, dir()).unwrap();
        assert_eq!((report.problems, report.torn), (vec![], None));
        (self.disk, self.wal, self.promised) = (disk, wal, found);
        self.written.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn what_was_synced_is_found_again(steps in steps()) {
        let disk = MemDisk::new();
        let wal = create(&disk);
        let mut run = Run { disk, wal, promised: Model::default(), written: Vec::new(), term: 1 };
        for step in steps {
            match step {
                Step::Append { back, sizes, commits } => run.append(back, &sizes, commits),
                Step::Snapshot => run.snapshot(),
                Step::Prepare(steps) => {
                    if let Some(mut job) = run.wal.prepare_next() {
                        for _ in 0..steps {
                            job.step().unwrap();
                        }
                    }
                }
                Step::Restart => {
                    let disk = run.disk.snapshot_after_kill();
                    run.restart(disk);
                    let now = run.now().clone();
                    prop_assert_eq!(&now, &run.promised);
                }
                Step::PowerCut(seed) => {
                    let disk = run.disk.snapshot_after_crash(seed);
                    run.restart(disk);
                }
            }
        }
        let disk = run.disk.snapshot_after_kill();
        let expected = run.now().clone();
        run.restart(disk);
        prop_assert_eq!(run.promised, expected, "the end of a process loses nothing");
    }
}
