//! One request of HTTP/1.1 written out by hand, and its answer taken apart: what a comparison of servers needs to see.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code; 0 when the connection ended without an answer.
    pub status: u16,
    /// Header fields in their order, names as sent.
    pub headers: Vec<(String, String)>,
    /// The body, put together again if it came in chunks.
    pub body: String,
}

impl Answer {
    /// The value of a header field, in whatever case its name is.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A request to a port of loopback; `headers` are whole lines without their end.
pub fn request(port: u16, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        head.push_str(&format!("Host: 127.0.0.1:{port}\r\n"));
    }
    for line in headers {
        head.push_str(line);
        head.push_str("\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time can be set");
        // A server may answer and close before it has read everything.
        let _refused = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut buffer = [0; 16 << 10];
        // Go may leave a connection open for seconds after the end of an answer.
        while !is_whole(&answer, method) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => answer.extend_from_slice(&buffer[..read]),
            }
        }
    }
    take_apart(&answer)
}

/// Whether nothing more can belong to the answer.
fn is_whole(answer: &[u8], method: &str) -> bool {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let head = take_apart(&answer[..end + 4]);
    if method == "HEAD" || head.status == 204 {
        return true;
    }
    match head.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => answer.len() >= end + 4 + length,
        None => answer.ends_with(b"\r\n0\r\n\r\n"),
    }
}

fn take_apart(answer: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Answer { status: 0, headers: Vec::new(), body: text.into_owned() };
    };
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked");
    let body = if chunked { join(body) } else { body.to_string() };
    Answer { status, headers, body }
}

fn join(mut chunks: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let Some(part) = rest.get(..size).filter(|_| size > 0) else { break };
        body.push_str(part);
        chunks = rest.get(size + 2..).unwrap_or_default();
    }
    body
}

/// The port in `http://127.0.0.1:PORT`.
pub fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port")
}
