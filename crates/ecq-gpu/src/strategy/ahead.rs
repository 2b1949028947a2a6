//! Which of two rooms holds which matrix, when one is decoded while another is used. No device: only numbers.

/// What two rooms hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    held: [Option<usize>; 2],
}

/// What is to be done for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The room that the matrix is in.
    pub room: usize,
    /// Whether it must be decoded first.
    pub decode: bool,
    /// The matrix that is to be decoded meanwhile; into the other room.
    pub next: Option<usize>,
}

impl Ahead {
    /// A matrix, of so many in order, is used. The one behind it is decoded ahead; behind the last one comes the first.
    pub fn step(&mut self, matrix: usize, count: usize) -> Step {
        let next = if matrix + 1 < count { matrix + 1 } else { 0 };
        let found = self.held.iter().position(|&held| held == Some(matrix));
        // what comes next stays where it is
        let room = found.unwrap_or(usize::from(self.held[0] == Some(next)));
        self.held[room] = Some(matrix);
        let other = &mut self.held[1 - room];
        let ahead = next != matrix && *other != Some(next);
        if ahead {
            *other = Some(next);
        }
        Step { room, decode: found.is_none(), next: ahead.then_some(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows the steps, and says how many products had to wait for a matrix.
    fn run(order: &[usize], count: usize) -> usize {
        let (mut ahead, mut rooms, mut waits) = (Ahead::default(), [None; 2], 0);
        for &matrix in order {
            let step = ahead.step(matrix, count);
            if step.decode {
                rooms[step.room] = Some(matrix);
                waits += 1;
            }
            assert_eq!(rooms[step.room], Some(matrix), "{order:?}");
            if let Some(next) = step.next {
                assert_ne!(next, matrix);
                rooms[1 - step.room] = Some(next);
            }
            assert_eq!(rooms, ahead.held);
        }
        waits
    }

    #[test]
    fn in_order_only_the_first_is_waited_for() {
        for count in 1..6 {
            let order: Vec<usize> = (0..4 * count).map(|i| i % count).collect();
            assert_eq!(run(&order, count), 1);
        }
    }

    #[test]
    fn any_order_is_right() {
        assert_eq!(run(&[2, 2, 2], 3), 1);
        assert_eq!(run(&[2, 1, 0], 3), 3);
        // 0 was decoded ahead of its use, and stays when 4 is decoded: it comes behind it, too
        assert_eq!(run(&[4, 3, 4, 0], 5), 2);
        let mut state = 1u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as usize
        };
        for count in 1..7 {
            let order: Vec<usize> = (0..300).map(|_| draw() % count).collect();
            assert!(run(&order, count) <= order.len());
        }
    }
}
