//! The head of a request: what its fields say, and which rules they break.

use crate::hpack::decode::Field;
use crate::hpack::name::Name;
use crate::limits::HEADER_LIST_MAX_BYTES;
use crate::message;
use crate::metadata::Metadata;
use crate::sink::Method;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Missing,
    Grpc,
    /// `application/grpc+proto` or with parameters.
    GrpcSubtype,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Unknown,
}

const METHOD: u8 = 1;
const PATH: u8 = 2;
const SCHEME: u8 = 4;

/// Everything the codec itself needs of a header list. The fields go to the metadata as well.
pub(crate) struct RequestHead {
    /// RFC 9113 section 8.1.1: answered with PROTOCOL_ERROR, whoever it is for.
    pub(crate) malformed: bool,
    pub(crate) too_large: bool,
    pub(crate) content: Content,
    pub(crate) encoding: Encoding,
    pub(crate) post: bool,
    pub(crate) connect: bool,
    /// `None`: there was no path.
    pub(crate) route: Option<Method>,
    pub(crate) timeout: Option<Result<u64, String>>,
    /// grpc-go's text for a `-bin` field that is not base64.
    pub(crate) bad_binary: Option<String>,
    pub(crate) content_length: Option<u64>,
    pub(crate) authorities: u32,
    pub(crate) hosts: u32,
    size: usize,
    seen: u8,
    regular_seen: bool,
}

impl RequestHead {
    pub(crate) fn new() -> RequestHead {
        RequestHead {
            malformed: false,
            too_large: false,
            content: Content::Missing,
            encoding: Encoding::Identity,
            post: false,
            connect: false,
            route: None,
            timeout: None,
            bad_binary: None,
            content_length: None,
            authorities: 0,
            hosts: 0,
            size: 0,
            seen: 0,
            regular_seen: false,
        }
    }

    /// Takes one field. `resolve` looks a path up; what it says is remembered with the table entry.
    #[inline]
    pub(crate) fn field(
        &mut self,
        f: &mut Field<'_>,
        meta: &mut Metadata,
        resolve: &mut impl FnMut(&[u8]) -> Option<Method>,
    ) {
        self.size += f.name_bytes.len() + f.value.len() + 32;
        if self.size > HEADER_LIST_MAX_BYTES {
            self.too_large = true;
            return;
        }
        match f.name {
            Name::Method => {
                self.pseudo(METHOD);
                self.post = f.value == b"POST";
                self.connect = f.value == b"CONNECT";
            }
            Name::Path => {
                self.pseudo(PATH);
                self.malformed |= f.value.is_empty();
                let found = Method::from_memo(*f.memo).unwrap_or_else(|| resolve(f.value));
                *f.memo = Method::to_memo(found);
                self.route = found;
            }
            Name::Scheme => return self.pseudo(SCHEME),
            Name::Authority => {
                self.malformed |= self.regular_seen;
                self.authorities += 1;
            }
            Name::BadPseudo | Name::Connection | Name::Invalid => self.malformed = true,
            _ => self.regular(f),
        }
        meta.push(f.name, f.name_bytes, f.value);
    }

    fn regular(&mut self, f: &Field<'_>) {
        self.regular_seen = true;
        match f.name {
            Name::ContentType => self.content = content(f.value),
            Name::ContentLength => match parse_length(f.value) {
                Some(n) if self.content_length.is_none_or(|before| before == n) => {
                    self.content_length = Some(n);
                }
                _ => self.malformed = true,
            },
            Name::Te => self.malformed |= f.value != b"trailers",
            Name::Host => self.hosts += 1,
            Name::GrpcTimeout => self.timeout = Some(message::timeout_ms(f.value)),
            Name::GrpcEncoding => {
                self.encoding = match f.value {
                    b"" | b"identity" => Encoding::Identity,
                    b"gzip" => Encoding::Gzip,
                    _ => Encoding::Unknown,
                }
            }
            Name::Other if f.name_bytes.ends_with(b"-bin") => {
                if let Some(at) = message::bad_base64(f.value) {
                    let (value, name) = (message::go_quote(f.value), message::go_quote(f.name_bytes));
                    self.bad_binary = Some(format!(
                        "malformed binary metadata {value} in header {name}: illegal base64 data at input byte {at}"
                    ));
                }
            }
            _ => {}
        }
    }

    fn pseudo(&mut self, bit: u8) {
        self.malformed |= self.regular_seen || self.seen & bit != 0;
        self.seen |= bit;
    }

    /// After the last field: what is missing.
    pub(crate) fn end(&mut self) {
        self.malformed |=
            if self.connect { self.seen != METHOD } else { self.seen != METHOD | PATH | SCHEME };
    }

    pub(crate) fn is_grpc(&self) -> bool {
        matches!(self.content, Content::Grpc | Content::GrpcSubtype)
    }
}

/// A subtype or parameters follow the type, after one character.
const GRPC: &[u8] = b"application/grpc";

fn content(value: &[u8]) -> Content {
    match value.strip_prefix(GRPC) {
        Some([]) => Content::Grpc,
        Some([b'+' | b';', ..]) => Content::GrpcSubtype,
        _ => Content::Other,
    }
}

/// What follows `application/grpc+`.
pub(crate) fn subtype(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(GRPC)?.get(1..).filter(|s| !s.is_empty())
}

fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
}
