//! `ecq-ops` as `cargo xtask ops` calls it. Needs Mesa's RADV.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::process::{Command, Output};

/// One multiply-add in an iteration, and bindings with gaps.
const DOT: &str = "
struct Params { len: u32 }
@group(0) @binding(9) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn dot_product(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = 0.0;
    for (var i = 0u; i < p.len; i++) {
        let v = x[64u * i + id.x];
        sum = fma(v.x, v.y, sum);
    }
    y[id.x] = sum;
}";

fn ops(arguments: &[&str], kernel: Option<&str>, environment: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dot.wgsl");
    if let Some(wgsl) = kernel {
        std::fs::write(&path, wgsl).unwrap();
    }
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_ecq-ops")));
    command.env_remove("VK_DRIVER_FILES").envs(environment.iter().copied());
    command.args(arguments).arg(&path).output().unwrap()
}

/// The cells of the only kernel in the table.
fn cells(arguments: &[&str], wgsl: &str) -> Vec<String> {
    let output = ops(arguments, Some(wgsl), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    let row = table.lines().find(|line| line.starts_with("| dot ")).unwrap();
    row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn a_kernel_is_compiled_and_counted() {
    let row = cells(&[], DOT);
    let number = |i: usize| row[i].parse::<f64>().unwrap();
    assert_eq!((row[1].as_str(), row[4].as_str()), ("32", "0"), "{row:?}");
    let fma = number(6);
    assert!(fma >= 1.0 && number(2) > fma && number(3) >= 1.0, "{row:?}");
    assert_eq!((number(5), number(7)), (fma, fma), "{row:?}"); // a load for each
    assert!((number(8) - number(2) / fma).abs() < 0.01, "{row:?}");
    let row = cells(&["--subgroup", "64", "--weights", "2"], DOT);
    assert_eq!((row[1].as_str(), row[7].as_str()), ("64", "2"), "{row:?}");
}

#[test]
fn the_machine_code_is_shown_when_asked_for() {
    let output = ops(&["--disassembly"], Some(DOT), &[]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("s_endpgm"));
}

#[test]
fn what_cannot_be_counted_is_said() {
    let straight = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(1) fn main() { y[0] = fma(y[1], y[2], y[3]); }";
    let two = format!("{DOT}\n@compute @workgroup_size(1) fn other() {{}}");
    let missing = [("VK_DRIVER_FILES", "/nowhere.json")];
    let other_group = DOT.replace("@group(0) @binding(4)", "@group(1) @binding(4)");
    for (arguments, kernel, environment, part) in [
        (&[][..], None, &[][..], "cannot read"),
        (&[], Some("fn"), &[], "kernel dot: the driver cannot compile it"),
        (&[], Some(straight), &[], "no loop with a multiply-add"),
        (&[], Some(&two), &[], "one entry point, this has 2"),
        (&[], Some(&other_group), &[], "y is not bound in group 0"),
        (&["--subgroup", "16"], Some(DOT), &[], "32 or 64"),
        (&["--weights", "0"], Some(DOT), &[], "--weights"),
        (&[], Some(DOT), &missing, "mesa-vulkan-drivers"),
    ] {
        let output = ops(arguments, kernel, environment);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{part}: {said}");
    }
}
