//! What a new user does first: a unit file, the tour of a tutorial, a backup. All on etcd's default ports.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Binaries, go_release, ours, with_default_ports};

use super::side::{Place, Server, http};

/// Flags as unit files of etcd's documentation have them.
const UNIT: &[&str] = &[
    "--name",
    "server",
    "--initial-advertise-peer-urls",
    "http://127.0.0.1:2380",
    "--listen-peer-urls",
    "http://127.0.0.1:2380",
    "--listen-client-urls",
    "http://127.0.0.1:2379",
    "--advertise-client-urls",
    "http://127.0.0.1:2379",
    "--initial-cluster-token",
    "etcd-cluster-0",
    "--initial-cluster",
    "server=http://127.0.0.1:2380",
    "--initial-cluster-state",
    "new",
    "--data-dir=data",
];

const MEMBERS: &str = "6702b0a34e2cfd39, started, server, http://127.0.0.1:2380, http://127.0.0.1:2379, false\n";

const MEMBERS_TABLE: &str = "\
+------------------+---------+--------+-----------------------+-----------------------+------------+
|        ID        | STATUS  |  NAME  |      PEER ADDRS       |     CLIENT ADDRS      | IS LEARNER |
+------------------+---------+--------+-----------------------+-----------------------+------------+
| 6702b0a34e2cfd39 | started | server | http://127.0.0.1:2380 | http://127.0.0.1:2379 |      false |
+------------------+---------+--------+-----------------------+-----------------------+------------+
";

const STATUS: &[&str] = &[
    "127.0.0.1:2379",
    "6702b0a34e2cfd39",
    "3.7.3",
    "3.7.0",
    "20 kB",
    "16 kB",
    "20%",
    "2.1 GB",
    "true",
    "false",
    "2",
    "4",
    "4",
    "",
    "",
    "false",
];

const HEADINGS: &[&str] = &[
    "ENDPOINT",
    "ID",
    "VERSION",
    "STORAGE VERSION",
    "DB SIZE",
    "IN USE",
    "PERCENTAGE NOT IN USE",
    "QUOTA",
    "IS LEADER",
    "IS LEARNER",
    "RAFT TERM",
    "RAFT INDEX",
    "RAFT APPLIED INDEX",
    "ERRORS",
    "DOWNGRADE TARGET VERSION",
    "DOWNGRADE ENABLED",
];

/// Runs `work` with a place for the tools of a release, on default ports.
fn with_place(binaries: Binaries, work: impl FnOnce(&Place, &Binaries) + Send + 'static) {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    with_default_ports(move || work(&Place::new(scratch.path(), &binaries), &binaries));
}

/// A table drawn the plain way: as wide as its cells, headings centred, cells to the right.
fn table(headings: &[&str], row: &[&str]) -> String {
    let widths: Vec<usize> = headings.iter().zip(row).map(|(a, b)| a.len().max(b.len())).collect();
    let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
    let line = |cells: &[&str], centred: bool| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| {
            if centred { format!("| {cell:^width$} ") } else { format!("| {cell:>width$} ") }
        });
        cells.collect::<String>() + "|\n"
    };
    format!("{rule}{}{rule}{}{rule}", line(headings, true), line(row, false))
}

/// The datagrams that systemd would get until it hears `READY=1`.
fn wait_for_ready(socket: &UnixDatagram) {
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("sockets have time-outs");
    let mut buffer = [0; 256];
    loop {
        let len = socket.recv(&mut buffer).expect("READY=1 is sent");
        if String::from_utf8_lossy(&buffer[..len]).lines().any(|line| line == "READY=1") {
            return;
        }
    }
}

