//! `txn`: a transaction from three blocks of lines, each ended by an empty line.

use std::io::{self, BufRead};

use api::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use api::etcdserverpb::{Compare, RequestOp, TxnRequest, request_op};
use client::Context;
use etcdutl::cli::{
    Command, Exit, Flag, INVALID_INPUT, Invocation, Outcome, err, flag_lines, out, parse_flags, parse_int,
};
use etcdutl::text::{quote, unquote};

use super::{del, get, put, words};
use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "txn",
    usage: "[options]",
    short: "Runs several requests as one transaction",
    long: "Reads a transaction from standard input and runs it as one.

It has three parts, each a line per item and ended by an empty line:
1) conditions,
2) requests to run if all conditions hold,
3) requests to run if one does not.

In interactive mode each part is asked for:

---
etcdctl txn -i
compares:
mod(\"key1\") > \"0\"

success requests (get, put, del):
put key1 \"overwrote-key1\"

failure requests (get, put, del):
put key1 \"created-key1\"
put key2 \"some extra key\"

---

A condition is target(\"key\") operator \"value\". Targets: c, create, lease, m, mod, val, value, ver, version.
Operators: = != > <.",
    group: super::KEYS,
    flags: &[Flag::switch("interactive", "ask for each part").letter('i')],
    run: Some(run),
    ..Command::EMPTY
};

fn run(invocation: &Invocation) -> Outcome {
    if !invocation.arguments.is_empty() {
        return Err(Exit::arguments("txn command does not accept argument"));
    }
    let session = Session::open(invocation)?;
    let interactive = invocation.switch("interactive");
    let mut input = io::stdin().lock();
    let prompt = |text: &str| if interactive { out(text) } else { Ok(()) };
    prompt("compares:\n")?;
    let compare = block(&mut input, parse_compare)?;
    prompt("success requests (get, put, del):\n")?;
    let success = block(&mut input, |line| parse_request(invocation, line))?;
    prompt("failure requests (get, put, del):\n")?;
    let failure = block(&mut input, |line| parse_request(invocation, line))?;
    drop(input);
    block_on(async {
        let client = session.client().await?;
        let request = TxnRequest { compare, success, failure };
        let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
        session.printer.txn(&answer)
    })
}

fn invalid(message: impl ToString) -> Exit {
    Exit::new(INVALID_INPUT, message)
}

/// Lines up to an empty one. Input must not end before it.
fn block<T>(
    input: &mut impl BufRead,
    parse: impl Fn(&[u8]) -> Result<T, Exit>,
) -> Result<Vec<T>, Exit> {
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line).map_err(invalid)?;
        if line.last() != Some(&b'\n') {
            return Err(invalid("EOF"));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(items);
        }
        items.push(parse(line)?);
    }
}

/// `target("key") operator "value"`.
fn parse_compare(line: &[u8]) -> Result<Compare, Exit> {
    let shown = String::from_utf8_lossy(line).into_owned();
    let Some(open) = line.iter().position(|byte| *byte == b'(') else {
        return Err(invalid(format!("malformed comparison: {shown}")));
    };
    let target = String::from_utf8_lossy(&line[..open]).into_owned();
    let (key, operator, value) = scan(&line[open + 1..]);
    let Some(value) = value else {
        let (key, operator) = (quote(&key.unwrap_or_default()), operator.unwrap_or_default());
        return Err(invalid(format!("malformed comparison: {shown}; got {target}({key}) {operator} \"\"")));
    };
    let result = match operator.as_deref() {
        Some("=") => CompareResult::Equal,
        Some("!=") => CompareResult::NotEqual,
        Some(">") => CompareResult::Greater,
        Some("<") => CompareResult::Less,
        other => {
            let other = other.unwrap_or_default();
            return Err(invalid(format!("malformed comparison: {shown} (unknown operator {other})")));
        }
    };
    let text = String::from_utf8_lossy(&value).into_owned();
    let number = || {
        parse_int(&text, 10).map_err(|_| invalid(format!("invalid txn compare request: {shown}")))
    };
    let (target, union) = match target.as_str() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.into())),
        "lease" => {
            // As everywhere else a lease is given in hex.
            let lease =
                parse_int(&text, 16).map_err(|_| invalid(format!("invalid txn compare request: {shown}")))?;
            (CompareTarget::Lease, TargetUnion::Lease(lease))
        }
        _ => return Err(invalid(format!("malformed comparison: {shown} (unknown target {target})"))),
    };
    Ok(Compare {
        result: result as i32,
        target: target as i32,
        key: key.unwrap_or_default().into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(union),
    })
}

