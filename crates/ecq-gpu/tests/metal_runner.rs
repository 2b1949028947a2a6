//! The runner of Metal sources: what it computes, and that it finds what is wrong with a kernel.
#![allow(clippy::unwrap_used, missing_docs)]

mod metal;

use metal::{Kernel, Policy, run};

const BOTH: [Policy; 2] = [Policy::Checked, Policy::Trusted];

fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// `len` words that a kernel of one workgroup writes into binding 0.
fn written(wgsl: &str, simd: u32, len: usize, policy: Policy) -> Result<Vec<u32>, String> {
    let mut buffers = [(0, vec![0; 4 * len])];
    run(wgsl, simd, [1, 1, 1], &mut buffers, policy)?;
    Ok(words(&buffers[0].1))
}

const OUT: &str = "@group(0) @binding(0) var<storage, read_write> out: array<u32>;\n";

/// Why a kernel that writes into binding 0 fails.
fn complaint(body: &str, simd: u32, policy: Policy) -> String {
    written(&format!("{OUT}{body}"), simd, 64, policy).unwrap_err()
}

#[test]
fn buffers_of_all_kinds_in_three_dimensions() {
    let wgsl = "
struct Params { scale: f32, len: u32 }
struct Tail { head: vec2<u32>, all: array<f32> }
@group(0) @binding(3) var<uniform> p: Params;
@group(0) @binding(9) var<storage, read> unused: array<u32>;
@group(0) @binding(1) var<storage, read> x: Tail;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
struct Place { @builtin(global_invocation_id) at: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32> }
@compute @workgroup_size(3, 2, 2)
fn main(place: Place, @builtin(local_invocation_id) local: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let width = place.groups * vec3(3u, 2u, 2u);
    let i = (place.at.z * width.y + place.at.y) * width.x + place.at.x;
    if (i < p.len && all(group * vec3(3u, 2u, 2u) + local == place.at)) {
        y[i] = fma(p.scale, x.all[i], y[i]) + f32(arrayLength(&x.all) + x.head.y);
    }
}";
    let n = 5 * 3 * 2 * 2 * 3 * 2; // workgroups (5, 3, 2)
    for policy in BOTH {
        let x = [7, 11].into_iter().chain((0..n).map(|i| (i as f32).to_bits()));
        let mut buffers = vec![
            (7, bytes((0..n).map(|_| 0.5f32.to_bits()))),
            (1, bytes(x)),
            (3, bytes([2f32.to_bits(), n - 1])),
        ];
        let before = buffers[1].clone();
        run(wgsl, 32, [5, 3, 2], &mut buffers, policy).unwrap();
        let y: Vec<_> = words(&buffers[0].1).into_iter().map(f32::from_bits).collect();
        let mut want: Vec<_> = (0..n).map(|i| 2.0 * i as f32 + 0.5 + (n + 11) as f32).collect();
        want[n as usize - 1] = 0.5;
        assert_eq!(y, want, "{policy:?}");
        assert_eq!(buffers[1], before);
    }
}

#[test]
fn operations_of_simdgroups() {
    // 40 threads: the last simdgroup of 16 and of 32 is not full
    let wgsl = format!(
        "{OUT}
@compute @workgroup_size(40)
fn main(@builtin(local_invocation_index) li: u32, @builtin(subgroup_size) size: u32, @builtin(subgroup_id) sub: u32,
        @builtin(num_subgroups) subs: u32, @builtin(subgroup_invocation_id) lane: u32) {{
    out[8u * li] = subgroupBallot(li % 3u == 0u).x;
    out[8u * li + 1u] = u32(subgroupAdd(vec2(f32(li), 1.0)).x) + subs;
    out[8u * li + 2u] = subgroupShuffleXor(li, 1u);
    out[8u * li + 3u] = subgroupExclusiveAdd(li);
    out[8u * li + 4u] = subgroupMax(li) * 100u + subgroupMin(li);
    out[8u * li + 5u] = subgroupShuffle(li, lane / 2u);
    out[8u * li + 6u] = select(0u, subgroupShuffleUp(li, 2u), lane >= 2u);
    out[8u * li + 7u] = subgroupBroadcastFirst(sub * size + lane);
}}"
    );
    for policy in BOTH {
        let kernel = Kernel::new(&wgsl, policy).unwrap();
        for simd in [4, 8, 16, 32] {
            let mut buffers = [(0, vec![0; 4 * 8 * 40])];
            kernel.run(simd, [1, 1, 1], &mut buffers).unwrap();
            let out = words(&buffers[0].1);
            for li in 0..40 {
                let (first, lane) = (li / simd * simd, li % simd);
                let group = first..(first + simd).min(40);
                let want = [
                    group.clone().filter(|i| i % 3 == 0).map(|i| 1 << (i - first)).sum(),
                    group.clone().sum::<u32>() + 40u32.div_ceil(simd),
                    li ^ 1,
                    (first..li).sum(),
                    (group.end - 1) * 100 + first,
                    first + lane / 2,
                    if lane >= 2 { li - 2 } else { 0 },
                    first,
                ];
                assert_eq!(out[8 * li as usize..][..8], want, "thread {li} of simdgroups of {simd}");
            }
        }
    }
}

