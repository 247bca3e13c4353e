//! What the system knows of this process, read when somebody asks.

use std::fs;

/// See the head of this file. What cannot be read is missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Process {
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) start_seconds: Option<f64>,
    pub(crate) virtual_bytes: Option<f64>,
    pub(crate) resident_bytes: Option<f64>,
    pub(crate) threads: Option<f64>,
    pub(crate) open_files: Option<f64>,
    pub(crate) max_files: Option<f64>,
    pub(crate) max_virtual_bytes: Option<f64>,
    pub(crate) received_bytes: Option<f64>,
    pub(crate) sent_bytes: Option<f64>,
}

/// Ticks per second of the times in `/proc`: 100 on every Linux, whatever the kernel's own rate.
const TICKS: f64 = 100.0;

impl Process {
    /// As it is now.
    pub(crate) fn read() -> Process {
        let mut process = Process::default();
        if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
            process.read_stat(&stat);
        }
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot_seconds(&stat)) {
            process.start_seconds = process.start_seconds.map(|since_boot| boot + since_boot);
        } else {
            process.start_seconds = None;
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            process.resident_bytes = resident_bytes(&status);
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
            process.max_files = soft_limit(&limits, "Max open files");
            process.max_virtual_bytes = soft_limit(&limits, "Max address space");
        }
        process.open_files = Some(open_files() as f64).filter(|files| *files > 0.0);
        if let Ok(netstat) = fs::read_to_string("/proc/self/net/netstat") {
            process.received_bytes = octets(&netstat, "InOctets");
            process.sent_bytes = octets(&netstat, "OutOctets");
        }
        process
    }

    /// Takes fields of `/proc/self/stat`; the start time is in seconds since boot.
    fn read_stat(&mut self, stat: &str) {
        // The name in parentheses may hold anything; what follows it is numbers.
        let Some((_, rest)) = stat.rsplit_once(')') else { return };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        self.cpu_seconds = number(11).zip(number(12)).map(|(user, system)| (user + system) / TICKS);
        self.threads = number(17);
        self.start_seconds = number(19).map(|ticks| ticks / TICKS);
        self.virtual_bytes = number(20);
    }
}

/// Memory in use; this file counts it in kB, whatever the size of a page.
fn resident_bytes(status: &str) -> Option<f64> {
    let row = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    row.split_whitespace().next()?.parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
}

/// Files that are open; 0 where the system does not say.
pub(crate) fn open_files() -> u64 {
    // The directory that is read is open itself.
    fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64)
}

/// Most files that may be open; 0 where the system does not say.
pub(crate) fn file_limit() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    soft_limit(&limits, "Max open files").map_or(0, |limit| limit as u64)
}

fn boot_seconds(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of a row of `/proc/self/limits`; "unlimited" is the largest number, as Go has it.
fn soft_limit(limits: &str, name: &str) -> Option<f64> {
    let row = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match row.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

/// A column of the `IpExt` table: a line of names, then a line of numbers.
fn octets(netstat: &str, name: &str) -> Option<f64> {
    let mut rows = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, numbers) = (rows.next()?, rows.next()?);
    let at = names.split_whitespace().position(|column| column == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_proc_are_read_by_place_and_name() {
        let mut process = Process::default();
        process.read_stat("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 4200 8192 3 18446744073709551615");
        assert_eq!((process.cpu_seconds, process.threads), (Some(2.0), Some(9.0)));
        assert_eq!((process.start_seconds, process.virtual_bytes), (Some(42.0), Some(8192.0)));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t  12 kB\n"), Some(12_288.0));
        let limits = "Limit  Soft Limit  Hard Limit\nMax address space  unlimited  unlimited bytes\nMax open files  1024  4096 files\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024.0));
        assert_eq!(soft_limit(limits, "Max address space"), Some(u64::MAX as f64));
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 77 88\n";
        assert_eq!((octets(netstat, "InOctets"), octets(netstat, "OutOctets")), (Some(77.0), Some(88.0)));
    }

    #[test]
    fn the_limit_of_descriptors_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             95611                95611                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(text, "Max open files"), Some(1024.0));
        assert_eq!(soft_limit("Max open files            unlimited", "Max open files"), Some(u64::MAX as f64));
        assert_eq!(soft_limit("", "Max open files"), None);
    }

    #[test]
    fn this_process_has_everything() {
        let now = Process::read();
        assert!(now.resident_bytes.is_some_and(|bytes| bytes > 0.0) && now.open_files.is_some_and(|n| n >= 3.0));
        assert!(now.start_seconds.is_some_and(|at| at > 1e9) && now.threads.is_some_and(|n| n >= 1.0));
    }
}
