// Rotary embedding of the heads of tokens, in place. An invocation turns a pair of numbers; tokens are in the grid's y.
struct Params {
    heads: u32,
    // pairs of a head
    pairs: u32,
    // numbers of a pair are so far apart: 1, or as many as there are pairs
    apart: u32,
    // and pairs so far: 2, or 1
    step: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// cosine and sine of each token's pairs, from the CPU: they are exact for large positions
@group(0) @binding(1) var<storage, read> turns: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(256)
fn rotate(@builtin(global_invocation_id) at: vec3<u32>) {
    if (at.x >= params.heads * params.pairs) {
        return;
    }
    let pair = at.x % params.pairs;
    let head = at.y * params.heads + at.x / params.pairs;
    let turn = turns[at.y * params.pairs + pair];
    let first = 2u * params.pairs * head + params.step * pair;
    let a = x[first];
    let b = x[first + params.apart];
    x[first] = a * turn.x - b * turn.y;
    x[first + params.apart] = a * turn.y + b * turn.x;
}
