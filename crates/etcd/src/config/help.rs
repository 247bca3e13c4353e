//! The help and usage texts, made from the flag table.

use super::flags::{GATES, SECTIONS};

/// What stands before the flags: printed to standard error.
pub(crate) const USAGE: &str = "Usage:

  etcd [flags]
    Run a member.

  etcd --version
    Print the version.

  etcd -h | --help
    Print this help.

  etcd --config-file
    Take all settings from a file. Flags and environment variables are then left aside.
    Durations in the file (heartbeat-interval and election-timeout are plain milliseconds;
    watch-progress-notify-interval and the like) are whole numbers of nanoseconds,
    600000000000 for ten minutes; forms such as \"10m\" belong to the command line.

  etcd gateway
    Run the forwarding TCP proxy.

  etcd grpc-proxy
    Run the gRPC proxy.
";

/// All flags by section: printed to standard output.
pub(crate) fn flags() -> String {
    let mut text = String::new();
    for (section, flags) in SECTIONS {
        text.push_str(&format!("\n{section}:\n"));
        for flag in *flags {
            let space = if flag.shown.is_empty() { "" } else { " " };
            text.push_str(&format!("  --{}{space}{}\n    {}\n", flag.name, flag.shown, flag.help));
            if flag.name == "feature-gates" {
                for (gate, stage, on) in GATES {
                    text.push_str(&format!("    {gate}=true|false ({stage} - default={on})\n"));
                }
            }
        }
        if *section == "Unsafe feature" {
            text.push_str("\nAn unsafe flag can break what the consensus protocol promises.\n");
        }
    }
    text
}
