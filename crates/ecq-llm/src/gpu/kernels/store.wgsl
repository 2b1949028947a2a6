// Puts keys and values of new tokens behind those of the cache. An invocation copies a number of each; tokens are in the
// grid's y.
struct Params {
    // heads of keys in all
    kv_heads: u32,
    // the first one in these buffers
    first: u32,
    // how many there are in them
    count: u32,
    // numbers of a head
    head: u32,
    // positions in the cache
    positions: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// position of the first new token
@group(0) @binding(1) var<uniform> filled: vec4<u32>;
@group(0) @binding(2) var<storage, read> key: array<f32>;
@group(0) @binding(3) var<storage, read> value: array<f32>;
// of each head: a row of positions for each number, so that neighbours read neighbouring positions
@group(0) @binding(4) var<storage, read_write> keys: array<f32>;
// of each head: a row of numbers for each position
@group(0) @binding(5) var<storage, read_write> values: array<f32>;

@compute @workgroup_size(256)
fn store(@builtin(global_invocation_id) at: vec3<u32>) {
    if (at.x >= params.count * params.head) {
        return;
    }
    let head = at.x / params.head;
    let i = at.x % params.head;
    let position = filled.x + at.y;
    let own = (at.y * params.kv_heads + params.first + head) * params.head + i;
    keys[(head * params.head + i) * params.positions + position] = key[own];
    values[(head * params.positions + position) * params.head + i] = value[own];
}
