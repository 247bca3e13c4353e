//! What a call costs in the codec alone: `codec_cost [BATCH] [BYTES]` feeds batches of unary requests as clients write
//! them (everything indexed but a fresh `grpc-timeout`), answers each at once, and prints nanoseconds of CPU per call
//! (Linux only: it reads `/proc/self/schedstat`).

use bytes::Buf;
use grpc::{Connection, Kind, Metadata, Method, PlainRequest, Replies, Settings, Sink};

struct Echo;

impl Sink for Echo {
    fn method(&mut self, _: &[u8]) -> Option<Method> {
        Some(Method { id: 0, kind: Kind::Unary })
    }

    fn has_service(&mut self, _: &[u8]) -> bool {
        true
    }

    fn on_unary(&mut self, replies: &mut Replies, call: u32, _: u16, _: &Metadata, message: &[u8]) {
        replies.reply(call, |out| out.extend_from_slice(&message[..message.len().min(30)]));
    }

    fn on_open(&mut self, _: &mut Replies, _: u32, _: u16, _: &Metadata) {}

    fn on_message(&mut self, _: &mut Replies, _: u32, _: u16, _: &[u8]) {}

    fn on_half_close(&mut self, _: &mut Replies, _: u32) {}

    fn on_cancelled(&mut self, _: &mut Replies, _: u32) {}

    fn on_plain(&mut self, _: &mut Replies, _: u32, _: &PlainRequest<'_>) {}
}

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    to.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&id.to_be_bytes());
    to.extend_from_slice(payload);
}

fn literal(to: &mut Vec<u8>, name: &str, value: &str) {
    to.push(0x40);
    for s in [name, value] {
        to.push(s.len() as u8);
        to.extend_from_slice(s.as_bytes());
    }
}

/// `from` to `from + n` calls; the first teaches the table.
fn requests(from: u32, n: u32, bytes: usize, timeout: bool) -> Vec<u8> {
    let mut input = Vec::new();
    let mut message = vec![0];
    message.extend_from_slice(&(bytes as u32).to_be_bytes());
    message.resize(5 + bytes, 7);
    for i in from..from + n {
        let mut block = Vec::new();
        if i == 0 {
            block.extend_from_slice(&[0x83, 0x86]);
            literal(&mut block, ":path", "/etcdserverpb.KV/Put");
            literal(&mut block, ":authority", "127.0.0.1:2379");
            literal(&mut block, "content-type", "application/grpc");
            literal(&mut block, "user-agent", "grpc-go/1.80.0");
            literal(&mut block, "te", "trailers");
        } else {
            // Behind the timeouts that were added since, newest first. 30 entries of 52 bytes fit beside the rest.
            let since = if timeout { (i - 1) % 30 } else { 0 } as u8;
            block.extend_from_slice(&[0x83, 0x86]);
            block.extend((0..5).rev().map(|k| 0x80 | (62 + k + since)));
            if timeout && since == 29 {
                // Start over: empty the table, so that the indices above stay within one byte.
                block = vec![0x20, 0x3f, 0xe1, 0x1f, 0x83, 0x86];
                literal(&mut block, ":path", "/etcdserverpb.KV/Put");
                literal(&mut block, ":authority", "127.0.0.1:2379");
                literal(&mut block, "content-type", "application/grpc");
                literal(&mut block, "user-agent", "grpc-go/1.80.0");
                literal(&mut block, "te", "trailers");
            } else if timeout {
                literal(&mut block, "grpc-timeout", &format!("{}u", 4_000_000 + i % 1_000_000));
            }
        }
        frame(&mut input, 1, 4, 2 * i + 1, &block);
        frame(&mut input, 0, 1, 2 * i + 1, &message);
    }
    input
}

/// Nanoseconds this thread has run, whoever else wanted the machine.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

fn measure(batch: u32, bytes: usize, timeout: bool) -> f64 {
    let mut c = Connection::new(Settings::default(), 0);
    c.receive(0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &mut Echo).unwrap();
    let calls = 600_000 / batch * batch;
    let all: Vec<Vec<u8>> = (0..calls / batch).map(|i| requests(i * batch, batch, bytes, timeout)).collect();
    let mut window = Vec::new();
    frame(&mut window, 8, 0, 0, &0x10_0000u32.to_be_bytes());
    c.receive(0, &window, &mut Echo).unwrap();
    let mut sent = 0;
    let start = cpu_ns();
    for input in &all {
        assert_eq!(c.receive(1, input, &mut Echo), Ok(input.len()));
        let out = c.output();
        sent += out.len();
        out.advance(out.len());
        if sent > 0x10_0000 / 2 {
            sent = 0;
            c.receive(1, &window, &mut Echo).unwrap();
        }
    }
    (cpu_ns() - start) as f64 / f64::from(calls)
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse().expect("a number"));
    let (batch, bytes) = (args.next().unwrap_or(64) as u32, args.next().unwrap_or(280));
    for timeout in [false, true] {
        let best = (0..5).map(|_| measure(batch, bytes, timeout)).fold(f64::MAX, f64::min);
        println!("batch {batch}, {bytes} bytes, grpc-timeout {timeout}: {best:.0} ns per call");
    }
}
