{#- Weights for many vectors from packed ones. #}
{%- macro open() %}{% endmacro %}
{%- macro weights() %}
    {%- for j in range(k) %}
            {
            let active{{ j }} = here && col + lane + {{ j * s }}u < end;
            let c{{ j }} = min(col + lane + {{ j * s }}u, end - 1u);
            let bits = packed[(row - p.first_row) / 8u * p.cols + c{{ j }}];
            {{- values8() }}
            {{- leave(j, '') }}
            }
    {%- endfor %}
{%- endmacro %}
