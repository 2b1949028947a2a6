//! Kernels that tests without a device try: every choice that the templates make, and what else goes with it.
#![allow(dead_code)] // each test binary uses its part

use ecq_format::pattern::{FloatFormat, Pattern};
use ecq_gpu::scales::{Format, Grouped, Number, Piece, Record, Rule};
use ecq_gpu::variant::{Code, Form, Input, Kernel, Lanes, Table, Tuning, Value, Variant};

const PLAIN: Form = Form::PLAIN;

fn forms() -> Vec<Form> {
    let all = scales();
    let mut forms = vec![PLAIN];
    for raw_bits in 1..=7 {
        forms.push(Form { value: Value::Integer { raw_bits }, escapes: true, ..PLAIN });
    }
    forms.push(Form { value: Value::Codebook, groups: Some(all[0]), ..PLAIN });
    for format in [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        let pattern = Pattern { format, base: 3 };
        let raw_bits = format.bits() - 5;
        forms.push(Form { value: Value::Float { pattern, raw_bits }, escapes: true, ..PLAIN });
    }
    for i in 0..8 {
        let (columns, rows, constant) = (i & 1 != 0, i & 2 != 0, i & 4 != 0);
        forms.push(Form { columns, rows, constant, offset: i == 7, escapes: true, ..PLAIN });
    }
    let of = |(i, groups)| {
        let escapes = i % 3 != 1;
        Form { groups: Some(groups), constant: i % 2 == 0, escapes, ..PLAIN }
    };
    forms.extend(all.into_iter().enumerate().map(of));
    forms
}

/// Scales of groups of every kind, of numbers in codes of every kind.
fn scales() -> Vec<Grouped> {
    let number = |format, all: &[(u32, u32, bool)]| {
        let mut pieces = [Piece::default(); 4];
        for (piece, &(shift, width, table)) in pieces.iter_mut().zip(all) {
            *piece = Piece { shift, width, table };
        }
        Number { format, pieces }
    };
    let half = number(Format::Half, &[(0, 13, false)]);
    let bytes = number(Format::SmallHalf, &[(8, 5, true), (0, 8, false)]);
    let bf16 = number(Format::Bf16, &[(0, 10, true)]);
    let full = number(Format::F32, &[(0, 32, false)]);
    let split = number(Format::F32, &[(24, 3, false), (16, 8, false), (8, 8, false), (0, 6, true)]);
    let always = number(Format::F32, &[]);
    let six = number(Format::Integer, &[(0, 6, false)]);
    let eight = number(Format::Integer, &[(0, 8, false)]);
    let of = |rule, map_bits, factor, other| Grouped {
        size: 32,
        numbers: Record { factor, other },
        rule,
        map_bits,
    };
    let nested = |factor, other| Rule::Nested { supers: 8, shared: Record { factor, other } };
    vec![
        of(Rule::Plain, 0, half, None),
        of(Rule::Plain, 8, half, Some(bytes)),
        of(Rule::Plain, 16, bytes, Some(half)),
        of(Rule::Plain, 0, bf16, Some(bf16)),
        of(Rule::Plain, 0, full, Some(full)),
        of(Rule::Plain, 0, split, Some(always)),
        of(Rule::Plain, 0, always, None),
        of(Rule::Zero, 16, half, Some(eight)),
        of(Rule::Zero, 0, split, Some(six)),
        of(nested(half, Some(bytes)), 0, six, Some(six)),
        of(nested(bytes, None), 0, eight, None),
        of(nested(always, Some(half)), 0, number(Format::Integer, &[(0, 3, true)]), Some(eight)),
        of(Rule::Run { supers: 256, shared: split }, 0, number(Format::F32, &[(0, 8, true)]), None),
    ]
}

