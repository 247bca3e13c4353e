//! Bytes for the socket: one growing buffer, with shared pieces between its bytes.
//!
//! Invariants:
//! - `shared` is sorted by position; a piece at position `p` goes out before `buf[p]`.
//! - No position is below `head`, the first unsent byte of `buf`.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::limits::{OUTPUT_KEEP_BYTES, SHARE_MIN_BYTES};

/// Output waiting for the socket. It is a [`bytes::Buf`], so `write_vectored(chunks)` and `advance(n)` drain it.
#[derive(Debug, Default)]
pub struct OutBuf {
    buf: Vec<u8>,
    head: usize,
    shared: VecDeque<(usize, Bytes)>,
    shared_bytes: usize,
}

impl OutBuf {
    /// Bytes not yet sent.
    pub fn len(&self) -> usize {
        self.buf.len() - self.head + self.shared_bytes
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `to` with what to send next, at most `max` bytes, for a vectored write; returns how many slices were
    /// filled.
    pub fn slices<'a>(&'a self, to: &mut [IoSlice<'a>], max: usize) -> usize {
        let (mut at, mut left, mut n) = (self.head, max, 0);
        let shared = self.shared.iter().flat_map(|(pos, piece)| {
            let own = &self.buf[std::mem::replace(&mut at, *pos)..*pos];
            [own, piece.as_ref()]
        });
        let last = self.shared.back().map_or(self.head, |(pos, _)| *pos);
        for piece in shared.chain([&self.buf[last..]]) {
            if left == 0 || n == to.len() {
                break;
            }
            if !piece.is_empty() {
                let piece = &piece[..piece.len().min(left)];
                to[n] = IoSlice::new(piece);
                left -= piece.len();
                n += 1;
            }
        }
        n
    }

    /// Takes everything as one contiguous vector, for tests and for transports without vectored writes.
    pub fn take_all(&mut self) -> Vec<u8> {
        let all = if self.shared.is_empty() && self.head == 0 {
            std::mem::take(&mut self.buf)
        } else {
            let mut all = Vec::with_capacity(self.len());
            while self.has_remaining() {
                let chunk = self.chunk();
                all.extend_from_slice(chunk);
                let n = chunk.len();
                self.advance(n);
            }
            all
        };
        self.reset();
        all
    }

    /// Frees memory kept for reuse. For connections that have been idle for a while.
    pub fn release_spare(&mut self) {
        if self.is_empty() {
            *self = OutBuf::default();
        }
    }

    /// The buffer to append small things to.
    #[inline]
    pub(crate) fn buf(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Appends a piece, by reference if it is long enough for that to pay.
    pub(crate) fn push(&mut self, piece: Bytes) {
        if piece.len() < SHARE_MIN_BYTES {
            self.buf.extend_from_slice(&piece);
        } else {
            self.shared_bytes += piece.len();
            self.shared.push_back((self.buf.len(), piece));
        }
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        self.buf.capacity() + self.shared.capacity() * size_of::<(usize, Bytes)>() + self.shared_bytes
    }

    fn reset(&mut self) {
        self.head = 0;
        self.buf.clear();
        if self.buf.capacity() > OUTPUT_KEEP_BYTES {
            self.buf = Vec::new();
        }
        if self.shared.capacity() > 1024 {
            self.shared = VecDeque::new();
        }
    }
}

impl Buf for OutBuf {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        match self.shared.front() {
            Some((pos, piece)) if *pos == self.head => piece,
            Some((pos, _)) => &self.buf[self.head..*pos],
            None => &self.buf[self.head..],
        }
    }

    fn chunks_vectored<'a>(&'a self, dst: &mut [IoSlice<'a>]) -> usize {
        self.slices(dst, usize::MAX)
    }

    fn advance(&mut self, mut n: usize) {
        assert!(n <= self.len(), "advance beyond the output");
        while n > 0 {
            let boundary = self.shared.front().map_or(self.buf.len(), |(pos, _)| *pos);
            if self.head < boundary {
                let step = n.min(boundary - self.head);
                self.head += step;
                n -= step;
                continue;
            }
            let (_, piece) = self.shared.front_mut().expect("length was checked");
            let step = n.min(piece.len());
            piece.advance(step);
            self.shared_bytes -= step;
            n -= step;
            if piece.is_empty() {
                self.shared.pop_front();
            }
        }
        if self.is_empty() {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (OutBuf, Vec<u8>) {
        let mut out = OutBuf::default();
        let mut all = Vec::new();
        for i in 0..6u8 {
            out.buf().extend_from_slice(&[i; 3]);
            all.extend_from_slice(&[i; 3]);
            let piece = vec![100 + i; if i % 2 == 0 { SHARE_MIN_BYTES } else { 10 }];
            all.extend_from_slice(&piece);
            out.push(piece.into());
        }
        (out, all)
    }

    #[test]
    fn pieces_go_out_in_order_whatever_the_socket_takes() {
        for step in [1, 2, 7, 4096, 5000, 100_000] {
            let (mut out, all) = sample();
            let mut sent = Vec::new();
            while !out.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                // Now as much as there is, now at most a step.
                let max = if sent.len() % 2 == 0 { usize::MAX } else { step };
                let n = out.slices(&mut slices, max);
                let joined: Vec<u8> = slices[..n].iter().flat_map(|s| s.iter().copied()).collect();
                assert!(!joined.is_empty() && joined.len() <= max);
                let take = step.min(joined.len());
                sent.extend_from_slice(&joined[..take]);
                out.advance(take);
            }
            assert_eq!(sent, all);
            assert_eq!((out.head, out.buf.len(), out.shared.len()), (0, 0, 0));
        }
    }

    #[test]
    fn take_joins() {
        let (mut out, all) = sample();
        out.advance(4);
        assert_eq!(out.take_all(), all[4..]);
        assert!(out.is_empty());
    }
}
