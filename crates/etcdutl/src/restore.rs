//! A member's directory made from a saved snapshot.
//!
//! The directory is that of a founder: the saved database with the members exchanged, and a log that begins with one
//! entry per founder, all of them committed and covered by a raft snapshot. Order matters for a crash in between: the
//! log comes last and its snapshot record is the very last write, so that a directory that was not finished does not
//! start as if it were whole.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::raftpb::{ConfChange, ConfChangeType, Entry, EntryType, HardState};
use bolt::{Batch, Db, Op};
use bytes::Bytes;
use etcdserver::Config;
use etcdserver::bootstrap::{Founding, check_founding};
use etcdserver::membership::{Cluster, ConfContext};
use etcdserver::raft::encode_conf_change;
use etcdserver::snapshot::LocalSnapshot;
use mvcc::Revision;
use mvcc::schema::{self, Bucket};
use prost::Message;
use sha2::{Digest, Sha256};
use wal::{EncodedEntry, Wal};

use crate::cli::Exit;
use crate::database::{disk, open, words_of};
use crate::log::{Value, info};

/// Length of the checksum at the end of a saved snapshot.
const CHECKSUM: u64 = 32;
/// Databases are whole pages, pages are multiples of this.
const SECTOR: u64 = 512;
/// The term of the founders' entries.
const TERM: u64 = 1;
const DIR_MODE: u32 = 0o700;

/// What to restore.
#[derive(Clone, Debug)]
pub struct Request {
    /// The saved snapshot.
    pub file: PathBuf,
    /// Name, directories, and the cluster to found.
    pub config: Config,
    /// Take a file without a checksum, or with a wrong one.
    pub skip_check: bool,
    /// How much of the database Go would map at first. It is said in the log, and changes nothing here.
    pub map_size: u64,
    /// How much the revision grows; everything up to there is then marked as compacted.
    pub bump: u64,
}

/// Makes the directory.
///
/// # Errors
/// The directory is in use, the snapshot is damaged, or the disk refuses.
pub fn restore(request: &Request) -> Result<(), Exit> {
    let config = &request.config;
    check_free(config)?;
    let founding = check_founding(config).map_err(Exit::error)?;
    announce("restoring snapshot", request);
    let disk = disk();
    disk::create_dir_durable(&*disk, &config.snap_dir(), DIR_MODE).map_err(Exit::error)?;
    copy(&request.file, &config.db_path(), request.skip_check)?;
    info("etcdutl/restore.rs", "Trimming membership information from the backend...", &[]);
    let mut db = open(&config.db_path(), false, Duration::from_secs(1))?;
    let bumped = if request.bump > 0 { Some(bumped(&db, request.bump)?) } else { None };
    let (cluster, entries) = found(&founding)?;
    change(&mut db, &founding, bumped)?;
    db.close().map_err(Exit::error)?;
    write_log(config, &founding, &cluster, &entries)?;
    announce("restored snapshot", request);
    Ok(())
}

fn announce(message: &str, request: &Request) {
    let config = &request.config;
    let shown = |path: &Path| path.display().to_string();
    let fields = [
        ("path", Value::Text(&shown(&request.file))),
        ("wal-dir", Value::Text(&shown(&config.wal_path()))),
        ("data-dir", Value::Text(&shown(&config.data_dir))),
        ("snap-dir", Value::Text(&shown(&config.snap_dir()))),
        ("initial-memory-map-size", Value::Json(request.map_size.to_string())),
    ];
    info("etcdutl/restore.rs", message, &fields);
}

fn check_free(config: &Config) -> Result<(), Exit> {
    let occupied = |path: &Path| match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    let shown = |path: &Path| path.display().to_string();
    if occupied(&config.data_dir) {
        let text = format!("data-dir {:?} not empty or could not be read", shown(&config.data_dir));
        return Err(Exit::error(text));
    }
    let wal = config.wal_path();
    if wal.exists() {
        return Err(Exit::error(format!("wal-dir {:?} exists", shown(&wal))));
    }
    Ok(())
}

