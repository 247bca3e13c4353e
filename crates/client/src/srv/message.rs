//! Questions and answers as bytes, as far as SRV records need them (RFC 1035, 2782, 6891).
//!
//! An answer is whatever came from the network: every length in it is doubted, and reading takes a time that is bounded
//! by its size.

use super::Srv;

/// Longest answer in a datagram that is asked for: more may be lost on the way.
pub(super) const DATAGRAM_MAX: usize = 1232;
/// Longest name, dots counted and the last one not.
pub(super) const NAME_MAX: usize = 253;

const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// Bits of a header.
const IS_ANSWER: u16 = 0x8000;
const AUTHORITATIVE: u16 = 0x0400;
const TRUNCATED: u16 = 0x0200;
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
const CODE: u16 = 0x000f;

const CODE_NAME_ERROR: u16 = 3;
/// References that one name may follow.
const JUMPS_MAX: usize = 10;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It answers something else: perhaps a forgery.
    NotOurs,
    /// It answers more than was asked.
    Invalid,
    /// It cannot be read.
    Garbled,
    /// It cannot be read from its first record on.
    Torn,
    /// There is no such name, or none with such records.
    NoSuchHost,
    /// The server can or will not say.
    Misbehaving,
    /// The server knows nobody who could say.
    Lame,
}

impl Fault {
    /// In Go's words.
    pub(super) fn text(self) -> &'static str {
        match self {
            Fault::NotOurs | Fault::Invalid => "invalid DNS response",
            Fault::Garbled | Fault::Torn => "cannot unmarshal DNS message",
            Fault::NoSuchHost => "no such host",
            Fault::Misbehaving => "server misbehaving",
            Fault::Lame => "lame referral",
        }
    }
}

/// A message that answers our question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// There is more than fitted.
    pub(super) truncated: bool,
    /// What it says.
    pub(super) records: Result<Vec<Srv>, Fault>,
}