#[test]
fn bits_and_halves() {
    let wgsl = format!(
        "enable f16;
{OUT}
@group(0) @binding(1) var<storage, read> bits: array<u32>;
@compute @workgroup_size(1) fn main() {{
    let a = bits[0];
    let b = bits[1];
    out[0] = countOneBits(a) + (countLeadingZeros(b) << 8u) + (countTrailingZeros(b) << 16u);
    out[1] = extractBits(a, 4u, 8u) | insertBits(0u, b, 16u, 3u);
    out[2] = bitcast<u32>(extractBits(bitcast<i32>(a), 28u, 4u));
    out[3] = pack2x16float(unpack2x16float(a) * vec2(2.0, 0.5));
    out[4] = bitcast<u32>(dot4I8Packed(a, b)) + dot4U8Packed(a, b);
    let h = vec2<f16>(unpack2x16float(a));
    out[5] = pack2x16float(vec2<f32>(fma(h, vec2(1.5h), h.yx)));
    out[6] = bitcast<u32>(f32(h.x) + f32(unpack4xI8(a).w));
    out[7] = a / (b - b) + a % 7u;
    out[8] = bitcast<u32>(bitcast<i32>(a) / -3);
}}"
    );
    let (a, b) = (0xbc01_3a80u32, 0x0001_7ff0u32);
    for policy in BOTH {
        let mut buffers = [(0, vec![0; 36]), (1, bytes([a, b]))];
        run(&wgsl, 4, [1, 1, 1], &mut buffers, policy).unwrap();
        let out = words(&buffers[0].1);
        let half = |bits: u32| half::f16::from_bits(bits as u16).to_f64();
        let pack = |x: f64, y: f64| {
            u32::from(half::f16::from_f64(x).to_bits()) | u32::from(half::f16::from_f64(y).to_bits()) << 16
        };
        let (low, high) = (half(a), half(a >> 16));
        let signed = |v: u32, i: usize| i32::from(v.to_le_bytes()[i] as i8);
        let dot = |f: &dyn Fn(u32, usize) -> i32| (0..4).map(|i| f(a, i) * f(b, i)).sum::<i32>() as u32;
        let want = [
            a.count_ones() + (b.leading_zeros() << 8) + (b.trailing_zeros() << 16),
            (a >> 4 & 0xff) | (b & 7) << 16,
            (a as i32 >> 28) as u32,
            pack(low * 2.0, high * 0.5),
            dot(&signed).wrapping_add(dot(&|v, i| i32::from(v.to_le_bytes()[i]))),
            pack(low * 1.5 + high, high * 1.5 + low),
            (low as f32 + (signed(a, 3) as f32)).to_bits(),
            a + a % 7,
            (a as i32 / -3) as u32,
        ];
        assert_eq!(out, want, "{policy:?}");
    }
}