/// The kernels.
pub fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |kernel, code, form, lanes| {
        let variant = Variant::new(kernel, Form { code, ..form }, lanes);
        if !all.contains(&variant) {
            all.push(variant);
        }
    };
    let fused = |vectors, input| Kernel::Fused { vectors, input };
    let plain = |vectors, input| Kernel::Plain { vectors, input };
    for code in [Code::Prefix, Code::Rans] {
        for form in forms() {
            for lanes in [Lanes::Subgroups(32), Lanes::Barriers] {
                add(fused(1, Input::F32), code, form, lanes);
                add(Kernel::Decode, code, form, lanes);
                add(Kernel::Prompt { input: Input::F32 }, code, form, lanes);
            }
        }
        for size in [4, 8, 16, 64, 128] {
            add(fused(1, Input::F32), code, PLAIN, Lanes::Subgroups(size));
            add(Kernel::Decode, code, PLAIN, Lanes::Subgroups(size));
            add(
                Kernel::Prompt { input: Input::F16 },
                code,
                forms()[forms().len() - 1],
                Lanes::Subgroups(size),
            );
        }
        for (vectors, input) in [(1, Input::F16), (3, Input::F32), (16, Input::F16)] {
            add(fused(vectors, input), code, PLAIN, Lanes::Subgroups(16));
            add(fused(vectors, input), code, PLAIN, Lanes::Barriers);
        }
    }
    for form in forms() {
        for lanes in [Lanes::Subgroups(32), Lanes::Barriers] {
            add(fused(1, Input::F32), Code::Nibble { lanes: 512 }, form, lanes);
            add(Kernel::Decode, Code::Nibble { lanes: 512 }, form, lanes);
        }
    }
    for groups in 1..=16 {
        let code = Code::Nibble { lanes: 64 * groups };
        for size in [4, 8, 16, 32, 64, 128] {
            add(fused(1, Input::F32), code, forms()[1], Lanes::Subgroups(size));
            add(Kernel::Decode, code, PLAIN, Lanes::Subgroups(size));
        }
        for lanes in [Lanes::Subgroups(4), Lanes::Subgroups(64), Lanes::Barriers] {
            add(fused(3, Input::F16), code, PLAIN, lanes);
            add(fused(16, Input::F16), code, Form { constant: true, offset: true, ..PLAIN }, lanes);
        }
        add(Kernel::Decode, code, PLAIN, Lanes::Barriers);
    }
    for form in forms() {
        for lanes in [Lanes::Subgroups(32), Lanes::Barriers] {
            add(plain(1, Input::F32), Code::Prefix, form, lanes);
            add(plain(16, Input::F16), Code::Prefix, form, lanes);
            add(Kernel::PlainPrompt { input: Input::F32 }, Code::Prefix, form, lanes);
        }
    }
    for size in [4, 8, 16, 64, 128] {
        add(Kernel::PlainPrompt { input: Input::F16 }, Code::Prefix, PLAIN, Lanes::Subgroups(size));
        add(plain(3, Input::F32), Code::Prefix, PLAIN, Lanes::Subgroups(size));
    }
    add(Kernel::Finish, Code::Prefix, PLAIN, Lanes::Barriers);
    for (table, streams) in [(Table::Storage, 8), (Table::Workgroup, 1), (Table::Storage, 2)] {
        for (code, size) in [(Code::Prefix, 32), (Code::Rans, 8), (Code::Prefix, 64)] {
            let form = Form { code, ..PLAIN };
            for kernel in [Kernel::Fused { vectors: 1, input: Input::F32 }, Kernel::Decode] {
                let variant = Variant::new(kernel, form, Lanes::Subgroups(size));
                all.push(variant.tuned(Tuning { table, streams }));
            }
        }
    }
    all
}

/// The type of a kernel's vectors.
pub fn input(variant: &Variant) -> Input {
    match variant.kernel {
        Kernel::Fused { input, .. } | Kernel::Plain { input, .. } => input,
        Kernel::Prompt { input } | Kernel::PlainPrompt { input } => input,
        Kernel::Decode | Kernel::Finish => Input::F32,
    }
}
