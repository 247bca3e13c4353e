//! The report, in Markdown.

use std::fmt::Write;

use super::server::Measured;
use super::store::Store;
use super::{Options, Pair};

const HEAD: &str = "| workload | CPU Go | CPU Mainstay | ratio | first version must show | ops/s Go / Mainstay | p50 ms | p99 ms |\n\
                    |---|---|---|---|---|---|---|---|\n";

pub(super) fn write(
    options: &Options,
    pairs: &[Pair],
    stores: &[Store],
    cluster_pairs: &[Pair],
    leaderless: &[Vec<f64>],
) -> String {
    let mut text = String::from("# Measured beside Go etcd 3.7.3\n\n");
    let _ = writeln!(
        text,
        "Written by `cargo xtask bench`. Both servers with fsync on the same disk, each started afresh, in turn, by the \
         same load generator on the same cores; {} rounds of {} s per row, medians. CPU is the server's, user and system, \
         in microseconds per operation; the ratio is Go's over ours. Machine: {}.\n",
        options.rounds,
        options.seconds,
        machine()
    );
    if !pairs.is_empty() {
        text.push_str(HEAD);
        pairs.iter().for_each(|pair| row(&mut text, pair));
    }
    if let [go, ours] = stores {
        store(&mut text, options, go, ours);
    }
    if !cluster_pairs.is_empty() || !leaderless.is_empty() {
        cluster(&mut text, cluster_pairs, leaderless);
    }
    text
}

fn cluster(text: &mut String, pairs: &[Pair], leaderless: &[Vec<f64>]) {
    text.push_str(
        "\n## Three members\n\nAll on this machine, clients spread over all of them; the CPU is that of the three together.\n",
    );
    if !pairs.is_empty() {
        text.push('\n');
        text.push_str(HEAD);
        pairs.iter().for_each(|pair| row(text, pair));
        text.push_str("\nHow often threads went to sleep and had to be woken, per operation, all members (Go / Mainstay): ");
        let counts = pairs.iter().map(|pair| {
            format!("{} {:.2} / {:.2}", pair.row.title, pair.median(0, |m| m.sleeps), pair.median(1, |m| m.sleeps))
        });
        let _ = writeln!(text, "{}.", counts.collect::<Vec<_>>().join("; "));
    }
    if let [go, ours] = leaderless {
        let _ = writeln!(
            text,
            "\nThe leader is killed {} times (kill -9) and started again. From the kill to the first write taken by the \
             others, in milliseconds: Go median {:.0}, longest {:.0}; Mainstay median {:.0}, longest {:.0}.",
            go.len(),
            median(go),
            longest(go),
            median(ours),
            longest(ours)
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn longest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}

impl Pair {
    fn median(&self, side: usize, of: fn(&Measured) -> f64) -> f64 {
        median(&self.sides[side].iter().map(of).collect::<Vec<_>>())
    }
}

fn row(text: &mut String, pair: &Pair) {
    let both = |of: fn(&Measured) -> f64| (pair.median(0, of), pair.median(1, of));
    let (cpu, ops) = (both(|m| m.cpu), both(|m| m.throughput));
    let (p50, p99) = (both(|m| m.p50), both(|m| m.p99));
    let ratio = cpu.0 / cpu.1;
    let _ = writeln!(
        text,
        "| {} | {:.2} | {:.2} | {ratio:.1} | {} | {:.0} / {:.0} | {:.2} / {:.2} | {:.1} / {:.1} |",
        pair.row.title,
        cpu.0,
        cpu.1,
        verdict(pair.row.target.map(|target| (target, ratio >= target)), "x"),
        ops.0,
        ops.1,
        p50.0,
        p50.1,
        p99.0,
        p99.1
    );
}

fn verdict(target: Option<(f64, bool)>, unit: &str) -> String {
    match target {
        None => "-".into(),
        Some((target, true)) => format!("{target}{unit}: yes"),
        Some((target, false)) => format!("{target}{unit}: **no**"),
    }
}

fn store(text: &mut String, options: &Options, go: &Store, ours: &Store) {
    let keys = options.keys;
    let _ = writeln!(
        text,
        "\nA store of {keys} keys of 32 B with values of 256 B, one run each. Anonymous memory is RssAnon {} s after the \
         last write; the mapped database counts as page cache. The compaction drops 90 % of {} revisions beside puts of \
         64 clients; the defragmentation, after a second compaction, runs beside 200 puts and 200 gets per second, \
         each due at its time.\n",
        options.settle,
        keys * 6,
    );
    text.push_str("| | Go | Mainstay | first version must show |\n|---|---|---|---|\n");
    let mut line =
        |what: &str, of: fn(&Store) -> f64, unit: &str, must: &dyn Fn(f64, f64) -> (String, bool)| {
            let (go, ours) = (of(go), of(ours));
            let (target, is_met) = must(go, ours);
            let met = if target == "-" {
                ""
            } else if is_met {
                ": yes"
            } else {
                ": **no**"
            };
            let _ = writeln!(text, "| {what} | {go:.1} {unit} | {ours:.1} {unit} | {target}{met} |");
        };
    let free = |_: f64, _: f64| ("-".to_string(), true);
    let below = |limit: f64| move |_: f64, ours: f64| (format!("{limit}"), ours <= limit);
    let half = |go: f64, ours: f64| ("half".to_string(), ours <= go / 2.0);
    line("resident memory, fresh member", |s| s.fresh_rss, "MiB", &below(11.0));
    line("anonymous memory, fresh member", |s| s.fresh, "MiB", &below(11.0));
    line("anonymous memory, a tenth of the keys", |s| s.tenth, "MiB", &half);
    line("anonymous memory, all keys", |s| s.full, "MiB", &half);
    line("anonymous memory per key (all keys over a tenth)", |s| s.bytes_per_key, "B", &below(100.0));
    line("stop to first linearizable read (start alone)", |s| s.start, "s", &half);
    line("snapshot save", |s| s.snapshot, "MB/s", &|_, ours| ("300".into(), ours >= 300.0));
    line("compaction, until physically done", |s| s.compaction, "s", &free);
    line("puts alone, before and after the compaction", |s| s.puts_alone, "/s", &free);
    line("puts during the compaction", |s| s.puts_during, "/s", &free);
    line(
        "throughput kept during the compaction",
        |s| 100.0 * s.puts_during / s.puts_alone,
        "%",
        &|_, ours| ("85".into(), ours >= 85.0),
    );
    line("defragmentation", |s| s.defragment, "s", &free);
    line("space freed by it", |s| s.freed, "MiB", &free);
    line("longest wait of any request beside it", |s| s.pause, "ms", &below(50.0));
}

/// Cores, memory and kernel.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let memory: u64 =
        read("/proc/meminfo").split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = kernel.trim().splitn(3, '.').collect();
    format!("{cores} cores, {} GiB, Linux {}", memory >> 20, kernel[..kernel.len().min(2)].join("."))
}
