// gate = silu(gate) * up. Tokens are in the grid's y.
struct Params {
    // of a token
    len: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> up: array<f32>;
@group(0) @binding(2) var<storage, read_write> gates: array<f32>;

@compute @workgroup_size(256)
fn gate(@builtin(global_invocation_id) at: vec3<u32>) {
    if (at.x < params.len) {
        let i = at.y * params.len + at.x;
        let g = gates[i];
        gates[i] = g / (1.0 + exp(-g)) * up[i];
    }
}
