//! `get`: read keys.

use api::etcdserverpb::range_request::{SortOrder, SortTarget};
use api::etcdserverpb::{RangeRequest, RangeResponse};
use client::{Client, Context, Error};
use etcdutl::cli::{BAD_FEATURE, Command, Exit, Flag, Invocation, Outcome};

use crate::global::{Session, block_on};
use crate::print::Format;

pub(super) static COMMAND: Command = Command {
    name: "get",
    usage: "[options] <key> [range_end]",
    short: "Reads a key or a range of keys",
    group: super::KEYS,
    flags: &[
        Flag::text("consistency", "l", "linearizable (l) or serializable (s)"),
        Flag::switch("count-only", "print the number of keys only"),
        Flag::switch("from-key", "read all keys from this one on, in the order of their bytes"),
        Flag::switch("keys-only", "print the keys without values"),
        Flag::int("limit", "most keys to read"),
        Flag::int("max-create-rev", "newest create revision"),
        Flag::int("max-mod-rev", "newest modification revision"),
        Flag::int("min-create-rev", "oldest create revision"),
        Flag::int("min-mod-rev", "oldest modification revision"),
        Flag::text("order", "", "order of the keys: ASCEND or DESCEND (ASCEND without it)"),
        Flag::switch("prefix", "read all keys that begin with this one"),
        Flag::switch("print-value-only", "print values only (format \"simple\")"),
        Flag::int("rev", "revision to read at"),
        Flag::text("sort-by", "", "what to sort by: CREATE, KEY, MODIFY, VALUE or VERSION"),
        Flag::switch("stream", "read by the RangeStream call"),
    ],
    run: Some(run),
    ..Command::EMPTY
};

fn run(invocation: &Invocation) -> Outcome {
    let request = request(invocation)?;
    let mut session = Session::open(invocation)?;
    if request.count_only && session.printer.format != Format::Fields {
        return Err(Exit::arguments("--count-only is only for `--write-out=fields`"));
    }
    if invocation.switch("print-value-only") {
        if session.printer.format != Format::Simple {
            return Err(Exit::arguments("print-value-only is only for `--write-out=simple`"));
        }
        session.printer.value_only = true;
    }
    block_on(async {
        let client = session.client().await?;
        if invocation.switch("stream") {
            return stream(&client, request, &session).await;
        }
        let answer = client.call(request, session.context()).await.map_err(Exit::error)?;
        session.printer.get(&answer)
    })
}

/// In the simple format parts are printed as they come; the others need the whole.
async fn stream(client: &Client, request: RangeRequest, session: &Session) -> Outcome {
    let context = session.context();
    let mut stream = client.stream(request, context).await.map_err(Exit::error)?;
    let mut whole = RangeResponse::default();
    while let Some(part) = next(&mut stream, context).await.map_err(Exit::error)? {
        let part = part.range_response.unwrap_or_default();
        if session.printer.format == Format::Simple {
            session.printer.get(&part)?;
            continue;
        }
        whole.header = part.header.or(whole.header);
        whole.kvs.extend(part.kvs);
        whole.more |= part.more;
        whole.count = whole.count.max(part.count);
    }
    if session.printer.format == Format::Simple { Ok(()) } else { session.printer.get(&whole) }
}

async fn next<T>(stream: &mut client::Streaming<T>, context: Context) -> Result<Option<T>, Error> {
    let message = match context.deadline {
        Some(deadline) => {
            tokio::time::timeout_at(deadline, stream.message()).await.map_err(|_| Error::DeadlineExceeded)?
        }
        None => stream.message().await,
    };
    message.map_err(|status| Error::of_stream(&status))
}

/// The request of a command line, also of a line of a transaction.
pub(super) fn request(invocation: &Invocation) -> Result<RangeRequest, Exit> {
    let Some(first) = invocation.arguments.first() else {
        return Err(Exit::arguments("get command needs one argument as key and an optional argument as range_end"));
    };
    let (prefix, from_key) = (invocation.switch("prefix"), invocation.switch("from-key"));
    if prefix && from_key {
        return Err(Exit::arguments("`--prefix` and `--from-key` cannot be set at the same time, choose one"));
    }
    let (keys_only, count_only) = (invocation.switch("keys-only"), invocation.switch("count-only"));
    if keys_only && count_only {
        return Err(Exit::arguments("`--keys-only` and `--count-only` cannot be set at the same time, choose one"));
    }
    let serializable = match invocation.text("consistency") {
        "s" => true,
        "l" => false,
        other => return Err(Exit::new(BAD_FEATURE, format!("unknown consistency flag {other:?}"))),
    };
    let range_end = invocation.arguments.get(1);
    if range_end.is_some() && (prefix || from_key) {
        let text = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
        return Err(Exit::arguments(text));
    }
    let (sort_order, sort_target) = sort(invocation.text("order"), invocation.text("sort-by"))?;
    let (key, range_end) = client::key_range(first, range_end, prefix, from_key);
    let revisions = |kind: &str, shown: &str| {
        let (min, max) = (invocation.int(&format!("min-{kind}-rev")), invocation.int(&format!("max-{kind}-rev")));
        if max > 0 && min > max {
            // Named as in Go's tool.
            let text = format!("getMin{shown}Rev(={min}) > getMax{shown}Rev(={max})");
            return Err(Exit::new(BAD_FEATURE, text));
        }
        Ok((min, max))
    };
    let (min_create_revision, max_create_revision) = revisions("create", "Create")?;
    let (min_mod_revision, max_mod_revision) = revisions("mod", "Mod")?;
    Ok(RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        limit: invocation.int("limit"),
        revision: invocation.int("rev").max(0),
        sort_order: sort_order as i32,
        sort_target: sort_target as i32,
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

fn sort(order: &str, target: &str) -> Result<(SortOrder, SortTarget), Exit> {
    let sort_order = match order.to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(Exit::new(BAD_FEATURE, format!("bad sort order {order}"))),
    };
    let sort_target = match target.to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Exit::new(BAD_FEATURE, format!("bad sort target {target}"))),
    };
    // Ascending keys are what the server gives by itself; asking for it would make it read everything first.
    match (sort_order, sort_target) {
        (SortOrder::Ascend, SortTarget::Key) => Ok((SortOrder::None, SortTarget::Key)),
        both => Ok(both),
    }
}
