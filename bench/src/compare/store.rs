//! What a large store costs: memory, start, snapshot, and what clients feel during compaction and defragmentation.

use std::time::{Duration, Instant};

use harness::Binaries;

use super::Options;
use super::server::{Result, Server, finish, measured};

/// Figures of one server. Memory in MiB, times in seconds, rates per second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Store {
    pub(super) fresh_rss: f64,
    pub(super) fresh: f64,
    /// Anonymous memory with a tenth of the keys, then with all.
    pub(super) tenth: f64,
    pub(super) full: f64,
    pub(super) bytes_per_key: f64,
    pub(super) start: f64,
    pub(super) snapshot: f64,
    pub(super) compaction: f64,
    /// Puts per second before and after the compaction, and during it.
    pub(super) puts_alone: f64,
    pub(super) puts_during: f64,
    pub(super) defragment: f64,
    /// Longest wait of any put or get beside the defragmentation, milliseconds.
    pub(super) pause: f64,
    pub(super) freed: f64,
}

const MIB: f64 = 1024.0;
/// How long puts alone are measured, before and after a compaction.
const ALONE: Duration = Duration::from_secs(20);
const SPACE: &str = "--prefix /store/ --key-size 32 --val-size 256";

pub(super) fn measure(binaries: &Binaries, options: &Options) -> Result<Store> {
    let mut server = Server::start(binaries, &options.data)?;
    let mut store = Store::default();
    let begin = Instant::now();
    let say =
        |what: &str| eprintln!("store {:>6} {:4.0} s: {what}", binaries.label, begin.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(5));
    (store.fresh, store.fresh_rss) = memory(&server)?;
    fill(&server, options.keys / 10)?;
    store.tenth = settled(&server, options)?;
    fill(&server, options.keys)?;
    store.full = settled(&server, options)?;
    // The fixed cost of buffers and of the log kept in memory is in both.
    store.bytes_per_key = (store.full - store.tenth) * MIB * MIB / (options.keys - options.keys / 10) as f64;
    say(&format!("memory {:.0} {:.0} {:.0} MiB", store.fresh, store.tenth, store.full));

    let mut starts: Vec<f64> = Vec::new();
    for _ in 0..3 {
        starts.push(server.restart()?.as_secs_f64());
    }
    starts.sort_by(f64::total_cmp);
    store.start = starts[1];
    let snapshot = server.run("snapshot")?;
    store.snapshot = snapshot["classes"]["op"]["mb_per_s"].as_f64().unwrap_or(f64::NAN);
    say(&format!("start {starts:.2?} s, snapshot {:.0} MB/s", store.snapshot));

    compact(&server, options, &mut store)?;
    say(&format!(
        "compaction {:.1} s, puts {:.0} alone, {:.0} beside it",
        store.compaction, store.puts_alone, store.puts_during
    ));
    defragment(&server, &mut store)?;
    say(&format!(
        "defragment {:.1} s, longest wait {:.0} ms, freed {:.0} MiB",
        store.defragment, store.pause, store.freed
    ));
    Ok(store)
}

fn memory(server: &Server) -> Result<(f64, f64)> {
    let sample = server.memory()?;
    Ok((sample.anonymous_kb as f64 / MIB, sample.rss_kb as f64 / MIB))
}

/// Memory some time after the last write. Small writes first: the latest entries stay in memory, and those of a fill are
/// a hundred puts each, which no client writes for long.
fn settled(server: &Server, options: &Options) -> Result<f64> {
    server.run("put --prefix /settle/ --key-space-size 100 --val-size 64 --clients 64 --conns 8 --total 20000 --warmup 0")?;
    std::thread::sleep(Duration::from_secs(options.settle));
    Ok(memory(server)?.0)
}

/// Writes keys 0 to `keys`, each once.
fn fill(server: &Server, keys: u64) -> Result<()> {
    let txns = keys / 100;
    server.run(&format!(
        "fill {SPACE} --key-space-size {keys} --clients 8 --conns 4 --total {txns} --warmup 0"
    ))?;
    Ok(())
}

/// Rewrites every key four times, then compacts what is older than the newest tenth of the revisions, beside puts. What
/// the puts reach without it is measured before and after: a disk that has been written to for minutes is slower than it
/// was, whoever writes.
fn compact(server: &Server, options: &Options, store: &mut Store) -> Result<()> {
    for _ in 0..4 {
        fill(server, options.keys)?;
    }
    std::thread::sleep(Duration::from_secs(options.settle));
    let space = format!("{SPACE} --key-space-size {}", options.keys);
    let mut puts =
        server.begin(&format!("put {space} --clients 64 --conns 8 --duration 900 --allow-errors"))?;
    std::thread::sleep(Duration::from_secs(2));
    let alone = || {
        std::thread::sleep(ALONE);
        Ok(())
    };
    let before = put_rate(server, alone)?;
    let at = (revision(server)? * 0.9) as i64;
    let from = Instant::now();
    store.puts_during = put_rate(server, || server.run(&format!("compact --physical --revision {at}")).map(drop))?;
    store.compaction = from.elapsed().as_secs_f64();
    let after = put_rate(server, alone)?;
    store.puts_alone = f64::midpoint(before, after);
    puts.kill().and_then(|()| puts.wait()).map_err(|e| e.to_string())?;
    Ok(())
}

/// Puts per second while something is done.
fn put_rate(server: &Server, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (from, first) = (Instant::now(), revision(server)?);
    work()?;
    Ok((revision(server)? - first) / from.elapsed().as_secs_f64())
}

fn revision(server: &Server) -> Result<f64> {
    let answer = server.run("revision")?;
    answer["extra"]["revision"].as_f64().ok_or_else(|| "no revision in the answer".to_string())
}

/// Defragments beside a put and a get every five milliseconds, due whether or not earlier ones were answered. All history
/// goes first: what the puts after the compaction wrote fills the room that it made.
fn defragment(server: &Server, store: &mut Store) -> Result<()> {
    server.run(&format!("compact --physical --revision {}", revision(server)?))?;
    let beside =
        "--clients 64 --conns 4 --rate 200 --duration 25 --warmup 1 --allow-errors --prefix /beside/";
    let puts = server.begin(&format!("put {beside} --key-space-size 100"))?;
    let gets = server.begin(&format!("range {beside} --key-space-size 100"))?;
    std::thread::sleep(Duration::from_secs(3));
    let from = Instant::now();
    let done = server.run("defrag")?;
    store.defragment = from.elapsed().as_secs_f64();
    let size = |name: &str| done["extra"][name].as_f64().unwrap_or(f64::NAN) / (MIB * MIB);
    store.freed = size("db_size_before") - size("db_size_after");
    for load in [puts, gets] {
        store.pause = store.pause.max(measured(&finish(load)?).max);
    }
    Ok(())
}
