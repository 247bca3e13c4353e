//! `resolv.conf(5)`: which servers to ask, for which names, and for how long.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::message::NAME_MAX;

/// Where the system keeps it.
const FILE: &str = "/etc/resolv.conf";
/// The name of this machine.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
/// Longest file that is read.
const FILE_MAX: usize = 64 << 10;
/// Servers that are asked; further ones are for reserve nowhere.
const SERVERS_MAX: usize = 3;
/// Bounds of the options, as in libc, so that a slip of the pen is no endless wait.
const NDOTS_MAX: usize = 15;
const TIMEOUT_MAX: u64 = 30;
const ATTEMPTS_MAX: usize = 5;
/// Names of the search list that are tried.
const SEARCH_MAX: usize = 32;
const PORT: u16 = 53;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) servers: Vec<SocketAddr>,
    /// Suffixes, each with a dot at its end.
    pub(super) search: Vec<String>,
    /// A name with so many dots is tried as it stands first.
    pub(super) ndots: usize,
    /// For each question to each server.
    pub(super) timeout: Duration,
    /// Rounds through the servers.
    pub(super) attempts: usize,
    /// Never by datagrams.
    pub(super) tcp_only: bool,
}

impl Settings {
    /// What the system says; without a file, the servers of this machine.
    pub(super) fn of_system() -> Settings {
        let read = |path: &str| std::fs::read(path).unwrap_or_default();
        let mut file = read(FILE);
        file.truncate(FILE_MAX);
        Settings::parse(&String::from_utf8_lossy(&file), String::from_utf8_lossy(&read(HOST_NAME)).trim())
    }

    /// Reads the file's text. `host` is the name of this machine, whose domain is searched if no other is given.
    pub(super) fn parse(text: &str, host: &str) -> Settings {
        let mut settings = Settings {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            tcp_only: false,
        };
        for line in text.lines().filter(|line| !line.starts_with([';', '#'])) {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => settings.servers.extend(words.next().and_then(|word| word.parse().ok()).map(at)),
                Some("domain") => settings.search = words.take(1).map(rooted).collect(),
                Some("search") => settings.search = words.filter(|word| *word != ".").map(rooted).collect(),
                Some("options") => words.for_each(|word| settings.option(word)),
                _ => {}
            }
        }
        settings.servers.truncate(SERVERS_MAX);
        settings.search.truncate(SEARCH_MAX);
        if settings.servers.is_empty() {
            settings.servers = vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())];
        }
        if settings.search.is_empty() {
            let domain = host.split_once('.').map(|(_, domain)| domain).filter(|domain| !domain.is_empty());
            settings.search.extend(domain.map(rooted));
        }
        settings
    }

    fn option(&mut self, word: &str) {
        let number = |digits: &str| digits.parse::<u64>().unwrap_or(0);
        match word.split_once(':') {
            Some(("ndots", digits)) => self.ndots = (number(digits) as usize).min(NDOTS_MAX),
            Some(("timeout", digits)) => self.timeout = Duration::from_secs(number(digits).clamp(1, TIMEOUT_MAX)),
            Some(("attempts", digits)) => self.attempts = (number(digits) as usize).clamp(1, ATTEMPTS_MAX),
            None if matches!(word, "use-vc" | "usevc" | "tcp") => self.tcp_only = true,
            _ => {}
        }
    }

    /// The full names that may be meant by a name, in the order in which they are tried.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let as_it_stands = format!("{name}.");
        let mut names: Vec<String> = self.search.iter().map(|suffix| format!("{name}.{suffix}")).collect();
        names.retain(|name| name.len() <= NAME_MAX + 1);
        if name.matches('.').count() >= self.ndots {
            names.insert(0, as_it_stands);
        } else {
            names.push(as_it_stands);
        }
        names
    }
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, PORT)
}

fn rooted(name: &str) -> String {
    if name.ends_with('.') { name.to_owned() } else { format!("{name}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_whom_to_ask_and_how() {
        let text = "# comment\n; another\nnameserver 10.0.0.1\nnameserver x\nnameserver ::1\nsearch a.test b.test.\n\
                    options ndots:2 timeout:1 attempts:3 use-vc rotate\nsortlist 1\n";
        let settings = Settings::parse(text, "h.c.test");
        assert_eq!(settings.servers, ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!(settings.search, ["a.test.", "b.test."]);
        assert_eq!((settings.ndots, settings.timeout.as_secs(), settings.attempts, settings.tcp_only), (2, 1, 3, true));
        assert_eq!(settings.names("x.y"), ["x.y.a.test.", "x.y.b.test.", "x.y."]);
        assert_eq!(settings.names("x.y.z"), ["x.y.z.", "x.y.z.a.test.", "x.y.z.b.test."]);
        assert_eq!(settings.names("x."), ["x."]);
    }

    #[test]
    fn without_a_file_this_machine_is_asked() {
        let settings = Settings::parse("", "h.c.test");
        assert_eq!(settings.servers, ["127.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!((settings.search, settings.ndots, settings.attempts), (vec!["c.test.".to_owned()], 1, 2));
        assert!(Settings::parse("", "h").search.is_empty() && Settings::parse("", "h.").search.is_empty());
    }

    #[test]
    fn nothing_in_a_file_makes_a_lookup_endless() {
        let many = "nameserver 10.0.0.1\n".repeat(50) + "options timeout:99999 attempts:0 ndots:-1\n";
        let settings = Settings::parse(&(many + "options attempts:1000000\n"), "");
        assert_eq!((settings.servers.len(), settings.timeout.as_secs(), settings.attempts), (3, 30, 5));
        assert_eq!(settings.ndots, 0);
    }
}
