//! Which matrices are kept within a budget when the least recently used ones go first. No device: only sizes.

/// What is kept. A matrix lies in a slot: some buffers.
#[derive(Clone, Debug, Default)]
pub struct Lru {
    budget: u64,
    slots: Vec<Option<Slot>>,
    clock: u64,
}

#[derive(Clone, Debug)]
struct Slot {
    matrix: usize,
    sizes: Vec<u64>,
    used: u64,
}

/// What is to be done for a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The matrix is in this slot.
    Held(usize),
    /// It is to be decoded into this slot, after others were emptied.
    Decode {
        /// Its slot.
        slot: usize,
        /// Whether buffers of another matrix are there, which fit.
        reuse: bool,
        /// Slots whose buffers are to be freed before.
        freed: Vec<usize>,
    },
    /// It is larger than the budget.
    TooLarge,
}

impl Lru {
    /// Nothing yet, with a budget in bytes.
    pub fn new(budget: u64) -> Self {
        Self { budget, ..Self::default() }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().flatten().flat_map(|slot| &slot.sizes).sum()
    }

    /// Forgets a slot, whose buffers could not be made.
    pub fn free(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = None;
        }
    }

    /// A matrix that needs buffers of these sizes is used.
    pub fn step(&mut self, matrix: usize, sizes: &[u64]) -> Place {
        self.clock += 1;
        let used = self.clock;
        let mut held = self.slots.iter_mut().enumerate();
        if let Some((slot, found)) =
            held.find_map(|(i, slot)| Some((i, slot.as_mut().filter(|slot| slot.matrix == matrix)?)))
        {
            found.used = used;
            return Place::Held(slot);
        }
        let needs = sizes.iter().fold(0u64, |sum, &size| sum.saturating_add(size));
        if needs > self.budget {
            return Place::TooLarge;
        }
        let mut freed = Vec::new();
        while needs > self.budget - self.bytes() {
            let all = self.slots.iter().enumerate();
            let oldest = all.filter_map(|(i, slot)| Some((slot.as_ref()?.used, i))).min();
            let Some((_, slot)) = oldest else { return Place::TooLarge };
            if let Some(old) = self.slots[slot].as_mut().filter(|old| old.has_room(sizes)) {
                (old.matrix, old.used) = (matrix, used);
                return Place::Decode { slot, reuse: true, freed };
            }
            self.slots[slot] = None;
            freed.push(slot);
        }
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(Slot { matrix, sizes: sizes.into(), used });
        Place::Decode { slot, reuse: false, freed }
    }
}

impl Slot {
    fn has_room(&self, sizes: &[u64]) -> bool {
        self.sizes.len() == sizes.len() && self.sizes.iter().zip(sizes).all(|(own, size)| own >= size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(slot: usize, reuse: bool, freed: &[usize]) -> Place {
        Place::Decode { slot, reuse, freed: freed.into() }
    }

    #[test]
    fn the_least_recently_used_goes() {
        let mut lru = Lru::new(20);
        assert_eq!(lru.step(0, &[10]), decode(0, false, &[]));
        assert_eq!(lru.step(1, &[10]), decode(1, false, &[]));
        assert_eq!(lru.step(0, &[10]), Place::Held(0));
        assert_eq!(lru.step(2, &[8]), decode(1, true, &[])); // in the ten bytes of 1
        assert_eq!(lru.bytes(), 20);
        assert_eq!(lru.step(0, &[10]), Place::Held(0));
        assert_eq!(lru.step(1, &[10]), decode(1, true, &[]));
    }

    #[test]
    fn buffers_that_do_not_fit_are_freed() {
        let mut lru = Lru::new(20);
        for matrix in 0..4 {
            assert_eq!(lru.step(matrix, &[5]), decode(matrix, false, &[]));
        }
        assert_eq!(lru.step(4, &[6, 6]), decode(0, false, &[0, 1, 2]));
        assert_eq!(lru.bytes(), 17);
        assert_eq!(lru.step(5, &[21]), Place::TooLarge);
        assert_eq!(lru.step(5, &[u64::MAX, u64::MAX]), Place::TooLarge);
        assert_eq!(lru.step(3, &[5]), Place::Held(3));
        lru.free(3);
        assert_eq!(lru.bytes(), 12);
        assert_eq!(lru.step(3, &[5]), decode(1, false, &[]));
        assert_eq!(Lru::new(0).step(0, &[1]), Place::TooLarge);
    }

    #[test]
    fn budgets_hold_and_slots_are_what_they_are_said_to_be() {
        let mut state = 7u32;
        let mut draw = |n: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % n
        };
        for budget in [0, 3, 17, 60] {
            let sizes: Vec<Vec<u64>> =
                (0..8).map(|i| (0..=i % 3).map(|_| 1 + u64::from(draw(9))).collect()).collect();
            let (mut lru, mut slots) = (Lru::new(budget), vec![None; 99]);
            for _ in 0..500 {
                let matrix = draw(8) as usize;
                match lru.step(matrix, &sizes[matrix]) {
                    Place::Held(slot) => assert_eq!(slots[slot].as_ref().map(|(m, _)| *m), Some(matrix)),
                    Place::Decode { slot, reuse, freed } => {
                        freed.into_iter().for_each(|slot| slots[slot] = None);
                        assert_eq!(slots[slot].is_some(), reuse);
                        let room = slots[slot].take().map_or(sizes[matrix].clone(), |(_, room)| room);
                        assert!(room.len() == sizes[matrix].len());
                        assert!(room.iter().zip(&sizes[matrix]).all(|(room, size)| room >= size));
                        slots[slot] = Some((matrix, room));
                    }
                    Place::TooLarge => assert!(sizes[matrix].iter().sum::<u64>() > budget),
                }
                let kept: u64 = slots.iter().flatten().flat_map(|(_, room)| room).sum();
                assert_eq!(kept, lru.bytes());
                assert!(kept <= budget);
            }
        }
    }
}
