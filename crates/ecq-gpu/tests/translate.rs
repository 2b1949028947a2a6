//! Every kernel is valid where it is promised to run, is translated for every back end, and keeps their limits.
#![allow(clippy::unwrap_used, missing_docs)]

use ecq_gpu::variant::{Input, Lanes, Variant};
use translated::{EVERYWHERE, Needs, check, check_declared};

mod translated;
mod variants;

#[test]
fn all_kernels() {
    let all = variants::all();
    let failed: Vec<_> = all.iter().filter_map(|v| check_variant(v).err()).collect();
    assert!(failed.is_empty(), "{} of {} kernels:\n{}", failed.len(), all.len(), failed.join("\n"));
}

fn check_variant(variant: &Variant) -> Result<(), String> {
    let needs = Needs {
        subgroups: variant.lanes != Lanes::Barriers,
        f16: variants::input(variant) == Input::F16,
        ..EVERYWHERE
    };
    let name = format!("{variant:?}");
    check(&name, &variant.source(), needs)?;
    check_declared(&name, &variant.source(), variant.kernel.name(), variant.bindings())
}

/// A kernel that takes exactly what is promised, with `body`.
fn kernel(body: &str) -> String {
    let buffer = |i| format!("@group(0) @binding({i}) var<storage, read_write> b{i}: array<u32>;\n");
    let buffers: String = (0..8).map(buffer).collect();
    let touch: String = (0..8).map(|i| format!("b{i}[0] = 1u;\n")).collect();
    format!(
        "{buffers}var<workgroup> tab: array<u32, 4096>;
@compute @workgroup_size(256) fn main(@builtin(local_invocation_index) li: u32) {{
    tab[li] = li; workgroupBarrier(); {touch} {body}
}}"
    )
}

#[test]
fn the_limits_are_those_that_are_promised() {
    check("all", &kernel(""), EVERYWHERE).unwrap();
    let with = |from: &str, to: &str| kernel("").replace(from, to);
    for (wgsl, part) in [
        (with("4096", "4097"), "all: 16400 bytes of workgroup memory, more than 16384"),
        (with("size(256)", "size(16, 17)"), "all: 272 invocations, more than 256"),
        (
            with("@compute", "@group(0) @binding(8) var<storage> b8: array<u32>; @compute")
                .replace("b7[0] = 1u", "b7[0] = b8[0]"),
            "all: 9 storage buffers, more than 8",
        ),
        (with("fn main", "fn"), "all: error"),
        (format!("{}\n@compute @workgroup_size(1) fn b() {{}}", kernel("")), "all: 2 entry points"),
    ] {
        let said = check("all", &wgsl, EVERYWHERE).unwrap_err();
        assert!(said.contains(part), "{said}");
    }
    // machines with more have no more than Apple's
    let large = Needs { memory: 1 << 20, threads: 1 << 20, ..EVERYWHERE };
    check("large", &with("4096", "8192").replace("size(256)", "size(1024)"), large).unwrap();
    check("large", &with("4096", "8193"), large).unwrap_err();
    check("large", &with("size(256)", "size(1025)"), large).unwrap_err();
}

#[test]
fn what_is_not_promised_is_not_used() {
    let subgroups = Needs { subgroups: true, ..EVERYWHERE };
    let halves = Needs { f16: true, ..EVERYWHERE };
    let ballot =
        kernel("b0[li] = subgroupBallot(li == 3u).x + subgroupShuffleXor(li, 1u) + subgroupAdd(li);");
    check("ballot", &ballot, subgroups).unwrap();
    check("ballot", &ballot, EVERYWHERE).unwrap_err();
    let half = format!("enable f16;\n{}", kernel("b0[0] = u32(f16(b1[0]) * 2.0h);"));
    check("half", &half, halves).unwrap();
    check("half", &half, subgroups).unwrap_err();
    let packed = kernel("b0[0] = pack2x16float(2.0 * unpack2x16float(b1[0]));");
    check("packed", &packed, EVERYWHERE).unwrap();
}