#[test]
fn vectors_and_their_pieces() {
    let wgsl = format!(
        "{OUT}
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {{
    let v = vec4(vec2(1u, 2u) + id.xy, 3u, 4u);
    let s = v.yz * 10u + v.xw;
    out[0] = s.x; out[1] = s.y;
    let t = vec3(s.y, v.zw);
    out[2] = dot(t, vec3(1u, 10u, 100u)) + dot(t.zxy, vec3<u32>(1u));
    let f = vec2<f32>(v.xy);
    let picked = select(v, vec4(v.yx, v.wz), v > vec4(1u, 2u, 2u, 9u));
    out[3] = picked.x + 10u * picked.y + 100u * picked.z + 1000u * picked.w;
    var a = array<vec3<i32>, 2>(vec3(-1), vec3(1, 2, 3));
    a[1].y -= 5; a[0][2] = 7;
    let m = clamp(a[0] * a[1], vec3(-2), abs(a[1]));
    out[4] = bitcast<u32>(m.x + 10 * m.y + 100 * m.z);
    out[5] = u32(any(v.xy != vec2(1u, 2u))) + 2u * u32(all((v << vec4(1u)) == v * 2u)) + (~v).x;
    out[6] = u32(floor(mix(f.x, 5.0, 0.6)) + sqrt(8.0 * f.y) + min(f.y, exp2(f.x)) + round(2.5 * f.x) + fract(f.x));
}}"
    );
    for policy in BOTH {
        let out = written(&wgsl, 4, 7, policy).unwrap();
        // t is (34, 3, 4); v > (1, 2, 2, 9) holds for the third only; a[0] * a[1] is (-1, 3, 21), its bounds -2 and (1, 3, 3)
        assert_eq!(out, [21, 34, 464 + 41, 4421, 329, 0, 11], "{policy:?}");
    }
}

#[test]
fn workgroup_memory_and_atomics() {
    let wgsl = format!(
        "{OUT}
var<workgroup> counts: array<atomic<u32>, 3>;
var<workgroup> mirror: array<vec2<f32>, 50>;
var<private> seen: u32;
@compute @workgroup_size(50) fn main(@builtin(local_invocation_id) at: vec3<u32>) {{
    if (at.x < 3u) {{ atomicStore(&counts[at.x], 0u); }}
    workgroupBarrier();
    atomicAdd(&counts[0], at.x);
    atomicOr(&counts[1], 1u << (at.x % 32u));
    atomicMax(&counts[2], at.x);
    mirror[49u - at.x] = vec2(f32(at.x), 0.5);
    workgroupBarrier();
    seen = u32(mirror[at.x].x + 2.0 * mirror[at.x].y);
    out[at.x] = seen;
    if (at.x == 0u) {{
        out[50] = atomicLoad(&counts[0]);
        out[51] = atomicLoad(&counts[1]);
        out[52] = atomicLoad(&counts[2]);
    }}
}}"
    );
    for policy in BOTH {
        let out = written(&wgsl, 8, 53, policy).unwrap();
        let want: Vec<u32> = (0..50).map(|i| 50 - i).chain([49 * 50 / 2, u32::MAX, 49]).collect();
        assert_eq!(out, want, "{policy:?}");
    }
}

#[test]
fn workgroup_memory_is_zero_only_when_checked() {
    let wgsl = format!(
        "{OUT}
var<workgroup> left: array<u32, 8>;
@compute @workgroup_size(8) fn main(@builtin(subgroup_invocation_id) lane: u32) {{ out[lane] = left[lane]; }}"
    );
    assert_eq!(written(&wgsl, 8, 8, Policy::Checked).unwrap(), [0; 8]);
    assert_eq!(written(&wgsl, 8, 8, Policy::Trusted).unwrap(), [u32::MAX; 8]);
}

#[test]
fn divergence_is_found() {
    let ballot_for_some = "@compute @workgroup_size(16) fn main(@builtin(local_invocation_index) li: u32) {
        if (li < 11u) { out[li] = subgroupBallot(true).x; }
    }";
    let two_places = "@compute @workgroup_size(16) fn main(@builtin(local_invocation_index) li: u32) {
        if (li < 9u) { out[li] = subgroupAdd(li); } else { out[li] = subgroupAdd(2u * li); }
    }";
    let barrier_for_some = "@compute @workgroup_size(16) fn main(@builtin(local_invocation_index) li: u32) {
        if (li == 5u) { return; }
        workgroupBarrier();
        out[li] = 1u;
    }";
    let uneven_loops = "@compute @workgroup_size(16) fn main(@builtin(local_invocation_index) li: u32) {
        for (var i = 0u; i < 3u + li / 15u; i++) { out[li] += subgroupAdd(1u); }
        out[li] += subgroupAdd(1u);
    }";
    for (kernel, words) in [
        (ballot_for_some, ["thread 8 waits in simd_ballot, line", "thread 11 has returned"]),
        (two_places, ["thread 8 waits in simd_sum, line", "thread 9 waits in simd_sum, line"]),
        (barrier_for_some, ["thread 0 waits in threadgroup_barrier, line", "thread 5 has returned"]),
        (uneven_loops, ["thread 8 waits in simd_sum, line", "thread 15 waits in simd_sum, line"]),
    ] {
        // naga knows that some of these are wrong; what it lets through must be found
        let said = complaint(kernel, 8, Policy::Trusted);
        assert!(words.iter().all(|w| said.contains(w)), "{said}");
    }
}

