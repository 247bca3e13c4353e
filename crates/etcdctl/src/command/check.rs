//! `check`: performance and memory checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::etcdserverpb::{CompactionRequest, DefragmentRequest, DeleteRangeRequest, PutRequest, RangeRequest};
use client::{Client, Context, Error};
use etcdutl::cli::{BAD_FEATURE, Command, ERROR, Exit, Flag, INVALID_INPUT, Invocation, Outcome, out};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::global::{Session, block_on};

pub(super) static COMMAND: Command = Command {
    name: "check",
    short: "Tries what a cluster can do. See `etcdctl check --help`",
    long: "Tries what a cluster can do.",
    group: super::UTILITY,
    children: &[&DATASCALE, &PERF],
    ..Command::EMPTY
};

const AUTO_COMPACT: Flag = Flag::switch("auto-compact", "compact at the last revision when the check is over");
const AUTO_DEFRAG: Flag = Flag::switch("auto-defrag", "defragment when the check is over");
const LOAD: Flag = Flag::text("load", "s", "how much: s(small), m(medium), l(large), xl(xLarge)");

static DATASCALE: Command = Command {
    name: "datascale",
    usage: "[options]",
    short: "Measures the memory that data takes on a member",
    long: "Measures the memory that data takes on the member at the first endpoint.",
    flags: &[
        AUTO_COMPACT,
        AUTO_DEFRAG,
        LOAD,
        Flag::text("prefix", "/etcdctl-check-datascale/", "prefix of the keys that are written"),
    ],
    run: Some(datascale),
    ..Command::EMPTY
};

static PERF: Command = Command {
    name: "perf",
    usage: "[options]",
    short: "Measures how fast a cluster writes, for a minute",
    flags: &[
        AUTO_COMPACT,
        AUTO_DEFRAG,
        LOAD,
        Flag::text("prefix", "/etcdctl-check-perf/", "prefix of the keys that are written"),
    ],
    run: Some(perf),
    ..Command::EMPTY
};

/// How long `perf` writes.
const PERF_TIME: Duration = Duration::from_secs(60);

/// What to write, and how.
#[derive(Clone, Copy, Debug)]
struct Load {
    clients: u64,
    /// Writes in all.
    writes: u64,
    /// Writes per second; as many as go without it.
    rate: Option<u64>,
    key_bytes: usize,
    value_bytes: usize,
}

/// Which column of a table of loads.
fn size(invocation: &Invocation) -> Result<usize, Exit> {
    match invocation.text("load") {
        "s" | "small" => Ok(0),
        "m" | "medium" => Ok(1),
        "l" | "large" => Ok(2),
        "xl" | "xLarge" => Ok(3),
        other => Err(Exit::new(BAD_FEATURE, format!("unknown load option {other}"))),
    }
}

/// How the writes went.
#[derive(Debug, Default)]
struct Results {
    seconds: Vec<f64>,
    errors: Vec<String>,
    revision: i64,
    took: f64,
}

async fn write(session: &Session, prefix: &str, load: Load) -> Result<Results, Exit> {
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..load.clients {
        let client = session.client().await?;
        let (next, prefix) = (Arc::clone(&next), prefix.to_owned());
        tasks.push(tokio::spawn(one_client(client, next, prefix, load, started)));
    }
    let mut all = Results::default();
    for task in tasks {
        let one = task.await.map_err(|error| Exit::error(format!("a client died: {error}")))?;
        all.seconds.extend(one.seconds);
        all.errors.extend(one.errors);
        all.revision = all.revision.max(one.revision);
    }
    all.took = started.elapsed().as_secs_f64();
    Ok(all)
}

async fn one_client(client: Client, next: Arc<AtomicU64>, prefix: String, load: Load, started: Instant) -> Results {
    let mut results = Results::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.writes {
            return results;
        }
        if let Some(rate) = load.rate {
            let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
            tokio::time::sleep_until(due).await;
            if started.elapsed() >= PERF_TIME {
                return results;
            }
        }
        let put = PutRequest {
            key: format!("{prefix}{number:0width$}", width = load.key_bytes).into(),
            value: noise(number, load.value_bytes).into(),
            ..Default::default()
        };
        let before = Instant::now();
        match client.call(put, Context::none()).await {
            Ok(answer) => {
                results.seconds.push(before.elapsed().as_secs_f64());
                results.revision = answer.header.map_or(0, |header| header.revision);
            }
            Err(error) => results.errors.push(error.to_string()),
        }
    }
}

/// Bytes that do not compress, from a number (xorshift).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(len)
    .collect()
}

/// Keys under the prefix would be lost at the end.
async fn refuse_keys(client: &Client, prefix: &str, context: Context) -> Outcome {
    let (key, range_end) = client::prefix_range(prefix.as_bytes());
    let request =
        RangeRequest { key: key.into(), range_end: range_end.into(), limit: 1, ..Default::default() };
    let answer = client.call(request, context).await.map_err(Exit::error)?;
    if answer.kvs.is_empty() {
        return Ok(());
    }
    let text = format!("prefix {prefix:?} has keys. Delete with etcdctl del --prefix {prefix} first");
    Err(Exit::new(INVALID_INPUT, text))
}

