//! What shaders there are: everything that the source of a kernel depends on, and the source.

use std::sync::LazyLock;

use crate::nibble::Walk;
use crate::prompt::Prompt;
use crate::scales::{self, Grouped};
use crate::shader::Binding;
use ecq_format::pattern::{FloatFormat, Pattern};
use minijinja::{Environment, UndefinedBehavior, context};

/// How the lanes of a stream lie on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// Subgroups of this many invocations, a power of two from 4 to 128.
    Subgroups(u32),
    /// No subgroups: a workgroup of 32 invocations a stream, with barriers.
    Barriers,
}

/// Where kernels that decode pairs have the table of the code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Table {
    /// In workgroup memory, as entries that need no more than a shift; each workgroup fills it.
    #[default]
    Workgroup,
    /// In the buffer as it is: nothing to fill, but two loads for each symbol, and an entry to make of them.
    Storage,
}

/// What only a measurement can choose: the products are the same.
///
/// The defaults are what counts of instructions suggest; `cargo xtask bench gpu` measures others beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    /// Where the table is, with subgroups. Without them it is in the buffer.
    pub table: Table,
    /// Streams of pairs that a workgroup decodes, with subgroups: at most 8, and as many as whole subgroups decode.
    pub streams: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        // eight streams share a table
        Self { table: Table::Workgroup, streams: 8 }
    }
}

/// Most invocations of a workgroup.
const WORKGROUP: u32 = 256;
/// Pairs of sums that fit the workgroup memory that WebGPU promises, less what else there is; a vector has up to five.
const PARTS: u32 = (16 << 10) / 8 - 8;
/// Subgroups that make a band from packed weights; four of 32 hide the way to memory, and their sums cost little.
const PLAIN: u32 = 4;

/// Code of the nibbles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The prefix code of `prefix-core`.
    Prefix,
    /// The `byte` codec of `rans-core`.
    Rans,
    /// The `nibble` codec of `rans-core`: no pairs, but a nibble a symbol.
    Nibble {
        /// Lanes of a stream, a multiple of 64 up to 1,024.
        lanes: u32,
    },
}

/// What a level is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// The nibble, and raw bits below it.
    Integer {
        /// Raw bits of a level.
        raw_bits: u32,
    },
    /// The nibble's number in a codebook.
    Codebook,
    /// The bit pattern of a float.
    Float {
        /// The format, and the magnitude of level 0.
        pattern: Pattern,
        /// Raw bits of a level.
        raw_bits: u32,
    },
}

impl Value {
    /// Raw bits of a level.
    pub fn raw_bits(self) -> u32 {
        match self {
            Self::Integer { raw_bits } | Self::Float { raw_bits, .. } => raw_bits,
            Self::Codebook => 0,
        }
    }
}

impl Value {
    /// Any value whose packed weights are the same: they do not show how many bits were raw, nor from where magnitudes count.
    fn as_packed(self) -> Self {
        let bits = self.packed_bits();
        match self {
            Self::Integer { raw_bits: 1.. } => Self::Integer { raw_bits: bits / 2 },
            Self::Float { pattern, .. } => {
                Self::Float { pattern: Pattern { base: 0, ..pattern }, raw_bits: bits - 4 }
            }
            other => other,
        }
    }

    /// Bits of a packed weight: 4, 8 or 16.
    pub fn packed_bits(self) -> u32 {
        match self {
            Self::Integer { raw_bits: 0 } | Self::Codebook => 4,
            Self::Integer { raw_bits } => {
                if raw_bits <= 4 {
                    8
                } else {
                    16
                }
            }
            Self::Float { pattern, .. } => pattern.format.bits(),
        }
    }
}