type Scanned = (Option<Vec<u8>>, Option<String>, Option<Vec<u8>>);

/// `"key") operator "value"`, as far as the text goes along.
fn scan(text: &[u8]) -> Scanned {
    let Some((key, rest)) = unquote(text.trim_ascii_start()) else { return (None, None, None) };
    let Some(rest) = rest.strip_prefix(b")") else { return (Some(key), None, None) };
    let rest = rest.trim_ascii_start();
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    if end == 0 {
        return (Some(key), None, None);
    }
    let operator = String::from_utf8_lossy(&rest[..end]).into_owned();
    let value = unquote(rest[end..].trim_ascii_start()).map(|(value, _)| value);
    (Some(key), Some(operator), value)
}

/// A line of `put`, `get` or `del` with their flags.
fn parse_request(invocation: &Invocation, line: &[u8]) -> Result<RequestOp, Exit> {
    let shown = String::from_utf8_lossy(line).into_owned();
    let wrong = || invalid(format!("invalid txn request: {shown}"));
    let words = words::split(line).ok_or_else(wrong)?;
    let [name, rest @ ..] = &words[..] else { return Err(wrong()) };
    if rest.is_empty() {
        return Err(invalid(format!("invalid txn compare request: {shown}")));
    }
    let Some(command) = [&put::COMMAND, &get::COMMAND, &del::COMMAND]
        .into_iter()
        .find(|command| command.name.as_bytes().starts_with(name))
    else {
        return Err(wrong());
    };
    let parsed = parse_flags(command.flags, rest.to_vec()).map_err(|_| {
        let help = Flag::switch("help", "").letter('h');
        let flags: Vec<Flag> = command.flags.iter().copied().chain([help]).collect();
        let lines = flag_lines(&flags, command.name);
        err(&format!("Usage:\n   {} {} [flags]\n\nFlags:\n{lines}\n", command.name, command.usage));
        wrong()
    })?;
    let inner = invocation.nested(command, parsed);
    let request = match command.name {
        "put" => request_op::Request::RequestPut(put::request(&inner, || Ok(Vec::new()))?),
        "get" => request_op::Request::RequestRange(get::request(&inner)?),
        _ => request_op::Request::RequestDeleteRange(del::request(&inner)?),
    };
    Ok(RequestOp { request: Some(request) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> String {
        parse_compare(line.as_bytes()).unwrap_err().message.unwrap()
    }

    #[test]
    fn conditions() {
        let compare = parse_compare(br#"mod("foo") > "7""#).unwrap();
        assert_eq!(&compare.key[..], b"foo");
        assert_eq!(compare.result, CompareResult::Greater as i32);
        assert_eq!(compare.target_union, Some(TargetUnion::ModRevision(7)));
        let compare = parse_compare(br#"val("a b") != "x\"y""#).unwrap();
        assert_eq!(compare.target_union, Some(TargetUnion::Value("x\"y".into())));
        let compare = parse_compare(br#"lease("k") = "1f""#).unwrap();
        assert_eq!(compare.target_union, Some(TargetUnion::Lease(31)));
    }

    #[test]
    fn what_is_no_condition() {
        assert_eq!(wrong("foo"), "malformed comparison: foo");
        assert_eq!(
            wrong(r#"bad("foo") = "no""#),
            r#"malformed comparison: bad("foo") = "no" (unknown target bad)"#
        );
        assert_eq!(wrong(r#"mod("foo" = 1"#), r#"malformed comparison: mod("foo" = 1; got mod("foo")  """#);
        assert_eq!(wrong(r#"mod("x") = "a""#), r#"invalid txn compare request: mod("x") = "a""#);
        assert_eq!(wrong(r#"mod("x") ~ "1""#), r#"malformed comparison: mod("x") ~ "1" (unknown operator ~)"#);
    }

    #[test]
    fn blocks_end_with_an_empty_line() {
        let read = |text: &str| block(&mut text.as_bytes(), |line| Ok(line.to_vec()));
        assert_eq!(read("a\r\n b \n\nrest").unwrap(), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(read("a\nb").unwrap_err(), invalid("EOF"));
    }
}
