//! What the peer port says to members of the cluster, asked of Go and of ours with the same bytes: a voter alone, and a
//! learner that a test plays.

// Tests of processes wait and watch the clock.
#![allow(clippy::disallowed_methods, reason = "processes are waited for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::{Binaries, Member, Options, go_release, ours};
use parity::Ctl;
use parity::http::{port_of, request};

/// One member with a learner that was added and never started.
struct Pair {
    member: Member,
    port: u16,
    cluster: String,
    id: u64,
    learner: u64,
    _scratch: tempfile::TempDir,
}

fn ids(port: u16) -> (String, Vec<u64>) {
    let members = request(port, "GET", "/members", &[], &[]);
    let cluster = members.header("x-etcd-cluster-id").expect("who asks learns the cluster").to_string();
    let ids = members.body.split("\"id\":").skip(1).map(|rest| {
        rest.split(',').next().and_then(|id| id.parse().ok()).expect("an id is a number")
    });
    (cluster, ids.collect())
}

impl Pair {
    fn start(binaries: &Binaries, etcdctl: &Binaries) -> Pair {
        let scratch = tempfile::tempdir().expect("scratch is writable");
        let flags = ["--initial-advertise-peer-urls=http://127.0.0.1:9", "--initial-cluster=m0=http://127.0.0.1:9"];
        let options = Options { flags: flags.iter().map(ToString::to_string).collect(), ..Options::default() };
        let member = Member::start(binaries, &scratch.path().join("m"), options);
        let port = port_of(&member.peer_url());
        let (cluster, alone) = ids(port);
        Ctl::new(&etcdctl.etcdctl, &member).ok("member add l --peer-urls=http://127.0.0.1:19 --learner");
        let learner = ids(port).1.into_iter().find(|id| *id != alone[0]).expect("the learner is listed");
        Pair { member, port, cluster, id: alone[0], learner, _scratch: scratch }
    }

    /// Headers of the learner.
    fn headers(&self, to: &str) -> Vec<String> {
        let mut headers = vec![
            format!("X-Server-From: {:x}", self.learner),
            "X-Server-Version: 3.7.3".to_string(),
            "X-Min-Cluster-Version: 3.0.0".to_string(),
            format!("X-Etcd-Cluster-ID: {}", self.cluster),
        ];
        if !to.is_empty() {
            headers.push(format!("X-Raft-To: {to}"));
        }
        headers
    }

    /// Asks, and gives what can be compared, with ids replaced by words.
    fn ask(&self, method: &str, path: &str, to: &str, body: &[u8]) -> String {
        let path = path.replace("LEARNER-HEX", &format!("{:x}", self.learner)).replace("LEARNER", &self.learner.to_string());
        let path = path.replace("MEMBER", &self.id.to_string());
        let to = to.replace("MEMBER", &format!("{:x}", self.id));
        let headers = self.headers(&to);
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = request(self.port, method, &path, &headers, body);
        let shown = ["content-type", "allow", "x-etcd-cluster-id", "x-server-version", "x-content-type-options"];
        let headers: Vec<String> =
            shown.iter().filter_map(|name| Some(format!("{name}: {}", answer.header(name)?))).collect();
        format!("{} {headers:?} {}", answer.status, answer.body)
    }

    /// A message of the learner: type, receiver and term.
    fn message(&self, kind: u8, to: u64) -> Vec<u8> {
        let mut out = vec![0x08, kind, 0x10];
        put_varint(to, &mut out);
        out.push(0x18);
        put_varint(self.learner, &mut out);
        out.extend([0x20, 0x01]);
        out
    }

    /// Opens a stream as the learner; gives the connection and the head of the answer without its date.
    fn stream(&self, kind: &str) -> (TcpStream, Vec<String>) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).expect("the port is open");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a time can be set");
        let headers = self.headers(&format!("{:x}", self.id)).join("\r\n");
        let head = format!("GET /raft/stream/{kind}/{:x} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n", self.learner);
        socket.write_all(head.as_bytes()).expect("the request is taken");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(socket.read(&mut byte).expect("an answer comes"), 1, "{}", String::from_utf8_lossy(&answer));
            answer.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        let mut lines: Vec<String> =
            text.trim_end().lines().filter(|line| !line.starts_with("date:")).map(ToString::to_string).collect();
        lines.sort();
        (socket, lines)
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn pairs() -> Option<[Pair; 2]> {
    let go = go_release("3.7.3")?;
    Some([Pair::start(&go, &go), Pair::start(&ours(), &go)])
}

