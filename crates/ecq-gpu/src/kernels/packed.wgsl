{#- Packed weights, as `decode` writes them: for each column of a band, the eight rows side by side. #}
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
