use half::f16;

use super::*;

/// Bytes that take every value in every place sooner or later.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect()
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Level, scale and minimum of weight `i` of a block, looked up one by one.
fn weight(kind: BlockType, b: &[u8], i: usize) -> (i32, f32, f32) {
    let (column, octet) = (i % 32, i / 32);
    let nibble = |at: usize, upper: bool| if upper { b[at] >> 4 } else { b[at] & 15 };
    let short = |at: usize| nibble(at + i % 16, i >= 16);
    let fifth = |at: usize| (b[at + i / 8] >> (i % 8) & 1) << 4;
    let six = |g: usize| {
        let s = &b[4..16];
        match g {
            0..4 => (s[g] & 63, s[g + 4] & 63),
            _ => (s[g + 4] & 15 | s[g - 4] >> 6 << 4, s[g + 4] >> 4 | s[g] >> 6 << 4),
        }
    };
    let level = match kind {
        BlockType::Q4_0 => short(2),
        BlockType::Q4_1 => short(4),
        BlockType::Q5_0 => short(6) | fifth(2),
        BlockType::Q5_1 => short(8) | fifth(4),
        BlockType::Q8_0 => return (i32::from(b[2 + i] as i8), half(b, 0), 0.0),
        BlockType::Q2_K => b[16 + 32 * (octet / 4) + column] >> (2 * (octet % 4)) & 3,
        BlockType::Q3_K => {
            let low = b[32 + 32 * (octet / 4) + column] >> (2 * (octet % 4)) & 3;
            low | (b[column] >> octet & 1) << 2
        }
        BlockType::Q4_K => nibble(16 + 32 * (octet / 2) + column, octet % 2 == 1),
        BlockType::Q5_K => {
            nibble(48 + 32 * (octet / 2) + column, octet % 2 == 1) | (b[16 + column] >> octet & 1) << 4
        }
        BlockType::Q6_K => {
            let low = nibble(64 * (octet / 4) + 32 * (octet % 2) + column, octet % 4 >= 2);
            low | (b[128 + 32 * (octet / 4) + column] >> (2 * (octet % 4)) & 3) << 4
        }
    };
    let group = i / 16;
    let (s, m) = match kind {
        BlockType::Q4_1 | BlockType::Q5_1 => (half(b, 0), half(b, 2)),
        BlockType::Q2_K => {
            (half(b, 80) * f32::from(b[group] & 15), -(half(b, 82) * f32::from(b[group] >> 4)))
        }
        BlockType::Q3_K => {
            let low = nibble(96 + group % 8, group >= 8);
            let scale = i32::from(low | (b[104 + group % 4] >> (2 * (group / 4)) & 3) << 4);
            (half(b, 108) * (scale - 32) as f32, 0.0)
        }
        BlockType::Q4_K | BlockType::Q5_K => {
            let (scale, min) = six(octet);
            (half(b, 0) * f32::from(scale), -(half(b, 2) * f32::from(min)))
        }
        BlockType::Q6_K => (half(b, 208) * f32::from(b[192 + group] as i8), 0.0),
        _ => (half(b, 0), 0.0),
    };
    (level.into(), s, m)
}

fn slices(planes: &[Vec<u8>]) -> Vec<&[u8]> {
    planes.iter().map(Vec::as_slice).collect()
}

/// Takes blocks apart and packs them again.
fn through(kind: BlockType, blocks: &[u8]) -> Vec<u8> {
    let mut levels = vec![0; blocks.len() / kind.bytes() * kind.weights()];
    kind.levels(blocks, &mut levels).unwrap();
    let planes = kind.planes(blocks).unwrap();
    // what was there before must not matter
    let mut packed = vec![0xa5; blocks.len()];
    kind.pack(&levels, &slices(&planes), &mut packed).unwrap();
    packed
}

#[test]
fn any_bytes_survive_taking_apart_and_packing() {
    for kind in BlockType::ALL {
        let blocks = noise(kind.bytes() * 500);
        assert_eq!(through(kind, &blocks), blocks, "{kind:?}");
        let mut levels = vec![0; 500 * kind.weights()];
        kind.levels(&blocks, &mut levels).unwrap();
        let (min, max) = kind.level_range();
        assert_eq!(levels.iter().copied().min(), Some(min), "{kind:?}");
        assert_eq!(levels.iter().copied().max(), Some(max), "{kind:?}");
        assert_eq!(kind.center() - min, max + 1 - kind.center(), "{kind:?}");
    }
}

