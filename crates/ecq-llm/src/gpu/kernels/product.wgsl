// y = W x for a matrix whose weights are f32: what a file stores as it was. A workgroup takes a row (the grid's x) and eight
// vectors (its y), of as many as x has.
struct Params {
    // of the matrix
    rows: u32,
    cols: u32,
    // first row in this buffer
    first: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> weights: array<f32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const THREADS = 64u;
const VECTORS = 8u;

@compute @workgroup_size(THREADS)
fn product(@builtin(workgroup_id) at: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let first = at.y * VECTORS;
    let count = min(VECTORS, arrayLength(&x) / params.cols - first);
    var sums: array<f32, VECTORS>;
    for (var i = li; i < params.cols; i += THREADS) {
        let weight = weights[at.x * params.cols + i];
        for (var v = 0u; v < count; v++) {
            sums[v] += weight * x[(first + v) * params.cols + i];
        }
    }
    for (var v = 0u; v < count; v++) {
        let sum = sum_all(sums[v], li);
        if (li == 0u) {
            y[(first + v) * params.rows + params.first + at.x] = sum;
        }
    }
}
