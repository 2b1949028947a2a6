{#- What products have in common: vectors, sums, scales, escapes. `m` vectors are multiplied at once. #}
@group(0) @binding(4) var<storage, read> x: array<{{ input }}>;      // m x cols
@group(0) @binding(5) var<storage, read_write> y: array<f32>;     // m x rows, or that for each strip

{%- macro load_x(j, careful) %}
    {%- for i in range(m) %}
    var x{{ j }}_{{ i }} = f32(x[{% if code == 'nibble' %}(base + {{ i }}u) * p.cols + {% elif i > 0 %}{{ i }}u * p.cols + {% endif %}c{{ j }}]);
        {%- if careful %}
    x{{ j }}_{{ i }} = select(0.0, x{{ j }}_{{ i }}, active{{ j }});
        {%- endif %}
    {%- endfor %}
    {%- if columns %}
    let factor{{ j }} = {{ column_factor('c' ~ j) }};
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
    {{- add_escapes() }}
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
            let to = strip * {{ m }}u * p.rows + row;
{%- for r in range(8) %}
            if ({{ r }}u < rows) {
                let factor = {{ row_factor('row', r ~ 'u') }};
    {%- for i in range(m) %}
                y[to + {{ i }}u * p.rows + {{ r }}u] = factor * (y{{ r // 2 }}_{{ i }}.{{ 'xy'[r % 2] }}
                    {%- if constant and not scales %} + p.constant * other{{ i }}.x{% endif -%}
                ){% if offset %} + p.offset * other{{ i }}.y{% endif %};
    {%- endfor %}
            }
{%- endfor %}
        }
{%- endmacro %}
