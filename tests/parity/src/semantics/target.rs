//! A running member and a connection to it: what a case talks to.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use api::ErrorCode;
use api::etcdserverpb::RangeResponse;
use bytes::{Buf, BufMut, Bytes};
use client::{Rpc, StreamRpc};
use harness::{Binaries, Member, Options};
use tempfile::TempDir;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::answer::{Difference, Outcome, Status, rev};
use super::request::everything;
use super::stream::Stream;

/// How long an answer may take.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Members that start at the same time: a start costs a second of a core.
const STARTING_MAX: usize = 2;

/// Which server a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Go etcd 3.7.3.
    Go,
    /// Ours.
    Ours,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Go => "go",
            Side::Ours => "ours",
        })
    }
}

/// Metadata of a call; values are bytes, for they may be wrong on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metadata<'a>(pub &'a [(&'static str, &'a [u8])]);

impl Metadata<'_> {
    pub(crate) fn add_to(&self, map: &mut MetadataMap) {
        for (key, value) in self.0 {
            let value = AsciiMetadataValue::try_from(*value).expect("a header can carry the value");
            map.append(AsciiMetadataKey::from_static(key), value);
        }
    }
}

/// tonic's client without limits of its own.
pub(crate) fn grpc(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
}

/// Lets a few members start at a time.
struct Gate {
    starting: Mutex<usize>,
    changed: Condvar,
}

static GATE: Gate = Gate { starting: Mutex::new(0), changed: Condvar::new() };

impl Gate {
    fn pass<T>(&self, start: impl FnOnce() -> T) -> T {
        let mut starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        while *starting >= STARTING_MAX {
            starting = self.changed.wait(starting).unwrap_or_else(PoisonError::into_inner);
        }
        *starting += 1;
        drop(starting);
        let started = start();
        *self.starting.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.changed.notify_one();
        started
    }
}

/// A member and a connection to it.
pub struct Target {
    side: Side,
    binaries: Arc<Binaries>,
    member: RefCell<Member>,
    channel: RefCell<Channel>,
    scratch: TempDir,
}

impl Target {
    /// Starts a fresh member with these flags beside the harness's own, and connects to it.
    pub async fn start(side: Side, binaries: &Arc<Binaries>, flags: &[String]) -> Target {
        let scratch = tempfile::tempdir().expect("scratch is writable");
        let options = Options { flags: flags.to_vec(), ..Options::default() };
        let member = GATE.pass(|| Member::start(binaries, &scratch.path().join("member"), options));
        let channel = connect(&member.client_url()).await;
        Target {
            side,
            binaries: Arc::clone(binaries),
            member: RefCell::new(member),
            channel: RefCell::new(channel),
            scratch,
        }
    }

    /// Starts one more fresh member of the same release, with flags of its own.
    pub async fn another(&self, flags: &[&str]) -> Target {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        Target::start(self.side, &self.binaries, &flags).await
    }

