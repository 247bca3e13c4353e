//! What became of calls, counted by method for whoever measures: at most one row per method and kind of event.

/// One kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message went out, or into the queue of its stream.
    Sent,
    /// A call that the sink knew of ended with this code.
    Ended(i32),
}

/// How often something happened to calls of one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The server's number of the method.
    pub method: u16,
    /// What happened.
    pub event: Event,
    /// How often.
    pub count: u32,
}

/// Events since the last look. Rows are few: one turn of a connection sees few methods, so they are searched.
#[derive(Debug, Default)]
pub struct Tally {
    rows: Vec<Row>,
    sent_bytes: u64,
    /// Calls that ended, with the time each began; only if that was asked for.
    ended: Option<Vec<(u16, u64)>>,
}

/// Ends remembered between two looks; a connection answers fewer in one turn. What is beyond is not measured.
const ENDED_MAX: usize = 16 << 10;

impl Tally {
    #[inline]
    pub(crate) fn add(&mut self, method: u16, event: Event) {
        match self.rows.iter_mut().find(|row| row.method == method && row.event == event) {
            Some(row) => row.count += 1,
            None => self.rows.push(Row { method, event, count: 1 }),
        }
    }

    #[inline]
    pub(crate) fn sent(&mut self, method: u16, bytes: usize) {
        self.add(method, Event::Sent);
        self.sent_bytes += bytes as u64;
    }

    /// A call that began at this time ended.
    #[inline]
    pub(crate) fn ended(&mut self, method: u16, code: i32, opened_ms: u64) {
        self.add(method, Event::Ended(code));
        if let Some(ended) = self.ended.as_mut().filter(|ended| ended.len() < ENDED_MAX) {
            ended.push((method, opened_ms));
        }
    }

    /// From now on the beginning of every call that ends is kept.
    pub fn keep_times(&mut self) {
        self.ended.get_or_insert_default();
    }

    /// Hands out method and beginning of the calls that ended, if they are kept.
    pub fn take_times(&mut self, each: impl FnMut((u16, u64))) {
        if let Some(ended) = &mut self.ended {
            ended.drain(..).for_each(each);
        }
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Hands out what happened, and the bytes of all messages sent, before compression.
    pub fn take(&mut self, mut each: impl FnMut(Row)) -> u64 {
        self.rows.drain(..).for_each(&mut each);
        std::mem::take(&mut self.sent_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_kind_share_a_row() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.sent(7, 10);
            tally.ended(7, 0, 1);
        }
        tally.add(7, Event::Ended(1));
        let mut rows = Vec::new();
        assert_eq!(tally.take(|row| rows.push((row.method, row.event, row.count))), 30);
        assert_eq!(rows, [(7, Event::Sent, 3), (7, Event::Ended(0), 3), (7, Event::Ended(1), 1)]);
        assert!(tally.is_empty());
        tally.take_times(|_| panic!("nobody asked for times"));
        tally.keep_times();
        tally.ended(7, 0, 5);
        let mut times = Vec::new();
        tally.take_times(|row| times.push(row));
        assert_eq!(times, [(7, 5)]);
    }
}
