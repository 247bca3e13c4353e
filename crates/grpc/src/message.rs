//! gRPC on top of HTTP/2: status codes and their percent-encoded messages, `grpc-timeout`, the five-byte prefix, gzip.

use std::io::{self, Read, Write};

use crate::limits::STATUS_MESSAGE_MAX_BYTES;

/// Status codes of gRPC that the codec itself answers with, and OK.
pub mod code {
    /// Success.
    pub const OK: i32 = 0;
    /// The call was cancelled.
    pub const CANCELED: i32 = 1;
    /// No better code is known.
    pub const UNKNOWN: i32 = 2;
    /// The request makes no sense.
    pub const INVALID_ARGUMENT: i32 = 3;
    /// `grpc-timeout` passed.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// A limit was reached.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// No such method.
    pub const UNIMPLEMENTED: i32 = 12;
    /// gRPC's framing was broken.
    pub const INTERNAL: i32 = 13;
    /// The server cannot answer now.
    pub const UNAVAILABLE: i32 = 14;
}

/// Compressed flag and length before each message.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Appends a status message in the percent encoding of `grpc-message`, cut at the limit between characters.
pub(crate) fn percent_encode(out: &mut Vec<u8>, message: &str) {
    let start = out.len();
    for c in message.chars() {
        let before = out.len();
        if matches!(c, ' '..='~') && c != '%' {
            out.push(c as u8);
        } else {
            for b in c.encode_utf8(&mut [0; 4]).bytes() {
                out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            }
        }
        if out.len() - start > STATUS_MESSAGE_MAX_BYTES {
            out.truncate(before);
            return;
        }
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// A `grpc-timeout` in milliseconds, rounded up; the error is grpc-go's text.
pub(crate) fn timeout_ms(value: &[u8]) -> Result<u64, String> {
    let quoted = || go_quote(value);
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {}", quoted()));
    }
    if value.len() > 9 {
        return Err(format!("transport: timeout string is too long: {}", quoted()));
    }
    let (digits, unit) = value.split_at(value.len() - 1);
    let nanos: u64 = match unit[0] {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return Err(format!("transport: timeout unit is not recognized: {}", quoted())),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(format!("strconv.ParseUint: parsing {}: invalid syntax", go_quote(digits)));
    }
    let count = digits.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
    Ok(match nanos {
        1_000_000.. => count.saturating_mul(nanos / 1_000_000),
        _ => count.saturating_mul(nanos).div_ceil(1_000_000),
    })
}

/// A string as Go's `%q` prints it (for the bytes that reach the texts it is used in).
pub(crate) fn go_quote(s: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in s.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\t' => out.push_str("\\t"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    out.push('"');
    out
}

/// Why a compressed message could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GunzipError {
    TooLarge,
    Broken(String),
}

/// Decompresses a message of at most `max` bytes.
pub(crate) fn gunzip(data: &[u8], max: usize) -> Result<Vec<u8>, GunzipError> {
    let mut out = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(data);
    let result = (&mut decoder).take(max as u64 + 1).read_to_end(&mut out);
    if let Err(e) = result {
        let why = match e.kind() {
            io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            io::ErrorKind::InvalidInput if decoder.header().is_none() => "gzip: invalid header".to_owned(),
            _ => e.to_string(),
        };
        let what =
            if decoder.header().is_none() { "decompress the message" } else { "read decompressed data" };
        return Err(GunzipError::Broken(format!("grpc: failed to {what}: {why}")));
    }
    if out.len() > max { Err(GunzipError::TooLarge) } else { Ok(out) }
}

/// Where the value of a `-bin` field stops being base64, as Go's decoder counts; `None` if it is fine. Padding is
/// optional.
pub(crate) fn bad_base64(value: &[u8]) -> Option<usize> {
    let digits = match value {
        [head @ .., b'=', b'='] | [head @ .., b'='] if value.len().is_multiple_of(4) => head,
        all => all,
    };
    let digit = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    match digits.iter().position(|b| !digit(b)) {
        None if digits.len() % 4 == 1 => Some(digits.len()),
        found => found,
    }
}

/// Compresses a message.
pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_percent_encoded() {
        let enc = |s: &str| {
            let mut out = Vec::new();
            percent_encode(&mut out, s);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(enc("etcdserver: key is not provided"), "etcdserver: key is not provided");
        assert_eq!(enc("100% \n~\u{7f}é"), "100%25 %0A~%7F%C3%A9");
        assert_eq!(enc(&"é".repeat(10_000)).len(), STATUS_MESSAGE_MAX_BYTES / 6 * 6);
    }

    #[test]
    fn timeouts() {
        assert_eq!(timeout_ms(b"5S"), Ok(5000));
        assert_eq!(timeout_ms(b"4999876u"), Ok(5000));
        assert_eq!(timeout_ms(b"1n"), Ok(1));
        assert_eq!(timeout_ms(b"0m"), Ok(0));
        assert_eq!(timeout_ms(b"99999999H"), Ok(99_999_999 * 3_600_000));
        assert_eq!(timeout_ms(b"S"), Err("transport: timeout string is too short: \"S\"".into()));
        assert_eq!(
            timeout_ms(b"123456789m"),
            Err("transport: timeout string is too long: \"123456789m\"".into())
        );
        assert_eq!(timeout_ms(b"5x"), Err("transport: timeout unit is not recognized: \"5x\"".into()));
        assert_eq!(timeout_ms(b"-5m"), Err("strconv.ParseUint: parsing \"-5\": invalid syntax".into()));
    }

    #[test]
    fn gzip_round_trip_and_bomb() {
        let data = vec![7; 100_000];
        let packed = gzip(&data);
        assert!(packed.len() < 1000);
        assert_eq!(gunzip(&packed, 100_000), Ok(data));
        assert_eq!(gunzip(&packed, 99_999), Err(GunzipError::TooLarge));
        let broken = |data: &[u8]| match gunzip(data, 10) {
            Err(GunzipError::Broken(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(broken(b"abc"), "grpc: failed to decompress the message: unexpected EOF");
        assert_eq!(broken(&packed[..14]), "grpc: failed to read decompressed data: unexpected EOF");
        assert_eq!(
            broken(b"nonsense and more"),
            "grpc: failed to decompress the message: gzip: invalid header"
        );
    }

    #[test]
    fn base64_of_binary_fields() {
        for fine in ["", "YQ==", "YQ", "YWI=", "YWI", "YWJj", "+/+/"] {
            assert_eq!(bad_base64(fine.as_bytes()), None, "{fine}");
        }
        for (bad, at) in [("%%%", 0), ("YW*j", 2), ("YWJjY", 5), ("YQ=", 2)] {
            assert_eq!(bad_base64(bad.as_bytes()), Some(at), "{bad}");
        }
    }

    #[test]
    fn quotes_as_go() {
        assert_eq!(go_quote(b"a\"b\\\n\x01\xff"), "\"a\\\"b\\\\\\n\\x01\\xff\"");
    }
}
