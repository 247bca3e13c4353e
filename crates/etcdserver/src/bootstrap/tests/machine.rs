//! One member with all its lanes on one thread: real log, real database, real apply, over a disk in memory. What the
//! process does with threads and queues, in the plainest order.

use std::path::Path;
use std::sync::Arc;

use api::etcdserverpb::PutRequest;
use disk::mem::MemDisk;
use disk::{Disk, OpenMode};
use prost::Message;
use wal::Wal;

use crate::apply::{Applier, Settings};
use crate::bootstrap::{Error, Recovered, Report, StorageOptions, bootstrap};
use crate::config::Config;
use crate::effect::{ClusterVersions, Outcome, Proposal, RaftEffect, RaftInput, ReplyTo};
use crate::now::{MILLISECOND, Now};
use crate::raft::Node;
use crate::snapshot::{self, LocalSnapshot};

pub(super) struct Machine {
    pub(super) config: Config,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) node: Node,
    pub(super) applier: Applier,
    pub(super) wal: Wal,
    pub(super) db: bolt::Db,
    pub(super) report: Report,
    pub(super) now: Now,
    pub(super) published: bool,
    pub(super) answered: Vec<(u32, Result<(), String>)>,
    streams: u32,
}

#[derive(Debug)]
#[expect(dead_code, reason = "what broke is only printed")]
pub(super) enum Broken {
    Bootstrap(Error),
    Raft(crate::raft::Error),
    Wal(wal::Error),
    Database(bolt::Error),
    Apply(crate::apply::Error),
}

pub(super) fn options() -> StorageOptions {
    let small = wal::Options { segment_bytes: 256 << 10, ..wal::Options::default() };
    let db = bolt::Options { grow_bytes: 64 << 10, reserve_bytes: 0, ..StorageOptions::default().db };
    StorageOptions { db, wal: small }
}

impl Machine {
    pub(super) fn start(disk: &MemDisk, config: &Config, boot: u64) -> Result<Machine, Broken> {
        Machine::start_on(Arc::new(disk.clone()), config, boot)
    }

    pub(super) fn start_on(disk: Arc<dyn Disk>, config: &Config, boot: u64) -> Result<Machine, Broken> {
        let recovered = bootstrap(&disk, config, &options()).map_err(Broken::Bootstrap)?;
        let Recovered { wal, db, store, attachments, cluster, start, report } = recovered;
        let now = Now { mono_ns: 1 << 40, wall_ns: (1_700_000_000_000 + boot) * MILLISECOND };
        let applier =
            Applier::new(Settings::new(config), store, attachments, cluster).map_err(Broken::Apply)?;
        let node = Node::new(config, start, now).map_err(Broken::Raft)?;
        let mut machine = Machine {
            config: config.clone(),
            disk,
            node,
            applier,
            wal,
            db,
            report,
            now,
            published: false,
            answered: Vec::new(),
            streams: 0,
        };
        machine.tell_versions()?;
        machine.run()?;
        Ok(machine)
    }

    fn tell_versions(&mut self) -> Result<(), Broken> {
        let cluster = self.applier.cluster();
        let versions = ClusterVersions {
            cluster: cluster.version(),
            lowest_server: Some(self.config.version),
            downgrade: cluster.downgrade().target_minor(),
        };
        self.step(RaftInput::Versions(versions))
    }

    pub(super) fn step(&mut self, input: RaftInput) -> Result<(), Broken> {
        self.node.step(self.now, input).map_err(Broken::Raft)
    }

    pub(super) fn tick(&mut self, ticks: usize) -> Result<(), Broken> {
        for _ in 0..ticks {
            self.now = self.now.plus(self.config.heartbeat_ms * MILLISECOND);
            self.step(RaftInput::Tick)?;
            self.run()?;
        }
        Ok(())
    }

