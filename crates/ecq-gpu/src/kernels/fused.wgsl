{#- Product from coded weights: a subgroup decodes a stream, x of a column is in a register for the eight rows of a band,
    and weights are nowhere but in registers.

    m: vectors that are multiplied at once
-#}
{%- set pairs = [0, 2] -%}

@group(0) @binding(4) var<storage, read> x: array<{{ input }}>;      // m x cols
@group(0) @binding(5) var<storage, read_write> y: array<f32>;     // m x rows, or that for each strip
{%- if side %}
/// Factors of columns, or scales of groups; then factors of rows, a byte each.
@group(0) @binding(6) var<storage, read> side: array<u32>;
{%- endif %}
{%- if escapes %}
/// For each band: where its escapes begin, and where the last ones end; then escapes.
@group(0) @binding(7) var<storage, read> escapes: array<u32>;
{%- endif %}

{%- macro load_x(j, careful) %}
    {%- for i in range(m) %}
    var x{{ j }}_{{ i }} = f32(x[{% if i > 0 %}{{ i }}u * p.cols + {% endif %}c{{ j }}]);
        {%- if careful %}
    x{{ j }}_{{ i }} = select(0.0, x{{ j }}_{{ i }}, active{{ j }});
        {%- endif %}
    {%- endfor %}
    {%- if columns %}
    let factor{{ j }} = bitcast<f32>(side[c{{ j }}]);
    {%- endif %}
{%- endmacro %}
{#- Sums of x: all levels of a column lack the same constant, and all weights the same offset. -#}
{%- macro sum_x(j) %}
    {%- for i in range(m) %}
        {%- if offset %}
    plain{{ i }} += x{{ j }}_{{ i }};
        {%- endif %}
        {%- if columns %}
    x{{ j }}_{{ i }} *= factor{{ j }};
        {%- endif %}
        {%- if constant and not scales %}
    sum{{ i }} += x{{ j }}_{{ i }};
        {%- endif %}
    {%- endfor %}
{%- endmacro %}
{#- Adds the weights of two pairs of rows, times x. -#}
{%- macro add(j, q, careful) %}
    {%- for pair in [q, q + 1] %}
        {{- values(j, pair) }}
        {%- if scales %}
            {%- for row in [2 * pair, 2 * pair + 1] %}
    let s{{ row }}_{{ j }} = scale_of(group{{ j }}{% if row > 0 %} + {{ row }}u * p.groups{% endif %});
    let w{{ row }}_{{ j }} = fma(s{{ row }}_{{ j }}.x, v{{ row }}_{{ j }}{% if constant %} + p.constant{% endif %}, s{{ row }}_{{ j }}.y);
            {%- endfor %}
        {%- else %}
            {%- for row in [2 * pair, 2 * pair + 1] %}
    let w{{ row }}_{{ j }} = {% if careful and value == 'float' %}select(0.0, v{{ row }}_{{ j }}, active{{ j }}){% else %}v{{ row }}_{{ j }}{% endif %};
            {%- endfor %}
        {%- endif %}
        {%- for i in range(m) %}
    y{{ pair }}_{{ i }} = fma(vec2(w{{ 2 * pair }}_{{ j }}, w{{ 2 * pair + 1 }}_{{ j }}), vec2(x{{ j }}_{{ i }}), y{{ pair }}_{{ i }});
        {%- endfor %}
    {%- endfor %}
{%- endmacro %}
{%- macro column(j, careful) %}
    {%- if careful %}
    let active{{ j }} = col + {{ j * s }}u < end;
    let c{{ j }} = min(col + {{ j * s }}u, end - 1u);
    {%- else %}
    let c{{ j }} = col + {{ j * s }}u;
    {%- endif %}
    {%- if scales %}
    let group{{ j }} = row * p.groups + {% if mapped %}side[p.map + c{{ j }}]{% else %}c{{ j }} / {{ size }}u{% endif %};
    {%- endif %}
    {{- load_x(j, careful) }}
    {{- load_raw(j) }}
    {{- sum_x(j) }}
{%- endmacro %}

{#- Adds what the level of an escape has more than its nibble: column, row in the band, and that difference. -#}
{%- macro escape() %}
    {%- if escapes == 'wide' %}
            let place = escapes[2u * at];
            let c0 = place & 0x1fffffffu;
            let which = place >> 29u;
            var more = bitcast<f32>(escapes[2u * at + 1u]);
    {%- else %}
            let place = escapes[at];
            let c0 = place & 0xffffu;
            let which = (place >> 16u) & 7u;
            var more = f32(bitcast<i32>(place) >> 19u);
    {%- endif %}
    {%- if scales %}
            more *= scale_of((row + which) * p.groups + {% if mapped %}side[p.map + c0]{% else %}c0 / {{ size }}u{% endif %}).x;
    {%- endif %}
            {{- load_x(0, false) }}
    {%- for i in range(m) %}
            let part{{ i }} = more * x0_{{ i }}{% if columns %} * factor0{% endif %};
        {%- for pair in range(4) %}
            y{{ pair }}_{{ i }} += select(vec2(0.0), vec2(part{{ i }}), vec2(which) == vec2({{ 2 * pair }}u, {{ 2 * pair + 1 }}u));
        {%- endfor %}
    {%- endfor %}
{%- endmacro %}

@compute @workgroup_size({{ threads }})
fn fused(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) li: u32{% if subgroups %},
         @builtin(subgroup_size) size: u32, @builtin(subgroup_id) sub: u32,
         @builtin(subgroup_invocation_id) id: u32{% endif %}) {
    prepare(li);
{%- if subgroups %}
    if (size != {{ s * h }}u) { return; } // built for another size
    let stream = (wid.x + wid.y * count.x) * {{ t * h }}u + sub{% if h > 1 %} * {{ h }}u + (id >> 5u){% endif %};
    if (stream >= p.streams) { return; }
    {%- if h > 1 %}
    let lane = id & 31u;
    let half = id >> 5u;
    {%- else %}
    let lane = id;
    {%- endif %}
{%- else %}
    let stream = wid.x + wid.y * count.x;
    if (stream >= p.streams) { return; }
    let lane = li;
{%- endif %}
    let below = (1u << lane) - 1u;

    let tile = stream / p.strips;
    let strip = stream % p.strips;
    let tile_row = p.first_row + tile * p.tile_rows;
    let tile_end = min(tile_row + p.tile_rows, p.end_row);
    let col0 = strip * p.strip;
    let width = min(p.strip, p.cols - col0);
    var pos = first[tile * (p.strips + 1u) + 1u + strip]; // the next word, equal in all lanes
{%- if raw_bits > 0 %}
    var raw_at = first[tile * (p.strips + 1u)];
{%- endif %}
    {{- declare() }}
    {{- start() }}
{%- if code == 'rans' and subgroups %}
    // blocks before any lane comes to its last two symbols
    let whole = width / 32u * ((tile_end - tile_row) / 8u * 4u + ((tile_end - tile_row) % 8u + 1u) / 2u);
    var coded = select(0u, whole - 2u, whole > 2u) / 4u;
{%- endif %}
    for (var row = tile_row; row < tile_end; row += 8u) {
        let rows = min(8u, tile_end - row);
        let pairs = (rows + 1u) / 2u;
{%- for i in range(m) %}
        var y0_{{ i }} = vec2<f32>(); var y1_{{ i }} = vec2<f32>(); var y2_{{ i }} = vec2<f32>(); var y3_{{ i }} = vec2<f32>();
        {%- if constant and not scales %}
        var sum{{ i }} = 0.0;
        {%- endif %}
        {%- if offset %}
        var plain{{ i }} = 0.0;
        {%- endif %}
{%- endfor %}
{%- if subgroups %}
        var fast = select(0u, width / 32u, rows == 8u);
{%- else %}
        var fast = 0u; // compilers take long over barriers, and there is no speed to be had
{%- endif %}
{%- if code == 'rans' and subgroups %}
        fast = min(fast, coded);
        coded -= fast;
{%- endif %}
        let end = col0 + width;
        var col = col0 + lane;
{%- if subgroups %}
        for (var block = 0u; block < fast; block++) {
{%- for j in lanes %}
            {{- column(j, false) }}
{%- endfor %}
{%- for q in pairs %}
    {%- for j in lanes %}
            {{- decode2(j, q) }}
            {{- add(j, q, false) }}
    {%- endfor %}
{%- endfor %}
            col += 32u;
        }
{%- if code == 'rans' %}
    {%- for j in lanes %}
        left{{ j }} -= 4u * fast;
    {%- endfor %}
{%- endif %}
{%- endif %}
        for (var block = fast; block * 32u < width; block++) {
{%- for j in lanes %}
            {{- column(j, true) }}
{%- endfor %}
{%- for q in pairs %}
    {%- for j in lanes %}
            {{- careful2(j, q) }}
            {{- add(j, q, true) }}
    {%- endfor %}
{%- endfor %}
            col += 32u;
        }
{%- if raw_bits > 0 %}
        raw_at += {{ raw_words }};
{%- endif %}
{%- if escapes %}
        let band = row / 8u;
        let last = select(0u, escapes[band + 1u], strip == 0u);
        // as often for all lanes: barriers follow
        for (var round = escapes[band]; round < last; round += {{ s }}u) {
            let at = round + lane;
            if (at < last) {
                {{- escape() }}
            }
        }
{%- endif %}
{%- for i in range(m) %}
        {%- set sums = ['y0_' ~ i, 'y1_' ~ i, 'y2_' ~ i, 'y3_' ~ i] %}
        {%- if offset or (constant and not scales) %}
        var other{{ i }} = vec2({{ 'sum' ~ i if constant and not scales else '0.0' }}, {{ 'plain' ~ i if offset else '0.0' }});
            {%- set sums = sums + ['other' ~ i] %}
        {%- endif %}
        {{- total(sums) }}
{%- endfor %}
        if (lane == 0u) {
            var to = strip * {{ m }}u * p.rows + row;
{%- for r in range(8) %}
            if ({{ r }}u < rows) {
                let factor = p.step{% if row_factors %} * octaves((side[p.row_bytes + (row + {{ r }}u) / 4u] >> {{ 8 * (r % 4) }}u) & 0xffu){% endif %};
    {%- for i in range(m) %}
                y[to + {{ i }}u * p.rows + {{ r }}u] = factor * (y{{ r // 2 }}_{{ i }}.{{ 'xy'[r % 2] }}
                    {%- if constant and not scales %} + p.constant * other{{ i }}.x{% endif -%}
                ){% if offset %} + p.offset * other{{ i }}.y{% endif %};
    {%- endfor %}
            }
{%- endfor %}
        }
    }
}
