{#- Sums over the invocations of a workgroup, in a fixed order: the first one has them. #}
var<workgroup> parts: array<vec2<f32>, {{ 5 * groups_of * summed }}>;
{%- macro total(names) %}
    {%- if subgroups %}
        {%- for name in names %}
            {%- for distance in distances %}
        {{ name }} += subgroupShuffleXor({{ name }}, {{ distance }}u);
            {%- endfor %}
        {%- endfor %}
        if (id == 0u) {
        {%- for name in names %}
            parts[sub + {{ loop.index0 * groups_of }}u] = {{ name }};
        {%- endfor %}
        }
    {%- else %}
        {%- for name in names %}
        parts[li + {{ loop.index0 * groups_of }}u] = {{ name }};
        {%- endfor %}
    {%- endif %}
        workgroupBarrier();
        if (li == 0u) {
            for (var i = 1u; i < {{ groups_of }}u; i++) {
            {%- for name in names %}
                {{ name }} += parts[i + {{ loop.index0 * groups_of }}u];
            {%- endfor %}
            }
        }
        workgroupBarrier();
{%- endmacro %}
