//! Tensors of every kind to a file and back.

use arbitrary::{Result, Unstructured};
use ecq_format::directory::{PairCode, Pairs, Scales, Values};
use ecq_format::encode::Profile;
use ecq_format::pattern::FloatFormat;
use ecq_format::predict::Predictor;

use crate::common::{Coded, Draw, Floats, Matrix, Model, Part, floats, read, sources};
use crate::place;

/// Writes a file of a few tensors and reads it.
pub fn round_trip(bytes: &[u8]) {
    let Ok(model) = model(&mut Unstructured::new(bytes)) else { return };
    let path = place::path("round-trip.ecq");
    model.write(&path, true, 0).expect("what is in order can be written");
    let contents = read(&path).expect("what was written can be read");
    let expected: Vec<Part> = model
        .coded
        .iter()
        .map(|t| Part::Coded { levels: t.matrix.levels.clone(), planes: t.planes.clone() })
        .collect();
    let (found, rest) = contents.tensors.split_at(expected.len());
    assert!(*found == expected[..], "levels or scales changed on the way");
    for (part, tensor) in rest.iter().zip(&model.floats) {
        let Part::Floats { bytes, .. } = part else { panic!("{}: no floats", tensor.name) };
        assert!(*bytes == tensor.bytes, "floats changed on the way");
    }
    let blobs = contents.blobs.iter().zip(&model.blobs);
    blobs.for_each(|(found, (name, bytes))| assert!(found == bytes, "{name} changed on the way"));
}

fn model(u: &mut Unstructured<'_>) -> Result<Model> {
    let mut model = Model::default();
    for i in 0..u.int_in_range(0..=2)? {
        model.coded.push(coded(u, format!("coded.{i}"))?);
    }
    for i in 0..u.int_in_range(0..=1)? {
        model.floats.push(of_floats(u, format!("floats.{i}"))?);
    }
    model.blobs.push(("a.json".into(), u.bytes(u.len().min(40))?.repeat(u.int_in_range(0..=20)?)));
    if u.arbitrary()? {
        let code = *u.choose(&[PairCode::Prefix, PairCode::Rans])?;
        let (band, strip) = (2 * u.int_in_range(1..=32)?, 32 * u.int_in_range(1..=4)?);
        model.pairs = Some((Pairs { code, band, strip }, u.int_in_range(1..=80)?));
        model.lanes = Some((64 * u.int_in_range(1..=16)?, u.int_in_range(1..=80)?));
    }
    Ok(model)
}

fn size(u: &mut Unstructured<'_>) -> Result<(usize, usize)> {
    Ok((u.int_in_range(1..=70)?, u.int_in_range(1..=130)?))
}

fn profile(u: &mut Unstructured<'_>) -> Result<Profile> {
    Ok(*u.choose(&[Profile::Cpu, Profile::Gpu])?)
}

fn coded(u: &mut Unstructured<'_>, name: String) -> Result<Coded> {
    let (rows, cols) = size(u)?;
    // differences are of levels of 8 bits
    let predictor =
        *u.choose(&[None, Some(Predictor::Left), Some(Predictor::Up), Some(Predictor::Planar)])?;
    let (center, spread, rare): (i16, u32, u32) = (u.arbitrary()?, u.int_in_range(0..=24)?, u.arbitrary()?);
    let mut draw = Draw(u.arbitrary()?);
    let matrix = Matrix::new(rows, cols, || match predictor {
        Some(_) => (draw.bits() as i8).max(-127).into(),
        None if draw.bits() < rare >> 4 => draw.bits() as i32,
        None => i32::from(center) + (draw.bits() & draw.bits()).unbounded_shr(32 - spread) as i32,
    });
    let all = sources::scales(u.int_in_range(1..=cols as u64)?);
    let scales = *u.choose(&all)?;
    let (scales, planes) = match u.arbitrary()? {
        true => (scales, sources::planes(scales, rows, cols, &mut draw)),
        false => (Scales::None, Vec::new()),
    };
    let raw = u.int_in_range(0..=8)?;
    Ok(Coded {
        name,
        shape: vec![rows as u64, cols as u64],
        matrix,
        profile: profile(u)?,
        center: if predictor.is_some() { 0 } else { center.into() },
        raw_bits: if u.arbitrary()? { raw..=raw } else { 0..=8 },
        values: Values { scales, ..Values::ONE },
        planes,
        predictor,
    })
}

fn of_floats(u: &mut Unstructured<'_>, name: String) -> Result<Floats> {
    let (rows, cols) = size(u)?;
    let all = [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2];
    let format = *u.choose(&all)?;
    let bytes = floats(format, rows * cols, u.arbitrary()?, &mut Draw(u.arbitrary()?));
    Ok(Floats { name, shape: vec![rows as u64, cols as u64], format, profile: profile(u)?, bytes })
}
