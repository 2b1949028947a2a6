// x += y, where y has numbers for every token, or (a bias) the same ones for all. Tokens are in the grid's y.
struct Params {
    // of a token in x
    len: u32,
    // of a token in y; 0 for a bias
    stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(256)
fn add(@builtin(global_invocation_id) at: vec3<u32>) {
    if (at.x < params.len) {
        x[at.y * params.len + at.x] += y[at.y * params.stride + at.x];
    }
}