/// What the kernels for a tensor depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// Code of the nibbles.
    pub code: Code,
    /// What a level is.
    pub value: Value,
    /// Scales of groups.
    pub groups: Option<Grouped>,
    /// Whether columns have factors.
    pub columns: bool,
    /// Whether rows have factors.
    pub rows: bool,
    /// Whether a constant is missing in the value of each level.
    pub constant: bool,
    /// Whether all weights have an offset.
    pub offset: bool,
    /// Whether there are any.
    pub escapes: bool,
}

/// Type of the vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Input {
    /// f32
    #[default]
    F32,
    /// f16, where the device has it
    F16,
}

impl Input {
    /// Bytes of a number.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What a kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Product of coded weights and this many vectors.
    Fused {
        /// Number of vectors, 1 to 16.
        vectors: u32,
        /// Their type.
        input: Input,
    },
    /// Coded weights to packed ones.
    Decode,
    /// Product of packed weights and this many vectors.
    Plain {
        /// Number of vectors, 1 to 16.
        vectors: u32,
        /// Their type.
        input: Input,
    },
    /// Product of coded weights and any number of vectors, each weight decoded once for many of them.
    Prompt {
        /// Type of the vectors.
        input: Input,
    },
    /// Likewise, of packed weights.
    PlainPrompt {
        /// Type of the vectors.
        input: Input,
    },
    /// Sums over strips.
    Finish,
}

/// A shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// What it does.
    pub kernel: Kernel,
    /// With which tensors.
    pub form: Form,
    /// On which machines.
    pub lanes: Lanes,
    /// What was chosen by measuring.
    pub tuning: Tuning,
}

macro_rules! wgsl {
    ($($part:literal),+) => { concat!($("\n", include_str!(concat!("kernels/", $part, ".wgsl"))),+) };
}

/// Templates of WGSL: each kernel after what it shares with others.
const SOURCES: [(&str, &str); 8] = [
    ("fused", wgsl!("params", "values", "streams", "scales", "escapes", "product", "fused", "walk")),
    ("decode", wgsl!("params", "values", "streams", "decode", "walk")),
    ("nibble_fused", wgsl!("params", "values", "scales", "escapes", "product", "nibble_fused", "nibble")),
    ("nibble_decode", wgsl!("params", "values", "decode", "nibble_decode", "nibble")),
    ("plain", wgsl!("params", "values", "workgroup", "scales", "escapes", "product", "packed", "plain")),
    (
        "prompt",
        wgsl!("params", "values", "streams", "scales", "escapes", "product", "prompt_coded", "prompt"),
    ),
    (
        "plain_prompt",
        wgsl!("params", "values", "scales", "escapes", "product", "packed", "prompt_packed", "prompt"),
    ),
    ("finish", wgsl!("params", "finish")),
];

static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, source) in SOURCES {
        env.add_template(name, source).expect("a template of this crate is in order");
    }
    env
});

impl Kernel {
    /// Name of the entry point.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fused { .. } => "fused",
            Self::Decode => "decode",
            Self::Plain { .. } => "plain",
            Self::Prompt { .. } => "prompt",
            Self::PlainPrompt { .. } => "plain_prompt",
            Self::Finish => "finish",
        }
    }

    fn vectors(self) -> (u32, Input) {
        match self {
            Self::Fused { vectors, input } | Self::Plain { vectors, input } => (vectors, input),
            Self::Prompt { input } | Self::PlainPrompt { input } => (1, input),
            Self::Decode | Self::Finish => (1, Input::F32),
        }
    }

    /// Whether it reads weights that were decoded before.
    fn is_packed(self) -> bool {
        matches!(self, Self::Plain { .. } | Self::PlainPrompt { .. })
    }

    /// Whether the values that it adds up are those of packed weights, and so is what they lack:
    /// [`Resident::constant`](crate::layout::Resident::constant).
    pub fn as_packed(self) -> bool {
        self.is_packed() || matches!(self, Self::Prompt { .. })
    }
}

