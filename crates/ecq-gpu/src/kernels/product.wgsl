{#- What products have in common: vectors, sums, scales, escapes. `m` vectors are multiplied at once. #}
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

{%- if scales %}
/// Factor and summand of a group of columns.
fn scale_of(group: u32) -> vec2<f32> {
{%- if scales == 'half2' %}
    return unpack2x16float(side[group]);
{%- elif scales == 'half' %}
    return vec2(unpack2x16float(side[group >> 1u] >> ((group & 1u) << 4u)).x, 0.0);
{%- elif scales == 'float2' %}
    return vec2(bitcast<f32>(side[2u * group]), bitcast<f32>(side[2u * group + 1u]));
{%- else %}
    return vec2(bitcast<f32>(side[group]), 0.0);
{%- endif %}
}
{%- endif %}

{#- The vectors of this workgroup; the last ones may be those of another one, too, with the same result. #}
{%- macro vectors() %}
    let vectors = arrayLength(&x) / p.cols;
    let base = min(wid.z * {{ m }}u, vectors - {{ m }}u);
{%- endmacro %}

{%- macro load_x(j, careful) %}
    {%- for i in range(m) %}
    var x{{ j }}_{{ i }} = f32(x[(base{% if i > 0 %} + {{ i }}u{% endif %}) * p.cols + c{{ j }}]);
        {%- if careful %}
    x{{ j }}_{{ i }} = select(0.0, x{{ j }}_{{ i }}, active{{ j }});
        {%- endif %}
    {%- endfor %}
    {%- if columns %}
    let factor{{ j }} = bitcast<f32>(side[c{{ j }}]);
    {%- endif %}
{%- endmacro %}
{#- Sums of x: all levels of a column lack the same constant, and all weights the same offset. #}
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

{#- What the level of an escape has more than its nibble, times x: `which` row of the band, and part0 and so on. #}
{%- macro escaped() %}
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
    {%- endfor %}
{%- endmacro %}
{#- Adds that to the sums of a band. #}
{%- macro escape() %}
    {{- escaped() }}
    {%- for i in range(m) %}
        {%- for pair in range(4) %}
            y{{ pair }}_{{ i }} += select(vec2(0.0), vec2(part{{ i }}), vec2(which) == vec2({{ 2 * pair }}u, {{ 2 * pair + 1 }}u));
        {%- endfor %}
    {%- endfor %}
{%- endmacro %}

{#- Sums of a band. #}
{%- macro begin() %}
{%- for i in range(m) %}
        var y0_{{ i }} = vec2<f32>(); var y1_{{ i }} = vec2<f32>(); var y2_{{ i }} = vec2<f32>(); var y3_{{ i }} = vec2<f32>();
        {%- if constant and not scales %}
        var sum{{ i }} = 0.0;
        {%- endif %}
        {%- if offset %}
        var plain{{ i }} = 0.0;
        {%- endif %}
{%- endfor %}
{%- endmacro %}
{%- macro end() %}
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
    {%- if offset or (constant and not scales) %}
        var other{{ i }} = vec2({{ 'sum' ~ i if constant and not scales else '0.0' }}, {{ 'plain' ~ i if offset else '0.0' }});
    {%- endif %}
{%- endfor %}
{#- `summed` vectors at once, which fit the memory of a workgroup: compilers take long over barriers #}
{%- for some in range(m) | batch(summed) %}
    {%- set sums = namespace(names=[]) %}
    {%- for i in some %}
        {%- set sums.names = sums.names + ['y0_' ~ i, 'y1_' ~ i, 'y2_' ~ i, 'y3_' ~ i] %}
        {%- if offset or (constant and not scales) %}
            {%- set sums.names = sums.names + ['other' ~ i] %}
        {%- endif %}
    {%- endfor %}
        {{- total(sums.names) }}
{%- endfor %}
        if (lane == 0u) {
            var to = (strip * vectors + base) * p.rows + row;
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
{%- endmacro %}

{%- if row_factors %}
/// The factor of a row: 2^((byte - 128) / 8).
fn octaves(byte: u32) -> f32 {
    var eighths = array<u32, 8>(
        0x3f800000u, 0x3f8b95c2u, 0x3f9837f0u, 0x3fa5fed7u, 0x3fb504f3u, 0x3fc5672au, 0x3fd744fdu, 0x3feac0c7u);
    return bitcast<f32>(eighths[byte & 7u] + (byte >> 3u << 23u) - (16u << 23u));
}
{%- endif %}
