{#- Products with many vectors. A workgroup takes neighbouring tiles in a strip of columns, and some vectors. For a band of
    each tile and 32 columns after another, weights are decoded once and left complete in workgroup memory; then all
    invocations multiply, each a band with a few vectors. Where weights come from is said by macros: open() before the
    first band, weights() for each block of columns, which calls leave().

    tiles: those of a workgroup             v: its vectors
    vg: groups of four vectors that an invocation multiplies with the eight rows of a band
    deep: columns of vectors that are in workgroup memory at once
#}
{%- set groups = 2 * tiles -%}
{#- Places of four numbers of a column are swapped, so that neighbours write to different banks of the memory. #}
{%- macro swapped(column, group, groups) -%}
    {{ column }} * {{ groups }}u + (({{ group }}) ^ ({{ column }} & {{ groups - 1 }}u))
{%- endmacro %}
/// For each of 32 columns, the weights of four rows each, before factors of rows.
var<workgroup> left: array<vec4<f32>, {{ 32 * groups }}>;
/// For some of the columns, the numbers of four vectors each.
var<workgroup> right: array<vec4<f32>, {{ deep * v // 4 }}>;

{#- Leaves the weights of column c of lane j, whose values are called v0 to v7, with `of` behind it. #}
{%- macro leave(j, of) %}
    {%- if scales %}
            let group{{ j }} = {{ group_of('c' ~ j) }};
            {{- load_scales(j) }}
    {%- elif columns %}
            let factor{{ j }} = {{ column_factor('c' ~ j) }};
    {%- endif %}
    {%- for r in range(8) %}
        {%- set value = 'v' ~ r ~ of ~ (' + p.constant' if constant else '') %}
        {%- if scales %}
            {{- scale_of(r, j) }}
            let w{{ r }}_{{ j }} = fma(s{{ r }}_{{ j }}.x, {{ value }}, s{{ r }}_{{ j }}.y);
        {%- else %}
            let w{{ r }}_{{ j }} = {% if columns %}factor{{ j }} * ({{ value }}){% else %}{{ value }}{% endif %};
        {%- endif %}
    {%- endfor %}
            let k{{ j }} = lane + {{ j * s }}u;
    {%- for half in range(2) %}
            left[{{ swapped('k' ~ j, '2u * sub + ' ~ half ~ 'u', groups) }}] = select(vec4(0.0), vec4(
                {%- for r in range(4 * half, 4 * half + 4) %}w{{ r }}_{{ j }}{% if not loop.last %}, {% endif %}{% endfor %}), active{{ j }});
    {%- endfor %}
{%- endmacro %}

/// A column of four vectors; those that are missing are as the last one.
fn numbers_of(vector: u32, vectors: u32, column: u32) -> vec4<f32> {
    let at = min(vec4(vector, vector + 1u, vector + 2u, vector + 3u), vec4(vectors - 1u)) * p.cols + column;
    return vec4(f32(x[at.x]), f32(x[at.y]), f32(x[at.z]), f32(x[at.w]));
}

@compute @workgroup_size({{ threads }})
fn {{ kernel }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) li: u32{% if subgroups %},
         @builtin(subgroup_size) size: u32{% endif %}) {
    let workgroup = wid.x + wid.y * count.x;
{%- if kernel == 'prompt' %}
    let all = p.streams / p.strips;
    let strip = workgroup % p.strips;
    let first_tile = workgroup / p.strips * {{ tiles }}u;
    let tile_rows = p.tile_rows;
    let col0 = strip * p.strip;
    let width = min(p.strip, p.cols - col0);
{%- else %}
    // tiles are bands, of one strip
    let all = (p.end_row - p.first_row + 7u) / 8u;
    let strip = 0u;
    let first_tile = workgroup * {{ tiles }}u;
    let tile_rows = 8u;
    let col0 = 0u;
    let width = p.cols;
{%- endif %}
    if (first_tile >= all) { return; }
    let end = col0 + width;
    let vectors = arrayLength(&y) / (p.rows{% if kernel == 'prompt' %} * p.strips{% endif %}); // x may be filled up
    let base = wid.z * {{ v }}u;

    // to decode: a lane of a tile's stream; of the last tile's instead of one that is missing
    let lane = li % {{ s }}u;
    let sub = li / {{ s }}u;
    let tile = min(first_tile + sub, all - 1u);
    let tile_row = p.first_row + tile * tile_rows;
    let tile_end = min(tile_row + tile_rows, p.end_row);
    let last_row = tile_row + (tile_end - tile_row - 1u) / 8u * 8u;
{%- if subgroups %}
    let built = size == {{ s * h }}u; // not for another size
{%- else %}
    let built = true;
{%- endif %}
    // to multiply: a band, and some vectors
    let own = li % {{ tiles }}u;
    let own_row = p.first_row + (first_tile + own) * tile_rows;
    let own_end = min(own_row + tile_rows, p.end_row);
    let beside = {{ vg }}u * (li / {{ tiles }}u);
    let vector = base + 4u * beside;
    let busy = built && vector < vectors;
    {{- open() }}
    for (var down = 0u; down < tile_rows; down += 8u) {
        let row = min(tile_row + down, last_row);
        let rows = min(8u, tile_end - row);
        let here = built && first_tile + sub < all && row == tile_row + down;
{%- for n in range(vg) %}
    {%- for r in range(8) %}
        var sum{{ r }}_{{ n }} = vec4<f32>();
    {%- endfor %}
    {%- if offset %}
        var plain{{ n }} = vec4<f32>();
    {%- endif %}
{%- endfor %}
        for (var col = col0; col < end; col += 32u) {
            {{- weights() }}
            for (var deep = 0u; deep < 32u; deep += {{ deep }}u) {
                for (var i = li; i < {{ deep * v // 4 }}u; i += {{ threads }}u) {
                    let k = i % {{ deep }}u;
                    let four = i / {{ deep }}u;
                    if (base + {{ 4 * vg }}u * (four / {{ vg }}u) < vectors) {
                        let c = col + deep + k;
                        let numbers = numbers_of(base + 4u * four, vectors, min(c, end - 1u));
                        right[{{ swapped('k', 'four', v // 4) }}] = select(vec4(0.0), numbers, c < end);
                    }
                }
                workgroupBarrier();
                if (busy) {
                    for (var i = 0u; i < {{ deep }}u; i++) {
                        let k = deep + i;
                        let upper = left[{{ swapped('k', '2u * own', groups) }}];
                        let lower = left[{{ swapped('k', '2u * own + 1u', groups) }}];
{%- for n in range(vg) %}
                        let x{{ n }} = right[{{ swapped('i', 'beside' ~ (' + ' ~ n ~ 'u' if n else ''), v // 4) }}];
    {%- for r in range(8) %}
                        sum{{ r }}_{{ n }} = fma(vec4({{ 'upper' if r < 4 else 'lower' }}.{{ 'xyzw'[r % 4] }}), x{{ n }}, sum{{ r }}_{{ n }});
    {%- endfor %}
    {%- if offset %}
                        plain{{ n }} += x{{ n }};
    {%- endif %}
{%- endfor %}
                    }
                }
                workgroupBarrier();
            }
        }
        let top = own_row + down;
        if (busy && top < own_end) {
{%- for n in range(vg) %}
    {%- for e in range(4) %}
            // a vector that is missing was the last one, and has its product
            let to{{ n }}{{ e }} = (strip * vectors + min(vector + {{ 4 * n + e }}u, vectors - 1u)) * p.rows + top;
    {%- endfor %}
{%- endfor %}
{%- if escapes %}
            {
            let row = top;
            {{- add_escapes() }}
            }
{%- endif %}
{%- for r in range(8) %}
            if (top + {{ r }}u < own_end) {
                let factor = {{ row_factor('top', r ~ 'u') }};
    {%- for n in range(vg) %}
                let made{{ n }} = factor * sum{{ r }}_{{ n }}{% if offset %} + p.offset * plain{{ n }}{% endif %};
        {%- for e in range(4) %}
                y[to{{ n }}{{ e }} + {{ r }}u] = made{{ n }}.{{ 'xyzw'[e] }};
        {%- endfor %}
    {%- endfor %}
            }
{%- endfor %}
        }
    }
}
