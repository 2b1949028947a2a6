//! Changes of JSON documents that leave them JSON.

use rand::Rng;
use rand::rngs::SmallRng;
use serde_json::{Number, Value, json};

/// Numbers where counts, sizes and products end.
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    3,
    4,
    8,
    16,
    31,
    32,
    64,
    255,
    4096,
    1 << 16,
    1 << 24,
    (1 << 31) - 1,
    1 << 32,
    1 << 63,
    u64::MAX,
];
const FLOATS: [f64; 6] = [-1.0, 0.5, 1e39, 1e308, -1e-320, 0.1];
/// Names that mean something in one place or another.
const TEXTS: [&str; 24] = [
    "",
    "..",
    "a/b",
    "F32",
    "BF16",
    "U8",
    "I32",
    "F8_E4M3",
    "Q4_1",
    "ecq",
    "gguf",
    "lossless",
    "none",
    "left",
    "planar",
    "byte_pairs",
    "prefix",
    "rans",
    "f16",
    "companion",
    "BPE",
    "ByteLevel",
    "Sequence",
    "\u{10ffff}\0",
];

/// Changes one value somewhere in a document.
pub fn change(document: &mut Value, random: &mut SmallRng) {
    let mut at = random.random_range(0..count(document));
    // the count is that of the values that are there
    let Some(value) = nth(document, &mut at) else { return };
    if random.random_ratio(1, 10) {
        *value = any(random);
        return;
    }
    match value {
        Value::Null => *value = any(random),
        Value::Bool(is) => *is = !*is,
        Value::Number(number) => *number = another(number, random),
        Value::String(text) => *text = name(random).to_owned(),
        Value::Array(list) => change_list(list, random),
        Value::Object(_) => change_fields(value, random),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|value| nth(value, at)),
        Value::Object(map) => map.values_mut().find_map(|value| nth(value, at)),
        _ => None,
    }
}

fn name(random: &mut SmallRng) -> &'static str {
    TEXTS[random.random_range(0..TEXTS.len())]
}

fn any(random: &mut SmallRng) -> Value {
    match random.random_range(0..8) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        2 => FLOATS[random.random_range(0..FLOATS.len())].into(),
        3 => name(random).into(),
        4 => json!([]),
        5 => json!({}),
        6 => json!([1, 2]),
        _ => NUMBERS[random.random_range(0..NUMBERS.len())].into(),
    }
}

fn another(number: &Number, random: &mut SmallRng) -> Number {
    let old = number.as_i64().unwrap_or(0);
    let new = match random.random_range(0..8) {
        0 | 1 => old.wrapping_add(1),
        2 | 3 => old.wrapping_sub(1),
        4 => old.wrapping_mul(2),
        5 => old.wrapping_neg(),
        6 => old ^ (1 << random.random_range(0..63)),
        _ => return NUMBERS[random.random_range(0..NUMBERS.len())].into(),
    };
    new.into()
}

fn change_list(list: &mut Vec<Value>, random: &mut SmallRng) {
    if list.is_empty() {
        return list.push(any(random));
    }
    let (one, other) = (random.random_range(0..list.len()), random.random_range(0..list.len()));
    match random.random_range(0..4) {
        0 => drop(list.remove(one)),
        1 => list.swap(one, other),
        2 => list[one] = list[other].clone(),
        _ => list.insert(one, list[other].clone()),
    }
}

fn change_fields(value: &mut Value, random: &mut SmallRng) {
    let Value::Object(map) = value else { return };
    if map.is_empty() {
        map.insert(name(random).into(), any(random));
        return;
    }
    let key = |random: &mut SmallRng| map.keys().nth(random.random_range(0..map.len())).cloned();
    let (Some(one), Some(other)) = (key(random), key(random)) else { return };
    match random.random_range(0..4) {
        0 => drop(map.remove(&one)),
        1 => drop(map.insert(one, map[&other].clone())),
        2 => drop(map.insert(name(random).into(), map[&one].clone())),
        _ => {
            let moved = map.remove(&one).unwrap_or_default();
            map.insert(format!("{other}#{one}"), moved);
        }
    }
}
