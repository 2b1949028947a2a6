//! Scales as they lie in GPU memory are those of the file, bit by bit: read by the twin of what kernels read them with, without a device.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../ecq-cpu/tests/reference/case.rs"]
mod case;
#[path = "../../ecq-format/tests/common/mod.rs"]
mod common;

use bytemuck::Zeroable;
use case::{Case, with_model};
use common::{Draw, sources};
use ecq_format::directory::Scales;
use ecq_format::reader::CodedTensor;
use ecq_gpu::params::Params;
use ecq_gpu::side;
use ecq_gpu::tiles::Tiles;
use ecq_gpu::twins::scales::scale_of;
use ecq_quant::groups::Groups;

/// Reads the scales of all bands, and of a part, with the twin of the kernels' reader.
fn check(tensor: &CodedTensor<'_>, what: &str) {
    let coded = tensor.coded();
    let tiles = Tiles::of(tensor).unwrap();
    let (code, codes) = tiles.code();
    let resident = side::resident(tensor, tiles.shape(), code, codes).unwrap();
    let (rows, cols) = (coded.rows as usize, coded.cols as usize);
    let groups = Groups::new(&coded.values.scales, rows, cols, &tensor.side().unwrap()).unwrap();
    let form = resident.form.groups.unwrap();
    assert_eq!(form.size as usize, groups.size);
    for part in [0..rows, 16..rows.min(32)] {
        let (words, places) = resident.side.part(part.clone());
        assert!(words.len() as u64 <= resident.side.words(part.len()), "{what}");
        let p = Params {
            first_row: part.start as u32,
            groups: places.groups,
            records: places.records,
            stride: places.stride,
            shared_at: places.shared,
            phase: places.phase,
            ..Params::zeroed()
        };
        for row in part {
            for col in 0..cols {
                let group = groups.of_column.get(col).map_or(col / groups.size, |&group| group.into());
                let (band, which) = ((row / 8 * 8) as u32, (row % 8) as u32);
                let (s, m) = scale_of(&p, &words, &form, band, which, col as u32).unwrap();
                let (s0, m0) = groups.of_group(row, group);
                let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
                assert!(same(s, s0) && same(m, m0), "{what}: {row}, {col}: {s} {m}, not {s0} {m0}");
            }
        }
    }
}

#[test]
fn numbers_are_those_of_the_file() {
    let mut draw = Draw(5);
    for (size, rows, cols) in [(3, 37, 75), (32, 43, 200), (1, 24, 300)] {
        let groups = [false, true].map(|min| Scales::Group { size, min });
        for scales in sources::scales(size).into_iter().chain(groups) {
            let case = Case { rows, cols, scales, ..Case::PLAIN };
            // as models have them, any bits, few numbers, and ever the same
            for kind in 0..4u32 {
                let mut model = case.model();
                if kind > 0 {
                    model.coded[0].planes = sources::planes(scales, rows, cols, &mut draw);
                }
                let mapped = matches!(scales, Scales::Numbers { mapped: true, .. });
                if kind > 1 && !mapped {
                    let planes = model.coded[0].planes.iter_mut().flatten();
                    planes.for_each(|byte| *byte = if kind == 2 { *byte % 3 * 50 } else { 0x2c });
                }
                with_model(&model, |tensor| check(tensor, &format!("{case:?} {kind}")));
            }
        }
    }
}
