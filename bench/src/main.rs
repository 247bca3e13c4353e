//! Load generator for the etcd v3 gRPC API, and the comparison of Go etcd with ours that `cargo xtask bench` runs.
//!
//! Reading order: `opts` (the command line), `run` (phases, threads, the loop every client runs), `workloads`, `h2`,
//! `compare` (rows, servers, report).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement needs clocks, and its maps are nobody's order"
)]

mod compare;
mod h2;
mod net;
mod opts;
mod pace;
mod procfs;
mod run;
mod stats;
mod wire;
mod workloads;

use clap::Parser;
use serde_json::{Value, json};
use std::process::ExitCode;

fn report(settings: &opts::Settings, name: &str, o: &run::Outcome) -> Value {
    let total = o.recorder.total();
    let per_op = |s: f64| stats::round1(s * 1e6 / total.ops.max(1) as f64);
    let classes: serde_json::Map<_, _> = o
        .recorder
        .classes
        .iter()
        .map(|c| (c.def.name.to_string(), stats::class_json(c, o.elapsed)))
        .collect();
    let mut v = json!({
        "workload": name,
        "label": settings.label,
        "args": std::env::args().skip(1).collect::<Vec<_>>(),
        "elapsed_s": o.elapsed,
        "ops": total.ops,
        "throughput": stats::round1(total.ops as f64 / o.elapsed),
        "latency_us": stats::latency_json(&total.hist),
        "classes": classes,
        "errors": o.recorder.errors,
        "error_count": o.recorder.error_count(),
        "extra": o.recorder.extra,
        "client": { "cpu_us_per_op": per_op(o.client_cpu_s), "cpu_s": o.client_cpu_s },
    });
    if let Some((before, after, peak)) = &o.server {
        let (user, sys) = (after.user_s - before.user_s, after.sys_s - before.sys_s);
        v["server"] = json!({
            "pids": settings.server_pid,
            "cpu_s": user + sys,
            "cpu_us_per_op": per_op(user + sys),
            "user_us_per_op": per_op(user),
            "sys_us_per_op": per_op(sys),
            "cores": (user + sys) / o.elapsed,
            "rss_kb_before": before.rss_kb,
            "rss_kb_after": after.rss_kb,
            "rss_kb_peak": peak,
            "write_bytes": after.write_bytes - before.write_bytes,
            "sleeps": after.sleeps.saturating_sub(before.sleeps),
        });
    }
    v
}

fn print_human(v: &Value) {
    let l = &v["latency_us"];
    eprintln!(
        "{:<16} {:>9.1} op/s  {} ops in {:.2} s  errors {}",
        v["workload"].as_str().unwrap_or(""),
        v["throughput"].as_f64().unwrap_or(0.0),
        v["ops"],
        v["elapsed_s"].as_f64().unwrap_or(0.0),
        v["error_count"],
    );
    eprintln!(
        "  latency us: mean {} p50 {} p90 {} p99 {} p99.9 {} max {}",
        l["mean"], l["p50"], l["p90"], l["p99"], l["p99.9"], l["max"]
    );
    let classes = v["classes"].as_object();
    for (name, c) in classes.into_iter().flatten().filter(|(n, _)| *n != "op") {
        eprintln!(
            "  {name:<8} {} op/s, {} items/s, p50 {} p99 {} us",
            c["ops_per_s"], c["items_per_s"], c["latency_us"]["p50"], c["latency_us"]["p99"]
        );
    }
    if v["server"].is_object() {
        let s = &v["server"];
        eprintln!(
            "  server: {} us CPU/op (user {} sys {}), {:.2} cores, RSS {} -> {} MiB, wrote {} MiB",
            s["cpu_us_per_op"],
            s["user_us_per_op"],
            s["sys_us_per_op"],
            s["cores"].as_f64().unwrap_or(0.0),
            s["rss_kb_before"].as_u64().unwrap_or(0) >> 10,
            s["rss_kb_after"].as_u64().unwrap_or(0) >> 10,
            s["write_bytes"].as_u64().unwrap_or(0) >> 20,
        );
    }
    eprintln!("  client: {} us CPU/op", v["client"]["cpu_us_per_op"]);
    for (k, n) in v["extra"].as_object().into_iter().flatten() {
        eprintln!("  {k}: {n}");
    }
    for (what, n) in v["errors"].as_object().into_iter().flatten() {
        eprintln!("  error x{n}: {what}");
    }
}

fn main() -> ExitCode {
    let opts::Cli { mut settings, workload } = opts::Cli::parse();
    if let opts::Workload::Compare(options) = workload {
        return compare::run(&options);
    }
    if workload.one_shot() {
        (settings.clients, settings.conns, settings.threads) = (1, 1, 1);
        (settings.total, settings.warmup) = (Some(1), 0.0);
        settings.timeout = settings.timeout.max(3600.0);
    }
    settings.threads = settings.threads.clamp(1, settings.conns.max(1));
    let name = workload.name();
    let outcome = match run::run(settings.clone(), workload) {
        Ok(o) => o,
        Err(e) => {
            eprintln!("loadgen: {e}");
            return ExitCode::FAILURE;
        }
    };
    let v = report(&settings, name, &outcome);
    print_human(&v);
    if let Some(path) = &settings.json {
        let text = format!("{v}\n");
        if path.as_os_str() == "-" {
            print!("{text}");
        } else if let Err(e) = std::fs::write(path, text) {
            eprintln!("loadgen: {}: {e}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if let Some(e) = &outcome.fatal {
        eprintln!("loadgen: {e}");
        return ExitCode::FAILURE;
    }
    if outcome.recorder.error_count() > 0 && !settings.allow_errors {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
