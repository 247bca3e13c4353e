//! `migrate`: brings the database of a stopped member to the form of another minor version.

use std::path::PathBuf;

use api::etcdserverpb::{InternalRaftRequest, Request};
use api::raftpb::EntryType;
use api::version::{Minor, SERVER};
use bolt::{Batch, Db, Op};
use bytes::Bytes;
use etcdserver::Config;
use mvcc::schema::{self, Bucket, Detected, StorageVersion};
use prost::Message;

use crate::cli::{Command, Exit, Flag, Invocation, Outcome, parse_int};
use crate::database::{disk, open};
use crate::log::{Value, info, line};

pub(super) static COMMAND: Command = Command {
    name: "migrate",
    short: "Brings the files of a member to the form of another etcd version",
    flags: &[
        Flag::text("data-dir", "", "The directory of a member that does not run"),
        Flag::switch(
            "force",
            "Write the version down even if the migration fails. The member may not start afterwards.",
        ),
        Flag::text("target-version", "", "The etcd version to migrate to, as \"X.Y\"; 3.5 is the oldest."),
    ],
    required: &["data-dir", "target-version"],
    run: Some(run),
    ..Command::EMPTY
};

const PLACE: &str = "etcdutl/migrate.rs";
/// The oldest version with a form of its own.
const OLDEST: Minor = Minor::new(3, 5);
/// The first version that writes its number into the database.
const FIRST_WRITTEN: Minor = Minor::new(3, 6);

fn run(invocation: &Invocation) -> Outcome {
    let target = target(invocation.text("target-version"))?;
    let config = Config { data_dir: PathBuf::from(invocation.text("data-dir")), ..Config::default() };
    let mut db = open(&config.db_path(), false, invocation.duration("timeout"))?;
    let Some(current) = current(&db)? else {
        let message = "failed to detect storage version. \
                       Please make sure you are using data dir from etcd v3.5 and older";
        line("error", PLACE, message, &[]);
        return Err(Exit::error("missing term information"));
    };
    let shown = target.to_string();
    if current == target {
        info(PLACE, "storage version up-to-date", &[("storage-version", Value::Text(&shown))]);
        return Ok(());
    }
    let needed = needed(&config).map_err(|error| {
        line("error", PLACE, "Failed to finalize config", &[("error", Value::Text(&error))]);
        Exit::error(error)
    })?;
    if let Err(error) = migrate(&mut db, current, target, needed) {
        if !invocation.switch("force") {
            return Err(Exit::error(error));
        }
        info(PLACE, "normal migrate failed, trying with force", &[("error", Value::Text(&error))]);
        set(&mut db, target)?;
        line("warn", PLACE, "forcefully set storage version", &[("storage-version", Value::Text(&shown))]);
    }
    db.close().map_err(Exit::error)
}

/// `X.Y`, not older than what has a form of its own.
fn target(text: &str) -> Result<Minor, Exit> {
    let parts: Vec<&str> = text.split('.').collect();
    let [major, minor] = parts[..] else {
        return Err(Exit::arguments(format!("wrong target version format, expected \"X.Y\", got {text:?}")));
    };
    let number = |part| {
        let read = parse_int(part, 10).map_err(|why| format!("failed to parse target version: {why}"))?;
        u32::try_from(read).map_err(|_| format!("failed to parse target version: {read} is out of range"))
    };
    let read = || Ok(Minor { major: number(major)?, minor: number(minor)? });
    let target = read().map_err(|why: String| Exit::arguments(why))?;
    if target < OLDEST {
        let text = format!("target version {:?} not supported. Minimal {:?}", target.to_string(), OLDEST.to_string());
        return Err(Exit::arguments(text));
    }
    Ok(target)
}

/// The version whose form the database has; `None` for one of 3.4 or a fresh one.
fn current(db: &Db) -> Result<Option<Minor>, Exit> {
    let view = db.reader().view();
    let mut meta = std::collections::BTreeMap::new();
    for key in [schema::STORAGE_VERSION, schema::CONSISTENT_INDEX, schema::TERM] {
        if let Some(value) = view.get(Bucket::Meta.name(), key).map_err(Exit::error)? {
            meta.insert(key, Bytes::copy_from_slice(value));
        }
    }
    let detected = schema::detect(&|key| meta.get(key).cloned());
    let text = match detected {
        Detected::Known(version) => version.text().to_owned(),
        Detected::Newer(text) => text,
        Detected::Unknown => return Ok(None),
    };
    let version: api::version::Version = text.parse().map_err(Exit::error)?;
    Ok(Some(version.minor()))
}

