// One rANS stream for a whole matrix of nibbles: the invocation of a row decodes all rows before it, too.

struct Params { rows: u32, cols: u32, first: u32, step: f32 }

@group(0) @binding(0) var<uniform> p: Params;
// 16-bit words, two in each of these
@group(0) @binding(1) var<storage, read> words: array<u32>;
// for each slot: the nibble, the frequency less one from bit 4, the slot's place in its symbol from bit 16
@group(0) @binding(2) var<storage, read> slots: array<u32, 4096>;
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn flat_stream(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if row >= p.rows {
        return;
    }
    var state = words[0];
    var at = 2u;
    var sum = 0.0;
    for (var r = 0u; r <= row; r++) {
        sum = 0.0;
        for (var c = 0u; c < p.cols; c++) {
            let slot = slots[state & 4095u];
            state = (((slot >> 4u) & 4095u) + 1u) * (state >> 12u) + (slot >> 16u);
            if state < 65536u {
                state = (state << 16u) | ((words[at >> 1u] >> (16u * (at & 1u))) & 65535u);
                at += 1u;
            }
            sum = fma(f32(slot & 15u) + f32(i32(p.first)), x[c], sum);
        }
    }
    y[row] = sum * p.step;
}