#[test]
fn every_bit_of_a_block_is_in_a_level_or_a_plane() {
    for kind in BlockType::ALL {
        for bit in 0..8 * kind.bytes() {
            for rest in [0, 0xff] {
                let mut block = vec![rest; kind.bytes()];
                block[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(through(kind, &block), block, "{kind:?}: bit {bit} among {rest:#x}");
            }
        }
    }
}

#[test]
fn levels_and_weights_are_those_looked_up_one_by_one() {
    for kind in BlockType::ALL {
        let n = kind.weights();
        let blocks = noise(kind.bytes() * 200);
        let (mut levels, mut weights) = (vec![0; 200 * n], vec![0.0; 200 * n]);
        kind.levels(&blocks, &mut levels).unwrap();
        kind.dequantize(&blocks, &mut weights).unwrap();
        let bias = kind.values().bias as f32;
        for (i, (&found, &w)) in levels.iter().zip(&weights).enumerate() {
            let (level, s, m) = weight(kind, &blocks[i / n * kind.bytes()..][..kind.bytes()], i % n);
            assert_eq!(found, level, "{kind:?}: weight {i}");
            let expected = s * (level as f32 + bias) + m;
            let same = w == expected || (w.is_nan() && expected.is_nan());
            assert!(same, "{kind:?}: weight {i} is {w}, expected {expected}");
        }
    }
}

#[test]
fn planes_hold_the_scales_of_the_format() {
    for kind in BlockType::ALL {
        let blocks = noise(kind.bytes() * 100);
        let planes = kind.planes(&blocks).unwrap();
        let per_block = kind.plane_bytes();
        assert!(planes.iter().map(Vec::len).eq(per_block.iter().map(|n| 100 * n)));
        let (size, supers, bias, nested) = match kind.values().scales {
            Scales::Nested { size, supers, bias, .. } => (size as usize, supers as usize, bias, true),
            _ => (32, 1, 0, false),
        };
        let min = planes.len() == if nested { 6 } else { 4 };
        let of =
            |plane: usize, i: usize| f16::from_be_bytes([planes[plane][i], planes[plane + 1][i]]).to_f32();
        let first = if nested { 1 + usize::from(min) } else { 0 };
        (0..100 * supers).for_each(|group| {
            let block = group / supers;
            let c = if nested { (i32::from(planes[0][group]) + bias) as f32 } else { 1.0 };
            let e = if nested && min { -f32::from(planes[1][group]) } else { 1.0 };
            let m = if min { of(first + 2, block) * e } else { 0.0 };
            let bytes = &blocks[block * kind.bytes()..][..kind.bytes()];
            let (_, s_there, m_there) = weight(kind, bytes, group % supers * size);
            let same = |a: f32, b: f32| a == b || (a.is_nan() && b.is_nan());
            assert!(same(of(first, block) * c, s_there), "{kind:?}: group {group}");
            assert!(same(m, m_there), "{kind:?}: group {group}");
        });
    }
}

#[test]
fn blocks_written_by_hand_have_the_weights_of_the_format() {
    let d = f16::from_f32(0.5).to_bits().to_le_bytes();
    let m = f16::from_f32(-2.0).to_bits().to_le_bytes();
    let mut out = [0.0; 32];

    let mut block = [&d[..], &[0x88; 16]].concat();
    block[2] = 0xf1; // weight 0 is 1, weight 16 is 15
    BlockType::Q4_0.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[0], out[1], out[16], out[31]), (-3.5, 0.0, 3.5, 0.0));

    let mut block = [&d[..], &m[..], &[0x00; 16]].concat();
    block[4 + 3] = 0x4f; // weight 3 is 15, weight 19 is 4
    BlockType::Q4_1.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[0], out[3], out[19]), (-2.0, 5.5, 0.0));

    let mut block = [&d[..], &[0x01, 0, 0, 0x80], &[0x00; 16]].concat();
    block[6] = 0x03; // weight 0 is 16 + 3, weight 31 is 16
    BlockType::Q5_0.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[0], out[1], out[31]), (1.5, -8.0, 0.0));

    let block = [&d[..], &m[..], &[0x00, 0x02, 0, 0], &[0x21; 16]].concat();
    BlockType::Q5_1.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[0], out[9], out[16]), (-1.5, 6.5, -1.0)); // 1, 16 + 1 and 2

    let mut block = [&d[..], &[0x00; 32]].concat();
    block[2..5].copy_from_slice(&[0x80, 0x7f, 0xff]);
    BlockType::Q8_0.dequantize(&block, &mut out).unwrap();
    assert_eq!(out[..4], [-64.0, 63.5, -0.5, 0.0]);
}

