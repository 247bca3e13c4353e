//! `del`: delete keys.

use std::time::Duration;

use api::etcdserverpb::DeleteRangeRequest;
use etcdutl::cli::{Command, Exit, Flag, Invocation, Outcome, err};
use etcdutl::text::quote;

use crate::global::{Session, block_on};

/// Time to think again before a range goes.
const GRACE: Duration = Duration::from_secs(2);

pub(super) static COMMAND: Command = Command {
    name: "del",
    usage: "[options] <key> [range_end]",
    short: "Deletes a key or a range of keys [key, range_end)",
    group: super::KEYS,
    flags: &[
        Flag::switch("from-key", "delete all keys from this one on, in the order of their bytes"),
        Flag::switch("prefix", "delete all keys that begin with this one"),
        Flag::switch("prev-kv", "print the deleted keys"),
        Flag::switch("range", "delete a range without the pause before it"),
    ],
    run: Some(run),
    ..Command::EMPTY
};

fn run(invocation: &Invocation) -> Outcome {
    let request = request(invocation)?;
    let session = Session::open(invocation)?;
    block_on(async {
        let client = session.client().await?;
        let answer = client.call(request, session.context()).await.map_err(Exit::error)?;
        session.printer.del(&answer)
    })
}

/// The request of a command line, also of a line of a transaction.
pub(super) fn request(invocation: &Invocation) -> Result<DeleteRangeRequest, Exit> {
    let (first, range_end) = match &invocation.arguments[..] {
        [key] => (key, None),
        [key, end] => (key, Some(end)),
        _ => {
            let text = "del command needs one argument as key and an optional argument as range_end";
            return Err(Exit::arguments(text));
        }
    };
    let (prefix, from_key) = (invocation.switch("prefix"), invocation.switch("from-key"));
    if prefix && from_key {
        return Err(Exit::arguments("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    if range_end.is_some() && (prefix || from_key) {
        let text = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        return Err(Exit::arguments(text));
    }
    if let Some(end) = range_end
        && !invocation.switch("range")
    {
        err(&format!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds \
             to cancel. You can provide `--range` flag to avoid the delay.\n",
            quote(first),
            quote(end)
        ));
        std::thread::sleep(GRACE);
    }
    let (key, range_end) = client::key_range(first, range_end, prefix, from_key);
    Ok(DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: invocation.switch("prev-kv") })
}
