{#- Weights for many vectors from streams: every stream of a workgroup takes part in each block, as barriers may be among it. #}
{%- macro open() %}
    {%- if not subgroups %}
    prepare(li);
    {%- endif %}
    let below = (1u << lane) - 1u;
    {%- if h > 1 %}
    let half = li / 32u % {{ h }}u;
    {%- endif %}
    let about = tile * (p.strips + 1u);
    var pos = first[about + 1u + strip]; // the next word, equal in all lanes
    {{- declare() }}
    {{- start() }}
{%- endmacro %}
{%- macro weights() %}
            let pairs = (rows + 1u) / 2u;
    {%- if raw_bits > 0 %}
            let raw_at = first[about] + (row - tile_row) / 8u * ({{ raw_words }});
    {%- endif %}
    {%- for j in lanes %}
            let active{{ j }} = here && col + lane + {{ j * s }}u < end;
            let c{{ j }} = min(col + lane + {{ j * s }}u, end - 1u);
            {{- load_raw(j) }}
    {%- endfor %}
            {{- careful() }}
    {%- for j in lanes %}
        {%- for q in range(4) %}
            {{- values(j, q) }}
        {%- endfor %}
            {{- leave(j, '_' ~ j) }}
    {%- endfor %}
{%- endmacro %}