impl Variant {
    /// A kernel for tensors of a form, without what makes no difference to it.
    pub fn new(kernel: Kernel, mut form: Form, lanes: Lanes) -> Self {
        if matches!(kernel, Kernel::Decode | Kernel::Finish) {
            let (code, value) = (form.code, form.value);
            form = Form { code, value, ..Form::PLAIN };
        }
        if kernel.is_packed() || kernel == Kernel::Finish {
            form.code = Code::Prefix;
            form.value = form.value.as_packed();
        }
        if kernel == Kernel::Finish {
            form = Form::PLAIN;
        }
        Self { kernel, form, lanes, tuning: Tuning::default() }
    }

    /// The same with other choices, where they make a difference.
    pub fn tuned(self, tuning: Tuning) -> Self {
        let decodes = matches!(self.kernel, Kernel::Fused { .. } | Kernel::Decode) && self.walk().is_none();
        let tuning = if decodes && self.lanes != Lanes::Barriers { tuning } else { Tuning::default() };
        Self { tuning, ..self }
    }

    /// Buffers that it uses.
    pub fn bindings(&self) -> Vec<Binding> {
        use Binding::{Read, Uniform, Write};
        let product = [
            Some(Read(4)),
            Some(Write(5)),
            self.form.has_side().then_some(Read(6)),
            self.form.escapes.then_some(Read(7)),
        ];
        let book = (self.form.value == Value::Codebook).then_some(Read(3));
        match self.kernel {
            Kernel::Fused { .. } | Kernel::Prompt { .. } => [Uniform(0), Read(1), Read(2), Read(3)]
                .into_iter()
                .chain(product.into_iter().flatten())
                .collect(),
            Kernel::Decode => vec![Uniform(0), Read(1), Read(2), Read(3), Write(5)],
            Kernel::Plain { .. } | Kernel::PlainPrompt { .. } => {
                let all = [Some(Uniform(0)), Some(Read(1)), book].into_iter().chain(product);
                all.flatten().collect()
            }
            Kernel::Finish => vec![Uniform(0), Read(4), Write(5)],
        }
    }

    /// The shader in WGSL; its entry point is called as its kernel.
    pub fn source(&self) -> String {
        let name = match (self.walk(), self.kernel) {
            (Some(_), Kernel::Decode) => "nibble_decode",
            (Some(_), _) => "nibble_fused",
            (None, kernel) => kernel.name(),
        };
        let template = TEMPLATES.get_template(name).expect("every kernel has a template");
        template.render(self.context()).expect("a template of this crate renders")
    }

    /// How it goes through streams of the `nibble` codec, if it does.
    pub(crate) fn walk(&self) -> Option<Walk> {
        match (self.kernel, self.form.code) {
            (Kernel::Fused { vectors, .. }, Code::Nibble { lanes }) => {
                Some(Walk::new(lanes, self.lanes, vectors))
            }
            (Kernel::Decode, Code::Nibble { lanes }) => Some(Walk::new(lanes, self.lanes, 0)),
            _ => None,
        }
    }

    /// Streams that a workgroup decodes.
    pub fn streams(&self) -> u32 {
        match (self.walk(), self.lanes) {
            (Some(_), _) | (None, Lanes::Barriers) => 1,
            (None, Lanes::Subgroups(size)) => {
                // whole subgroups
                let side_by_side = size.div_ceil(32);
                (self.tuning.streams.min(WORKGROUP / 32) / side_by_side).max(1) * side_by_side
            }
        }
    }

    /// Invocations of a workgroup of a product, or of one that decodes.
    pub(crate) fn threads(&self) -> u32 {
        if let Some(walk) = self.walk() {
            return walk.threads;
        }
        match (self.kernel, self.lanes) {
            (Kernel::Plain { .. }, Lanes::Subgroups(size)) => (PLAIN * size).min(WORKGROUP),
            (Kernel::Plain { .. }, Lanes::Barriers) => (PLAIN * 32).min(WORKGROUP),
            (Kernel::Prompt { .. } | Kernel::PlainPrompt { .. }, lanes) => Prompt::of(lanes).threads,
            (_, Lanes::Subgroups(size)) => self.streams() * size.min(32),
            (_, Lanes::Barriers) => 32,
        }
    }

