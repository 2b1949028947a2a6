//! Which tensors belong together.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use ecq_format::directory::{Codebook, Min, NumberFormat, Scales, Values, matrix};
use serde::Deserialize;

use super::super::error::clip;
use super::super::{SourceFile, SourceTensor, SourceType};
use super::metadata::{Metadata, Texts, Words};
use super::parts::{Form, Grouping};
use super::{Joined, Layout, Packed, Place};

/// How the name of a tensor with the state of bitsandbytes ends, but for the kind.
const STATE: &str = ".quant_state.bitsandbytes__";
/// Longest such state; theirs have some hundred bytes.
const MAX_STATE: u64 = 1 << 16;
/// Most groups that a map of columns can name.
const MAX_MAPPED: u64 = 1 << 16;

/// Finds all packed tensors of a source and joins those that it can; remarks say what is kept as it is, and why.
pub(in crate::source) fn join(
    files: &[SourceFile],
    tensors: &[SourceTensor],
    folder: &Path,
    texts: &[Texts],
) -> (Joined, Vec<String>) {
    let by_name: HashMap<&str, usize> =
        tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let mut finder = Finder { files, tensors, by_name, metadata: Metadata::default() };
    let families = finder.families();
    let mut joined = Joined::default();
    if families.is_empty() {
        return (joined, Vec::new());
    }
    finder.metadata = Metadata::read(folder, texts);
    let mut kept: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for family in families {
        let members: Vec<usize> = family.names().iter().filter_map(|name| finder.find(name)).collect();
        let shared = members.iter().any(|&i| joined.places.contains_key(&tensors[i].name));
        let made = match shared {
            true => Err("it shares tensors with another".into()),
            false => finder.one(&family),
        };
        let name = |i: usize| tensors[i].name.clone();
        match made {
            Ok(packed) => {
                let index = joined.all.len();
                // whatever else has such a name has no use, and is no weights either
                joined.places.extend(members.iter().map(|&i| (name(i), Place::Kept)));
                let used = packed.parts.iter().chain(&packed.beside);
                joined.places.extend(used.map(|&i| (name(i), Place::Member)));
                joined.places.insert(name(family.main), Place::Main(index));
                joined.all.push(packed);
            }
            Err(why) => {
                // what has a place already belongs to a tensor that was joined
                for i in members {
                    joined.places.entry(name(i)).or_insert(Place::Kept);
                }
                if matches!(family.kind, Kind::Words) && finder.metadata.words().is_none() {
                    joined.unexplained.get_or_insert(name(family.main));
                }
                kept.entry(why).or_default().push(&tensors[family.main].name);
            }
        }
    }
    (joined, kept.iter().map(|(why, names)| note(why, names)).collect())
}

fn note(why: &str, names: &[&str]) -> String {
    let first = names.first().map(|name| clip(name)).unwrap_or_default();
    match names.len() {
        1 => format!("packed tensor {first:?} is kept as it is: {why}"),
        n => format!("{n} packed tensors, {first:?} and others, are kept as they are: {why}"),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Mlx,
    /// GPTQ or AWQ.
    Words,
    /// bitsandbytes, with the name of the state's tensor.
    State(usize),
}

/// Tensors that belong together by their names.
struct Family<'a> {
    kind: Kind,
    /// What their names begin with.
    base: &'a str,
    main: usize,
}

impl Family<'_> {
    /// Names that its members can have.
    fn names(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind {
            Kind::Mlx => &[".weight", ".scales", ".biases"],
            Kind::Words => &[".qweight", ".scales", ".qzeros", ".g_idx"],
            Kind::State(_) => {
                &["", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state"]
            }
        };
        let mut names: Vec<String> = suffixes.iter().map(|suffix| format!("{}{suffix}", self.base)).collect();
        if let Kind::State(_) = self.kind {
            names.extend(["nf4", "fp4"].map(|kind| format!("{}{STATE}{kind}", self.base)));
        }
        names
    }
}

/// What bitsandbytes says of a tensor.
#[derive(Deserialize)]
struct State {
    quant_type: String,
    blocksize: u64,
    shape: Vec<u64>,
    nested_blocksize: Option<u64>,
    nested_offset: Option<f64>,
}

struct Finder<'a> {
    files: &'a [SourceFile],
    tensors: &'a [SourceTensor],
    by_name: HashMap<&'a str, usize>,
    metadata: Metadata,
}

