{#- Product from packed weights: a workgroup makes a band, each invocation takes columns of it.

    m: vectors that are multiplied at once      threads: invocations of a workgroup
#}
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
    {{- begin() }}
    for (var c0 = li; c0 < p.cols; c0 += {{ threads }}u) {
        {{- take() }}
    }
    let lane = li;
    {{- end() }}
}
