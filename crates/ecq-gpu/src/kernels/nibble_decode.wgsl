{#- Coded weights of the `nibble` codec to packed ones, as `decode.wgsl` lays them. The rows of a band belong to several lanes,
    or tiles, each of which writes its bits of a word and leaves those of others as they are.
#}
{%- macro vectors() %}{% endmacro %}
{%- macro begin() %}{% endmacro %}
{%- macro take() %}
    {%- for j in range(k) %}
        if (active{{ j }}) {
            let row = tile_row - p.first_row + group * height + row{{ j }};
        {%- if bits == 4 %}
            let number = e{{ j }} >> 28u;
            let bit = (row & 6u) << 1u | (row & 1u) << 4u;
        {%- else %}
            {{- raw_bits_of(j) }}
            let number = packed_of(e{{ j }} >> 28u, raw_{{ j }}) & {{ 2 ** bits - 1 }}u;
            let bit = row * {{ bits }}u & 31u;
        {%- endif %}
            let at = (row / 8u * p.cols + c{{ j }}) * {{ bits // 4 }}u{% if bits > 4 %} + row % 8u / {{ 32 // bits }}u{% endif %};
            atomicAnd(&packed[at], ~({{ 2 ** bits - 1 }}u << bit));
            atomicOr(&packed[at], number << bit);
        }
    {%- endfor %}
{%- endmacro %}