#[test]
fn p16_to_p56_members_are_answered_as_by_go() {
    let Some([theirs, ours]) = pairs() else { return };
    let both = |method: &str, path: &str, to: &str, body: &dyn Fn(&Pair) -> Vec<u8>| {
        let [go, we] = [&theirs, &ours].map(|pair| pair.ask(method, path, to, &body(pair)));
        assert_eq!(go, we, "{method} {path} to {to:?}");
    };
    let nothing = |_: &Pair| Vec::new();
    let snapshot = |to: u64| {
        move |pair: &Pair| {
            let mut message = pair.message(7, to);
            // Snapshot metadata: a conf state, index 5, term 1.
            message.extend([0x4a, 0x08, 0x12, 0x06, 0x0a, 0x00, 0x10, 0x05, 0x18, 0x01]);
            let mut body = (message.len() as u64).to_be_bytes().to_vec();
            body.append(&mut message);
            body.extend([0; 100]);
            body
        }
    };
    for removed in [false, true] {
        if removed {
            for pair in [&theirs, &ours] {
                let go = go_release("3.7.3").expect("it was there before");
                Ctl::new(&go.etcdctl, &pair.member).ok(&format!("member remove {:x}", pair.learner));
            }
        }
        for to in ["", "MEMBER", "77"] {
            if removed || to != "MEMBER" {
                both("GET", "/raft/stream/msgapp/LEARNER-HEX", to, &nothing);
                both("GET", "/raft/stream/message/LEARNER-HEX", to, &nothing);
            }
        }
        both("POST", "/raft/stream/message/LEARNER-HEX", "MEMBER", &nothing);
        both("POST", "/raft", "", &|pair| pair.message(9, pair.id));
        both("POST", "/raft", "", &|pair| pair.message(9, 999));
        both("POST", "/raft", "", &|pair| pair.message(99, pair.id));
        both("POST", "/raft/snapshot", "", &snapshot(999));
        both("POST", "/members/promote/LEARNER", "", &nothing);
        both("POST", "/members/promote/MEMBER", "", &nothing);
        both("POST", "/members/promote/42", "", &nothing);
        both("GET", "/downgrade/enabled", "", &nothing);
    }
    for pair in [&theirs, &ours] {
        let (cluster, ids) = ids(pair.port);
        assert_eq!((cluster, ids), (pair.cluster.clone(), vec![pair.id]));
    }
}

#[test]
fn streams_open_as_in_go_carry_heartbeats_and_give_way_to_newer_ones() {
    let Some(pairs) = pairs() else { return };
    let heads = pairs.each_ref().map(|pair| {
        ["msgapp", "message"].map(|kind| {
            let (mut older, head) = pair.stream(kind);
            let mut bytes = [0; 64];
            assert!(older.read(&mut bytes).expect("something comes in time") > 0, "{kind}");
            let (mut newer, _) = pair.stream(kind);
            let (begun, mut rest) = (Instant::now(), Vec::new());
            while !rest.ends_with(b"0\r\n\r\n") {
                assert!(begun.elapsed() < Duration::from_secs(5), "the older stream ends");
                match older.read(&mut bytes).expect("the end comes in time") {
                    0 => break,
                    read => rest.extend_from_slice(&bytes[..read]),
                }
            }
            assert!(newer.read(&mut bytes).expect("the newer one goes on") > 0);
            head.into_iter().map(|line| line.replace(&pair.cluster, "CLUSTER")).collect::<Vec<_>>()
        })
    });
    assert_eq!(heads[0], heads[1]);
}

#[test]
fn garbage_silence_and_half_sent_requests_do_no_harm() {
    let Some([_, ours]) = pairs() else { return };
    let connect = || TcpStream::connect(("127.0.0.1", ours.port)).expect("the port is open");
    let mut kept = Vec::new();
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\0", b"GET /raft", b""] {
        let mut socket = connect();
        socket.write_all(garbage).expect("bytes are taken");
        kept.push(socket);
    }
    let mut cut = connect();
    let headers = ours.headers("").join("\r\n");
    let head = format!("POST /raft/snapshot HTTP/1.1\r\nHost: x\r\n{headers}\r\nContent-Length: 1000000\r\n\r\n");
    cut.write_all(head.as_bytes()).expect("bytes are taken");
    let message = ours.message(7, ours.id);
    cut.write_all(&(message.len() as u64 + 10).to_be_bytes()).expect("bytes are taken");
    cut.write_all(&message).expect("bytes are taken");
    cut.write_all(&[0x4a, 0x08, 0x12, 0x06, 0x0a, 0x00, 0x10, 0x05, 0x18, 0x01]).expect("bytes are taken");
    cut.write_all(&[0; 5000]).expect("bytes are taken");
    drop(cut);
    // Whoever says nothing, or nothing that makes sense, is not kept for ever.
    for mut socket in kept {
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a time can be set");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("the connection is closed in time");
    }
    let left = std::fs::read_dir(ours.member.data_dir().join("member/snap")).expect("the directory is there");
    let left: Vec<String> = left.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    assert!(left.iter().all(|name| !name.starts_with("tmp") && !name.ends_with(".snap.db")), "{left:?}");
    assert_eq!(request(ours.port, "GET", "/raft/probing", &[], &[]).status, 200);
}
