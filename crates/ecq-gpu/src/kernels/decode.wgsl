{#- Coded weights to packed ones: for each column of a band, the eight rows side by side.

    bits 4: a word, rows 0, 2, 4, 6 in its lower half, rows 1, 3, 5, 7 in the upper one
    bits 8: two words of four rows; signed integers, or the bits of a float
    bits 16: four words of two rows; likewise
#}
@group(0) @binding(5) var<storage, read_write> packed: array<{{ 'atomic<u32>' if code == 'nibble' else 'u32' }}>;

{%- macro begin() %}{% endmacro %}
{%- macro end() %}{% endmacro %}
{%- macro column(j, careful) %}
    {{- place(j, careful) }}
    {%- for i in range(bits // 4) %}
    var packed{{ i }}_{{ j }} = 0u;
    {%- endfor %}
    {{- load_raw(j) }}
{%- endmacro %}
{%- macro take(j, q, careful) %}
    {%- for pair in [q, q + 1] %}
        {%- if bits == 4 %}
            {%- if code == 'rans' %}
    packed0_{{ j }} |= ((e{{ pair }}_{{ j }} >> 12u) & 0xf000fu) << {{ 4 * pair }}u;
            {%- else %}
    packed0_{{ j }} |= (e{{ pair }}_{{ j }} & 0x03c003c0u) {{ '>>' if pair < 2 else '<<' }} {{ (6 - 4 * pair) | abs }}u;
            {%- endif %}
        {%- else %}
            {{- nibbles(j, pair) }}
            {%- for (row, nibble) in [(2 * pair, 'a'), (2 * pair + 1, 'b')] %}
    packed{{ row * bits // 32 }}_{{ j }} |= (packed_of({{ nibble }}{{ pair }}_{{ j }}, {{ raw(row, j) }}) & {{ 2 ** bits - 1 }}u) << {{ row * bits % 32 }}u;
            {%- endfor %}
        {%- endif %}
    {%- endfor %}
{%- endmacro %}
{%- macro done(j, careful) %}
    {% if careful %}if (active{{ j }}) {% endif %}{
    {%- for i in range(bits // 4) %}
        packed[((row - p.first_row) / 8u * p.cols + c{{ j }}) * {{ bits // 4 }}u + {{ i }}u] = packed{{ i }}_{{ j }};
    {%- endfor %}
    }
{%- endmacro %}

{%- if bits > 4 %}
/// What is stored for a nibble and raw bits.
fn packed_of(nibble: u32, raw: u32) -> u32 {
{%- if value == 'float' %}
    return pattern_of(nibble, raw);
{%- else %}
    let k = nibble << {{ raw_bits - 1 }}u | (raw & {{ 2 ** (raw_bits - 1) - 1 }}u);
    return select(k, ~k, raw >> {{ raw_bits - 1 }}u != 0u);
{%- endif %}
}
{%- endif %}

