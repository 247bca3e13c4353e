//! What a new connection speaks.

use crate::net::io::{Socket, Stream};

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    GrpcAndHttp,
    GrpcOnly,
    HttpOnly,
}

/// What a client wants to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    Http1,
    Http2,
}

/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// Longest first line of HTTP/1 that is waited for.
const FIRST_LINE_MAX: usize = 4096;

/// Whether the first line is a request of HTTP/1; `None` before its end. Nobody else is answered, as in Go: a client
/// of HTTP/2 would take the answer for a frame.
fn is_http1(first: &[u8]) -> Option<bool> {
    let Some(end) = first.iter().position(|byte| *byte == b'\n') else {
        return (first.len() > FIRST_LINE_MAX).then_some(false);
    };
    let line = first[..end].strip_suffix(b"\r").unwrap_or(&first[..end]);
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    Some(words.len() > 2 && words.last().is_some_and(|version| [&b"HTTP/1.0"[..], b"HTTP/1.1"].contains(version)))
}

/// Reads until the protocol is known; `first` was read already.
pub(crate) async fn first_bytes(stream: &Stream, serves: Serves, first: Vec<u8>) -> Option<(Greeting, Vec<u8>)> {
    // Both sides have agreed on it.
    if stream.is_http2() {
        return Some((Greeting::Http2, first));
    }
    // Through TLS nobody speaks HTTP/2 without having agreed on it, as in etcd.
    let http2_in_clear = !stream.is_secure() && serves != Serves::HttpOnly;
    let mut first = first;
    let mut chunk = [0; 4096];
    loop {
        if !first.is_empty() {
            match grpc::preface(&first) {
                grpc::Preface::Incomplete => {}
                grpc::Preface::Http2 => return http2_in_clear.then_some((Greeting::Http2, first)),
                grpc::Preface::Other if serves == Serves::GrpcOnly => return None,
                grpc::Preface::Other => match is_http1(&first) {
                    Some(true) => return Some((Greeting::Http1, first)),
                    Some(false) => return None,
                    None => {}
                },
            }
        }
        stream.ready(true, false).await.ok()?;
        match stream.read(&mut chunk) {
            Ok(Some(0)) | Err(_) => return None,
            Ok(Some(read)) => first.extend_from_slice(&chunk[..read]),
            Ok(None) => {}
        }
    }
}

/// Reads the first bytes of a connection, and says whether they begin a TLS handshake; `None` when none come.
pub(crate) async fn is_tls(socket: &Socket, received: &mut Vec<u8>) -> Option<bool> {
    let mut chunk = [0; 1024];
    loop {
        socket.ready(true, false).await.ok()?;
        match socket.read(&mut chunk) {
            Ok(Some(0)) | Err(_) => return None,
            Ok(Some(read)) => {
                received.extend_from_slice(&chunk[..read]);
                return Some(chunk[0] == TLS_HANDSHAKE);
            }
            Ok(None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_http1;

    #[test]
    fn only_a_request_line_is_http1() {
        assert_eq!(is_http1(b"GET /health HT"), None);
        assert_eq!(is_http1(b"GET /health HTTP/1.1\r\nHost: "), Some(true));
        assert_eq!(is_http1(b"POST /a b HTTP/1.0\n"), Some(true));
        assert_eq!(is_http1(b"INVALID CONNECTION PREFACE\r\n\r\n"), Some(false));
        assert_eq!(is_http1(b"GET /\r\n"), Some(false));
        assert_eq!(is_http1(b"\x16\x03\x01\n"), Some(false));
        assert_eq!(is_http1(&[b'a'; 5000]), Some(false));
    }
}
