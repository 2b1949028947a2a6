{#- Product from packed weights, as `decode` writes them: a workgroup makes a band, each invocation takes columns of it.

    m: vectors that are multiplied at once      threads: invocations of a workgroup
#}
@group(0) @binding(1) var<storage, read> packed: array<{{ 'u32' if bits == 4 else 'vec2<u32>' if bits == 8 else 'vec4<u32>' }}>;
{%- if value == 'book' %}
@group(0) @binding(3) var<storage, read> codes: array<u32>;
{%- endif %}

{#- v0 to v7 of a column. #}
{%- macro values8() %}
    {%- if value == 'level' %}
        {%- for q in range(4) %}
    let two{{ q }} = unpack2x16float(((bits {{ '<<' if q < 2 else '>>' }} {{ (6 - 4 * q) | abs }}u) & 0x03c003c0u) | 0x4c004c00u);
    let v{{ 2 * q }} = two{{ q }}.x; let v{{ 2 * q + 1 }} = two{{ q }}.y;
        {%- endfor %}
    {%- elif value == 'book' %}
        {%- for q in range(4) %}
    let v{{ 2 * q }} = number_of((bits >> {{ 4 * q }}u) & 15u);
    let v{{ 2 * q + 1 }} = number_of((bits >> {{ 4 * q + 16 }}u) & 15u);
        {%- endfor %}
    {%- else %}
        {%- for row in range(8) %}
            {%- set word = 'bits.' ~ 'xyzw'[row * bits // 32] %}
            {%- set at = row * bits % 32 %}
            {%- if value == 'float' %}
    let v{{ row }} = float_of(({{ word }} >> {{ at }}u) & {{ 2 ** bits - 1 }}u);
            {%- else %}
    let v{{ row }} = f32(bitcast<i32>({{ word }} << {{ 32 - bits - at }}u) >> {{ 32 - bits }}u) + 0.5;
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}

{#- A column: its weights times x. #}
{%- macro take() %}
    {%- if scales %}
        let group0 = {{ group_of('c0') }};
        {{- load_scales(0) }}
    {%- endif %}
        {{- load_x(0, false) }}
        {{- sum_x(0) }}
        let bits = packed[(row - p.first_row) / 8u * p.cols + c0];
        {{- values8() }}
    {%- for row in range(8) %}
        {%- if scales %}
        {{- scale_of(row, 0) }}
        let w{{ row }} = fma(s{{ row }}_0.x, v{{ row }}{% if constant %} + p.constant{% endif %}, s{{ row }}_0.y);
        {%- else %}
        let w{{ row }} = v{{ row }};
        {%- endif %}
    {%- endfor %}
    {%- for i in range(m) %}
        {%- for q in range(4) %}
        y{{ q }}_{{ i }} = fma(vec2(w{{ 2 * q }}, w{{ 2 * q + 1 }}), vec2(x0_{{ i }}), y{{ q }}_{{ i }});
        {%- endfor %}
    {%- endfor %}
{%- endmacro %}

@compute @workgroup_size({{ threads }})
fn plain(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) li: u32{% if subgroups %},
         @builtin(subgroup_id) sub: u32, @builtin(subgroup_invocation_id) id: u32{% endif %}) {
    let row = p.first_row + (wid.x + wid.y * count.x) * 8u;
    if (row >= p.end_row) { return; }
    let rows = min(8u, p.end_row - row);
    let strip = 0u;
    {{- vectors() }}
    {{- begin() }}
    for (var c0 = li; c0 < p.cols; c0 += {{ threads }}u) {
        {{- take() }}
    }
    let lane = li;
    {{- end() }}
}
