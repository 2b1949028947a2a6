//! Instruction sets: which there are, and which this CPU has.
//!
//! An [`Isa`] is a proof: it can be had only where the CPU executes its instructions, so everything that takes one is
//! safe to call. With the feature `std` the CPU is asked at run time; without it, what the compiler was told to assume
//! decides.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;

/// The instruction sets that there are fast paths for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InstructionSet {
    /// No vector instructions beyond what the compiler makes of plain loops: the reference, on every machine.
    Scalar,
    /// AVX2 with POPCNT: Intel since Haswell, AMD since Excavator.
    Avx2,
    /// AVX-512 with F, BW, VL, VBMI and VBMI2: Intel since Ice Lake, AMD since Zen 4. Machines with an older AVX-512
    /// use AVX2.
    Avx512,
}

impl InstructionSet {
    /// All of them, the slowest first.
    pub const ALL: [Self; 3] = [Self::Scalar, Self::Avx2, Self::Avx512];

    /// Lower-case name: "scalar", "avx2", "avx512".
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(InstructionSet);

impl Isa {
    /// The reference, which every machine can run.
    pub const SCALAR: Self = Self(InstructionSet::Scalar);

    /// `None` if this CPU lacks it (without `std`: if the compiler was not told that the CPU has it).
    pub fn new(set: InstructionSet) -> Option<Self> {
        has(set).then_some(Self(set))
    }

    /// The fastest that this CPU has.
    pub fn best() -> Self {
        InstructionSet::ALL.into_iter().rev().find_map(Self::new).unwrap_or(Self::SCALAR)
    }

    /// All that this CPU has, the slowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        InstructionSet::ALL.into_iter().filter_map(Self::new)
    }

    /// Which it is.
    pub fn set(self) -> InstructionSet {
        self.0
    }
}

/// Asks the CPU (`std`), or takes what the compiler was told.
#[cfg(target_arch = "x86_64")]
macro_rules! x86 {
    ($($feature:tt),*) => {{
        #[cfg(feature = "std")]
        { $(std::arch::is_x86_feature_detected!($feature))&&* }
        #[cfg(not(feature = "std"))]
        { $(cfg!(target_feature = $feature))&&* }
    }};
}

#[cfg(target_arch = "x86_64")]
fn has(set: InstructionSet) -> bool {
    match set {
        InstructionSet::Scalar => true,
        InstructionSet::Avx2 => x86!("avx2", "popcnt"),
        InstructionSet::Avx512 => {
            x86!("avx512f", "avx512bw", "avx512vl", "avx512vbmi", "avx512vbmi2") && has(InstructionSet::Avx2)
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has(set: InstructionSet) -> bool {
    set == InstructionSet::Scalar
}