    /// Which server this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.scratch.path().join("member")
    }

    /// Looks at the member, or sends it a signal.
    pub fn member<T>(&self, look: impl FnOnce(&mut Member) -> T) -> T {
        look(&mut self.member.borrow_mut())
    }

    /// `kill -9`, another start on the same directory, and a new connection.
    pub async fn kill_and_start(&self) {
        self.restart(Member::kill, Member::start_again).await;
    }

    /// The same for a member with alarms, which serves but is not healthy.
    pub async fn kill_and_start_with_alarms(&self) {
        self.restart(Member::kill, Member::start_again_with_alarms).await;
    }

    /// SIGTERM, another start on the same directory, and a new connection.
    pub async fn stop_and_start(&self) {
        let stop = |member: &mut Member| {
            member.stop();
        };
        self.restart(stop, Member::start_again).await;
    }

    async fn restart(&self, end: impl FnOnce(&mut Member), start: impl FnOnce(&mut Member)) {
        let url = self.member(|member| {
            end(member);
            GATE.pass(|| start(member));
            member.client_url()
        });
        self.channel.replace(connect(&url).await);
    }

    /// A connection of its own: another client.
    pub async fn connection(&self) -> Channel {
        let url = self.member(|member| member.client_url());
        connect(&url).await
    }

    fn channel(&self) -> Channel {
        self.channel.borrow().clone()
    }

    /// A call with one answer.
    ///
    /// # Errors
    /// The status, when it is not OK.
    pub async fn ask<R: Rpc>(&self, request: R) -> Result<R::Response, Status> {
        self.ask_with(request, &[]).await
    }

    /// A call with metadata.
    ///
    /// # Errors
    /// The status, when it is not OK.
    pub async fn ask_with<R: Rpc>(
        &self,
        request: R,
        metadata: &[(&'static str, &[u8])],
    ) -> Result<R::Response, Status> {
        unary(self.channel(), R::METHOD.path(), request, Metadata(metadata), ProstCodec::default()).await
    }

    /// The answer of a call that must work.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ok<R: Rpc>(&self, request: R) -> Result<R::Response, Difference> {
        let shown = format!("{request:?}");
        self.ask(request)
            .await
            .map_err(|status| Difference(format!("{}: expected OK, got {status}", brief(&shown))))
    }

    /// A call that must be refused with this error, code and text.
    ///
    /// # Errors
    /// When it works or is refused otherwise.
    pub async fn refused<R: Rpc>(&self, request: R, error: ErrorCode) -> Outcome {
        self.fails(request, &error.into()).await
    }

    /// A call that must end with this status.
    ///
    /// # Errors
    /// When it does not.
    pub async fn fails<R: Rpc>(&self, request: R, expected: &Status) -> Outcome {
        let shown = format!("{request:?}");
        match self.ask(request).await {
            Err(status) if status == *expected => Ok(()),
            Err(status) => Err(Difference(format!("{}: expected {expected}, got {status}", brief(&shown)))),
            Ok(answer) => {
                let answer = format!("{answer:?}");
                Err(Difference(format!("{}: expected {expected}, got {}", brief(&shown), brief(&answer))))
            }
        }
    }

    /// A call of any path with any bytes as its message, and the bytes of the answer.
    ///
    /// # Errors
    /// The status, when it is not OK.
    pub async fn raw(
        &self,
        path: &'static str,
        message: Bytes,
        metadata: &[(&'static str, &[u8])],
    ) -> Result<Bytes, Status> {
        unary(self.channel(), path, message, Metadata(metadata), RawCodec).await
    }

    /// Opens a streaming call.
    #[must_use]
    pub fn open<R: StreamRpc>(&self) -> Stream<R> {
        self.open_with(&[])
    }

    /// Opens a streaming call with metadata.
    #[must_use]
    pub fn open_with<R: StreamRpc>(&self, metadata: &[(&'static str, &[u8])]) -> Stream<R> {
        Stream::open(self.channel(), &Metadata(metadata))
    }

    /// A call with a stream of answers: all of them, and how the stream ended.
    ///
    /// # Errors
    /// When the stream falls silent.
    pub async fn all<R: StreamRpc>(&self, request: R) -> Result<(Vec<R::Response>, Status), Difference> {
        let mut stream = self.open::<R>();
        stream.send(request);
        stream.half_close();
        stream.rest().await
    }

    /// The store's revision.
    ///
    /// # Errors
    /// When the member does not answer.
    pub async fn revision(&self) -> Result<i64, Difference> {
        let answer: RangeResponse = self.ok(super::request::range("\0nothing")).await?;
        Ok(rev(&answer.header))
    }

    /// Every key there is, with its value.
    ///
    /// # Errors
    /// When the member does not answer.
    pub async fn everything(&self) -> Result<RangeResponse, Difference> {
        self.ok(everything()).await
    }

    /// Waits.
    pub async fn sleep(&self, during: Duration) {
        tokio::time::sleep(during).await;
    }
}

/// Connects to a member that serves.
///
/// Panics when it does not.
pub async fn connect(url: &str) -> Channel {
    Endpoint::from_shared(url.to_string())
        .expect("the harness makes good URLs")
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20))
        .connect()
        .await
        .unwrap_or_else(|error| panic!("{url}: {error:?}"))
}

/// One call on a connection, for cases that need a second one.
///
/// # Errors
/// The status, when it is not OK.
pub async fn ask_on<R: Rpc>(channel: &Channel, request: R) -> Result<R::Response, Status> {
    ask_on_with(channel, request, Metadata(&[])).await
}

/// The same with metadata.
///
/// # Errors
/// The status, when it is not OK.
pub async fn ask_on_with<R: Rpc>(
    channel: &Channel,
    request: R,
    metadata: Metadata<'_>,
) -> Result<R::Response, Status> {
    unary(channel.clone(), R::METHOD.path(), request, metadata, ProstCodec::default()).await
}

async fn unary<Q, A, C>(
    channel: Channel,
    path: &'static str,
    message: Q,
    metadata: Metadata<'_>,
    codec: C,
) -> Result<A, Status>
where
    Q: Send + Sync + 'static,
    A: Send + Sync + 'static,
    C: Codec<Encode = Q, Decode = A>,
{
    let mut request = Request::new(message);
    metadata.add_to(request.metadata_mut());
    let call = async move {
        let mut grpc = grpc(channel);
        grpc.ready().await.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
        grpc.unary(request, PathAndQuery::from_static(path), codec).await
    };
    match tokio::time::timeout(ANSWER_LIMIT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(status.into()),
        Err(_) => Err(Status::new(api::error::Code::Unknown, format!("no answer in {ANSWER_LIMIT:?}"))),
    }
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_string(),
    }
}

/// Messages as they are.
struct RawCodec;

struct RawCoder;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = RawCoder;
    type Decoder = RawCoder;

    fn encoder(&mut self) -> RawCoder {
        RawCoder
    }

    fn decoder(&mut self) -> RawCoder {
        RawCoder
    }
}

impl Encoder for RawCoder {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCoder {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
