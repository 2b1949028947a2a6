// out = x / sqrt(mean of squares + epsilon) * weight. A workgroup takes a vector: those of a token in x, tokens in y.
struct Params {
    len: u32,
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

const THREADS = 256u;

@compute @workgroup_size(THREADS)
fn norm(
    @builtin(workgroup_id) at: vec3<u32>,
    @builtin(num_workgroups) all: vec3<u32>,
    @builtin(local_invocation_index) li: u32,
) {
    let first = (at.y * all.x + at.x) * params.len;
    var squares = 0.0;
    for (var i = li; i < params.len; i += THREADS) {
        squares += x[first + i] * x[first + i];
    }
    let mean = sum_all(squares, li) / f32(params.len);
    let scale = 1.0 / sqrt(mean + params.epsilon);
    for (var i = li; i < params.len; i += THREADS) {
        out[first + i] = x[first + i] * scale * weight[i];
    }
}
