//! Every bound of the codec in one place, with what happens when it is reached.

/// Largest frame payload that is accepted and sent. It is HTTP/2's default and is not renegotiated, so a
/// reader never has to hold more than [`READ_BUFFER_MIN_BYTES`] of unparsed input. Larger: the connection ends.
pub(crate) const FRAME_MAX_BYTES: usize = 16_384;

/// What `receive` may leave unconsumed: less than one frame. A read buffer must be at least this long.
pub const READ_BUFFER_MIN_BYTES: usize = FRAME_MAX_BYTES + 9;

/// Streams that may be open on one connection even where the setting says "no limit". More: REFUSED_STREAM.
pub const OPEN_STREAMS_MAX: u32 = 100_000;

/// One header block on the wire, CONTINUATION frames included. Larger: the connection ends, because the
/// compression state behind it is lost.
pub(crate) const HEADER_BLOCK_MAX_BYTES: usize = 256 * 1024;

/// One header list after decompression (RFC 9113 section 6.5.2 counts 32 bytes per field). Larger: RST_STREAM.
pub(crate) const HEADER_LIST_MAX_BYTES: usize = 64 * 1024;

/// The decompression table we let a client use, HTTP/2's default.
pub(crate) const HEADER_TABLE_MAX_BYTES: usize = 4096;

/// A status message after percent encoding. Longer ones are cut, so that an error can never fail to be sent.
pub(crate) const STATUS_MESSAGE_MAX_BYTES: usize = 8 * 1024;

/// Output that is moved from the streams' queues per turn. What is above stays queued, so that a small reply
/// waits for at most this much of a large one.
pub(crate) const TURN_OUTPUT_BYTES: usize = 256 * 1024;

/// Unsent output above which `receive` stops parsing (`wants_input` is false) until the socket took some of it.
/// This is what bounds the answers to PING and SETTINGS, whose cost flow control does not cover.
pub(crate) const OUTPUT_PAUSE_BYTES: usize = 1024 * 1024;

/// A message up to this size is written straight into the output even when the turn's share is used up.
pub(crate) const DIRECT_MAX_BYTES: usize = FRAME_MAX_BYTES;

/// Pieces at least this long are handed to the socket where they are instead of being copied.
pub(crate) const SHARE_MIN_BYTES: usize = 4096;

/// Spare output capacity that a connection keeps.
pub(crate) const OUTPUT_KEEP_BYTES: usize = 64 * 1024;

/// Replies made within one `receive`, above which it stops, so that requests for large answers that came together
/// take turns with other connections.
pub(crate) const TURN_REPLIES_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of replies that wait for flow control, all streams of a connection together. Above, new streams are
/// answered REFUSED_STREAM until the client has read some.
pub const QUEUED_MAX_BYTES: usize = 512 * 1024 * 1024;

/// Bytes of messages that have arrived in part, all streams of a connection together. The stream that would
/// exceed it is answered ResourceExhausted.
pub(crate) const PARTIAL_MAX_BYTES: usize = 128 * 1024 * 1024;

/// A stream that was full is reported as drained when no more than this is queued.
pub(crate) const DRAINED_BYTES: usize = 16 * 1024;

/// Calls answered before their client closed its side. The oldest above this number is reset (NO_ERROR).
pub(crate) const ENDED_MAX: usize = 128;

/// Streams reset by us whose late frames are ignored in silence, as RFC 9113 section 5.1 asks.
pub(crate) const RESET_MEMORY: usize = 256;

/// Stream entries kept for reuse after a burst.
pub(crate) const SPARE_STREAMS_MAX: usize = 1024;

/// Capacity of a stream's buffers kept for reuse.
pub(crate) const SPARE_STREAM_BYTES: usize = 4096;

/// Streams that a client may cancel young (see [`RESET_YOUNG_MS`]) or have reset by its own errors, in a burst
/// and per second. More: GOAWAY ENHANCE_YOUR_CALM. Generous, because clients with short timeouts cancel in crowds when
/// a server is slow, and a cancelled call costs us no more than an answered one.
pub(crate) const RESET_BURST: u32 = 50_000;
pub(crate) const RESET_PER_SECOND: u32 = 10_000;

/// A cancelled stream younger than this counts as a possible rapid reset.
pub(crate) const RESET_YOUNG_MS: u64 = 1_000;

/// SETTINGS frames in a burst and per second. More: GOAWAY ENHANCE_YOUR_CALM.
pub(crate) const SETTINGS_BURST: u32 = 100;
pub(crate) const SETTINGS_PER_SECOND: u32 = 10;

/// Frames that move nothing on (empty DATA and CONTINUATION, PRIORITY, PING acknowledgements, unknown types, frames for
/// closed streams, window updates that allow only crumbs), in a burst and per second. More: ENHANCE_YOUR_CALM.
pub(crate) const IDLE_FRAME_BURST: u32 = 50_000;
pub(crate) const IDLE_FRAME_PER_SECOND: u32 = 10_000;

/// A DATA frame cut shorter than this by the client's window counts as one that moves nothing on.
pub(crate) const CRUMB_BYTES: usize = 64;

/// Pings against the keepalive policy that are forgiven, as grpc-go does.
pub(crate) const PING_STRIKES_MAX: u32 = 2;

/// Pings without open streams must be this far apart unless the policy permits them.
pub(crate) const PING_IDLE_MS: u64 = 2 * 60 * 60 * 1000;

/// Preface and first SETTINGS must arrive within this time, as in grpc-go.
pub(crate) const HANDSHAKE_MS: u64 = 120_000;

/// How long the client's acknowledgement of a graceful GOAWAY is waited for.
pub(crate) const DRAIN_WAIT_MS: u64 = 5_000;

/// With more than [`DEADLINE_FINE_STREAMS`] open, deadlines are looked through at most this often.
pub(crate) const DEADLINE_STEP_MS: u64 = 10;
pub(crate) const DEADLINE_FINE_STREAMS: usize = 1_000;

/// HTTP/2's largest flow-control window.
pub(crate) const WINDOW_MAX: i64 = 0x7fff_ffff;

/// Body of a plain HTTP request. Larger: 413.
pub const PLAIN_BODY_MAX_BYTES: usize = 4 * 1024 * 1024;

const _: () = assert!(DIRECT_MAX_BYTES <= TURN_OUTPUT_BYTES);
const _: () = assert!(TURN_OUTPUT_BYTES < OUTPUT_PAUSE_BYTES);
const _: () = assert!(STATUS_MESSAGE_MAX_BYTES + 1024 < FRAME_MAX_BYTES);
const _: () = assert!(HEADER_TABLE_MAX_BYTES * 2 < u16::MAX as usize);
