//! HPACK (RFC 7541): a complete decoder, and an encoder that knows the few fields a server of ours sends.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod huffman;
pub(crate) mod name;
pub(crate) mod table;

/// The header block cannot be decompressed; the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HpackError;

/// Writes an integer with an `n`-bit prefix (RFC 7541 section 5.1); `first` holds the bits above the prefix.
pub(crate) fn put_int(out: &mut Vec<u8>, first: u8, prefix_bits: u32, value: usize) {
    let max = (1usize << prefix_bits) - 1;
    if value < max {
        out.push(first | value as u8);
        return;
    }
    out.push(first | max as u8);
    let mut rest = value - max;
    while rest >= 128 {
        out.push((rest & 127) as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Reads an integer with an `n`-bit prefix. Five octets are enough for anything a sane peer sends; more is an error.
pub(crate) fn get_int(b: &mut &[u8], prefix_bits: u32) -> Result<usize, HpackError> {
    let (&first, mut rest) = b.split_first().ok_or(HpackError)?;
    let max = (1usize << prefix_bits) - 1;
    let mut value = usize::from(first) & max;
    if value == max {
        let mut shift = 0;
        loop {
            let (&x, r) = rest.split_first().ok_or(HpackError)?;
            rest = r;
            value += usize::from(x & 127) << shift;
            if x & 128 == 0 {
                break;
            }
            shift += 7;
            if shift > 21 {
                return Err(HpackError);
            }
        }
    }
    *b = rest;
    Ok(value)
}

#[cfg(test)]
mod tests;
