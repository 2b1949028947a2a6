{#- Product from coded weights: a subgroup decodes a stream, x of a column is in a register for the eight rows of a band,
    and weights are nowhere but in registers.
#}
{%- macro column(j, careful) %}
    {{- place(j, careful) }}
    {%- if scales %}
    let group{{ j }} = {{ group_of('c' ~ j) }};
    {{- load_scales(j) }}
    {%- endif %}
    {{- load_x(j, careful) }}
    {{- load_raw(j) }}
    {{- sum_x(j) }}
{%- endmacro %}
{#- Adds the weights of two pairs of rows, times x. #}
{%- macro take(j, q, careful) %}
    {%- for pair in [q, q + 1] %}
        {{- values(j, pair) }}
        {%- if scales %}
            {%- for row in [2 * pair, 2 * pair + 1] %}
    {{- scale_of(row, j) }}
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
{%- macro done(j, careful) %}{% endmacro %}
