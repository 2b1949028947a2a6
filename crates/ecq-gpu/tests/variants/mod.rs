//! Kernels that tests without a device try: every choice that the templates make, and what else goes with it.
#![allow(dead_code)] // each test binary uses its part

use ecq_format::pattern::{FloatFormat, Pattern};
use ecq_gpu::variant::{Code, Escapes, Form, Grouped, Input, Kernel, Lanes, Value, Variant};

const PLAIN: Form = Form::PLAIN;

fn forms() -> Vec<Form> {
    let grouped = |half, min, mapped| Some(Grouped { size: 32, half, min, mapped });
    let mut forms = vec![PLAIN];
    for raw_bits in 1..=7 {
        forms.push(Form { value: Value::Integer { raw_bits }, escapes: Escapes::Narrow, ..PLAIN });
    }
    forms.push(Form { value: Value::Codebook, groups: grouped(true, false, false), ..PLAIN });
    for format in [FloatFormat::Bf16, FloatFormat::F16, FloatFormat::F8E4M3, FloatFormat::F8E5M2] {
        let pattern = Pattern { format, base: 3 };
        let raw_bits = format.bits() - 5;
        forms.push(Form { value: Value::Float { pattern, raw_bits }, escapes: Escapes::Wide, ..PLAIN });
    }
    for i in 0..8 {
        let groups = grouped(i & 1 != 0, i & 2 != 0, i & 4 != 0);
        forms.push(Form { groups, constant: i & 1 == 0, escapes: Escapes::Narrow, ..PLAIN });
        let (columns, rows, constant) = (i & 1 != 0, i & 2 != 0, i & 4 != 0);
        forms.push(Form { columns, rows, constant, offset: i == 7, escapes: Escapes::Wide, ..PLAIN });
    }
    forms
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
            }
        }
        for size in [4, 8, 16, 64, 128] {
            add(fused(1, Input::F32), code, PLAIN, Lanes::Subgroups(size));
            add(Kernel::Decode, code, PLAIN, Lanes::Subgroups(size));
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
        }
    }
    for size in [4, 8, 16, 64, 128] {
        add(plain(3, Input::F32), Code::Prefix, PLAIN, Lanes::Subgroups(size));
    }
    add(Kernel::Finish, Code::Prefix, PLAIN, Lanes::Barriers);
    all
}

/// The type of a kernel's vectors.
pub fn input(variant: &Variant) -> Input {
    match variant.kernel {
        Kernel::Fused { input, .. } | Kernel::Plain { input, .. } => input,
        Kernel::Decode | Kernel::Finish => Input::F32,
    }
}