    /// Parts of a sum that invocations leave in workgroup memory, where they do.
    fn groups_of(&self) -> u32 {
        match (self.kernel, self.lanes) {
            (_, Lanes::Subgroups(size)) => self.threads() / size,
            (Kernel::Plain { .. }, Lanes::Barriers) => self.threads(),
            (_, Lanes::Barriers) => 32,
        }
    }

    /// Vectors whose sums are in workgroup memory at once.
    fn summed(&self) -> u32 {
        let plain = matches!(self.kernel, Kernel::Plain { .. });
        self.kernel.vectors().0.min(PARTS / (5 * if plain { self.groups_of() } else { 32 }))
    }

    /// Bytes of these parts: five sums of two rows for each vector.
    pub(crate) fn parts_bytes(&self) -> u32 {
        8 * 5 * self.groups_of() * self.summed()
    }

    fn context(&self) -> minijinja::Value {
        let (vectors, input) = self.kernel.vectors();
        let all = context! {
            kernel => self.kernel.name(), threads => self.threads(), m => vectors,
            bits => self.form.value.packed_bits(),
            input => match input { Input::F32 => "f32", Input::F16 => "f16" },
            ..self.form.context()
        };
        if let Some(walk) = self.walk() {
            return context! { ..walk.context(), ..all };
        }
        let plain = matches!(self.kernel, Kernel::Plain { .. });
        let (subgroups, size) = match self.lanes {
            Lanes::Subgroups(size) => (true, size),
            Lanes::Barriers => (false, 32),
        };
        let s = if plain { self.threads() } else { size.min(32) };
        let reach = if plain { size } else { s };
        let prompt = matches!(self.kernel, Kernel::Prompt { .. } | Kernel::PlainPrompt { .. });
        let part = Prompt::of(self.lanes);
        let streams = if prompt { part.tiles } else { self.streams() };
        let distances: Vec<u32> = (0..reach.ilog2()).map(|i| 1 << i).collect();
        context! {
            subgroups, s, k => 32 / size.min(32), h => size.div_ceil(32), t => streams / size.div_ceil(32),
            streams, table => subgroups && !prompt && self.tuning.table == Table::Workgroup, distances, groups_of => self.groups_of(), summed => self.summed(),
            tiles => part.tiles, v => part.vectors, vg => part.groups, deep => part.deep,
            ..all
        }
    }
}

impl Form {
    /// Nibbles by the prefix code, with one scale.
    pub const PLAIN: Self = Self {
        code: Code::Prefix,
        value: Value::Integer { raw_bits: 0 },
        groups: None,
        columns: false,
        rows: false,
        constant: false,
        offset: false,
        escapes: false,
    };

    /// Whether there are scales of any kind.
    pub fn has_side(&self) -> bool {
        self.columns || self.rows || self.groups.is_some()
    }

    fn context(&self) -> minijinja::Value {
        let raw_bits = self.value.raw_bits();
        let fields = Field::of(raw_bits).map(|field| {
            context! { width => field.width, low => field.low, at => field.place("p.cols") }
        });
        let value = match self.value {
            Value::Integer { raw_bits: 0 } => "level",
            Value::Integer { .. } => "raw",
            Value::Codebook => "book",
            Value::Float { .. } => "float",
        };
        let float = match self.value {
            Value::Float { pattern, .. } => {
                let (mantissa, bias, special) = shape(pattern.format);
                context! {
                    base => pattern.base, float_bits => pattern.format.bits(), mantissa, exponent_bias => bias,
                    special, smallest => format!("{:e}", (2f64).powi(1 - bias as i32 - mantissa as i32)),
                }
            }
            _ => context! {},
        };
        let groups = match self.groups {
            Some(groups) => groups.context(),
            None => context! { scales => false },
        };
        context! {
            code => match self.code {
                Code::Prefix => "prefix",
                Code::Rans => "rans",
                Code::Nibble { .. } => "nibble",
            },
            value, raw_bits, fields => fields.collect::<Vec<_>>(),
            raw_words => Field::words(raw_bits, "p.cols"),
            // what the table has less than a nibble
            bias => if raw_bits == 0 { "7.5" } else { "-0.5" },
            // n + 1/2, times 2^(r-1), is that much more than its part of a level
            fold_less => format!("{:?}", (2f64).powi(raw_bits as i32 - 2) - 0.5),
            columns => self.columns, row_factors => self.rows, constant => self.constant, offset => self.offset,
            side => self.has_side(),
            escapes => self.escapes, formats => scales::formats(),
            ..context! { ..float, ..groups }
        }
    }
}