#[test]
fn missing_barriers_are_found() {
    let kernel = "var<workgroup> mirror: array<u32, 64>;
    @compute @workgroup_size(64) fn main(@builtin(local_invocation_index) li: u32) {
        mirror[li] = li;
        out[li] = mirror[63u - li];
    }";
    let said = complaint(kernel, 32, Policy::Checked);
    assert!(said.contains("buffer 0 depends on the order of threads from byte 0 on"), "{said}");
    let two_groups = format!(
        "{OUT}@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3<u32>) {{ out[0] = id.x; }}"
    );
    let said = run(&two_groups, 4, [2, 1, 1], &mut [(0, vec![0; 4])], Policy::Trusted).unwrap_err();
    assert!(said.contains("depends on the order"), "{said}");
}

#[test]
fn accesses_behind_a_buffer_are_found_or_checked() {
    let behind = "@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) li: u32) { out[60u + li] = 1u; }";
    let said = complaint(behind, 8, Policy::Trusted);
    assert!(said.contains("thread 4 touches buffer 0 at byte 256 of 256"), "{said}");
    let restricted = written(&format!("{OUT}{behind}"), 8, 64, Policy::Checked).unwrap();
    assert_eq!(restricted[60..], [1; 4]);

    let recursion = "@compute @workgroup_size(1) fn main() { var deep: array<u32, 100000>; deep[out[0]] = 1u; out[1] = deep[7]; }";
    let said = complaint(recursion, 8, Policy::Trusted);
    assert!(said.contains("touches memory that is not the kernel's"), "{said}");

    let far = "@compute @workgroup_size(8) fn main(@builtin(subgroup_invocation_id) lane: u32) { out[lane] = subgroupShuffle(lane, 9u); }";
    let said = complaint(far, 8, Policy::Trusted);
    assert!(said.contains("a simdgroup reads lane 9, and there are 8"), "{said}");

    let uniform = "@group(0) @binding(4) var<uniform> p: vec4<u32>;
        @compute @workgroup_size(1) fn main() { out[0] = p.w; }";
    let mut buffers = [(0, vec![0; 4]), (4, vec![0; 12])];
    let said = run(&format!("{OUT}{uniform}"), 8, [1, 1, 1], &mut buffers, Policy::Checked).unwrap_err();
    assert!(said.contains("buffer 4 has 12 bytes, the kernel takes 16"), "{said}");
}

#[test]
fn kernels_and_buffers_that_do_not_fit() {
    let simple = format!("{OUT}@compute @workgroup_size(1) fn main() {{ out[0] = 1u; }}");
    let refused = |wgsl: &str, buffers: &mut [(u32, Vec<u8>)]| {
        run(wgsl, 8, [1, 1, 1], buffers, Policy::Checked).unwrap_err()
    };
    let said = refused(&simple, &mut []);
    assert!(said.contains("uses binding 0"), "{said}");
    let said = refused(&simple, &mut [(0, vec![0; 4]), (5, vec![])]);
    assert!(said.contains("a buffer for binding 5"), "{said}");
    let said = refused("fn main() { return 1; }", &mut []);
    assert!(said.contains("error"), "{said}");
    let said = refused(&format!("{simple}\n@compute @workgroup_size(1) fn other() {{}}"), &mut []);
    assert!(said.contains("one entry point, this has 2"), "{said}");
    let said = refused(&simple.replace("group(0)", "group(1)"), &mut []);
    assert!(said.contains("out is in group 1"), "{said}");
    let said = refused(&format!("override n: u32 = 1;\n{simple}"), &mut []);
    assert!(said.contains("overrides"), "{said}");
}
