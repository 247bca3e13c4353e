//! Keys and values of a load: random, repeatable by seed, cheap to make.

use std::cell::Cell;

use bytes::Bytes;

use crate::opts::Keys;
use crate::run::Ctx;

/// xorshift64*: all the randomness a load needs.
pub(super) struct Rng(Cell<u64>);

impl Rng {
    pub(super) fn new(seed: u64, stream: usize) -> Self {
        let z = (seed ^ (stream as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        let r = Rng(Cell::new(z));
        for _ in 0..8 {
            r.next();
        }
        r
    }

    pub(super) fn next(&self) -> u64 {
        let mut x = self.0.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.0.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&self, n: u64) -> u64 {
        ((self.next() as u128 * n as u128) >> 64) as u64
    }
}

/// Incompressible bytes to cut values from without copying.
pub(super) struct Values(Bytes);

impl Values {
    pub(super) fn new(seed: u64, largest: usize) -> Self {
        let rng = Rng::new(seed, 1 << 20);
        let n = largest + (64 << 10);
        let mut v: Vec<u8> = (0..n.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).collect();
        v.truncate(n);
        Values(v.into())
    }

    pub(super) fn get(&self, rng: &Rng, size: usize) -> Bytes {
        let at = rng.below((self.0.len() - size) as u64 + 1) as usize;
        self.0.slice(at..at + size)
    }
}

impl Keys {
    /// The `i`th key: the prefix and a number filling the rest of --key-size.
    pub(super) fn key(&self, i: u64) -> Bytes {
        use std::io::Write;
        let width = self.key_size.saturating_sub(self.prefix.len());
        let mut k = Vec::with_capacity(self.key_size.max(self.prefix.len() + 20));
        k.extend_from_slice(self.prefix.as_bytes());
        write!(k, "{i:0width$}").expect("a Vec has room");
        k.into()
    }

    pub(super) fn pick(&self, ctx: &Ctx, rng: &Rng) -> u64 {
        if self.sequential {
            ctx.shared.next_seq() % self.key_space_size
        } else {
            rng.below(self.key_space_size)
        }
    }

    pub(super) fn range(&self) -> (Bytes, Bytes) {
        prefix_range(self.prefix.as_bytes())
    }
}

/// `[prefix, first key after every key with that prefix)`.
pub(super) fn prefix_range(prefix: &[u8]) -> (Bytes, Bytes) {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            break;
        }
    }
    if end.is_empty() {
        end.push(0);
    }
    (prefix.to_vec().into(), end.into())
}
