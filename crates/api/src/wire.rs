//! Protobuf without messages: walking fields in place, checking received bytes, putting fields together.
//!
//! A request is checked in the bytes it came in, and those bytes are spliced into log entries and messages to peers;
//! nothing is decoded and encoded again on the way, so fields nobody here knows survive.
//!
//! What is malformed is what Go calls malformed, where it can be told: see [`check`].

use std::fmt;

use bytes::{Buf, Bytes};

use crate::schema::{self, Kind, Message};

/// Nesting deeper than this is malformed. The decoder of the generated structs stops there as well; Go goes on to
/// 10,000. A transaction inside a transaction takes two levels.
pub const DEPTH_MAX: usize = 100;

/// Highest field number there can be.
const NUMBER_MAX: u64 = (1 << 29) - 1;
/// Longest encoding of a 64-bit number.
pub const VARINT_LEN_MAX: usize = 10;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const GROUP_START: u32 = 3;
const GROUP_END: u32 = 4;
const FIXED32: u32 = 5;

/// Why bytes are not a message. The texts are Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Cut short, a number too long, a field number out of range, an unknown wire type, unpaired groups, too deep.
    Wire,
    /// A string is not UTF-8.
    Utf8,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Wire => "proto: cannot parse invalid wire-format data",
            Malformed::Utf8 => "string field contains invalid UTF-8",
        })
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for crate::Status {
    /// What a client gets that sends such a request.
    fn from(error: Malformed) -> crate::Status {
        crate::Status::new(
            crate::error::Code::Internal,
            format!("grpc: error unmarshalling request: {error}"),
        )
    }
}

/// Reads a number from the front.
///
/// # Errors
/// The bytes end inside it, or it is longer than 64 bits.
pub fn get_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let input = *bytes;
    if let [first @ 0..=0x7f, rest @ ..] = input {
        *bytes = rest;
        return Ok(u64::from(*first));
    }
    let mut value = 0;
    for (at, byte) in input.iter().enumerate().take(VARINT_LEN_MAX) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            // The tenth byte holds one bit.
            if at == VARINT_LEN_MAX - 1 && *byte > 1 {
                return Err(Malformed::Wire);
            }
            *bytes = &input[at + 1..];
            return Ok(value);
        }
    }
    Err(Malformed::Wire)
}

/// Appends a number.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that [`put_varint`] appends.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros() as usize) * 9 + 64) / 64
}

/// Appends a number field; like every proto3 encoder it leaves out a zero.
pub fn put_uint(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        put_varint(u64::from(number) << 3, out);
        put_varint(value, out);
    }
}

/// Appends a signed number field; negative ones take ten bytes. Leaves out a zero.
pub fn put_int(number: u32, value: i64, out: &mut Vec<u8>) {
    put_uint(number, value.cast_unsigned(), out);
}

/// Appends a truth value; leaves out `false`.
pub fn put_bool(number: u32, value: bool, out: &mut Vec<u8>) {
    put_uint(number, u64::from(value), out);
}

/// Appends bytes or a string; leaves out an empty one.
pub fn put_bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    if !value.is_empty() {
        put_message(number, value, out);
    }
}

/// Appends an encoded message, which is there even when it is empty.
pub fn put_message(number: u32, encoded: &[u8], out: &mut Vec<u8>) {
    put_length(number, encoded.len(), out);
    out.extend_from_slice(encoded);
}

/// Appends the head of a field whose content of `len` bytes the caller appends next.
pub fn put_length(number: u32, len: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | u64::from(LENGTH), out);
    put_varint(len as u64, out);
}

/// Bytes that [`put_message`] appends for a content of `len` bytes.
#[must_use]
pub const fn message_len(number: u32, len: usize) -> usize {
    varint_len((number as u64) << 3) + varint_len(len as u64) + len
}

