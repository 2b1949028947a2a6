// Adds up the products of the strips of a matrix.
@group(0) @binding(4) var<storage, read> strips: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn finish(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
          @builtin(local_invocation_index) li: u32) {
    let at = (wid.x + wid.y * count.x) * 64u + li;
    let numbers = arrayLength(&y);
    if (at >= numbers) { return; }
    var sum = strips[at];
    for (var i = 1u; i < p.strips; i++) { sum += strips[at + i * numbers]; }
    y[at] = sum;
}
