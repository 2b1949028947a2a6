//! Matrix products straight from the coded tensors of a `.ecq` file: `y = W x` without W ever being in memory.
//!
//! A few rows by a few hundred columns at a time are decoded into the first cache and multiplied there. [`Matrix`] is a
//! tensor that stays coded, [`Packed`] one that was decoded to plain integers; both multiply the same [`Activations`],
//! one vector or many, in f32 or rounded to 8 bits ([`Precision`]).
//!
//! ```
//! # use ecq_format::directory::{Extent, Role, Scales, SourceFile, Values};
//! # use ecq_format::encode::{Encoder, Levels, Profile, histogram};
//! # use ecq_format::{Writer, plan::Plan, side::Side, writer::TensorHead};
//! use ecq_cpu::{Matrix, Precision};
//! use ecq_format::{Limits, Reader, reader::Tensor};
//!
//! # struct Ones;
//! # impl Levels for Ones {
//! #     fn fill(&self, _: std::ops::Range<usize>, out: &mut [i32]) {
//! #         out.fill(1);
//! #     }
//! # }
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.ecq");
//! # let values = Values { step: 0.5, ..Values::ONE };
//! # let plan = Plan::cheapest(&histogram(&Ones, 8, 64, 0), 0..=0).ok_or("no levels")?;
//! # let encoder = Encoder::new("ecq", &[8, 64], values, Profile::Cpu, &plan, &Ones)?;
//! # let mut writer = Writer::create(&path, false, 0)?;
//! # let source = Extent { file: 0, offset: 0, len: 1 };
//! # let head = TensorHead { name: "w", shape: &[8, 64], dtype: "F32", source };
//! # writer.coded(head, &encoder, &Side::new(&[]), |_| true)?;
//! # let verbatim = writer.blob("m", Role::Verbatim, &[])?;
//! # let sha256 = "0".repeat(64);
//! # writer.finish(vec![SourceFile { name: "m".into(), format: "gguf".into(), size: 1, sha256, verbatim }], false)?;
//! let reader = Reader::open(&path, Limits::default())?;
//! let Tensor::Coded(tensor) = reader.tensor("w")? else { return Err("stored as it was".into()) };
//! let matrix = Matrix::new(&tensor)?;
//! let x = matrix.activations(Precision::Int8, &[1.0; 64]);
//! let mut y = vec![0.0; matrix.rows()];
//! matrix.multiply(&x, &mut y)?;
//! assert!(y.iter().all(|y| (y - 32.0).abs() < 1e-3)); // 64 weights of 0.5
//!
//! // on a pool of one's own instead of rayon's global one; the result is the same to the bit
//! let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
//! let first = y.clone();
//! pool.install(|| matrix.multiply(&x, &mut y))?;
//! assert_eq!(y, first);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | step | module |
//! |---|---|
//! | vectors → lanes, or integers with scales | [`Activations`] |
//! | scales of a tensor, and what is left to the end of a row | `scaling` |
//! | a tile → panels of codes, or of weights that are floats, escapes apart | `tile` |
//! | a panel × vectors | `arch`, a kernel for each instruction set and precision, one for floats |
//! | rows × one vector of integers | `single` |
//! | 16 rows × many vectors | `wide` |
//! | rows of one or several products over threads | `spread`, `products` |
//! | bytes that a tensor will take | [`memory`] |
//! | threads that stay awake between products | [`team`] |
#![deny(unsafe_code)] // but for the kernels in `arch`, and what `team` lends to threads

mod activations;
mod arch;
#[cfg(all(test, unix, not(miri)))]
#[path = "../../ecq-format/tests/common/mod.rs"]
#[allow(clippy::unwrap_used)]
mod common;
#[cfg(all(test, unix, not(miri)))]
mod guarded;
mod matrix;
pub mod memory;
mod packed;
mod products;
mod scaling;
mod single;
mod spread;
pub mod team;
mod tile;
mod wide;

pub use activations::{Activations, Precision};
pub use matrix::Matrix;
pub use packed::Packed;
pub use products::{Factor, multiply_all};
pub use rans_core::{InstructionSet, Isa};

/// Columns that kernels take at once.
const BLOCK: usize = 64;
/// Sums that a kernel keeps for a row.
const LANES: usize = 16;
/// Neighbouring columns of a block that go to the same lane.
const LANE: usize = BLOCK / LANES;
