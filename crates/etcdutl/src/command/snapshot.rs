//! `snapshot`. Its two commands stand in `etcdctl` as well, where they lived before etcd 3.6.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcdserver::Config;
use mvcc::Store;
use mvcc::schema::{self, Bucket};

use crate::cli::{BAD_FEATURE, Command, Exit, Flag, Invocation, Kind, Outcome, out};
use crate::database::open;
use crate::json::Writer;
use crate::quantity;
use crate::restore::{Request, latest_revision, restore};
use crate::table;

pub(super) static COMMAND: Command = Command {
    name: "snapshot",
    short: "Checks and restores saved databases",
    children: &[&RESTORE, &STATUS],
    ..Command::EMPTY
};

/// How long to wait for the lock on the file.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// `snapshot restore`.
pub static RESTORE: Command = Command {
    name: "restore",
    usage: "<filename> --data-dir {output dir} [options]",
    short: "Makes a member's directory from a saved database",
    flags: &[
        Flag::new(Kind::Uint, "bump-revision", "0", "how much the revision grows"),
        Flag::text("data-dir", "", "the directory to make"),
        Flag::text(
            "initial-advertise-peer-urls",
            "http://localhost:2380",
            "where the other members reach this one",
        ),
        Flag::text("initial-cluster", "default=http://localhost:2380", "the members of the new cluster"),
        Flag::text("initial-cluster-token", "etcd-cluster", "token of the new cluster"),
        Flag::new(
            Kind::Uint,
            "initial-memory-map-size",
            "10737418240",
            "taken for compatibility: the mapping grows by itself",
        ),
        Flag::switch(
            "mark-compacted",
            "mark everything up to the new revision as compacted (needed with --bump-revision, and only then)",
        ),
        Flag::text("name", "default", "name of this member"),
        Flag::switch("skip-hash-check", "take a file without a checksum (one copied from a data directory)"),
        Flag::text("wal-dir", "", "the directory for the log (in --data-dir without it)"),
    ],
    run: Some(run_restore),
    ..Command::EMPTY
};

/// `snapshot status`.
pub static STATUS: Command = Command {
    name: "status",
    usage: "<filename>",
    short: "Shows what is in a saved database",
    run: Some(run_status),
    ..Command::EMPTY
};

fn run_restore(invocation: &Invocation) -> Outcome {
    let [file] = &invocation.arguments[..] else {
        return Err(Exit::arguments("snapshot restore requires exactly one argument"));
    };
    let bump = invocation.uint("bump-revision");
    let mark = invocation.switch("mark-compacted");
    if mark != (bump > 0) {
        return Err(Exit::arguments("--mark-compacted required if --revision-bump > 0"));
    }
    let name = invocation.text("name").to_owned();
    let data_dir = match invocation.text("data-dir") {
        "" => format!("{name}.etcd"),
        dir => dir.to_owned(),
    };
    let initial_cluster = initial_cluster(invocation.text("initial-cluster"))?;
    if initial_cluster.is_empty() {
        let text = format!("couldn't find local name {name:?} in the initial cluster configuration");
        return Err(Exit::error(text));
    }
    let wal_dir = Some(invocation.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let config = Config {
        name,
        data_dir: PathBuf::from(data_dir),
        wal_dir,
        initial_cluster,
        initial_cluster_token: invocation.text("initial-cluster-token").to_owned(),
        new_cluster: true,
        advertise_peer_urls: invocation.texts("initial-advertise-peer-urls"),
        ..Config::default()
    };
    restore(&Request {
        file: PathBuf::from(String::from_utf8_lossy(file).into_owned()),
        config,
        skip_check: invocation.switch("skip-hash-check"),
        map_size: invocation.uint("initial-memory-map-size"),
        bump,
    })
}

/// `name=url,name=url`: a member with several URLs stands there several times.
fn initial_cluster(text: &str) -> Result<Vec<(String, Vec<String>)>, Exit> {
    let mut members: Vec<(String, Vec<String>)> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let Some((name, url)) = part.split_once('=').filter(|(name, url)| !name.is_empty() && !url.is_empty()) else {
            let url = part.split_once('=').map_or("", |(_, url)| url);
            return Err(Exit::error(format!("URL scheme must be http, https, unix, or unixs: {url}")));
        };
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.to_owned()),
            None => members.push((name.to_owned(), vec![url.to_owned()])),
        }
    }
    Ok(members)
}

