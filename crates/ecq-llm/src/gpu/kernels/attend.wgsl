// For a head of a new token: the values of all positions up to its own, by the softmax of what their keys say. A workgroup
// takes a head (the grid's x) of a token (its y), and 256 positions at a time: what was summed before is made smaller where
// a larger product is found.
struct Params {
    // heads of queries in all
    heads: u32,
    // the first one whose keys are in these buffers
    first: u32,
    // heads of queries for a head of keys
    shared_by: u32,
    // numbers of a head, at most 256
    head: u32,
    // positions in the cache
    positions: u32,
    // factor of products
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
// position of the first new token
@group(0) @binding(1) var<uniform> filled: vec4<u32>;
@group(0) @binding(2) var<storage, read> query: array<f32>;
@group(0) @binding(3) var<storage, read> keys: array<f32>;
@group(0) @binding(4) var<storage, read> values: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

const THREADS = 256u;
const LOWEST = -3.4028234e38;

var<workgroup> own_query: array<f32, THREADS>;
var<workgroup> weights: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn attend(@builtin(workgroup_id) at: vec3<u32>, @builtin(local_invocation_index) li: u32) {
    let size = params.head;
    let kv = at.x / params.shared_by;
    let first = (at.y * params.heads + params.first + at.x) * size;
    let end = filled.x + at.y + 1u;
    if (li < size) {
        own_query[li] = query[first + li] * params.scale;
    }
    workgroupBarrier();
    // values are summed by as many invocations for each number as there are
    let slices = THREADS / size;
    let number = li % size;
    let slice = li / size;
    var most = LOWEST;
    var sum = 0.0;
    var mixed = 0.0;
    for (var start = 0u; start < end; start += THREADS) {
        let position = start + li;
        var score = LOWEST;
        if (position < end) {
            score = 0.0;
            for (var i = 0u; i < size; i++) {
                score += own_query[i] * keys[(kv * size + i) * params.positions + position];
            }
        }
        let larger = max(most, most_of_all(score, li));
        let weight = select(0.0, exp(score - larger), position < end);
        weights[li] = weight;
        workgroupBarrier();
        let smaller = exp(most - larger);
        most = larger;
        sum = sum * smaller + weight;
        mixed *= smaller;
        if (slice < slices) {
            let here = min(THREADS, end - start);
            for (var i = slice; i < here; i += slices) {
                mixed += weights[i] * values[(kv * params.positions + start + i) * size + number];
            }
        }
        workgroupBarrier();
    }
    let total = sum_all(sum, li);
    weights[li] = mixed;
    workgroupBarrier();
    if (li < size) {
        var whole = 0.0;
        for (var i = 0u; i < slices; i++) {
            whole += weights[i * size + li];
        }
        out[first + li] = whole / total;
    }
}
