{#- From nibbles, raw bits and scales to weights: what is added up for each of the eight rows of a band.

    value: 'level'  the nibble; the constant that is missing in it is added with the sum of x
           'raw'    the nibble and raw bits below it, folded at the sign; likewise
           'book'   a number of a codebook
           'float'  the bit pattern of a float
    fields: for each field of raw bits its width and its lowest bit in the raw bits of a level
#}
{#- Whether entries of the table hold values, which are nibbles with a constant. #}
{%- set halves = kernel == 'fused' and (value == 'level' or value == 'raw') -%}

{#- The two nibbles of pair q of lane j, where entries hold them as such. #}
{%- macro nibbles(j, q) %}
    {%- if code == 'rans' %}
    let a{{ q }}_{{ j }} = (e{{ q }}_{{ j }} >> 12u) & 15u;
    let b{{ q }}_{{ j }} = e{{ q }}_{{ j }} >> 28u;
    {%- else %}
    let a{{ q }}_{{ j }} = (e{{ q }}_{{ j }} >> 6u) & 15u;
    let b{{ q }}_{{ j }} = (e{{ q }}_{{ j }} >> 22u) & 15u;
    {%- endif %}
{%- endmacro %}
{#- The two values of pair q of lane j: v{{2q}}_{{j}} and v{{2q+1}}_{{j}}, before scales. #}
{%- macro values(j, q) %}
    {%- if value == 'level' or value == 'raw' %}
        {%- if not halves or code == 'rans' %}
    // nibbles as the mantissas of numbers from 16 on
    let two{{ q }}_{{ j }} = unpack2x16float((({% if code == 'rans' %}e{{ q }}_{{ j }} >> 6u{% else %}e{{ q }}_{{ j }}{% endif %}) & 0x03c003c0u) | 0x4c004c00u){% if value == 'raw' %} - 15.5{% endif %};
        {%- elif raw_bits == 1 %}
    // the signs of both rows at once
    let two{{ q }}_{{ j }} = unpack2x16float((e{{ q }}_{{ j }} & 0xffffffc0u) | ((raw1_{{ j }} << {{ 15 - q }}u) & 0x80008000u));
        {%- else %}
    let two{{ q }}_{{ j }} = unpack2x16float(e{{ q }}_{{ j }} & 0xffffffc0u);
        {%- endif %}
        {%- if value == 'level' or (raw_bits == 1 and code == 'prefix' and halves) %}
    let v{{ 2 * q }}_{{ j }} = two{{ q }}_{{ j }}.x;
    let v{{ 2 * q + 1 }}_{{ j }} = two{{ q }}_{{ j }}.y;
        {%- else %}
    let v{{ 2 * q }}_{{ j }} = {{ folded('two' ~ q ~ '_' ~ j ~ '.x', 2 * q, j) }};
    let v{{ 2 * q + 1 }}_{{ j }} = {{ folded('two' ~ q ~ '_' ~ j ~ '.y', 2 * q + 1, j) }};
        {%- endif %}
    {%- else %}
        {{- nibbles(j, q) }}
        {%- if value == 'book' %}
    let v{{ 2 * q }}_{{ j }} = number_of(a{{ q }}_{{ j }});
    let v{{ 2 * q + 1 }}_{{ j }} = number_of(b{{ q }}_{{ j }});
        {%- else %}
    let v{{ 2 * q }}_{{ j }} = float_of(pattern_of(a{{ q }}_{{ j }}, {{ raw(2 * q, j) }}));
    let v{{ 2 * q + 1 }}_{{ j }} = float_of(pattern_of(b{{ q }}_{{ j }}, {{ raw(2 * q + 1, j) }}));
        {%- endif %}
    {%- endif %}
{%- endmacro %}

{#- Loads the raw bits of a column, eight rows at once: a field of w bits is w bytes, or four bits in each half of a word. #}
{%- macro load_raw(j) %}
    {%- for field in fields %}
        {%- if field.width == 8 %}
    let raw{{ field.width }}a_{{ j }} = words[raw_at + {{ field.at }} + 2u * c{{ j }}];
    let raw{{ field.width }}b_{{ j }} = words[raw_at + {{ field.at }} + 2u * c{{ j }} + 1u];
        {%- elif field.width == 4 %}
    let raw{{ field.width }}_{{ j }} = words[raw_at + {{ field.at }} + c{{ j }}];
        {%- elif field.width == 2 %}
    let raw{{ field.width }}_{{ j }} = words[raw_at + {{ field.at }} + (c{{ j }} >> 1u)] >> ((c{{ j }} & 1u) << 4u);
        {%- else %}
    let raw{{ field.width }}_{{ j }} = words[raw_at + {{ field.at }} + (c{{ j }} >> 2u)] >> ((c{{ j }} & 3u) << 2u);
        {%- endif %}
    {%- endfor %}
{%- endmacro %}
{%- macro field_word(field, row, j) -%}
    raw{{ field.width }}{% if field.width == 8 %}{{ 'a' if row < 4 else 'b' }}{% endif %}_{{ j }}
{%- endmacro %}
{%- macro field_bit(field, row) -%}
    {%- if field.width == 1 -%} {{ row // 2 + row % 2 * 16 }} {%- else -%} {{ field.width * row % 32 }} {%- endif -%}
{%- endmacro %}
{#- All raw bits of a row. #}
{%- macro raw(row, j) -%}
    {%- for field in fields -%}
        {%- if not loop.first %} | {% endif -%}
        (({{ field_word(field, row, j) }} >> {{ field_bit(field, row) }}u) & {{ 2 ** field.width - 1 }}u){% if field.low > 0 %} << {{ field.low }}u{% endif %}
    {%- endfor -%}
{%- endmacro %}
{#- ±(n·2^(r-1) + low + 1/2), for n + 1/2: the last field holds the highest bit, which is the sign. #}
{%- macro folded(number, row, j) -%}
    {%- set top = fields | last -%}
    {%- set sign = field_bit(top, row) | int + top.width - 1 -%}
    bitcast<f32>(bitcast<u32>(
    {%- if raw_bits == 1 -%} {{ number }}
    {%- else -%} fma({{ number }}, {{ 2 ** (raw_bits - 1) }}.0, f32(({{ raw(row, j) }}) & {{ 2 ** (raw_bits - 1) - 1 }}u) - {{ fold_less }})
    {%- endif -%}
    ) | (({{ field_word(top, row, j) }} << {{ 31 - sign }}u) & 0x80000000u))
{%- endmacro %}

{%- if value == 'book' and kernel != 'decode' %}
/// The number of a nibble: the codebook is what `codes` ends with.
fn number_of(nibble: u32) -> f32 {
    return bitcast<f32>(codes[arrayLength(&codes) - 16u + nibble]);
}
{%- endif %}

{%- if value == 'float' %}
/// The bits of the float of a nibble and raw bits: magnitudes are counted from `base`, the sign is the highest raw bit.
fn pattern_of(nibble: u32, raw: u32) -> u32 {
    let k = nibble << {{ raw_bits - 1 }}u | (raw & {{ 2 ** (raw_bits - 1) - 1 }}u);
    let magnitude = (k + {{ base }}u) & {{ 2 ** (float_bits - 1) - 1 }}u;
    return magnitude | raw >> {{ raw_bits - 1 }}u << {{ float_bits - 1 }}u;
}

fn float_of(bits: u32) -> f32 {
    let sign = bits >> {{ float_bits - 1 }}u;
    let magnitude = bits & {{ 2 ** (float_bits - 1) - 1 }}u;
    let mantissa = magnitude & {{ 2 ** mantissa - 1 }}u;
    let exponent = magnitude >> {{ mantissa }}u;
    // not by unpack2x16float: GPUs may flush what is subnormal there
    var size = bitcast<f32>((exponent + {{ 127 - exponent_bias }}u) << 23u | mantissa << {{ 23 - mantissa }}u);
{%- if exponent_bias < 127 %}
    size = select(size, f32(mantissa) * {{ smallest }}, exponent == 0u);
{%- endif %}
{%- if special > 0 %}
    size = select(size, bitcast<f32>(0x7f800000u | mantissa << {{ 23 - mantissa }}u), exponent == {{ special }}u);
{%- endif %}
{%- if float_bits == 8 and mantissa == 3 %}
    size = select(size, bitcast<f32>(magnitude | 0x7fc00000u), magnitude == 127u); // not a number
{%- endif %}
    return bitcast<f32>(bitcast<u32>(size) | sign << 31u);
}
{%- endif %}

