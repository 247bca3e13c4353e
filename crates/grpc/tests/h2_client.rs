//! The codec against the `h2` crate as client, over an in-memory pipe: whatever mixture of calls, windows, frame sizes
//! and cancellations, each call gets its own answer, whole and in order.
#![allow(clippy::disallowed_types, reason = "h2 and http bring their own")]

use std::collections::BTreeSet;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use grpc::{Connection, Kind, Metadata, Method, PlainRequest, Replies, Settings, Sink};
use h2::client::SendRequest;
use http::Request;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;

const UNARY: u16 = 0;
const LATER: u16 = 1;
const LIST: u16 = 2;
const BIDI: u16 = 3;
const FAIL: u16 = 4;

const PATHS: [&str; 5] = ["/t.T/Unary", "/t.T/Later", "/t.T/List", "/t.T/Bidi", "/t.T/Fail"];

#[derive(Default)]
struct Server {
    /// Calls that are answered a turn later, last first.
    later: Vec<(u32, Vec<u8>)>,
    open: BTreeSet<u32>,
}

impl Sink for Server {
    fn method(&mut self, path: &[u8]) -> Option<Method> {
        let id = PATHS.iter().position(|p| p.as_bytes() == path)? as u16;
        let kind = match id {
            BIDI => Kind::BidiStream,
            LIST => Kind::ServerStream,
            _ => Kind::Unary,
        };
        Some(Method { id, kind })
    }

    fn has_service(&mut self, _: &[u8]) -> bool {
        true
    }

    fn on_unary(&mut self, replies: &mut Replies, call: u32, method: u16, meta: &Metadata, message: &[u8]) {
        assert_eq!(meta.get("x-size"), Some(message.len().to_string().as_bytes()));
        match method {
            UNARY => assert!(replies.reply(call, |out| out.extend_from_slice(message))),
            LATER => self.later.push((call, message.to_vec())),
            FAIL => assert!(replies.reply_status(call, 9, "not today: 100 %")),
            _ => {
                for part in message.chunks(1000) {
                    replies.send_bytes(call, Bytes::copy_from_slice(part));
                }
                assert!(replies.finish(call, 0, ""));
            }
        }
    }

    fn on_open(&mut self, _: &mut Replies, call: u32, _: u16, _: &Metadata) {
        assert!(self.open.insert(call));
    }

    fn on_message(&mut self, replies: &mut Replies, call: u32, _: u16, message: &[u8]) {
        assert!(self.open.contains(&call));
        replies.send(call, |out| out.extend_from_slice(message));
    }

    fn on_half_close(&mut self, replies: &mut Replies, call: u32) {
        assert!(self.open.remove(&call));
        assert!(replies.finish(call, 0, ""));
    }

    fn on_cancelled(&mut self, _: &mut Replies, call: u32) {
        self.open.remove(&call);
    }

    fn on_plain(&mut self, replies: &mut Replies, call: u32, request: &PlainRequest<'_>) {
        replies.plain_reply(call, 200, &[("x", "y")], Bytes::copy_from_slice(request.body));
    }
}

async fn serve(mut io: DuplexStream, settings: Settings) {
    let mut server = Server::default();
    let mut c = Connection::new(settings, 0);
    let (mut buffer, mut filled) = (vec![0; 40_000], 0);
    loop {
        while let Some((call, message)) = server.later.pop() {
            c.replies().reply(call, |out| out.extend_from_slice(&message));
        }
        while !c.output().is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let n = c.output().slices(&mut slices, usize::MAX);
            let Ok(n) = io.write_vectored(&slices[..n]).await else { return };
            c.output().advance(n);
        }
        match io.read(&mut buffer[filled..]).await {
            Ok(0) | Err(_) => break,
            Ok(n) => filled += n,
        }
        let used = c.receive(0, &buffer[..filled], &mut server).expect("h2 keeps the rules");
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
    c.abandon(&mut server);
    assert!(server.open.is_empty());
}

#[derive(Clone, Debug)]
struct Call {
    method: u16,
    messages: Vec<usize>,
    /// Bytes per DATA frame handed to h2.
    chunk: usize,
    end_apart: bool,
    /// RST_STREAM after this many bytes of the answer.
    cancel_at: Option<usize>,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let size =
        prop_oneof![4 => 0..100usize, 2 => 0..5000usize, 1 => 16_000..17_000usize, 1 => 0..200_000usize];
    let call = (
        0..5u16,
        prop::collection::vec(size, 1..5),
        1..40_000usize,
        any::<bool>(),
        prop::option::weighted(0.1, 0..50_000usize),
    )
        .prop_map(|(method, mut messages, chunk, end_apart, cancel_at)| {
            if method != BIDI {
                messages.truncate(1);
            }
            Call { method, messages, chunk, end_apart, cancel_at }
        });
    prop::collection::vec(call, 1..24)
}

