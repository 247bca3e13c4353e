//! `hashkv`. Unlike Go's it opens the file read-only, so that a saved snapshot stays what it was.

use std::path::PathBuf;

use mvcc::Store;

use super::snapshot::{Format, unsupported};
use crate::cli::{Command, Exit, Flag, Invocation, Outcome, out};
use crate::database::open;
use crate::json::Writer;
use crate::table;

pub(super) static COMMAND: Command = Command {
    name: "hashkv",
    usage: "<filename>",
    short: "Prints the hash over the history of keys in a database",
    flags: &[Flag::int("rev", "newest revision in the hash (default: the newest)")],
    arguments: Some(1),
    run: Some(run),
    ..Command::EMPTY
};

fn run(invocation: &Invocation) -> Outcome {
    let [file] = &invocation.arguments[..] else {
        return Err(Exit::arguments("one file is hashed"));
    };
    let format = Format::of(invocation)?;
    let path = PathBuf::from(String::from_utf8_lossy(file).into_owned());
    let db = open(&path, true, invocation.duration("timeout"))?;
    let (store, _) = Store::restore(db.reader().view()).map_err(Exit::error)?;
    let hash = store.view().hash_kv(invocation.int("rev")).map_err(Exit::error)?;
    let row =
        vec![hash.hash.to_string(), hash.revision.to_string(), hash.compact_revision.to_string()];
    match format {
        Format::Simple => out(row.join(", ") + "\n"),
        Format::Table => out(table::draw(&["hash", "hash revision", "compact revision"], &[row])),
        Format::Json => {
            let mut object = Writer::object();
            object.field("hash", hash.hash).field("hashRevision", hash.revision);
            object.field("compactRevision", hash.compact_revision);
            out(object.end() + "\n")
        }
        Format::Fields => out(format!(
            "\"Hash\" : {}\n\"Hash revision\" : {}\n\"Compact revision\" : {}\n",
            hash.hash, hash.revision, hash.compact_revision
        )),
        Format::Protobuf => unsupported(),
    }
}