/// Bytes that [`put_uint`] appends.
#[must_use]
pub const fn uint_len(number: u32, value: u64) -> usize {
    if value == 0 { 0 } else { varint_len((number as u64) << 3) + varint_len(value) }
}

/// The value of a field, by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A number, an enum or a truth value.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Bytes, a string, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// A group, without its end mark. No etcd message has one, but unknown fields may.
    Group(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The number, if it is one.
    #[must_use]
    pub fn varint(self) -> Option<u64> {
        match self {
            Value::Varint(value) => Some(value),
            _ => None,
        }
    }

    /// The bytes, if they are some.
    #[must_use]
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(value) => Some(value),
            _ => None,
        }
    }
}

/// One field as it stands in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// Tag and value as received, for copying.
    pub raw: &'a [u8],
}

/// Walks the fields of an encoded message in the order in which they stand there. After an error it ends.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `message`.
    #[must_use]
    pub fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = take_field(&mut self.rest, DEPTH_MAX);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn take_tag(rest: &mut &[u8]) -> Result<(u32, u32), Malformed> {
    let tag = get_varint(rest)?;
    match tag >> 3 {
        number @ 1..=NUMBER_MAX => Ok((number as u32, (tag & 7) as u32)),
        _ => Err(Malformed::Wire),
    }
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(len).map_err(|_| Malformed::Wire)?;
    let (value, after) = rest.split_at_checked(len).ok_or(Malformed::Wire)?;
    *rest = after;
    Ok(value)
}

fn take_field<'a>(rest: &mut &'a [u8], depth: usize) -> Result<Field<'a>, Malformed> {
    let start = *rest;
    let (number, wire_type) = take_tag(rest)?;
    let value = match wire_type {
        VARINT => Value::Varint(get_varint(rest)?),
        FIXED64 => Value::Fixed64(take(rest, 8)?.get_u64_le()),
        LENGTH => {
            let len = get_varint(rest)?;
            Value::Bytes(take(rest, len)?)
        }
        GROUP_START => Value::Group(take_group(rest, number, depth)?),
        FIXED32 => Value::Fixed32(take(rest, 4)?.get_u32_le()),
        _ => return Err(Malformed::Wire),
    };
    Ok(Field { number, value, raw: &start[..start.len() - rest.len()] })
}

/// A group is skipped by walking it to the end mark with its own number.
fn take_group<'a>(rest: &mut &'a [u8], number: u32, depth: usize) -> Result<&'a [u8], Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed::Wire)?;
    let start = *rest;
    loop {
        let mut ahead = *rest;
        let (inner, wire_type) = take_tag(&mut ahead)?;
        if wire_type == GROUP_END {
            let content = &start[..start.len() - rest.len()];
            *rest = ahead;
            return if inner == number { Ok(content) } else { Err(Malformed::Wire) };
        }
        take_field(rest, depth)?;
    }
}

/// The last bytes field with this number, as decoders take the last of several. Malformed input ends the search.
#[must_use]
pub fn last_bytes(message: &[u8], number: u32) -> Option<&[u8]> {
    Fields::new(message)
        .map_while(Result::ok)
        .filter(|f| f.number == number)
        .filter_map(|f| f.value.bytes())
        .last()
}

/// The last number field with this number; 0 if there is none. Malformed input ends the search.
#[must_use]
pub fn last_uint(message: &[u8], number: u32) -> u64 {
    let fields = Fields::new(message).map_while(Result::ok).filter(|f| f.number == number);
    fields.filter_map(|f| f.value.varint()).last().unwrap_or(0)
}

/// Copies a message without its fields of one number, unknown fields and all: the way to replace one.
///
/// # Errors
/// The message is malformed; what was copied so far stays in `out`.
pub fn copy_without(message: &[u8], number: u32, out: &mut Vec<u8>) -> Result<(), Malformed> {
    for field in Fields::new(message) {
        let field = field?;
        if field.number != number {
            out.extend_from_slice(field.raw);
        }
    }
    Ok(())
}

