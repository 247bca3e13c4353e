//! What answers are compared by: statuses, differences, and short forms of keys and values.

use std::fmt::{self, Debug};

use api::ErrorCode;
use api::error::Code;
use api::etcdserverpb::response_op::Response;
use api::etcdserverpb::{
    DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse, WatchResponse,
};
use api::mvccpb::event::EventType;
use api::mvccpb::{Event, KeyValue};

/// How a case ended: with the first difference, or without.
pub type Outcome = Result<(), Difference>;

/// What was expected and what came instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference(pub String);

impl Difference {
    /// A difference in words.
    pub fn new(text: impl Into<String>) -> Difference {
        Difference(text.into())
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A gRPC status other than OK, or the OK at the end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text, exactly.
    pub message: String,
}

impl Status {
    /// A status by code and text.
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status { code, message: message.into() }
    }

    /// The regular end of a stream.
    #[must_use]
    pub fn ok() -> Status {
        Status::new(Code::Ok, "")
    }
}

impl From<ErrorCode> for Status {
    fn from(error: ErrorCode) -> Status {
        Status::new(error.grpc(), error.message())
    }
}

impl From<tonic::Status> for Status {
    fn from(status: tonic::Status) -> Status {
        Status::new(Code::of(i32::from(status.code())), status.message())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.code.name(), self.message)
    }
}

/// Longest text of a value in a report.
const SHOWN_MAX: usize = 400;

fn shown(value: &dyn Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{}... ({} bytes)", &text[..cut], text.len()),
        None => text,
    }
}

/// Compares; `what` names the thing in the report.
///
/// # Errors
/// When the two are not equal.
#[allow(clippy::needless_pass_by_value, reason = "cases read better without references")]
pub fn same<G: Debug + PartialEq<E>, E: Debug>(what: &str, got: G, expected: E) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(Difference(format!("{what}: expected {}, got {}", shown(&expected), shown(&got))))
}

/// A condition; `what` says what should hold, `got` what there is.
///
/// # Errors
/// When it does not hold.
pub fn holds(what: &str, condition: bool, got: impl Debug) -> Outcome {
    if condition { Ok(()) } else { Err(Difference(format!("{what}: got {}", shown(&got)))) }
}

/// Bytes as text, with escapes for what is not printable.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The keys.
#[must_use]
pub fn keys(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| text(&kv.key)).collect()
}

/// The values.
#[must_use]
pub fn values(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| text(&kv.value)).collect()
}

/// `key=value`, then create revision, modification revision, version, lease.
#[must_use]
pub fn kv(kv: &KeyValue) -> (String, i64, i64, i64, i64) {
    (
        format!("{}={}", text(&kv.key), text(&kv.value)),
        kv.create_revision,
        kv.mod_revision,
        kv.version,
        kv.lease,
    )
}

/// The revision of a header; -1 where there is no header at all.
#[must_use]
pub fn rev(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().map_or(-1, |header| header.revision)
}

/// What kind of an answer a transaction gave at a place, and `None` where there is none.
fn op(answer: &TxnResponse, at: usize) -> Option<&Response> {
    answer.responses.get(at).and_then(|op| op.response.as_ref())
}

macro_rules! arms {
    ($($(#[$doc:meta])* $name:ident = $arm:ident($message:ident);)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When there is another answer at this place, or none.
        pub fn $name(answer: &TxnResponse, at: usize) -> Result<&$message, Difference> {
            match op(answer, at) {
                Some(Response::$arm(message)) => Ok(message),
                other => Err(Difference(format!("answer {at}: expected {}, got {other:?}", stringify!($arm)))),
            }
        }
    )*};
}

arms! {
    /// The range at a place of a transaction's answers.
    range_at = ResponseRange(RangeResponse);
    /// The put at a place of a transaction's answers.
    put_at = ResponsePut(PutResponse);
    /// The deletion at a place of a transaction's answers.
    deleted_at = ResponseDeleteRange(DeleteRangeResponse);
    /// The transaction at a place of a transaction's answers.
    txn_at = ResponseTxn(TxnResponse);
}

/// The header of an answer inside a transaction: a revision and nothing else.
#[must_use]
pub fn inner(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..Default::default() })
}

/// `PUT key` or `DELETE key` for every event.
#[must_use]
pub fn events(answer: &WatchResponse) -> Vec<String> {
    let name = |event: &Event| {
        let kind = EventType::try_from(event.r#type).map_or("?", |kind| kind.as_str_name());
        format!("{kind} {}", event.kv.as_ref().map_or_else(String::new, |kv| text(&kv.key)))
    };
    answer.events.iter().map(name).collect()
}
