//! CPU time, memory and disk writes of processes, from /proc.

use std::fs;

#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) user_s: f64,
    pub(crate) sys_s: f64,
    pub(crate) rss_kb: u64,
    /// Without what is mapped from files.
    pub(crate) anonymous_kb: u64,
    pub(crate) write_bytes: u64,
    /// How often threads went to sleep: each time another one had to wake them.
    pub(crate) sleeps: u64,
}

/// Clock ticks per second, the unit of times in `/proc`.
fn hz() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// The sum over `pids`; an error if any has gone.
pub(crate) fn sample(pids: &[u32]) -> Result<Sample, String> {
    let mut total = Sample::default();
    for pid in pids {
        let gone = |e| format!("/proc/{pid}: {e}");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(gone)?;
        let after = stat.rsplit_once(')').map_or("", |(_, s)| s);
        let field = |n: usize| after.split_whitespace().nth(n).and_then(|s| s.parse::<f64>().ok());
        total.user_s += field(11).unwrap_or(0.0) / hz();
        total.sys_s += field(12).unwrap_or(0.0) / hz();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(gone)?;
        total.rss_kb += number_after(&status, "VmRSS:");
        total.anonymous_kb += number_after(&status, "RssAnon:");
        // Unreadable for another user's process: then it counts as zero.
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        total.write_bytes += number_after(&io, "\nwrite_bytes:");
        for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(gone)?.flatten() {
            // A thread that has just ended counts no more.
            let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
            total.sleeps += number_after(&status, "\nvoluntary_ctxt_switches:");
        }
    }
    Ok(total)
}

pub(crate) fn rss_kb(pids: &[u32]) -> u64 {
    sample(pids).map_or(0, |s| s.rss_kb)
}

fn number_after(text: &str, label: &str) -> u64 {
    text.split_once(label)
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn own_process() {
        let s = super::sample(&[std::process::id()]).unwrap();
        assert!(s.rss_kb > 100);
    }
}