/// Who listens, as `ss` tells: the name of the process, and both ports.
fn check_listeners(server: &Server) {
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", server.pid())).expect("the process is there");
    assert_eq!(comm, "etcd\n");
    let Ok(output) = Command::new("ss").arg("-tnlp").output() else {
        eprintln!("SKIPPED: no ss to ask who listens");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for port in ["127.0.0.1:2379", "127.0.0.1:2380"] {
        let line = text.lines().find(|line| line.contains(port)).unwrap_or_else(|| panic!("{port}: {text}"));
        assert!(line.contains("((\"etcd\",pid="), "{line}");
    }
}

fn resident_kib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the process is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux tells");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_unit_file_starts_it() {
    with_place(ours(), |place, binaries| {
        let path = place.folder().join("notify");
        let socket = UnixDatagram::bind(&path).expect("scratch takes sockets");
        let notify = path.display().to_string();
        let server = Server::start(&binaries.etcd, place.folder(), UNIT, &[("NOTIFY_SOCKET", &notify)]);
        wait_for_ready(&socket);
        assert_eq!(place.ok("etcdctl member list"), MEMBERS);
        assert_eq!(place.ok("etcdctl member list -w table"), MEMBERS_TABLE);
        // The last page of the start is free again after the next commit.
        let expected = table(HEADINGS, STATUS);
        let mut found = String::new();
        for _ in 0..20 {
            found = place.ok("etcdctl endpoint status -w table");
            if found == expected {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(found, expected);
        check_listeners(&server);
        println!("resident memory of a fresh member, this build: {} KiB", resident_kib(&server));
        assert_eq!(place.ok("etcdctl put a 1"), "OK\n");
        assert_eq!(place.ok("ETCDCTL_API=3 etcdctl get a"), "a\n1\n");
        let left = place.run("ETCDCTL_API=3 etcdctl get a", "");
        assert_eq!(left.stderr, "", "scripts set this everywhere");
    });
}

/// Requests to the port for peers: method, path, and values of the headers in [`PEER_HEADERS`]. The peer `8` is
/// unknown to a lone member; `C` stands for the id of its cluster.
const PEER_REQUESTS: &[(&str, &str, [&str; 4])] = &[
    ("GET", "/version", NONE),
    ("GET", "/members", NONE),
    ("POST", "/members", NONE),
    ("GET", "/raft", NONE),
    ("POST", "/raft", NONE),
    ("POST", "/raft", ["1", "", "3.7.3", "3.0.0"]),
    ("GET", "/raft/snapshot", NONE),
    ("POST", "/raft/snapshot", ["1", "", "3.7.3", "3.0.0"]),
    ("GET", "/raft/stream/message/8", NONE),
    ("GET", "/raft/stream/message/8", ["C", "", "", ""]),
    ("GET", "/raft/stream/message/8", ["C", "", "2.3.0", "3.0.0"]),
    ("GET", "/raft/stream/message/8", ["C", "", "3.8.0", "3.8.0"]),
    ("GET", "/raft/stream/message/8", ["1", "6702b0a34e2cfd39", "3.7.3", "3.0.0"]),
    ("GET", "/raft/stream/message/8", ["C", "6702b0a34e2cfd39", "3.7.3", "3.0.0"]),
    ("GET", "/raft/stream/message/8", ["C", "7", "3.5.0", "3.0.0"]),
    ("GET", "/raft/stream/msgapp/8", ["C", "6702b0a34e2cfd39", "4.0.0", "3.0.0"]),
    ("GET", "/raft/stream/msgapp/zz", ["C", "6702b0a34e2cfd39", "3.7.3", "3.0.0"]),
    ("GET", "/raft/stream/nosuch/8", ["C", "6702b0a34e2cfd39", "3.7.3", "3.0.0"]),
    ("POST", "/raft/stream/message/8", NONE),
    ("GET", "/nosuch", NONE),
];

const NONE: [&str; 4] = [""; 4];

const PEER_HEADERS: [&str; 4] = ["X-Etcd-Cluster-ID", "X-Raft-To", "X-Server-Version", "X-Min-Cluster-Version"];

fn peer_answers(binaries: Binaries) -> Option<Vec<String>> {
    let scratch = tempfile::tempdir().expect("scratch is writable");
    with_default_ports(move || {
        let place = Place::new(scratch.path(), &binaries);
        let _server = Server::start(&binaries.etcd, place.folder(), UNIT, &[]);
        let members = place.ok("etcdctl member list -w json --hex");
        let cluster = members.split("\"cluster_id\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let cluster = cluster.expect("the header names the cluster").to_owned();
        let ask = |(method, path, values): &(&str, &str, [&str; 4])| {
            let headers: Vec<(&str, &str)> = (PEER_HEADERS.into_iter().zip(*values))
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name, if value == "C" { cluster.as_str() } else { value }))
                .collect();
            // A machine with much to do may be slow to answer once.
            let mut answers = (0..3).filter_map(|_| http(2380, method, path, &headers));
            let answer = answers.next().unwrap_or_else(|| "no answer".into());
            // Go's storage version follows some seconds after the start.
            let answer = answer.split(",\"storage\"").next().unwrap_or_default();
            format!("{method} {path} {values:?}: {}", answer.trim_end())
        };
        PEER_REQUESTS.iter().map(ask).collect()
    })
}

#[test]
fn the_port_for_peers_answers_as_gos() {
    let Some(go) = go_release("3.7.3") else { return };
    let (Some(expected), Some(found)) = (peer_answers(go), peer_answers(ours())) else { return };
    let wrong: Vec<String> = (expected.iter().zip(&found))
        .filter(|(expected, found)| expected != found)
        .map(|(expected, found)| format!("Go:   {expected}\nours: {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_tour_without_flags() {
    with_place(ours(), |place, binaries| {
        let server = Server::start(&binaries.etcd, place.folder(), &[], &[]);
        assert!(place.folder().join("default.etcd/member/snap/db").exists());
        assert_eq!(place.ok("etcdctl put key1 value1"), "OK\n");
        assert_eq!(place.ok("etcdctl put /registry/a 1"), "OK\n");
        assert_eq!(place.ok("etcdctl get key1"), "key1\nvalue1\n");
        assert_eq!(place.ok("etcdctl get / --prefix --keys-only"), "/registry/a\n\n");
        assert_eq!(place.ok("etcdctl get \"\" --prefix --keys-only"), "/registry/a\n\nkey1\n\n");
        assert_eq!(place.ok("etcdctl del /registry/a"), "1\n");
        assert_eq!(place.ok("etcdctl get / --prefix"), "");
        let help = place.ok("etcdctl");
        let mut from = 0;
        for heading in [
            "Key-value commands\n",
            "Cluster maintenance commands\n",
            "Concurrency commands\n",
            "Authentication commands\n",
            "Utility commands\n",
        ] {
            from += help[from..].find(heading).unwrap_or_else(|| panic!("{heading} in {help}"));
        }
        assert_eq!(place.ok("etcdctl put key2 \"value 2\""), "OK\n");
        server.kill();
        let _server = Server::start(&binaries.etcd, place.folder(), &[], &[]);
        assert_eq!(place.ok("etcdctl get \"\" --prefix"), "key1\nvalue1\nkey2\nvalue 2\n");
        assert_eq!(place.ok("etcdctl del key1 --prev-kv"), "1\nkey1\nvalue1\n");
    });
}

/// Saves with one server's own tool, restores with a tool given as a command line, starts a server on it.
fn backup(place: &Place, saver: &Path, starter: &Path, restore: &str, name: &str) {
    let server = Server::start(saver, place.folder(), &[], &[]);
    for i in 0..20 {
        place.ok(&format!("etcdctl put /k/{i} {i}"));
    }
    place.ok("etcdctl del /k/1 --prefix");
    let before = place.ok("etcdctl get \"\" --prefix");
    let saved = place.ok(&format!("etcdctl snapshot save {name}.db"));
    assert_eq!(saved, format!("Snapshot saved at {name}.db\nServer version 3.7.0\n"));
    server.kill();
    std::fs::remove_dir_all(place.folder().join("default.etcd")).expect("scratch can be removed");
    place.ok(&format!("{restore} snapshot restore {name}.db --data-dir {name}"));
    let flag = format!("--data-dir={name}");
    let server = Server::start(starter, place.folder(), &[&flag], &[]);
    assert_eq!(place.ok("etcdctl get \"\" --prefix"), before, "{name}");
    assert_eq!(place.ok("etcdctl put after 1"), "OK\n");
    server.kill();
}

#[test]
fn a_backup_brings_everything_back() {
    with_place(ours(), |place, binaries| {
        let us = &binaries.etcd;
        backup(place, us, us, "etcdctl", "by-etcdctl");
        backup(place, us, us, "etcdutl", "by-etcdutl");
        let Some(go) = go_release("3.7.3") else { return };
        let gos = go.etcdutl.as_ref().expect("3.7 has it").display().to_string();
        backup(place, us, us, &gos, "ours-by-gos");
        backup(place, us, &go.etcd, &gos, "ours-by-gos-on-go");
        backup(place, &go.etcd, us, "etcdctl", "gos-by-ours");
        backup(place, &go.etcd, &go.etcd, "etcdutl", "gos-by-ours-on-go");
    });
}