/// Copies the database without its checksum, which is compared.
fn copy(from: &Path, to: &Path, skip_check: bool) -> Result<(), Exit> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |doing: &str, path: &Path, error: std::io::Error| {
        Exit::error(format!("{doing} {}: {}", path.display(), words_of(&error)))
    };
    let mut source = File::open(from).map_err(|error| failed("open", from, error))?;
    let len = source.metadata().map_err(|error| failed("stat", from, error))?.len();
    let has_checksum = len % SECTOR == CHECKSUM;
    if !has_checksum && !skip_check {
        return Err(Exit::error("snapshot missing hash but --skip-hash-check=false"));
    }
    let mut left = if has_checksum { len - CHECKSUM } else { len };
    let mut target = (File::options().write(true).create_new(true).mode(0o600).open(to))
        .map_err(|error| failed("open", to, error))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    while left > 0 {
        let part = &mut buffer[..usize::try_from(left).unwrap_or(usize::MAX).min(1 << 20)];
        source.read_exact(part).map_err(|error| failed("read", from, error))?;
        hash.update(&*part);
        target.write_all(part).map_err(|error| failed("write", to, error))?;
        left -= part.len() as u64;
    }
    if has_checksum && !skip_check {
        let mut expected = [0; CHECKSUM as usize];
        source.read_exact(&mut expected).map_err(|error| failed("read", from, error))?;
        let found = hash.finalize();
        if found[..] != expected {
            let text = format!("expected sha256 {}, got {}", numbers(&expected), numbers(&found));
            return Err(Exit::error(text));
        }
    }
    target.sync_all().map_err(|error| failed("sync", to, error))
}

