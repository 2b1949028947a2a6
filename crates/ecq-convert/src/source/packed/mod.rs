//! Tensors that a tool has quantized already: packed levels in one tensor, scales and zero points in others beside it.
//!
//! A family of tensors is *joined* where the model says how it is packed (`metadata.rs`) and every shape and type is
//! what that calls for (`join.rs`). The packed tensor then stands for a matrix of levels ([`Layout`]) with scales
//! ([`Grouping`]), whose other tensors are its *parts*. All others are kept as they are.

mod join;
mod layout;
mod matrix;
mod metadata;
mod parts;

use std::collections::HashMap;

use ecq_format::directory::Values;

pub(super) use join::join;
pub use layout::Layout;
pub use matrix::PackedMatrix;
pub(super) use metadata::Texts;
pub use parts::{Form, Grouping};

/// A packed tensor and what belongs to it.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Shape of the matrix that it stands for, outermost dimension first.
    pub shape: Vec<u64>,
    /// How it is packed.
    pub grouping: Grouping,
    /// From level to weight.
    pub values: Values,
    /// Its parts in the order of their indices, as indices into [`super::Source::tensors`].
    pub parts: Vec<usize>,
    /// Other tensors that only tell how it is packed.
    pub beside: Vec<usize>,
}

/// What a tensor is to packed ones.
#[derive(Clone, Copy, Debug)]
pub enum Role<'a> {
    /// Nothing.
    Free,
    /// It holds the levels.
    Main(&'a Packed),
    /// It belongs to one that holds levels, and goes where that goes.
    Member,
    /// It is or belongs to one that is kept as it is, because nothing tells how, or in a way that is not known. Its numbers
    /// are no weights.
    Kept,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Main(usize),
    Member,
    Kept,
}

/// All packed tensors of a source.
#[derive(Debug, Default)]
pub(super) struct Joined {
    all: Vec<Packed>,
    places: HashMap<String, Place>,
    unexplained: Option<String>,
}

impl Joined {
    /// What the tensor of this name is.
    pub(super) fn role(&self, name: &str) -> Role<'_> {
        match self.places.get(name) {
            None => Role::Free,
            Some(&Place::Main(index)) => Role::Main(&self.all[index]),
            Some(Place::Member) => Role::Member,
            Some(Place::Kept) => Role::Kept,
        }
    }

    /// A tensor of GPTQ's or AWQ's form, if nothing says how it is packed.
    pub(super) fn unexplained(&self) -> Option<&str> {
        self.unexplained.as_deref()
    }
}
