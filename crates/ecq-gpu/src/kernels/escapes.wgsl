{#- Escapes: the values of weights for which streams have another one, which is taken off.

    Columns of a band are in buckets of a power of two. A record has a row of three bits, a column of its bucket, and a code.
#}
{%- if escapes %}
/// The value that streams have for escapes; what all values lack; the format of numbers; how many lists there are. Of each
/// list five words: where its buckets are, bits of a column in a bucket, bits of a code, whether codes are places in a table,
/// where the least number is, with the table behind it; then these numbers. Then for each list where the escapes of each
/// bucket begin, and where the last ones end; its escapes.
@group(0) @binding(7) var<storage, read> escapes: array<u32>;

/// `width` bits of an escape.
fn escape_bits(first: u32, bit: u32, width: u32) -> u32 {
    let word = first + (bit >> 5u);
    let both = (escapes[word] >> (bit & 31u)) | ((escapes[word + 1u] << 1u) << (31u - (bit & 31u)));
    return select(both & (0xffffffffu >> ((32u - width) & 31u)), 0u, width == 0u);
}
/// The value of an escape from its code in a list.
fn escape_value(list: u32, code: u32) -> f32 {
    let least = escapes[list + 4u];
    var bits = escapes[least];
    if (escapes[list + 3u] != 0u) { bits += escapes[least + 1u + code]; } else { bits += code; }
    var value = 0.0;
    switch escapes[2] {
        case {{ formats.half }}u, {{ formats.small_half }}u: { value = from_small_half(bits); }
        case {{ formats.bf16 }}u: { value = from_bf16(bits); }
        case {{ formats.f32 }}u: { value = from_f32(bits); }
        default: { value = from_integer(bits); }
    }
    return value + bitcast<f32>(escapes[1]);
}
{%- endif %}

{#- In kernels for many vectors an invocation adds all escapes of its band, as it alone has these sums. #}
{%- set many = kernel == 'prompt' or kernel == 'plain_prompt' %}
{#- Adds to a sum. Floats may be so large that their difference is none; compilers are free to take it all the same. #}
{%- macro add(sum, less, more, difference) %}
                    {%- if value == 'float' %}
                    {{ sum }} -= {{ less }};
                    {{ sum }} += {{ more }};
                    {%- else %}
                    {{ sum }} += {{ difference }};
                    {%- endif %}
{%- endmacro %}
{#- Adds an escape to the sums of its row, without what the stream has in its place. #}
{%- macro escape() %}
                // the last bucket that begins at it or before
                var bucket = band * buckets;
                for (var count = buckets; count > 1u;) {
                    let some = count >> 1u;
                    bucket = select(bucket, bucket + some, escapes[starts + bucket + some] <= at);
                    count -= some;
                }
                let bit = at * (3u + columns + width);
                let which = escape_bits(records, bit, 3u);
                let c0 = ((bucket - band * buckets) << columns) + escape_bits(records, bit + 3u, columns);
                let value = escape_value(list, escape_bits(records, bit + 3u + columns, width));
                let less = bitcast<f32>(escapes[0]);
    {%- if scales %}
                let scale = scale_at(row, which, {{ group_of('c0') }}).x;
    {%- endif %}
    {%- if many %}
        {%- for n in range(vg) %}
                let x{{ n }} = numbers_of(vector + {{ 4 * n }}u, vectors, c0){% if scales %} * scale{% elif columns %} * {{ column_factor('c0') }}{% endif %};
            {%- for r in range(8) %}
                if (which == {{ r }}u) { {{- add('sum' ~ r ~ '_' ~ n, 'less * x' ~ n, 'value * x' ~ n, '(value - less) * x' ~ n) }} }
            {%- endfor %}
        {%- endfor %}
    {%- else %}
                {{- load_x(0, false) }}
    {%- for i in range(m) %}
                let x{{ i }} = x0_{{ i }}{% if scales %} * scale{% endif %}{% if columns %} * factor0{% endif %};
        {%- if code == 'nibble' %}
                if (row + which == r) { {{- add('y' ~ i, 'less * x' ~ i, 'value * x' ~ i, '(value - less) * x' ~ i) }} }
        {%- else %}
            {%- for pair in range(4) %}
                {
                    let own = vec2(which) == vec2({{ 2 * pair }}u, {{ 2 * pair + 1 }}u);
                    {%- set of = 'select(vec2(0.0), vec2(' %}
                    {{- add('y' ~ pair ~ '_' ~ i, of ~ 'less * x' ~ i ~ '), own)', of ~ 'value * x' ~ i ~ '), own)', of ~ '(value - less) * x' ~ i ~ '), own)') }}
                }
            {%- endfor %}
        {%- endif %}
    {%- endfor %}
    {%- endif %}
{%- endmacro %}

{#- Adds the escapes of a band, of which each lane takes some; in `nibble` kernels those of its row r. #}
{%- macro add_escapes() %}
        for (var i = 0u; i < escapes[3]; i++) {
            let list = 4u + 5u * i;
            let starts = escapes[list];
            let columns = escapes[list + 1u];
            let width = escapes[list + 2u];
            let band = (row - p.first_row) / 8u;
            let buckets = ((p.cols - 1u) >> columns) + 1u;
            let records = starts + (p.end_row - p.first_row + 7u) / 8u * buckets + 1u;
            let first = escapes[starts + band * buckets];
            let last = select(first, escapes[starts + (band + 1u) * buckets], strip == 0u);
            // as often for all lanes: barriers follow
            for (var round = first; round < last; round += {{ 1 if many else members if code == 'nibble' else s }}u) {
                let at = round{% if not many %} + lane{% endif %};
                if (at < last) {
                    {{- escape() }}
                }
            }
        }
{%- endmacro %}