impl<'a> Finder<'a> {
    fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Families by names and the type of their main tensor alone.
    fn families(&self) -> Vec<Family<'a>> {
        let mut families = Vec::new();
        for (i, tensor) in self.tensors.iter().enumerate() {
            let name = tensor.name.as_str();
            let scaled = |base: &str| self.find(&format!("{base}.scales")).is_some();
            if let Some(base) = name.strip_suffix(".weight").filter(|base| scaled(base)) {
                if tensor.dtype.name() == "U32" {
                    families.push(Family { kind: Kind::Mlx, base, main: i });
                }
            } else if let Some(base) = name.strip_suffix(".qweight").filter(|base| scaled(base)) {
                families.push(Family { kind: Kind::Words, base, main: i });
            } else if let Some((base, _)) = name.split_once(STATE)
                && let Some(main) = self.find(base)
            {
                families.push(Family { kind: Kind::State(i), base, main });
            }
        }
        families
    }

    /// Joins a family; the error says why it cannot be.
    fn one(&self, family: &Family<'_>) -> Result<Packed, String> {
        match family.kind {
            Kind::Mlx => self.mlx(family),
            Kind::Words => {
                let nothing = "nothing says how: neither \"quantization_config\" in config.json nor a \
                               quantize_config.json beside the file";
                self.words(family, self.metadata.words().ok_or(nothing)??)
            }
            Kind::State(state) => self.state(family, state),
        }
    }

    fn get(&self, base: &str, suffix: &str) -> Result<usize, String> {
        self.find(&format!("{base}{suffix}")).ok_or_else(|| format!("'{suffix}' is missing beside it"))
    }

    fn mlx(&self, family: &Family<'_>) -> Result<Packed, String> {
        let layer = self.metadata.mlx(family.base)?;
        let parts = [self.get(family.base, ".scales")?, self.get(family.base, ".biases")?];
        let [main, scales, biases] = [family.main, parts[0], parts[1]].map(|i| &self.tensors[i]);
        let format = number_format(&scales.dtype).ok_or_else(|| of_type(scales))?;
        if scales.dtype != biases.dtype {
            let (a, b) = (scales.dtype.name(), biases.dtype.name());
            return Err(format!("scales are {a} and biases {b}, expected the same type"));
        }
        let wrong =
            || format!("its shape does not fit {} bits in groups of {}", layer.layout.bits(), layer.group);
        let (&words, outer) = main.shape.split_last().filter(|s| !s.1.is_empty()).ok_or_else(wrong)?;
        let cols = words.checked_mul(32 / layer.layout.bits() as u64).ok_or_else(wrong)?;
        let groups = scales.shape.last().copied().unwrap_or(0);
        let fits = scales.shape.len() == main.shape.len()
            && scales.shape.starts_with(outer)
            && scales.shape == biases.shape
            && groups.checked_mul(layer.group) == Some(cols);
        if !fits {
            return Err(wrong());
        }
        let scales = Scales::Numbers { size: layer.group, format, min: Min::Number, mapped: false };
        let values = Values { scales, ..Values::ONE };
        self.packed(layer.layout, [outer, &[cols]].concat(), values, family.main, parts.into(), vec![])
    }

    fn words(&self, family: &Family<'_>, words: Words) -> Result<Packed, String> {
        let Words { layout, group, bias } = words;
        let (main, base) = (&self.tensors[family.main], family.base);
        let mut parts = vec![self.get(base, ".scales")?, self.get(base, ".qzeros")?];
        let [scales, zeros] = [parts[0], parts[1]].map(|i| &self.tensors[i]);
        let wrong =
            |what: &str| format!("the shape of its {what} does not fit 4 bits and the group size given");
        if [main, zeros].iter().any(|t| t.dtype.name() != "I32") {
            return Err("its integers are not I32".into());
        }
        let format = number_format(&scales.dtype).filter(|f| *f != NumberFormat::F32);
        let format = format.ok_or_else(|| of_type(scales))?;
        let shape = match (layout, &main.shape[..]) {
            (Layout::Gptq4, &[words, out]) => words.checked_mul(8).map(|inputs| [out, inputs]),
            (_, &[inputs, words]) => words.checked_mul(8).map(|out| [out, inputs]),
            _ => None,
        };
        let [out, inputs] = shape.ok_or_else(|| wrong("levels"))?;
        let size = group.unwrap_or(inputs).min(inputs);
        if size == 0 {
            return Err(wrong("levels"));
        }
        let groups = inputs.div_ceil(size);
        if scales.shape != [groups, out] || out % 8 != 0 || zeros.shape != [groups, out / 8] {
            return Err(wrong("scales or zero points"));
        }
        let mut mapped = false;
        if let Some(map) = self.find(&format!("{base}.g_idx")).filter(|_| layout == Layout::Gptq4) {
            mapped = self.is_mapped(map, inputs, size)?;
            parts.push(map);
        }
        let scales = Scales::Numbers { size, format, min: Min::Zero, mapped };
        let values = Values { bias, scales, ..Values::ONE };
        self.packed(layout, vec![out, inputs], values, family.main, parts, vec![])
    }

    /// Whether a map of columns says anything that the size of the groups does not; an error if it says nonsense.
    fn is_mapped(&self, map: usize, inputs: u64, size: u64) -> Result<bool, String> {
        let tensor = &self.tensors[map];
        if tensor.dtype.name() != "I32" || tensor.shape != [inputs] {
            return Err("its g_idx is not a group for each column".into());
        }
        let groups = inputs.div_ceil(size);
        let mut mapped = false;
        for (column, bytes) in (0u64..).zip(self.data(map).as_chunks().0) {
            let group = u64::try_from(i32::from_le_bytes(*bytes)).unwrap_or(u64::MAX);
            if group >= groups.min(MAX_MAPPED) {
                return Err(format!("its g_idx has columns that belong to none of the {groups} groups"));
            }
            mapped |= group != column / size;
        }
        Ok(mapped)
    }

    fn state(&self, family: &Family<'_>, state: usize) -> Result<Packed, String> {
        let unreadable = || "its quant_state cannot be read".to_owned();
        if self.tensors[state].len > MAX_STATE {
            return Err(unreadable());
        }
        let kind = self.tensors[state].name.rsplit_once(STATE).map_or("", |s| s.1);
        let found: State = serde_json::from_slice(self.data(state)).map_err(|_| unreadable())?;
        if kind != "nf4" || found.quant_type != kind {
            return Err(format!("it is {:?}, where nf4 is known", clip(&found.quant_type)));
        }
        let map = self.get(family.base, ".quant_map")?;
        let codes = self.tensors[map].dtype == SourceType::F32 && self.tensors[map].shape == [16];
        let mut codebook = [0.0; 16];
        for (value, bytes) in codebook.iter_mut().zip(self.data(map).as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        if !codes || codebook.iter().any(|v| !v.is_finite()) {
            return Err("its quant_map is not sixteen finite F32".into());
        }
        let mut parts = vec![self.get(family.base, ".absmax")?];
        let size = found.blocksize;
        let scales = if self.tensors[parts[0]].dtype == SourceType::F32 {
            Scales::Numbers { size, format: NumberFormat::F32, min: Min::None, mapped: false }
        } else {
            parts.extend([
                self.get(family.base, ".nested_absmax")?,
                self.get(family.base, ".nested_quant_map")?,
            ]);
            let (supers, offset) = (found.nested_blocksize.unwrap_or(0), found.nested_offset.unwrap_or(0.0));
            if supers == 0 || !offset.is_finite() || f64::from(offset as f32) != offset {
                return Err("its nested scales have no block size, or an offset that is no F32".into());
            }
            Scales::Lookup { size, supers, offset }
        };
        let values = Values { scales, codebook: Some(Codebook(codebook)), ..Values::ONE };
        if self.tensors[family.main].dtype.name() != "U8" {
            return Err(of_type(&self.tensors[family.main]));
        }
        self.packed(Layout::Nf4, found.shape, values, family.main, parts, vec![map, state])
    }

    /// Checks that all tensors have the bytes that the matrix calls for.
    fn packed(
        &self,
        layout: Layout,
        shape: Vec<u64>,
        values: Values,
        main: usize,
        parts: Vec<usize>,
        beside: Vec<usize>,
    ) -> Result<Packed, String> {
        let wrong = || "shapes and group size do not fit each other".to_owned();
        let (rows, cols) = matrix(&shape).filter(|&(rows, cols)| rows > 0 && cols > 0).ok_or_else(wrong)?;
        let levels = layout.bytes(rows, cols) == Some(self.tensors[main].len);
        let size = values.scales.size().unwrap_or(0);
        let grouping = Grouping::new(layout, rows, cols, &values).filter(|_| levels && size <= cols);
        let grouping = grouping.ok_or_else(wrong)?;
        let of_form = |(form, &i): (Form, &usize)| {
            let tensor = &self.tensors[i];
            let width = match form {
                Form::Numbers(format) => format.bytes(),
                Form::Bytes => 1,
                Form::Table | Form::Shared | Form::Zeros | Form::Map => 4,
            };
            tensor.dtype.name() == form.dtype()
                && grouping.elements(form).checked_mul(width).map(|n| n as u64) == Some(tensor.len)
        };
        let fit = grouping.forms().into_iter().zip(&parts).all(of_form);
        if fit { Ok(Packed { shape, grouping, values, parts, beside }) } else { Err(wrong()) }
    }

    fn data(&self, tensor: usize) -> &'a [u8] {
        let SourceTensor { file, offset, len, .. } = self.tensors[tensor];
        &self.files[file].bytes()[offset as usize..(offset + len) as usize]
    }
}

fn number_format(dtype: &SourceType) -> Option<NumberFormat> {
    match dtype {
        SourceType::F16 => Some(NumberFormat::F16),
        SourceType::BF16 => Some(NumberFormat::Bf16),
        SourceType::F32 => Some(NumberFormat::F32),
        _ => None,
    }
}

fn of_type(tensor: &SourceTensor) -> String {
    let what = tensor.name.rsplit_once('.').map_or("tensor", |n| n.1);
    format!("its '{}' is of type {}, which is not known there", clip(what), tensor.dtype.name())
}
