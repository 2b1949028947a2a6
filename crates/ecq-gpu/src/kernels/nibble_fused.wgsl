{#- Product from streams of the `nibble` codec. All groups are at the same columns in a step, so their rows end in the same
    steps: a lane adds to its group's row until it ends, then the sums of its invocations are added up.

    members: invocations of a group     parts: sums in workgroup memory, of that many segments     at_once: vectors in it
#}
{%- if parts > 0 %}
var<workgroup> parts: array<f32, {{ parts * at_once }}>;
{%- endif %}

{%- if value == 'raw' %}
/// ±(n·2^(r-1) + low + 1/2), for n + 1/2: the highest raw bit is the sign.
fn fold(number: f32, raw: u32) -> f32 {
    let size = {% if raw_bits == 1 %}number{% else %}fma(number, {{ 2 ** (raw_bits - 1) }}.0, f32(raw & {{ 2 ** (raw_bits - 1) - 1 }}u) - {{ fold_less }}){% endif %};
    return bitcast<f32>(bitcast<u32>(size) | raw >> {{ raw_bits - 1 }}u << 31u);
}
{%- endif %}

{#- Sums over the invocations of a group, in a fixed order: its first one has them. #}
{%- macro total(name) %}
    {%- for some in range(m) | batch(at_once) %}
        {%- if subgroups %}
            {%- for i in some %}
                {%- for distance in distances %}
                {{ name }}{{ i }} += subgroupShuffleXor({{ name }}{{ i }}, {{ distance }}u);
                {%- endfor %}
            {%- endfor %}
        {%- endif %}
        {%- if parts > 0 %}
                {%- set part = 'sub' if subgroups else 'li' %}
            {%- for i in some %}
                {% if subgroups %}if (id == 0u) { {% endif %}parts[{{ part }} + {{ loop.index0 * parts }}u] = {{ name }}{{ i }};{% if subgroups %} }{% endif %}
            {%- endfor %}
                workgroupBarrier();
                if (member == 0u) {
                    // not from a constant on: compilers that unroll it take minutes
                    for (var i = {{ part }} + 1u; i < {{ part }} + {{ of_group }}u; i++) {
                {%- for i in some %}
                        {{ name }}{{ i }} += parts[i + {{ loop.index0 * parts }}u];
                {%- endfor %}
                    }
                }
                workgroupBarrier();
        {%- endif %}
    {%- endfor %}
{%- endmacro %}

{#- Vectors in turns; the last ones may be those of another turn, too, with the same result. #}
{%- macro vectors() %}
    let vectors = arrayLength(&y) / p.rows; // x may be filled up
    let base = min(wid.z * {{ m }}u, vectors - {{ m }}u);
{%- endmacro %}

{%- macro begin() %}
    let member = li % {{ members }}u;
{%- for i in range(m) %}
    var sum{{ i }} = 0.0; var plain{{ i }} = 0.0; var y{{ i }} = 0.0;
{%- endfor %}
{%- if offset or (constant and not scales) %}
    // sums of x are those of every row
    for (var c0 = member; c0 < p.cols; c0 += {{ members }}u) {
        {{- load_x(0, false) }}
        {{- sum_x(0) }}
    }
    {%- if constant and not scales %}{{ total('sum') }}{% endif %}
    {%- if offset %}{{ total('plain') }}{% endif %}
{%- endif %}
    // the row of each group that sums are of, and the symbol at which it ends
    var now = 0u;
    var row_end = p.cols;
{%- endmacro %}

{#- The weight of lane j and x of its column. #}
{%- macro weight(j) %}
    {{- load_x(j, false) }}
    {%- if raw_bits > 0 %}{{ raw_bits_of(j) }}{% endif %}
    {%- if value == 'level' %}
    let v{{ j }} = bitcast<f32>(e{{ j }} & 0xfffe0000u);
    {%- elif value == 'raw' %}
    let v{{ j }} = fold(bitcast<f32>(e{{ j }} & 0xfffe0000u), raw_{{ j }});
    {%- elif value == 'book' %}
    let v{{ j }} = number_of(e{{ j }} >> 28u);
    {%- else %}
    let v{{ j }} = float_of(pattern_of(e{{ j }} >> 28u, raw_{{ j }}));
    {%- endif %}
    {%- if columns %}
        {%- for i in range(m) %}
    x{{ j }}_{{ i }} *= factor{{ j }};
        {%- endfor %}
    {%- endif %}
    {%- if scales %}
    let r{{ j }} = min(tile_row + group * height + row{{ j }}, tile_end - 1u);
    let s{{ j }} = scale_at(r{{ j }} & ~7u, r{{ j }} & 7u, {{ group_of('c' ~ j) }});
    let w{{ j }} = fma(s{{ j }}.x, v{{ j }}{% if constant %} + p.constant{% endif %}, s{{ j }}.y);
    {%- else %}
    let w{{ j }} = v{{ j }};
    {%- endif %}
    let of{{ j }} = select(~0u, row{{ j }}, active{{ j }});
{%- endmacro %}

{%- macro take() %}
    {%- for j in range(k) %}{{ weight(j) }}{% endfor %}
        loop {
    {%- for j in range(k) %}
            if (of{{ j }} == now) {
        {%- for i in range(m) %}
                y{{ i }} = fma(w{{ j }}, x{{ j }}_{{ i }}, y{{ i }});
        {%- endfor %}
            }
    {%- endfor %}
            if (row_end > 64u * step + 64u || now >= height) { break; }
            {{- end_row() }}
    {%- for i in range(m) %}
            y{{ i }} = 0.0;
    {%- endfor %}
            now += 1u;
            row_end += p.cols;
        }
{%- endmacro %}

{#- Writes the products of a row of each group. #}
{%- macro end_row() %}
            let r = tile_row + group * height + now;
{%- if escapes %}
            {
            let row = min(r, tile_end - 1u) / 8u * 8u;
            let lane = member;
            let strip = select(1u, 0u, r < tile_end);
            {{- add_escapes() }}
            }
{%- endif %}
            {{- total('y') }}
            if (member == 0u && r < tile_end) {
                let factor = {{ row_factor('r', '(r & 7u)') }};
{%- for i in range(m) %}
                y[(base + {{ i }}u) * p.rows + r] = factor * (y{{ i }}{% if constant and not scales %} + p.constant * sum{{ i }}{% endif -%}
                ){% if offset %} + p.offset * plain{{ i }}{% endif %};
{%- endfor %}
            }
{%- endmacro %}