/// Deletes what was written, and compacts and defragments where that was asked for.
async fn clean(session: &Session, client: &Client, prefix: &str) -> Outcome {
    let (key, range_end) = client::prefix_range(prefix.as_bytes());
    let request = DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: false };
    let answer = client.call(request, Context::none()).await.map_err(Exit::error)?;
    let revision = answer.header.map_or(0, |header| header.revision);
    if session.invocation.switch("auto-compact") {
        out(format!("Compacting with revision {revision}\n"))?;
        let request = CompactionRequest { revision, physical: true };
        client.call(request, Context::none()).await.map_err(Exit::error)?;
        out(format!("Compacted with revision {revision}\n"))?;
    }
    if session.invocation.switch("auto-defrag") {
        for endpoint in client.endpoints() {
            out(format!("Defragmenting {endpoint:?}\n"))?;
            let one = client.only(&endpoint).map_err(Exit::error)?;
            one.call(DefragmentRequest {}, Context::none()).await.map_err(Exit::error)?;
            out(format!("Defragmented {endpoint:?}\n"))?;
        }
    }
    Ok(())
}

fn perf(invocation: &Invocation) -> Outcome {
    const LOADS: [(u64, u64); 4] = [(150, 50), (1000, 200), (8000, 500), (15_000, 1000)];
    let (rate, clients) = LOADS[size(invocation)?];
    let session = Session::open(invocation)?;
    let prefix = invocation.text("prefix");
    let writes = rate * PERF_TIME.as_secs();
    let load = Load { clients, writes, rate: Some(rate), key_bytes: 256, value_bytes: 1024 };
    block_on(async {
        let client = session.client().await?;
        refuse_keys(&client, prefix, session.context()).await?;
        let results = write(&session, prefix, load).await?;
        clean(&session, &client, prefix).await?;
        judge(&results, rate)
    })
}

/// More than 90 % of the rate, no request over half a second, a deviation of a tenth at most.
fn judge(results: &Results, rate: u64) -> Outcome {
    let count = results.seconds.len() as f64;
    let per_second = count / results.took;
    let slowest = results.seconds.iter().copied().fold(0.0, f64::max);
    let mean = results.seconds.iter().sum::<f64>() / count;
    let deviation = (results.seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count).sqrt();
    let mut text = errors(results);
    let mut pass = text.is_empty();
    let mut line = |good: bool, yes: String, no: String| {
        pass &= good;
        text.push_str(if good { &yes } else { &no });
        text.push('\n');
    };
    let shown = per_second as u64 + 1;
    line(
        per_second / rate as f64 > 0.9,
        format!("PASS: Throughput is {shown} writes/s"),
        format!("FAIL: Throughput too low: {shown} writes/s"),
    );
    line(
        slowest <= 0.5,
        format!("PASS: Slowest request took {slowest:.6}s"),
        format!("Slowest request took too long: {slowest:.6}s"),
    );
    line(
        deviation <= 0.1,
        format!("PASS: Stddev is {deviation:.6}s"),
        format!("Stddev too high: {deviation:.6}s"),
    );
    text.push_str(if pass { "PASS\n" } else { "FAIL\n" });
    out(text)?;
    if pass { Ok(()) } else { Err(Exit::silent(ERROR)) }
}

fn errors(results: &Results) -> String {
    let mut sorted = results.errors.clone();
    sorted.sort_unstable();
    let mut text = String::new();
    if !sorted.is_empty() {
        text.push_str("FAIL: too many errors\n");
    }
    for same in sorted.chunk_by(|a, b| a == b) {
        text.push_str(&format!("FAIL: ERROR({}) -> {}\n", same[0], same.len()));
    }
    text
}

fn datascale(invocation: &Invocation) -> Outcome {
    const LOADS: [(u64, u64); 4] = [(10_000, 50), (100_000, 200), (1_000_000, 500), (3_000_000, 1000)];
    let (writes, clients) = LOADS[size(invocation)?];
    let session = Session::open(invocation)?;
    let prefix = invocation.text("prefix");
    let load = Load { clients, writes, rate: None, key_bytes: 512, value_bytes: 512 };
    block_on(async {
        let endpoint = session.config.endpoints.first().cloned().unwrap_or_default();
        let client = session.client().await?;
        refuse_keys(&client, prefix, session.context()).await?;
        let before = resident_bytes(&endpoint).await?;
        out(format!(
            "Start data scale check for work load [{writes} key-value pairs, {} bytes per key-value, {clients} \
             concurrent clients].\n",
            load.key_bytes + load.value_bytes
        ))?;
        let results = write(&session, prefix, load).await?;
        let after = resident_bytes(&endpoint).await;
        clean(&session, &client, prefix).await?;
        let failed = errors(&results);
        if !failed.is_empty() {
            out(failed)?;
            return Err(Exit::silent(ERROR));
        }
        let used = (after? - before).max(0.0) / (1024.0 * 1024.0);
        out(format!("PASS: Approximate system memory used : {used:.2} MB.\n"))
    })
}

/// The resident memory that the member reports in its metrics.
async fn resident_bytes(endpoint: &str) -> Result<f64, Exit> {
    let failed = |why: String| Exit::error(format!("failed to read the metrics of {endpoint}: {why}"));
    if endpoint.starts_with("https") || endpoint.starts_with("unix") {
        return Err(failed("the check reads them over plain HTTP only".into()));
    }
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let read = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .map_err(|_| failed(Error::DeadlineExceeded.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&answer);
    (text.lines())
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .and_then(|value| value.trim().parse().ok())
        .ok_or_else(|| failed("no process_resident_memory_bytes in them".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_text() {
        let results = Results { errors: vec!["b".into(), "a".into(), "b".into()], ..Results::default() };
        assert_eq!(errors(&results), "FAIL: too many errors\nFAIL: ERROR(a) -> 1\nFAIL: ERROR(b) -> 2\n");
        assert_eq!(errors(&Results::default()), "");
        assert_eq!(noise(1, 9).len(), 9);
        assert_ne!(noise(1, 9), noise(2, 9));
    }
}