/// The question for the SRV records of a full name.
pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 32);
    for number in [id, RECURSION_DESIRED, 1, 0, 0, 1] {
        out.extend(number.to_be_bytes());
    }
    for label in name.split('.').filter(|label| !label.is_empty()) {
        // Labels were checked: none is longer than 63 bytes.
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    for number in [TYPE_SRV, CLASS_IN] {
        out.extend(number.to_be_bytes());
    }
    // How long an answer may be: an additional record of no name, whose class is the size.
    out.push(0);
    for number in [TYPE_OPT, DATAGRAM_MAX as u16, 0, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out
}

/// Reads a message that should answer [`question`]`(id, name)`.
pub(super) fn read(message: &[u8], id: u16, name: &str) -> Result<Answer, Fault> {
    let mut reader = Reader { message, at: 0 };
    let header = (|| Some([reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?]))();
    let Some([its_id, flags, questions, answers, _, additional]) = header else { return Err(Fault::NotOurs) };
    if its_id != id || flags & IS_ANSWER == 0 || questions == 0 {
        return Err(Fault::NotOurs);
    }
    let asked = (|| Some((reader.name()?, reader.u16()?, reader.u16()?)))();
    let is_ours =
        asked.is_some_and(|(asked, kind, class)| asked.eq_ignore_ascii_case(name) && (kind, class) == (TYPE_SRV, CLASS_IN));
    if !is_ours {
        return Err(Fault::NotOurs);
    }
    if questions > 1 {
        return Err(Fault::Invalid);
    }
    let records = match flags & CODE {
        CODE_NAME_ERROR => Err(Fault::NoSuchHost),
        0 if flags & (AUTHORITATIVE | RECURSION_AVAILABLE) == 0 && answers == 0 && additional == 0 => Err(Fault::Lame),
        0 => reader.records(answers),
        _ => Err(Fault::Misbehaving),
    };
    Ok(Answer { truncated: flags & TRUNCATED != 0, records })
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.message.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?;
        Some(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A name with a dot after each label. What is no text in it becomes a character that no host has.
    fn name(&mut self) -> Option<String> {
        let (mut name, mut after, mut jumps) = (String::new(), None, 0);
        loop {
            let length = usize::from(self.take(1)?[0]);
            match length & 0xc0 {
                0 if length == 0 => break,
                0 => {
                    let label = self.take(length)?;
                    if label.contains(&b'.') || name.len() + length > NAME_MAX + 1 {
                        return None;
                    }
                    name.push_str(&String::from_utf8_lossy(label));
                    name.push('.');
                }
                0xc0 => {
                    let low = usize::from(self.take(1)?[0]);
                    after.get_or_insert(self.at);
                    self.at = (length & 0x3f) << 8 | low;
                    jumps += 1;
                    if jumps > JUMPS_MAX {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        if let Some(after) = after {
            self.at = after;
        }
        Some(if name.is_empty() { ".".into() } else { name })
    }

    /// The SRV records among the next records.
    fn records(&mut self, count: u16) -> Result<Vec<Srv>, Fault> {
        let (mut records, mut fault) = (Vec::new(), Fault::Garbled);
        for _ in 0..count {
            let (kind, length) = self.head().ok_or(fault)?;
            if kind == TYPE_SRV {
                fault = Fault::Torn;
            }
            let end = self.at.checked_add(length).filter(|end| *end <= self.message.len()).ok_or(fault)?;
            if kind == TYPE_SRV {
                records.push(self.record().filter(|_| self.at <= end).ok_or(fault)?);
            }
            self.at = end;
        }
        if records.is_empty() { Err(Fault::NoSuchHost) } else { Ok(records) }
    }

    /// Type and length of a record.
    fn head(&mut self) -> Option<(u16, usize)> {
        self.name()?;
        let kind = self.u16()?;
        // Class and time to live.
        self.take(6)?;
        Some((kind, usize::from(self.u16()?)))
    }

    fn record(&mut self) -> Option<Srv> {
        let (priority, weight, port) = (self.u16()?, self.u16()?, self.u16()?);
        Some(Srv { target: self.name()?, port, priority, weight })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "_e._tcp.x.test.";

    /// An answer to the question, with these flags and this body of so many records.
    fn answer(flags: u16, count: u16, body: &[u8]) -> Vec<u8> {
        let mut out = question(7, NAME);
        out.truncate(out.len() - 11);
        out[2..4].copy_from_slice(&(IS_ANSWER | flags).to_be_bytes());
        out[6..8].copy_from_slice(&count.to_be_bytes());
        out[10..12].copy_from_slice(&0u16.to_be_bytes());
        out.extend(body);
        out
    }

    /// A record of the name that was asked for.
    fn record(kind: u16, data: &[u8]) -> Vec<u8> {
        let mut out = vec![0xc0, 12];
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn records_are_read_with_names_that_refer_to_others() {
        // The target is `h` in the domain of the question, which begins 15 bytes behind the begin of its name.
        let at = 12 + 3 + 5;
        let srv = record(TYPE_SRV, &[0, 10, 0, 5, 0x09, 0x4c, 1, b'h', 0xc0, at]);
        let other = record(16, b"\x03abc");
        let body = [other, srv].concat();
        let read = read(&answer(AUTHORITATIVE, 2, &body), 7, "_E._tcp.X.test.").unwrap();
        let record = Srv { target: "h.x.test.".into(), port: 2380, priority: 10, weight: 5 };
        assert_eq!(read, Answer { truncated: false, records: Ok(vec![record]) });
    }

    #[test]
    fn what_answers_something_else_is_told_apart() {
        let good = answer(0, 0, &[]);
        assert_eq!(read(&good, 8, NAME), Err(Fault::NotOurs));
        assert_eq!(read(&good, 7, "_f._tcp.x.test."), Err(Fault::NotOurs));
        assert_eq!(read(&good[..5], 7, NAME), Err(Fault::NotOurs));
        assert_eq!(read(&question(7, NAME), 7, NAME), Err(Fault::NotOurs));
        let mut two = good.clone();
        two[5] = 2;
        assert_eq!(read(&two, 7, NAME), Err(Fault::Invalid));
    }

    #[test]
    fn codes_have_gos_meaning() {
        let says = |flags: u16, count: u16, body: &[u8]| read(&answer(flags, count, body), 7, NAME).unwrap().records;
        assert_eq!(says(0, 0, &[]), Err(Fault::Lame));
        assert_eq!(says(RECURSION_AVAILABLE, 0, &[]), Err(Fault::NoSuchHost));
        assert_eq!(says(CODE_NAME_ERROR, 0, &[]), Err(Fault::NoSuchHost));
        assert_eq!(says(2, 0, &[]), Err(Fault::Misbehaving));
        assert_eq!(says(AUTHORITATIVE, 1, &record(TYPE_SRV, &[0; 6])), Err(Fault::Torn));
        assert_eq!(says(AUTHORITATIVE, 1, &record(TYPE_SRV, &[0; 5])), Err(Fault::Torn));
        assert_eq!(says(AUTHORITATIVE, 9, &record(16, &[])), Err(Fault::Garbled));
        assert!(read(&answer(TRUNCATED, 0, &[]), 7, NAME).unwrap().truncated);
    }

    #[test]
    fn names_that_run_in_circles_or_are_too_long_are_refused() {
        let circle = record(TYPE_SRV, &[0, 0, 0, 0, 0, 0, 0xc0, 12 + 16 + 4 + 12 + 6]);
        assert_eq!(read(&answer(AUTHORITATIVE, 1, &circle), 7, NAME).unwrap().records, Err(Fault::Torn));
        let mut long = vec![0; 6];
        for _ in 0..5 {
            long.push(60);
            long.extend([b'a'; 60]);
        }
        long.push(0);
        assert_eq!(read(&answer(AUTHORITATIVE, 1, &record(TYPE_SRV, &long)), 7, NAME).unwrap().records, Err(Fault::Torn));
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(body in proptest::collection::vec(any::<u8>(), 0..600), flags in any::<u16>(), count in any::<u16>()) {
            // Neither alone nor behind a head that is as it should be.
            let _any = read(&body, 7, NAME);
            let read = read(&answer(flags, count, &body), 7, NAME);
            prop_assert!(read.is_ok_and(|answer| answer.records.map_or(true, |records| !records.is_empty())));
        }
    }
}