/// What [`check`] found in a well-formed message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Something Go reads and the decoder of the generated structs refuses, so that [`decode`] changes it first: a
    /// known field with a wire type it cannot have, which Go takes for an unknown one and we leave out; or a string of
    /// a proto2 message that is not UTF-8, of which we replace what is not.
    pub odd: bool,
}

/// Checks received bytes against a message type, with all messages inside it, as Go's decoder would.
///
/// # Errors
/// See [`Malformed`].
pub fn check(message: &Message, bytes: &[u8]) -> Result<Checked, Malformed> {
    let mut checked = Checked::default();
    check_at(message, bytes, DEPTH_MAX, &mut checked)?;
    Ok(checked)
}

fn check_at(message: &Message, bytes: &[u8], depth: usize, checked: &mut Checked) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed::Wire)?;
    for field in Fields::new(bytes) {
        let field = field?;
        let Some(known) = message.field(field.number) else { continue };
        match (known.kind, field.value) {
            (Kind::String, Value::Bytes(text)) => {
                std::str::from_utf8(text).map_err(|_| Malformed::Utf8)?;
            }
            (Kind::Message(_), Value::Bytes(inner)) => {
                let inner_type = known.kind.message().expect("a field of message type");
                check_at(inner_type, inner, depth, checked)?;
            }
            (Kind::LooseString, Value::Bytes(text)) => checked.odd |= std::str::from_utf8(text).is_err(),
            (Kind::Bytes, Value::Bytes(_)) => {}
            (kind, Value::Varint(_)) if kind.wire_type() == VARINT => {}
            (kind, Value::Bytes(mut packed)) if kind.wire_type() == VARINT && known.repeated => {
                while !packed.is_empty() {
                    get_varint(&mut packed)?;
                }
            }
            _ => checked.odd = true,
        }
    }
    Ok(())
}

/// Copies a checked message, changing what [`Checked::odd`] speaks of, here and in messages inside.
fn copy_readable(message: &Message, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    for field in Fields::new(bytes) {
        let field = field?;
        match (message.field(field.number), field.value) {
            (Some(known), Value::Bytes(inner)) if known.kind.message().is_some() => {
                let inner_type = known.kind.message().expect("just asked");
                let mut copy = Vec::with_capacity(inner.len());
                copy_readable(inner_type, inner, &mut copy)?;
                put_message(field.number, &copy, out);
            }
            (Some(known), Value::Bytes(text)) if known.kind == Kind::LooseString => {
                put_bytes(field.number, String::from_utf8_lossy(text).as_bytes(), out);
            }
            (Some(known), Value::Bytes(_)) if known.kind.wire_type() == LENGTH || known.repeated => {
                out.extend_from_slice(field.raw);
            }
            (Some(known), Value::Varint(_)) if known.kind.wire_type() == VARINT => {
                out.extend_from_slice(field.raw);
            }
            (Some(_), _) => {}
            (None, _) => out.extend_from_slice(field.raw),
        }
    }
    Ok(())
}

/// Checks and decodes received bytes; bytes fields of the result share them. This, not the struct's own `decode`, is
/// what outside input goes through: it answers with Go's errors and reads what Go reads.
///
/// # Errors
/// See [`Malformed`].
pub fn decode<M: prost::Message + prost::Name + Default>(bytes: Bytes) -> Result<M, Malformed> {
    let message = schema::of::<M>();
    let bytes = if check(message, &bytes)?.odd {
        let mut copy = Vec::with_capacity(bytes.len());
        copy_readable(message, &bytes, &mut copy)?;
        Bytes::from(copy)
    } else {
        bytes
    };
    // Whatever the struct's decoder still refuses, it refuses as malformed: nothing is known that gets here.
    M::decode(bytes).map_err(|_| Malformed::Wire)
}

#[cfg(test)]
mod tests;
