//! The decoder. A warm block (indexed fields only) costs a table lookup per field and copies nothing.

use super::name::Name;
use super::table::{DynamicTable, STATIC};
use super::{HpackError, get_int, huffman};
use crate::limits::HEADER_TABLE_MAX_BYTES;

/// One field of a header list, in wire order.
pub(crate) struct Field<'a> {
    pub(crate) name: Name,
    pub(crate) name_bytes: &'a [u8],
    pub(crate) value: &'a [u8],
    /// 0, or what was left here when the same table entry was seen before.
    pub(crate) memo: &'a mut u32,
}

pub(crate) struct Decoder {
    table: DynamicTable,
    /// The literal being read: name, then value. Never longer than a header block times 8/5.
    literal: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { table: DynamicTable::new(), literal: Vec::new() }
    }

    /// Decodes one whole header block. On an error the state is lost and the connection must end.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        visit: &mut impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        let mut at_start = true;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = get_int(&mut block, 7)?;
                self.indexed(index, visit)?;
            } else if first & 0xc0 == 0x40 {
                self.literal(&mut block, 6, true, visit)?;
            } else if first & 0xe0 == 0x20 {
                // Section 4.2: a size update stands at the beginning of a block or nowhere.
                let size = get_int(&mut block, 5)?;
                if !at_start || size > HEADER_TABLE_MAX_BYTES {
                    return Err(HpackError);
                }
                self.table.resize(size);
                continue;
            } else {
                self.literal(&mut block, 4, false, visit)?;
            }
            at_start = false;
        }
        if self.literal.capacity() > HEADER_TABLE_MAX_BYTES {
            self.literal = Vec::new();
        }
        Ok(())
    }

    #[inline]
    fn indexed(&mut self, index: usize, visit: &mut impl FnMut(Field<'_>)) -> Result<(), HpackError> {
        match index {
            0 => return Err(HpackError),
            1..=61 => {
                let e = &STATIC[index - 1];
                visit(Field { name: e.name, name_bytes: e.name_bytes, value: e.value, memo: &mut 0 });
            }
            _ => {
                let f = self.table.get(index - 62).ok_or(HpackError)?;
                visit(Field { name: f.name, name_bytes: f.name_bytes, value: f.value, memo: f.memo });
            }
        }
        Ok(())
    }

    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix_bits: u32,
        keep: bool,
        visit: &mut impl FnMut(Field<'_>),
    ) -> Result<(), HpackError> {
        self.literal.clear();
        let name = match get_int(block, prefix_bits)? {
            0 => {
                string(block, &mut self.literal)?;
                Name::of(&self.literal)
            }
            i @ 1..=61 => {
                self.literal.extend_from_slice(STATIC[i - 1].name_bytes);
                STATIC[i - 1].name
            }
            i => {
                let f = self.table.get(i - 62).ok_or(HpackError)?;
                self.literal.extend_from_slice(f.name_bytes);
                // The entry may be invalid for its value only.
                if f.name == Name::Invalid { Name::of(f.name_bytes) } else { f.name }
            }
        };
        let name_len = self.literal.len();
        string(block, &mut self.literal)?;
        let (name_bytes, value) = self.literal.split_at(name_len);
        let name = Name::of_field(name, value);
        let mut memo = 0;
        visit(Field { name, name_bytes, value, memo: &mut memo });
        if keep {
            self.table.insert(name, &self.literal, name_len, memo);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        self.literal.capacity() + self.table.footprint()
    }

    #[cfg(test)]
    pub(crate) fn table(&self) -> &DynamicTable {
        &self.table
    }
}

fn string(block: &mut &[u8], to: &mut Vec<u8>) -> Result<(), HpackError> {
    let huffman_coded = *block.first().ok_or(HpackError)? & 0x80 != 0;
    let len = get_int(block, 7)?;
    let (raw, rest) = block.split_at_checked(len).ok_or(HpackError)?;
    *block = rest;
    if huffman_coded {
        huffman::decode(raw, to)
    } else {
        to.extend_from_slice(raw);
        Ok(())
    }
}
