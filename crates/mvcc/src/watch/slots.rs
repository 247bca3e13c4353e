//! Values under small numbers that are used again.

/// Values, each under a number that stays its own until it is taken out.
pub(super) struct Slots<T> {
    values: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Slots<T> {
        Slots { values: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.values[number as usize] = Some(value);
            return number;
        }
        let number = u32::try_from(self.values.len()).expect("four billion watchers fill the memory first");
        self.values.push(Some(value));
        number
    }

    pub(super) fn remove(&mut self, number: u32) -> T {
        self.free.push(number);
        self.values[number as usize].take().expect("the number is in use")
    }

    pub(super) fn get(&self, number: u32) -> &T {
        self.values[number as usize].as_ref().expect("the number is in use")
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        self.values[number as usize].as_mut().expect("the number is in use")
    }

    /// The numbers in use, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.values.iter().enumerate().filter(|(_, value)| value.is_some()).map(|(number, _)| number as u32)
    }
}