/// The oldest version that understands all entries behind the last snapshot.
fn needed(config: &Config) -> Result<Option<Minor>, String> {
    let (disk, dir) = (disk(), config.wal_path());
    let newest = wal::snapshot_records(&*disk, &dir)
        .map_err(|error| format!("failed to get the latest snapshot: {error}"))?
        .pop()
        .unwrap_or_default();
    let replay = wal::read(&*disk, &dir, &newest).map_err(|error| format!("failed to read the log: {error}"))?;
    let mut needed = None;
    for entry in &replay.entries {
        if entry.r#type() != EntryType::EntryNormal {
            continue;
        }
        let minimal = api::versionpb::minimal_version(api::schema::of::<InternalRaftRequest>(), entry.data());
        match minimal {
            Ok(minimal) => needed = needed.max(minimal),
            // The requests of the store before 3.0, which servers up to 3.5 still write: any release knows them.
            Err(_) if Request::decode(entry.data()).is_ok() => {}
            Err(error) => return Err(format!("entry {} of the log is not understood: {error}", entry.index())),
        }
    }
    Ok(needed)
}

/// One minor version after the other.
fn migrate(db: &mut Db, current: Minor, target: Minor, needed: Option<Minor>) -> Result<(), String> {
    let plan = plan(current, target).map_err(|why| format!("cannot create migration plan: {why}"))?;
    if target < current && needed.is_some_and(|needed| needed > target) {
        return Err("cannot downgrade storage, WAL contains newer entries".into());
    }
    for step in plan {
        set(db, step).map_err(|exit| exit.message.unwrap_or_default())?;
        info(PLACE, "updated storage version", &[("new-storage-version", Value::Text(&step.cluster().to_string()))]);
    }
    Ok(())
}

/// The versions on the way from `current` to `target`, which is the last.
fn plan(current: Minor, target: Minor) -> Result<Vec<Minor>, String> {
    if current.major != target.major {
        let (current, target) = (current.cluster().to_string(), target.cluster().to_string());
        let fields =
            [("storage-version", Value::Text(&current)), ("target-storage-version", Value::Text(&target))];
        line("error", PLACE, "Changing major storage version is not supported", &fields);
        return Err("changing major storage version is not supported".into());
    }
    let steps: Vec<Minor> = if current < target {
        (current.minor + 1..=target.minor).map(|minor| Minor { minor, ..current }).collect()
    } else {
        (target.minor..current.minor).rev().map(|minor| Minor { minor, ..current }).collect()
    };
    // Up or down, the newer one of two neighbours says what changes between them.
    let unknown = steps.iter().copied().chain([current]).find(|step| *step > SERVER.minor());
    match unknown {
        Some(unknown) => Err(format!("version {:?} is not supported", unknown.cluster().to_string())),
        None => Ok(steps),
    }
}

/// All that these versions differ in is this one key.
fn set(db: &mut Db, version: Minor) -> Outcome {
    let known = StorageVersion::from_minor(version.major.into(), version.minor.into());
    let value = match known {
        Some(known) => schema::storage_version_value(known),
        None => Some(Bytes::from(version.cluster().to_string())),
    };
    debug_assert_eq!(value.is_some(), version >= FIRST_WRITTEN);
    let op = value.map_or(Op::Delete, Op::Put);
    let mut batch = Batch::default();
    batch.bucket(Bucket::Meta.name()).changes = vec![(Bytes::from_static(schema::STORAGE_VERSION), op)];
    db.commit(&batch).map_err(Exit::error)?;
    db.force().map_err(Exit::error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(text: &str) -> Minor {
        target(text).unwrap()
    }

    #[test]
    fn targets() {
        let refused = |text| target(text).unwrap_err().message.unwrap();
        assert_eq!(minor("3.7"), Minor::new(3, 7));
        assert_eq!(refused("3"), "wrong target version format, expected \"X.Y\", got \"3\"");
        assert_eq!(refused("3.7.0"), "wrong target version format, expected \"X.Y\", got \"3.7.0\"");
        assert_eq!(refused("a.5"), "failed to parse target version: strconv.ParseInt: parsing \"a\": invalid syntax");
        assert_eq!(refused("3.4"), "target version \"3.4\" not supported. Minimal \"3.5\"");
        assert!(target("3.-1").is_err());
    }

    #[test]
    fn plans() {
        let steps = |from, to| {
            let plan = plan(minor(from), minor(to));
            plan.map(|steps| steps.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(steps("3.5", "3.7").as_deref(), Ok("3.6 3.7"));
        assert_eq!(steps("3.7", "3.5").as_deref(), Ok("3.6 3.5"));
        assert_eq!(steps("3.6", "3.8"), Err("version \"3.8.0\" is not supported".into()));
        assert_eq!(steps("3.8", "3.6"), Err("version \"3.8.0\" is not supported".into()));
        assert_eq!(steps("3.7", "4.0"), Err("changing major storage version is not supported".into()));
    }
}