fn body(seed: u32, n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(31).wrapping_add(seed) >> 3) as u8).collect()
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

async fn call(client: SendRequest<Bytes>, seed: u32, call: Call) {
    let mut client = client.ready().await.unwrap();
    let bodies: Vec<Vec<u8>> = call.messages.iter().map(|n| body(seed, *n)).collect();
    let request = Request::post(format!("http://localhost{}", PATHS[usize::from(call.method)]))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-size", call.messages[0].to_string())
        .header("grpc-timeout", format!("{}m", 100_000 + seed))
        .body(())
        .unwrap();
    let (response, mut send) = client.send_request(request, false).unwrap();
    let data: Vec<u8> = bodies.iter().flat_map(|b| prefixed(b)).collect();
    let (chunk, end_apart) = (call.chunk, call.end_apart);
    let sending = async move {
        let parts = data.len().div_ceil(chunk);
        for (i, part) in data.chunks(chunk).enumerate() {
            // h2 queues what does not fit the window.
            if send.send_data(Bytes::copy_from_slice(part), !end_apart && i + 1 == parts).is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if end_apart {
            let _ = send.send_data(Bytes::new(), true);
        }
    };
    let expected: Vec<u8> = match call.method {
        FAIL => Vec::new(),
        LIST => bodies[0].chunks(1000).flat_map(prefixed).collect(),
        _ => bodies.iter().flat_map(|b| prefixed(b)).collect(),
    };
    let receiving = async move {
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let headers = response.headers().clone();
        let mut recv = response.into_body();
        let mut got = Vec::new();
        while let Some(part) = recv.data().await {
            let part = part.unwrap();
            recv.flow_control().release_capacity(part.len()).unwrap();
            got.extend_from_slice(&part);
            if call.cancel_at.is_some_and(|n| got.len() >= n) {
                assert!(expected.starts_with(&got));
                return;
            }
            tokio::task::yield_now().await;
        }
        assert!(got == expected, "call {seed}: {} bytes, expected {}", got.len(), expected.len());
        // Without a message everything is in the headers.
        let in_trailers = recv.trailers().await.unwrap();
        assert_eq!(in_trailers.is_none(), got.is_empty());
        let all = in_trailers.unwrap_or(headers);
        let expected = if call.method == FAIL { ("9", Some("not today: 100 %25")) } else { ("0", None) };
        assert_eq!(all["grpc-status"], expected.0);
        assert_eq!(all.get("grpc-message").map(|m| m.to_str().unwrap()), expected.1);
    };
    tokio::join!(sending, receiving);
}

#[derive(Clone, Debug)]
struct Setup {
    stream_window: u32,
    connection_window: u32,
    table: u32,
    pipe: usize,
    server_window: u32,
}

fn setups() -> impl Strategy<Value = Setup> {
    let window = prop_oneof![Just(65_535u32), 100..2_000u32, 1_000_000..2_000_000u32];
    let table = prop_oneof![Just(4096u32), Just(0), 100..300u32, Just(65_536)];
    (window, 65_535..500_000u32, table, prop_oneof![100..1000usize, 1000..100_000usize], 65_535..300_000u32)
        .prop_map(|(stream_window, connection_window, table, pipe, server_window)| Setup {
            stream_window,
            connection_window,
            table,
            pipe,
            server_window,
        })
}

async fn converse(setup: Setup, calls: Vec<Call>) {
    let (near, far) = tokio::io::duplex(setup.pipe);
    let settings = Settings {
        stream_window: setup.server_window,
        connection_window: setup.server_window,
        ..Settings::default()
    };
    let server = tokio::task::spawn_local(serve(far, settings));
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(setup.stream_window)
        .initial_connection_window_size(setup.connection_window)
        .header_table_size(setup.table)
        .handshake::<_, Bytes>(near)
        .await
        .unwrap();
    let connection = tokio::task::spawn_local(async move { connection.await.unwrap() });
    let mut running = JoinSet::new();
    for (i, c) in calls.into_iter().enumerate() {
        running.spawn_local(call(client.clone(), i as u32, c));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    drop(client);
    connection.await.unwrap();
    server.await.unwrap();
}

/// 60, or what `PROPTEST_CASES` says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_call_gets_its_answer(setup in setups(), calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let limit = std::time::Duration::from_secs(60);
            tokio::time::timeout(limit, converse(setup, calls)).await.expect("everything ends");
        });
    }
}
