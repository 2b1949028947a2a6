{#- Scales: of groups of columns, from codes that lie side by side for the eight rows of a band; of columns and rows.

    A record of a group has `bytes` bytes: for each piece of its numbers eight codes of `width` bits.
#}
{%- if side %}
/// What all bands share: least numbers and tables, or eighths of octaves; then the groups of columns where a map says
/// them, or the factors of columns. From `records` on for each band its records, or factors of rows; then numbers of runs
/// of groups.
@group(0) @binding(6) var<storage, read> side: array<u32>;

/// The first word of a band.
fn band_of(row: u32) -> u32 {
    return p.records + (row - p.first_row) / 8u * p.stride;
}
{%- endif %}

{%- macro group_of(c) -%}
    {%- if scales.map_bits == 0 -%}
    {{ c }} / {{ scales.size }}u
    {%- elif scales.map_bits == 8 -%}
    (side[{{ scales.map }}u + ({{ c }} >> 2u)] >> (({{ c }} & 3u) << 3u)) & 0xffu
    {%- else -%}
    (side[{{ scales.map }}u + ({{ c }} >> 1u)] >> (({{ c }} & 1u) << 4u)) & 0xffffu
    {%- endif -%}
{%- endmacro %}

{#- `width` bits from bit `at` of the words that are called as `words` says. #}
{%- macro bits_of(words, at, width) -%}
    {%- set word = at // 32 -%}
    {%- set bit = at % 32 -%}
    {%- if bit == 0 and width == 32 -%} {{ words }}{{ word }}
    {%- elif bit + width > 32 -%}
    (({{ words }}{{ word }} >> {{ bit }}u | {{ words }}{{ word + 1 }} << {{ 32 - bit }}u){% if width < 32 %} & {{ 2 ** width - 1 }}u{% endif %})
    {%- else -%}
    ({{ words }}{{ word }} >> {{ bit }}u{% if bit + width < 32 %} & {{ 2 ** width - 1 }}u{% endif %})
    {%- endif -%}
{%- endmacro %}

{#- Loads a record, whose place in bytes from word `first` on is `place`, to words that begin with its first bit. #}
{%- macro load_record(words, first, place, bytes) %}
    {%- if bytes > 0 %}
    let {{ words }}at = {{ first }} + ({{ place }} >> 2u);
        {%- set count = (bytes + 3) // 4 %}
        {%- if bytes % 4 == 0 %}
            {%- for i in range(count) %}
    let {{ words }}{{ i }} = side[{{ words }}at + {{ i }}u];
            {%- endfor %}
        {%- else %}
            {%- set loaded = (8 * bytes + (16 if bytes % 2 == 0 else 24) + 31) // 32 %}
    let {{ words }}skip = ({{ place }} & 3u) << 3u;
            {%- for i in range(loaded) %}
    let {{ words }}load{{ i }} = side[{{ words }}at + {{ i }}u];
            {%- endfor %}
            {%- for i in range(count) %}
    let {{ words }}{{ i }} = {{ words }}load{{ i }} >> {{ words }}skip
                {%- if i + 1 < loaded %} | ({{ words }}load{{ i + 1 }} << 1u) << (31u - {{ words }}skip){% endif %};
            {%- endfor %}
        {%- endif %}
    {%- endif %}
{%- endmacro %}

{#- A number from its pieces: of a row that is known here, from words that were loaded; or, without such words, of row `which` by
    calls that begin as `row` says. #}
{%- macro number(number, words, row) -%}
    from_{{ number.format }}(side[{{ number.head }}u]
    {%- for piece in number.pieces -%}
        {%- if words == '' -%}
            {%- set code = row ~ piece.at ~ 'u' ~ (' + which * ' ~ piece.width ~ 'u' if number.rows > 1 else '') ~ ', ' ~ piece.width ~ 'u)' -%}
        {%- else -%}
            {%- set code = bits_of(words, piece.at + row * piece.width, piece.width) -%}
        {%- endif -%}
        {%- if piece.table is not none %} + side[{{ piece.table }}u + {{ code }}]
        {%- elif piece.shift > 0 %} + ({{ code }} << {{ piece.shift }}u)
        {%- else %} + {{ code }}
        {%- endif -%}
    {%- endfor -%}
    )
{%- endmacro %}

{#- Loads what the groups of column j have for the eight rows of the band; they are group{{j}} of their rows. #}
{%- macro load_scales(j) %}
    let band{{ j }} = band_of(row);
    let record{{ j }} = group{{ j }} * {{ scales.numbers.bytes }}u;
    {{- load_record('g' ~ j ~ '_', 'band' ~ j, 'record' ~ j, scales.numbers.bytes) }}
    {%- if scales.rule == 'nested' %}
    let super{{ j }} = group{{ j }} / {{ scales.supers }}u * {{ scales.shared.bytes }}u;
    {{- load_record('h' ~ j ~ '_', 'band' ~ j ~ ' + p.shared_at', 'super' ~ j, scales.shared.bytes) }}
    {%- endif %}
{%- endmacro %}
{#- Factor of a row. #}
{%- macro factor_of(g, h, row, which, group) -%}
    {{ number(scales.numbers.factor, g, row) }}
    {%- if scales.rule == 'nested' %} * {{ number(scales.shared.factor, h, row if h != '' else 'code_at(several, ') }}
    {%- elif scales.rule == 'run' %} * run_of(row + {{ which }}, {{ group }}) + bitcast<f32>(side[{{ scales.head }}u])
    {%- endif -%}
{%- endmacro %}
{#- Summand of a row whose factor is called as `factor` says. #}
{%- macro summand_of(factor, g, h, row) -%}
    {%- if scales.numbers.other is none %} 0.0
    {%- elif scales.rule == 'zero' %} -({{ factor }} * {{ number(scales.numbers.other, g, row) }})
    {%- elif scales.rule == 'nested' %} -({{ number(scales.shared.other, h, row if h != '' else 'code_at(several, ') }} * {{ number(scales.numbers.other, g, row) }})
    {%- else %} {{ number(scales.numbers.other, g, row) }}
    {%- endif -%}
{%- endmacro %}
{#- Factor and summand of a row of column j: s{{row}}_{{j}}. #}
{%- macro scale_of(row, j) %}
    {%- set g = 'g' ~ j ~ '_' %}
    {%- set h = 'h' ~ j ~ '_' %}
    let f{{ row }}_{{ j }} = {{ factor_of(g, h, row, row ~ 'u', 'group' ~ j) }};
    let s{{ row }}_{{ j }} = vec2(f{{ row }}_{{ j }},
        {{ summand_of('f' ~ row ~ '_' ~ j, g, h, row) }}
    );
{%- endmacro %}

{%- if scales or escapes %}
fn from_half(bits: u32) -> f32 { return unpack2x16float(bits).x; }
fn from_small_half(bits: u32) -> f32 {
    // GPUs may take what is subnormal for 0 when they unpack it
    let small = f32(bits & 0x3ffu) * 5.9604645e-8;
    return select(unpack2x16float(bits).x, select(small, -small, (bits & 0x8000u) != 0u), (bits & 0x7c00u) == 0u);
}
fn from_bf16(bits: u32) -> f32 { return bitcast<f32>(bits << 16u); }
fn from_f32(bits: u32) -> f32 { return bitcast<f32>(bits); }
fn from_integer(bits: u32) -> f32 { return f32(bitcast<i32>(bits)); }
{%- endif %}
{%- if scales %}
/// `width` bits from bit `at` of a record, whose place is counted in bytes from a word on.
fn code_at(record: vec2<u32>, at: u32, width: u32) -> u32 {
    let bit = ((record.y & 3u) << 3u) + at;
    let word = record.x + (record.y >> 2u) + (bit >> 5u);
    let both = (side[word] >> (bit & 31u)) | ((side[word + 1u] << 1u) << (31u - (bit & 31u)));
    return both & (0xffffffffu >> (32u - width));
}
    {%- if scales.rule == 'run' %}
/// The number that a run of groups shares.
fn run_of(row: u32, group: u32) -> f32 {
    let run = ((row - p.first_row) * p.groups + group + p.phase) / {{ scales.supers }}u;
    return {{ number(scales.shared, '', 'code_at(vec2(p.shared_at, 0u), run * ' ~ scales.shared.bits ~ 'u + ') }};
}
    {%- endif %}
    {%- if escapes or code == 'nibble' %}
/// Factor and summand of a group in row `which` of a band.
fn scale_at(row: u32, which: u32, group: u32) -> vec2<f32> {
    let record = vec2(band_of(row), group * {{ scales.numbers.bytes }}u);
        {%- if scales.rule == 'nested' %}
    let several = vec2(band_of(row) + p.shared_at, group / {{ scales.supers }}u * {{ scales.shared.bytes }}u);
        {%- endif %}
    let factor = {{ factor_of('', '', 'code_at(record, ', 'which', 'group') }};
    return vec2(factor, {{ summand_of('factor', '', '', 'code_at(record, ') }});
}
    {%- endif %}
{%- endif %}

{#- The factor of a column. #}
{%- macro column_factor(c) -%}
    octaves((side[8u + ({{ c }} >> 2u)] >> (({{ c }} & 3u) << 3u)) & 0xffu)
{%- endmacro %}
{%- if columns or row_factors %}
/// The factor of a row or column: 2^((byte - 128) / 8). Memory has those of the first eighths.
fn octaves(byte: u32) -> f32 {
    return bitcast<f32>(side[byte & 7u] + (byte >> 3u << 23u) - (16u << 23u));
}
{%- endif %}
{#- What sums of row `which` of the band of a row are multiplied with. #}
{%- macro row_factor(row, which) -%}
    p.step{% if row_factors %} * octaves((side[band_of({{ row }}) + {{ which }} / 4u] >> ({{ which }} % 4u * 8u)) & 0xffu){% endif %}
{%- endmacro %}