/// Bits of the mantissa, bias of the exponent, and the exponent that means infinity or not a number.
fn shape(format: FloatFormat) -> (u32, u32, u32) {
    let bias = match format {
        FloatFormat::Bf16 => 127,
        FloatFormat::F16 | FloatFormat::F8E5M2 => 15,
        FloatFormat::F8E4M3 => 7,
    };
    let special = match format {
        FloatFormat::F16 | FloatFormat::F8E5M2 => 31,
        FloatFormat::Bf16 => 0, // as in an f32
        FloatFormat::F8E4M3 => 0,
    };
    (format.mantissa(), bias, special)
}

/// A field of the raw bits: `width` bits from bit `low` of a level's raw bits on. For the eight rows of a column of a band
/// they are `width` bytes, and these are side by side for all columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bits: 1, 2, 4 or 8.
    pub width: u32,
    /// Its lowest bit.
    pub low: u32,
}

impl Field {
    /// Fields as the format cuts raw bits: the widest first.
    pub fn of(raw_bits: u32) -> impl Iterator<Item = Self> + Clone {
        let wide = [8, 4, 2, 1].into_iter().filter(move |width| raw_bits & width != 0);
        wide.scan(0, |low, width| {
            let field = Self { width, low: *low };
            *low += width;
            Some(field)
        })
    }

    /// Word and bit of a row of a band (0..8) and a column.
    ///
    /// A word of a field of one bit has four columns: four bits for rows 0, 2, 4, 6 of each in its lower half, those for
    /// rows 1, 3, 5, 7 in the upper half, as the two rows of a pair are halves of a word when they get their signs.
    pub fn position(self, row: usize, col: usize) -> (usize, usize) {
        if self.width == 1 {
            return (col / 4, col % 4 * 4 + row / 2 + row % 2 * 16);
        }
        let bit = (8 * col + row) * self.width as usize;
        (bit / 32, bit % 32)
    }

    /// Words of this field in a band of `cols` columns.
    pub fn band_words(self, cols: u64) -> u64 {
        (cols * u64::from(self.width)).div_ceil(4)
    }

    /// Likewise, in WGSL.
    fn words_in(self, cols: &str) -> String {
        match self.width {
            8 => format!("2u * {cols}"),
            4 => cols.into(),
            2 => format!("({cols} + 1u) / 2u"),
            _ => format!("({cols} + 3u) / 4u"),
        }
    }

    /// Where the field begins among the raw bits of a band, in WGSL. No two sets of fields share a widest one of other
    /// width, so what comes before a field are all wider ones in `low`.
    fn place(self, cols: &str) -> String {
        let before = Self::of(self.low).map(|field| field.words_in(cols));
        before.chain(["0u".into()]).collect::<Vec<_>>().join(" + ")
    }

    /// Words of all raw bits of a band, in WGSL.
    fn words(raw_bits: u32, cols: &str) -> String {
        let fields = Self::of(raw_bits).map(|field| field.words_in(cols));
        fields.chain(["0u".into()]).collect::<Vec<_>>().join(" + ")
    }
}
