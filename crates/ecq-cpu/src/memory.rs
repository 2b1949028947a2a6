//! Bytes that tensors will take at most, from what a file's directory says of them: nothing is read.

use ecq_format::directory::{Coded, Min, NumberFormat, Scales};

use crate::BLOCK;
use crate::scaling::{Book, FLOAT};

/// Bytes that a [`Matrix`](crate::Matrix) of such a tensor takes at most beside those of the file.
pub fn matrix(coded: &Coded) -> u64 {
    let (rows, cols) = (coded.rows, coded.cols);
    // other numbers may be halves, too, which only they themselves tell
    let half = match coded.values.scales {
        Scales::Group { .. } => true,
        Scales::Numbers { format, min, .. } => format == NumberFormat::F16 && min != Min::Zero,
        _ => false,
    };
    let number = if half && coded.values.codebook.is_none() { FLOAT / 2 } else { FLOAT };
    let numbers = match coded.values.scales {
        Scales::None => 0,
        Scales::RowColumn { row, column } => rows * u64::from(row) + cols * u64::from(column),
        grouped => {
            let groups = rows.saturating_mul(cols.div_ceil(grouped.size().unwrap_or(1).max(1)));
            let both = match grouped {
                Scales::Group { min, .. } | Scales::Nested { min, .. } => min,
                Scales::Numbers { min, .. } => min != Min::None,
                _ => false,
            };
            groups.saturating_mul(1 + u64::from(both))
        }
    };
    numbers.saturating_mul(number)
}

/// Bytes that a [`Packed`](crate::Packed) of such a tensor takes at most, but for levels that do not fit its integers, which are
/// few. `None` where it refuses the tensor.
pub fn packed(coded: &Coded) -> Option<u64> {
    let Coded { rows, cols, values, .. } = coded;
    let mapped = matches!(values.scales, Scales::Numbers { mapped: true, .. });
    let far = values.codebook.as_ref().is_some_and(|book| Book::new(&book.0).is_none());
    if coded.pattern.is_some() || coded.predictor.is_some() || mapped || far {
        return None;
    }
    let bits = match coded.raw_bits {
        0 => 4,
        1..=4 => 8,
        _ => 16,
    };
    let row = cols.next_multiple_of(2 * BLOCK as u64).saturating_mul(bits) / 8;
    Some(rows.saturating_mul(row).saturating_add(matrix(coded)))
}
