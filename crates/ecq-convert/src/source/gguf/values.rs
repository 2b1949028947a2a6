//! The metadata of a GGUF file as values: what a model that is run needs to know beyond its tensors.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::{
    Cursor, MAGIC, MAX_ARRAY_DEPTH, MIN_ENTRY, VALUE_ARRAY, VALUE_STRING, check_version, value_bytes,
};
use crate::source::error::clip;
use crate::source::{SourceError, SourceLimits};

/// A value of GGUF metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer without a sign, of any width.
    Unsigned(u64),
    /// An integer with a sign.
    Signed(i64),
    /// A number of 32 or 64 bits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// Text.
    Text(String),
    /// Values of one type.
    Array(Vec<Value>),
}

impl Value {
    /// An integer that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Unsigned(n) => Some(n),
            Self::Signed(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// A number.
    pub fn float(&self) -> Option<f64> {
        match *self {
            Self::Float(n) => Some(n),
            Self::Unsigned(n) => Some(n as f64),
            Self::Signed(n) => Some(n as f64),
            _ => None,
        }
    }

    /// Text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Values of an array.
    pub fn array(&self) -> Option<&[Value]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// Reads the metadata at the beginning of a GGUF file; what follows it is not looked at. `path` is for errors.
///
/// Errors: what [`Source::open`](crate::source::Source::open) says of damaged metadata, text that is not UTF-8 among it.
pub fn metadata(
    path: &Path,
    bytes: &[u8],
    limits: &SourceLimits,
) -> Result<HashMap<String, Value>, SourceError> {
    let mut cursor = Cursor::new(path, bytes, limits);
    if !bytes.starts_with(MAGIC) {
        let found = bytes[..bytes.len().min(4)].to_vec();
        return Err(SourceError::BadMagic { path: path.into(), found, expected: "\"GGUF\"" });
    }
    cursor.take(MAGIC.len() as u64, "the magic")?;
    check_version(path, cursor.u32("the version")?)?;
    cursor.u64("the tensor count")?;
    let count = cursor.u64("the metadata count")?;
    cursor.check_count("metadata entries", count, MIN_ENTRY)?;
    cursor.count_values(count)?;
    let (mut all, mut known) = (HashMap::new(), HashSet::new());
    for _ in 0..count {
        let key = cursor.key(&mut known)?;
        let id = cursor.u32("a metadata value type")?;
        all.insert(key.to_owned(), cursor.value(key, id, 0)?);
    }
    Ok(all)
}

impl Cursor<'_> {
    fn value(&mut self, key: &str, id: u32, depth: usize) -> Result<Value, SourceError> {
        match (id, value_bytes(id)) {
            (_, Some(_)) => self.number(id),
            (VALUE_STRING, _) => {
                let text = self.string("a metadata string")?;
                let at = (self.at - text.len()) as u64;
                let utf8 = |_| SourceError::Utf8 { path: self.path.into(), what: "a metadata string", at };
                Ok(Value::Text(std::str::from_utf8(text).map_err(utf8)?.to_owned()))
            }
            (VALUE_ARRAY, _) if depth < MAX_ARRAY_DEPTH => {
                let id = self.u32("an array's value type")?;
                let count = self.u64("an array's length")?;
                self.check_count("array values", count, value_bytes(id).unwrap_or(8))?;
                self.count_values(count)?;
                (0..count).map(|_| self.value(key, id, depth + 1)).collect::<Result<_, _>>().map(Value::Array)
            }
            (VALUE_ARRAY, _) => Err(SourceError::ArrayDepth {
                path: self.path.into(),
                key: clip(key),
                limit: MAX_ARRAY_DEPTH,
            }),
            _ => Err(SourceError::ValueType { path: self.path.into(), key: clip(key), id }),
        }
    }

    fn number(&mut self, id: u32) -> Result<Value, SourceError> {
        let what = "a metadata value";
        Ok(match id {
            0 => Value::Unsigned(self.array::<1>(what)?[0].into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(what)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(what)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(what)?).into()),
            4 => Value::Unsigned(self.u32(what)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(what)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(what)?).into()),
            7 => Value::Bool(self.array::<1>(what)?[0] != 0),
            10 => Value::Unsigned(self.u64(what)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(what)?)),
            _ => Value::Float(f64::from_le_bytes(self.array(what)?)),
        })
    }
}