#[test]
fn large_blocks_written_by_hand_have_the_weights_of_the_format() {
    let (d, dmin) = ([0x00, 0x38], [0x00, 0x34]); // 0.5 and 0.25
    let mut out = [0.0; 256];

    // group 1 has scale 3 and minimum 2; weight 16 is 3
    let mut block = [vec![0; 16 + 64], d.to_vec(), dmin.to_vec()].concat();
    (block[1], block[16 + 16]) = (0x23, 0x03);
    BlockType::Q2_K.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[15], out[16], out[17], out[32]), (0.0, 4.0, -0.5, 0.0));

    // all scales are -32 but that of group 15, which is 1; weight 255 is 4 + 2, weight 254 is 1
    let mut block = [vec![0; 32 + 64 + 12], d.to_vec()].concat();
    (block[31], block[32 + 63], block[32 + 62]) = (0x80, 0x80, 0x40);
    (block[96 + 7], block[104 + 3]) = (0x10, 0x80);
    BlockType::Q3_K.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[0], out[239], out[253], out[254], out[255]), (64.0, 64.0, -2.0, -1.5, 1.0));

    // group 0 has scale 63 and minimum 1; group 4 has scale 16 + 5 and minimum 32 + 2
    let scales = [0x7f, 0, 0, 0, 0x81, 0, 0, 0, 0x25, 0, 0, 0];
    let mut block = [d.to_vec(), dmin.to_vec(), scales.to_vec(), vec![0; 128]].concat();
    (block[16 + 1], block[16 + 64 + 1]) = (0x0f, 0x02);
    BlockType::Q4_K.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[0], out[1], out[32], out[128], out[129]), (-0.25, 472.25, 0.0, -8.5, 12.5));

    // the same with a fifth bit of weight 129
    let mut block = [&block[..16], &[0; 32], &block[16..]].concat();
    block[16 + 1] = 1 << 4;
    BlockType::Q5_K.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[0], out[1], out[128], out[129]), (-0.25, 472.25, -8.5, 180.5));

    // all codes are 0, which is -32; group 2 has scale -1; weight 32 is 48 + 1
    let mut block = [vec![0; 128 + 64 + 16], d.to_vec()].concat();
    (block[32], block[128], block[192 + 2], block[192 + 15]) = (0x01, 0x0c, 0xff, 0x80);
    BlockType::Q6_K.dequantize(&block, &mut out).unwrap();
    assert_eq!((out[31], out[32], out[33], out[255]), (0.0, -8.5, 16.0, 2048.0));
}

#[test]
fn lengths_and_values_that_do_not_fit_are_errors() {
    for kind in BlockType::ALL {
        let (bytes, n) = (kind.bytes(), kind.weights());
        let short = vec![0; bytes - 1];
        let partial = BlockError::PartialBlock { bytes: bytes - 1, block: bytes };
        assert_eq!(kind.levels(&short, &mut vec![0; n]), Err(partial.clone()));
        assert_eq!(kind.dequantize(&short, &mut vec![0.0; n]), Err(partial.clone()));
        assert_eq!(kind.planes(&short), Err(partial));
        let mut block = vec![0; bytes];
        let wrong = |result| assert!(matches!(result, Err(BlockError::Length { .. })), "{result:?}");
        wrong(kind.levels(&block, &mut vec![0; n - 1]));
        wrong(kind.dequantize(&block, &mut vec![0.0; 2 * n]));
        let planes = kind.planes(&block).unwrap();
        let planes = slices(&planes);
        wrong(kind.pack(&vec![0; n], &planes[1..], &mut block));
        wrong(kind.pack(&vec![0; n + 1], &planes, &mut block));
        for i in 0..planes.len() {
            let mut planes = planes.clone();
            planes[i] = &planes[i][1..];
            wrong(kind.pack(&vec![0; n], &planes, &mut block));
        }
        let (min, max) = kind.level_range();
        for level in [min - 1, max + 1, i32::MIN, i32::MAX] {
            let mut levels = vec![0; n];
            levels[n - 1] = level;
            let error = Err(BlockError::Level { level, min, max });
            assert_eq!(kind.pack(&levels, &planes, &mut block), error);
        }
    }
}

#[test]
fn integer_scales_that_do_not_fit_are_errors() {
    let limits = [
        (BlockType::Q2_K, 15, 2),
        (BlockType::Q3_K, 63, 1),
        (BlockType::Q4_K, 63, 2),
        (BlockType::Q5_K, 63, 2),
    ];
    for (kind, max, of_integers) in limits {
        let mut block = vec![0; kind.bytes()];
        let whole = kind.planes(&block).unwrap();
        for plane in 0..of_integers {
            for value in [max, max + 1, 255] {
                let mut planes = whole.clone();
                *planes[plane].last_mut().unwrap() = value;
                let packed = kind.pack(&[0; 256], &slices(&planes), &mut block);
                let expected = if value > max { Err(BlockError::Integer { value, max }) } else { Ok(()) };
                assert_eq!(packed, expected, "{kind:?}");
            }
        }
    }
}
