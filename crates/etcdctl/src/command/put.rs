//! `put`: write a key.

use std::io::Read;

use api::etcdserverpb::PutRequest;
use etcdutl::cli::{Command, Exit, Flag, Invocation, Outcome};

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "put",
    usage: "[options] <key> <value> (<value> can also be given from stdin)",
    short: "Writes a key",
    long: "Writes a key.

A value that begins with '-' would be taken for a flag; write -- before it:

$ put <key> -- <value>
$ put -- <key> <value>

Without <value>, and without --ignore-value, the value is all of standard input:

$ cat file | put <key>",
    group: super::KEYS,
    flags: &[
        Flag::switch("ignore-lease", "keep the lease that the key has"),
        Flag::switch("ignore-value", "keep the value that the key has"),
        Flag::text("lease", "0", "lease (its id in hex) to attach the key to"),
        Flag::switch("prev-kv", "print the key as it was before"),
    ],
    run: Some(run),
    ..Command::EMPTY
};

/// What a misuse is answered with.
const USE: &str = "put command needs 1 argument and input from stdin or 2 arguments";

fn run(invocation: &Invocation) -> Outcome {
    let request = request(invocation, || {
        let mut value = Vec::new();
        std::io::stdin().lock().read_to_end(&mut value).map_err(|_| Exit::arguments(USE))?;
        Ok(value)
    })?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(request, session.context()).await.map_err(Exit::error)?;
        session.printer.put(&answer)
    })
}

/// The request of a command line, also of a line of a transaction, which has read standard input itself. `missing`
/// gives the value when there is no argument for it; an empty one is as good as none.
pub(super) fn request(
    invocation: &Invocation,
    missing: impl FnOnce() -> Result<Vec<u8>, Exit>,
) -> Result<PutRequest, Exit> {
    let Some(key) = invocation.arguments.first() else {
        return Err(Exit::arguments(USE));
    };
    let ignore_value = invocation.switch("ignore-value");
    if ignore_value && invocation.arguments.len() > 1 {
        return Err(Exit::arguments("put command needs only 1 argument when 'ignore-value' is set"));
    }
    let value = match invocation.arguments.get(1) {
        _ if ignore_value => Vec::new(),
        // Arguments after the value are not looked at, as in Go's tool.
        Some(value) => value.clone(),
        None => match missing()? {
            value if value.is_empty() => return Err(Exit::arguments(USE)),
            value => value,
        },
    };
    let lease = etcdutl::cli::parse_int(invocation.text("lease"), 16)
        .map_err(|why| Exit::arguments(format!("bad lease ID ({why}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: key.clone().into(),
        value: value.into(),
        lease,
        prev_kv: invocation.switch("prev-kv"),
        ignore_value,
        ignore_lease: invocation.switch("ignore-lease"),
    })
}