/// Bytes as Go prints a list of them.
fn numbers(bytes: &[u8]) -> String {
    let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

/// The entries that found the cluster, and the membership that follows from them.
fn found(founding: &Founding) -> Result<(Cluster, Vec<Entry>), Exit> {
    let mut cluster = Cluster::new(founding.cluster_id, founding.local_id);
    let mut entries = Vec::new();
    for (member, index) in founding.members.iter().zip(1..) {
        let context = ConfContext { member: member.clone(), is_promote: false }.to_json();
        let change = ConfChange {
            r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
            node_id: Some(member.id),
            context: Some(context),
            id: None,
        };
        cluster.apply_conf_change(&change, 0).map_err(Exit::error)?;
        entries.push(Entry {
            r#type: Some(EntryType::EntryConfChange as i32),
            term: Some(TERM),
            index: Some(index),
            data: Some(encode_conf_change(&change)),
        });
        let urls: Vec<String> = member.peer_urls.iter().map(|url| crate::json::quoted(url)).collect();
        let fields = [
            ("cluster-id", Value::Text(&format!("{:x}", founding.cluster_id))),
            ("local-member-id", Value::Text("0")),
            ("added-peer-id", Value::Text(&format!("{:x}", member.id))),
            ("added-peer-peer-urls", Value::Json(format!("[{}]", urls.join(", ")))),
            ("added-peer-is-learner", Value::Json("false".into())),
        ];
        info("etcdutl/restore.rs", "added member", &fields);
    }
    Ok((cluster, entries))
}

/// Exchanges the members and sets where the log stands. Everything else stays as it was saved.
fn change(db: &mut Db, founding: &Founding, bumped: Option<i64>) -> Result<(), Exit> {
    let mut batch = Batch::default();
    for bucket in [Bucket::Members, Bucket::MembersRemoved] {
        let change = batch.bucket(bucket.name());
        change.delete = true;
        change.create = true;
    }
    let mut members: Vec<(Bytes, Op)> = (founding.members.iter())
        .map(|member| (format!("{:x}", member.id).into(), Op::Put(member.to_json().into())))
        .collect();
    members.sort_by(|a, b| a.0.cmp(&b.0));
    batch.bucket(Bucket::Members.name()).changes = members;
    let mut meta = vec![
        (schema::CONSISTENT_INDEX, schema::write_u64(founding.members.len() as u64)),
        (schema::TERM, schema::write_u64(TERM)),
    ];
    if let Some(revision) = bumped {
        let keys = batch.bucket(Bucket::Key.name());
        keys.create = true;
        keys.changes = vec![(Bytes::copy_from_slice(&Revision::new(revision, 0).key()), Op::Put(Bytes::new()))];
        meta.push((schema::SCHEDULED_COMPACT_REV, schema::write_compact_rev(revision)));
    }
    let mut meta: Vec<(Bytes, Op)> =
        meta.into_iter().map(|(key, value)| (Bytes::from_static(key), Op::Put(value))).collect();
    meta.sort_by(|a, b| a.0.cmp(&b.0));
    let bucket = batch.bucket(Bucket::Meta.name());
    bucket.create = true;
    bucket.changes = meta;
    db.commit(&batch).map_err(Exit::error)?;
    db.force().map_err(Exit::error)
}

/// The newest revision of the file and the bump on top of it.
fn bumped(db: &Db, bump: u64) -> Result<i64, Exit> {
    let latest = latest_revision(&db.reader().view())?;
    let revision = i64::try_from(bump).ok().and_then(|bump| latest.checked_add(bump));
    let Some(revision) = revision else {
        return Err(Exit::error(format!("revision {latest} cannot grow by {bump}")));
    };
    let number = |number: &dyn ToString| Value::Json(number.to_string());
    let fields = [
        ("latest-revision", number(&latest)),
        ("bump-amount", number(&bump)),
        ("new-latest-revision", number(&revision)),
    ];
    info("etcdutl/restore.rs", "bumping latest revision", &fields);
    info("etcdutl/restore.rs", "marking revision compacted", &[("revision", number(&revision))]);
    Ok(revision)
}

/// The newest revision in a file; 0 when it has no keys.
pub(crate) fn latest_revision(view: &bolt::View) -> Result<i64, Exit> {
    let Some(bucket) = view.bucket(Bucket::Key.name()).map_err(Exit::error)? else { return Ok(0) };
    let mut cursor = bucket.cursor();
    let Some((key, _)) = cursor.last().map_err(Exit::error)? else { return Ok(0) };
    match Revision::from_key(key) {
        Some((revision, _)) => Ok(revision.main),
        None => Err(Exit::error(format!("the last key of bucket \"key\" is no revision: {key:02x?}"))),
    }
}

fn write_log(
    config: &Config,
    founding: &Founding,
    cluster: &Cluster,
    entries: &[Entry],
) -> Result<(), Exit> {
    let disk = disk();
    let wal_path = config.wal_path();
    if let Some(parent) = wal_path.parent() {
        disk::create_dir_durable(&*disk, parent, DIR_MODE).map_err(Exit::error)?;
    }
    let metadata = founding.metadata().encode_to_vec();
    let mut wal = Wal::create(&disk, &wal_path, &metadata).map_err(Exit::error)?;
    let last = entries.len() as u64;
    // As in etcd the first founder is the one that is said to have been voted for.
    let vote = founding.members.first().map_or(0, |member| member.id);
    let hard_state = HardState { term: Some(TERM), vote: Some(vote), commit: Some(last) };
    let encoded: Vec<EncodedEntry> = (entries.iter())
        .map(|entry| EncodedEntry {
            index: entry.index(),
            term: entry.term(),
            bytes: entry.encode_to_vec().into(),
        })
        .collect();
    wal.append(&encoded, Some(&hard_state), true).map_err(Exit::error)?;
    let snapshot = LocalSnapshot::new(cluster, last, TERM);
    etcdserver::snapshot::save(&*disk, &config.snap_dir(), &mut wal, &snapshot).map_err(Exit::error)
}