    /// Puts a key and tells whether that was acknowledged.
    pub(super) fn put(&mut self, key: &str, value: &str) -> Result<bool, Broken> {
        let request = PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: value.as_bytes().to_vec().into(),
            ..PutRequest::default()
        };
        self.propose(4, request.encode_to_vec())
    }

    /// Proposes a request and tells whether it was acknowledged.
    pub(super) fn propose(&mut self, field: u32, body: Vec<u8>) -> Result<bool, Broken> {
        self.streams += 1;
        let stream = self.streams;
        let reply_to = Some(ReplyTo { thread: 0, connection: 0, stream });
        let proposal = Proposal { reply_to, identity: None, field, body: body.into() };
        self.step(RaftInput::Propose(vec![proposal]))?;
        self.run()?;
        Ok(self.answered.iter().any(|(s, result)| *s == stream && result.is_ok()))
    }

    pub(super) fn get(&self, key: &str) -> Option<String> {
        let view = self.applier.store().view();
        let record = view.key_at(key.as_bytes(), view.revision()).unwrap()?;
        let kv = mvcc::KeyValue::decode(&record).unwrap();
        Some(String::from_utf8_lossy(kv.value).into_owned())
    }

    pub(super) fn run(&mut self) -> Result<(), Broken> {
        loop {
            let mut effects = Vec::new();
            self.node.drain(&mut effects);
            if effects.is_empty() {
                return Ok(());
            }
            for effect in effects {
                self.effect(effect)?;
            }
        }
    }

    fn effect(&mut self, effect: RaftEffect) -> Result<(), Broken> {
        match effect {
            RaftEffect::Append(append) => {
                snapshot::append(&*self.disk, &self.config.snap_dir(), &mut self.wal, &append)
                    .map_err(Broken::Wal)?;
                self.step(RaftInput::Persisted { ready: append.ready })
            }
            RaftEffect::Apply(committed) => {
                let mut outcome = Outcome::default();
                self.applier.apply(self.now, committed, &mut outcome).map_err(Broken::Apply)?;
                self.outcome(outcome)
            }
            RaftEffect::SnapshotDue { .. } => self.snapshot(),
            RaftEffect::Published => {
                self.published = true;
                Ok(())
            }
            RaftEffect::Refused(refused) => {
                let texts = refused.into_iter().map(|(to, why)| (to.stream, Err(why.message.into_owned())));
                self.answered.extend(texts);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn outcome(&mut self, outcome: Outcome) -> Result<(), Broken> {
        for conf in outcome.conf {
            self.step(RaftInput::ConfApplied(conf))?;
        }
        if outcome.cluster_changed {
            self.tell_versions()?;
        }
        if outcome.force_snapshot {
            self.step(RaftInput::ForceSnapshot)?;
        }
        if !outcome.proposals.is_empty() {
            self.step(RaftInput::Propose(outcome.proposals))?;
        }
        self.step(RaftInput::Applied { index: outcome.index, leases: outcome.leases })?;
        for (id, result) in outcome.replies {
            if let Some(to) = self.node.take_waiting(id) {
                self.answered.push((to.stream, result.map(|_| ()).map_err(|why| why.message.into_owned())));
            }
        }
        Ok(())
    }

    /// Writes what is applied to the database file, durably.
    pub(super) fn commit(&mut self) -> Result<(), Broken> {
        if let Some(batch) = self.applier.store_mut().freeze_all() {
            self.db.commit(&batch).map_err(Broken::Database)?;
            let view = self.db.reader().view();
            self.applier.store_mut().committed(view);
        }
        self.db.force().map_err(Broken::Database)
    }

    fn snapshot(&mut self) -> Result<(), Broken> {
        let (index, term) = self.applier.applied();
        let local = LocalSnapshot::new(self.applier.cluster(), index, term);
        self.commit()?;
        snapshot::save(&*self.disk, &self.config.snap_dir(), &mut self.wal, &local).map_err(Broken::Wal)?;
        self.step(RaftInput::SnapshotSaved { index })
    }
}

/// A data directory that Go wrote, in memory. Log segments lose the zeros behind their last record, which Go
/// accepts as we do.
pub(super) fn unpack(name: &str) -> MemDisk {
    let path = format!("{}/../../tests/data/vectors/{name}.tar.zst", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(path).unwrap();
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(31).unwrap();
    let disk = MemDisk::new();
    for entry in tar::Archive::new(decoder).entries().unwrap() {
        let mut entry = entry.unwrap();
        let inside = entry.path().unwrap().into_owned();
        let inside = Path::new("/data").join(inside.strip_prefix(name).unwrap());
        if entry.header().entry_type().is_dir() {
            disk::create_dir_durable(&disk, &inside, 0o700).unwrap();
            continue;
        }
        disk::create_dir_durable(&disk, inside.parent().unwrap(), 0o700).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if inside.extension().is_some_and(|e| e == "wal") {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            // The last record may end in zeros itself.
            bytes.truncate(bytes.len().min(used.next_multiple_of(8) + 512));
        }
        let file = disk.open(&inside, OpenMode::CreateNew, 0o600).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(inside.parent().unwrap()).unwrap();
    }
    disk
}

pub(super) fn config() -> Config {
    Config { data_dir: "/data".into(), ..Config::default() }
}