struct Status {
    hash: u32,
    revision: i64,
    keys: usize,
    size: u64,
    version: String,
}

fn read_status(path: &Path, invocation: &Invocation) -> Result<Status, Exit> {
    // etcdctl has no such flag: there it is the default of etcdutl's.
    let wait = if invocation.text("timeout").is_empty() { LOCK_WAIT } else { invocation.duration("timeout") };
    let db = open(path, true, wait)?;
    let view = db.reader().view();
    bolt::check::check(&view).map_err(|violations| {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let count = violations.len();
        Exit::error(format!(
            "snapshot file integrity check failed. {count} errors found.\n{}",
            lines.join("\n")
        ))
    })?;
    let hash = mvcc::hash_file(&view, &[]).map_err(Exit::error)?;
    let size = view.sizes().total;
    let revision = latest_revision(&view)?;
    let version = view.get(Bucket::Meta.name(), schema::STORAGE_VERSION).map_err(Exit::error)?;
    let version = version.map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned());
    let (_, restored) = Store::restore(view).map_err(Exit::error)?;
    Ok(Status { hash, revision, keys: restored.live_keys, size, version })
}

fn run_status(invocation: &Invocation) -> Outcome {
    let [file] = &invocation.arguments[..] else {
        return Err(Exit::arguments("snapshot status requires exactly one argument"));
    };
    let format = Format::of(invocation)?;
    let status = read_status(&PathBuf::from(String::from_utf8_lossy(file).into_owned()), invocation)?;
    let row = vec![
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.keys.to_string(),
        quantity::bytes(status.size),
        status.version.clone(),
    ];
    match format {
        Format::Simple => out(row.join(", ") + "\n"),
        Format::Table => out(table::draw(&["hash", "revision", "total keys", "total size", "version"], &[row])),
        Format::Json => {
            let mut object = Writer::object();
            object.field("hash", status.hash).field("revision", status.revision);
            object.field("totalKey", status.keys).field("totalSize", status.size);
            object.field("version", crate::json::quoted(&status.version));
            out(object.end() + "\n")
        }
        Format::Fields => out(format!(
            "\"Hash\" : {}\n\"Revision\" : {}\n\"Keys\" : {}\n\"Size\" : {}\n\"Version\" : {}\n",
            status.hash, status.revision, status.keys, status.size, status.version
        )),
        Format::Protobuf => unsupported(),
    }
}

/// The formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Simple,
    Json,
    Fields,
    Table,
    Protobuf,
}

impl Format {
    pub(super) fn of(invocation: &Invocation) -> Result<Format, Exit> {
        match invocation.text("write-out") {
            "simple" => Ok(Format::Simple),
            "json" => Ok(Format::Json),
            "fields" => Ok(Format::Fields),
            "table" => Ok(Format::Table),
            "protobuf" => Ok(Format::Protobuf),
            _ => Err(Exit::new(BAD_FEATURE, "unsupported output format")),
        }
    }
}

pub(super) fn unsupported() -> Outcome {
    Err(Exit::new(BAD_FEATURE, "protobuf not supported as output format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters() {
        let read = |text| initial_cluster(text).map_err(|exit| exit.message.unwrap());
        assert_eq!(
            read("a=http://1,b=http://2,a=http://3"),
            Ok(vec![
                ("a".into(), vec!["http://1".into(), "http://3".into()]),
                ("b".into(), vec!["http://2".into()])
            ])
        );
        assert!(read("a").is_err());
        assert!(read("=x").is_err());
    }
}
