//! `defrag`: makes the database of a stopped member as small as it can be.

use std::path::Path;
use std::time::{Duration, Instant};

use etcdserver::bootstrap::database_path;

use crate::cli::{Command, Exit, Flag, Invocation, Outcome};
use crate::database::open;
use crate::log::{Value, info};
use crate::quantity;

pub(super) static COMMAND: Command = Command {
    name: "defrag",
    short: "Gives back the space that a database does not use",
    flags: &[Flag::text("data-dir", "", "Required. The directory of a member that does not run.")],
    required: &["data-dir"],
    run: Some(run),
    ..Command::EMPTY
};

fn run(invocation: &Invocation) -> Outcome {
    let dir = invocation.text("data-dir");
    defragment(Path::new(dir), invocation.duration("timeout")).map_err(|exit| {
        let why = exit.message.unwrap_or_default();
        Exit::new(exit.code, format!("Failed to defragment etcd data[{dir}] ({why})"))
    })
}

fn defragment(dir: &Path, wait: Duration) -> Outcome {
    let started = Instant::now();
    let path = database_path(dir);
    let mut db = open(&path, false, wait)?;
    let before = db.sizes();
    let shown = path.display().to_string();
    let number = |number: u64| Value::Json(number.to_string());
    let (total, in_use) = (quantity::bytes(before.total), quantity::bytes(before.in_use));
    let fields = [
        ("path", Value::Text(&shown)),
        ("current-db-size-bytes", number(before.total)),
        ("current-db-size", Value::Text(&total)),
        ("current-db-size-in-use-bytes", number(before.in_use)),
        ("current-db-size-in-use", Value::Text(&in_use)),
    ];
    info("etcdutl/defrag.rs", "defragmenting", &fields);
    while !db.defragment_step().map_err(Exit::error)?.done {}
    db.force().map_err(Exit::error)?;
    let after = db.sizes();
    db.close().map_err(Exit::error)?;
    let difference = |after: u64, before: u64| Value::Json((i128::from(after) - i128::from(before)).to_string());
    let (total, in_use) = (quantity::bytes(after.total), quantity::bytes(after.in_use));
    let took = quantity::duration(started.elapsed());
    let fields = [
        ("path", Value::Text(&shown)),
        ("current-db-size-bytes-diff", difference(after.total, before.total)),
        ("current-db-size-bytes", number(after.total)),
        ("current-db-size", Value::Text(&total)),
        ("current-db-size-in-use-bytes-diff", difference(after.in_use, before.in_use)),
        ("current-db-size-in-use-bytes", number(after.in_use)),
        ("current-db-size-in-use", Value::Text(&in_use)),
        ("took", Value::Text(&took)),
    ];
    info("etcdutl/defrag.rs", "finished defragmenting directory", &fields);
    Ok(())
}
