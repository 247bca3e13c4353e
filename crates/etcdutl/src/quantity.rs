//! Sizes and durations as Go's tools print them.

use std::time::Duration;

const UNITS: &[&str] = &["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A size in units of 1000: `25 kB`, `2.1 GB`.
#[must_use]
pub fn bytes(size: u64) -> String {
    if size < 10 {
        return format!("{size} B");
    }
    let mut unit = 0;
    let mut scale = 1.0_f64;
    while size as f64 / scale >= 1000.0 && unit + 1 < UNITS.len() {
        scale *= 1000.0;
        unit += 1;
    }
    let value = (size as f64 / scale * 10.0 + 0.5).floor() / 10.0;
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// A duration: `1.5s`, `2.034567ms`, `1m0s`.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        return "0s".into();
    }
    if nanoseconds < 1_000 {
        return format!("{nanoseconds}ns");
    }
    if nanoseconds < 1_000_000 {
        return format!("{}µs", decimal(nanoseconds, 1_000, 3));
    }
    if nanoseconds < 1_000_000_000 {
        return format!("{}ms", decimal(nanoseconds, 1_000_000, 6));
    }
    let minutes_all = nanoseconds / 60_000_000_000;
    let seconds = decimal(nanoseconds % 60_000_000_000, 1_000_000_000, 9);
    match (minutes_all / 60, minutes_all % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn decimal(value: u128, unit: u128, digits: usize) -> String {
    let whole = value / unit;
    let fraction = format!("{:0digits$}", value % unit);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (size, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (24_576, "25 kB"),
            (9_949, "9.9 kB"),
            (999_999, "1000 kB"),
            (2_147_483_648, "2.1 GB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn durations() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (17, "17ns"),
            (1_500, "1.5µs"),
            (2_034_567, "2.034567ms"),
            (1_000_000_000, "1s"),
            (60_000_000_000, "1m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), text);
        }
    }
}
