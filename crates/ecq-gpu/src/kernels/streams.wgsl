{#- What every kernel that decodes pair streams shares: bindings, the table, the lanes of a stream.

    s: subgroup size, or 32 without subgroups       k: lanes of a stream that an invocation keeps
    h: streams that a subgroup decodes side by side t: subgroups in a workgroup
    streams: those of a workgroup                   table: whether it is in workgroup memory
#}
{%- set lanes = range(k) -%}


/// Words of the streams, and raw bits.
@group(0) @binding(1) var<storage, read> words: array<u32>;
/// For each tile: where its raw bits begin, and each of its streams.
@group(0) @binding(2) var<storage, read> first: array<u32>;
/// 256 symbols, then the symbols of 4,096 slots, four in a word.
@group(0) @binding(3) var<storage, read> codes: array<u32>;

{%- if table %}
var<workgroup> tab: array<u32, 4096>;
{%- endif %}
{%- if not subgroups %}
    {%- if kernel != 'prompt' %}
var<workgroup> parts: array<vec2<f32>, {{ 32 * 5 * summed }}>;
    {%- endif %}
var<workgroup> asked: array<atomic<u32>, {{ 3 * streams }}>;
var<private> turn: u32;
{%- endif %}

{#- An entry of the table holds its two nibbles, a of the upper row and b of the lower one. #}
fn entry(symbol: u32, slot: u32) -> u32 {
    let about = codes[symbol];
    let a = symbol & 15u;
    let b = symbol >> 4u;
{%- if code == 'rans' %}
    // b 31..28 | rank 27..16 | a 15..12 | frequency 11..0
    return b << 28u | (slot - (about >> 16u)) << 16u | a << 12u | (about & 0xfffu);
{%- elif halves %}
    // two f16: of b in the upper half, of a in the lower one, whose last 6 bits are the length
    return (pack2x16float(vec2(f32(a) - {{ bias }}, f32(b) - {{ bias }})) & 0xffffffc0u) | about;
{%- else %}
    // b 25..22 | a 9..6 | length 5..0
    return b << 22u | a << 6u | about;
{%- endif %}
}

{%- if table %}
{%- macro look(slot) -%} tab[{{ slot }}] {%- endmacro %}
/// Fills the table.
fn prepare(li: u32) {
    for (var i = li; i < 1024u; i += {{ threads }}u) {
        let four = codes[256u + i];
{%- for byte in range(4) %}
        tab[4u * i + {{ byte }}u] = entry((four >> {{ 8 * byte }}u) & 0xffu, 4u * i + {{ byte }}u);
{%- endfor %}
    }
    workgroupBarrier();
}
{%- else %}
{%- if not subgroups %}
fn prepare(li: u32) {
    if (li < {{ 3 * streams }}u) { atomicStore(&asked[li], 0u); }
    workgroupBarrier();
}
{%- endif %}
// masks and sums, or weights, leave no room for a table in the least workgroup memory that is promised
{%- macro look(slot) -%} look({{ slot }}) {%- endmacro %}
fn look(slot: u32) -> u32 {
    return entry((codes[256u + slot / 4u] >> (slot % 4u * 8u)) & 0xffu, slot);
}
{%- endif %}

{%- if subgroups %}
{%- macro ballot(need) -%}
    subgroupBallot({{ need }}){% if h == 1 %}.x{% else %}[half]{% endif %}
{%- endmacro %}
{%- else %}
// Three masks in turn: one is filled, the one before may still be read, the next is cleared; one barrier is enough.
fn ballot(need: bool, lane: u32, sub: u32) -> u32 {
    if (need) { atomicOr(&asked[3u * sub + turn], 1u << lane); }
    let next = select(turn + 1u, 0u, turn == 2u);
    if (lane == 0u) { atomicStore(&asked[3u * sub + next], 0u); }
    workgroupBarrier();
    let mask = atomicLoad(&asked[3u * sub + turn]);
    turn = next;
    return mask;
}
{%- macro ballot(need) -%} ballot({{ need }}, lane, sub) {%- endmacro %}
{%- endif %}

{%- macro no_entries() %}
    {%- for j in lanes %}
    var e0_{{ j }} = 0u; var e1_{{ j }} = 0u; var e2_{{ j }} = 0u; var e3_{{ j }} = 0u;
    {%- endfor %}
{%- endmacro %}
{%- if code == 'prefix' %}
{#- A lane holds 64 bits of its string; the unread ones begin at bit 2 of the window, so that 12 of them are the byte
    offset of an entry. #}
{%- macro declare() %}
    {%- for j in lanes %}
    var lo{{ j }} = 0u; var hi{{ j }} = 0u; var used{{ j }} = 0u;
    {%- endfor %}
{%- endmacro %}
{%- macro start() %}
    {%- for j in lanes %}
    lo{{ j }} = words[pos + {{ j * s }}u + lane]; hi{{ j }} = words[pos + {{ 32 + j * s }}u + lane]; used{{ j }} = 0u;
    {%- endfor %}
    pos += 64u;
{%- endmacro %}
{#- Two symbols of each lane: entries e{{q}}_{{j}} and e{{q+1}}_{{j}}. #}
{%- macro decode2(q) %}
    {%- for j in lanes %}
    var window{{ q }}_{{ j }} = (lo{{ j }} >> used{{ j }}) | ((hi{{ j }} << 1u) << (31u - used{{ j }}));
    let e{{ q }}_{{ j }} = {{ look('(window' ~ q ~ '_' ~ j ~ ' & 0x3ffcu) >> 2u') }};
    window{{ q }}_{{ j }} >>= e{{ q }}_{{ j }} & 31u;
    let e{{ q + 1 }}_{{ j }} = {{ look('(window' ~ q ~ '_' ~ j ~ ' & 0x3ffcu) >> 2u') }};
    // lengths are in the low 6 bits: only those of the sum are looked at
    used{{ j }} += e{{ q }}_{{ j }} + e{{ q + 1 }}_{{ j }};
        {{- refill(j, '(used' ~ j ~ ' & 32u) != 0u') }}
    {%- endfor %}
{%- endmacro %}
{%- macro refill(j, need) %}
    {
        let need = {{ need }};
        let ask = {{ ballot('need') }};
        let fresh = words[pos + countOneBits(ask & below)];
        pos += countOneBits(ask);
        lo{{ j }} = select(lo{{ j }}, hi{{ j }}, need);
        hi{{ j }} = select(hi{{ j }}, fresh, need);
        used{{ j }} &= 31u;
    }
{%- endmacro %}
{#- The symbols of a column in a band, where lanes may be idle and symbols missing: e0 to e3 of each lane. A loop, because
    compilers take long over each place at which lanes wait for each other; as long for all streams of a workgroup. #}
{%- macro careful() %}
    {{- no_entries() }}
    for (var q = 0u; q < 4u; q += 2u) {
    {%- for j in lanes %}
        {
        let takes = active{{ j }} && q < pairs;
        var window = (lo{{ j }} >> used{{ j }}) | ((hi{{ j }} << 1u) << (31u - used{{ j }}));
        let upper = {{ look('(window & 0x3ffcu) >> 2u') }};
        window >>= upper & 31u;
        let lower = {{ look('(window & 0x3ffcu) >> 2u') }};
        let used = used{{ j }} + upper + select(0u, lower, q + 1u < pairs);
        used{{ j }} = select(used{{ j }}, used, takes);
        {{- refill(j, '(used' ~ j ~ ' & 32u) != 0u') }}
        if (q == 0u) { e0_{{ j }} = upper; e1_{{ j }} = lower; } else { e2_{{ j }} = upper; e3_{{ j }} = lower; }
        }
    {%- endfor %}
    }
{%- endmacro %}
{%- else %}
{%- macro declare() %}
    {%- for j in lanes %}
    var state{{ j }} = 0u; var left{{ j }} = 0u;
    {%- endfor %}
{%- endmacro %}
{#- left: symbols of a lane that are still to come; the last two are verbatim. #}
{%- macro start() %}
    {%- for j in lanes %}
    state{{ j }} = words[pos + {{ j * s }}u + lane];
    left{{ j }} = symbols_of({{ j * s }}u + lane, width, tile_row, tile_end);
    {%- endfor %}
    pos = 2u * (pos + 32u);
{%- endmacro %}
{%- macro refill(j, need) %}
    {
        let need = {{ need }};
        let ask = {{ ballot('need') }};
        let at = pos + countOneBits(ask & below);
        let fresh = (words[at >> 1u] >> ((at << 4u) & 31u)) & 0xffffu;
        pos += countOneBits(ask);
        state{{ j }} = select(state{{ j }}, state{{ j }} << 16u | fresh, need);
    }
{%- endmacro %}
{#- Two symbols of each lane: entries e{{q}}_{{j}} and e{{q+1}}_{{j}}. All lanes take the first before any takes the second:
    that is the order of the words. #}
{%- macro decode2(q) %}
    {%- for q in [q, q + 1] %}
        {%- for j in lanes %}
    let e{{ q }}_{{ j }} = {{ look('state' ~ j ~ ' & 0xfffu') }};
    state{{ j }} = (e{{ q }}_{{ j }} & 0xfffu) * (state{{ j }} >> 12u) + ((e{{ q }}_{{ j }} >> 16u) & 0xfffu);
            {{- refill(j, 'state' ~ j ~ ' < 0x10000u') }}
        {%- endfor %}
    {%- endfor %}
{%- endmacro %}
{#- The symbols of a column in a band, where lanes may be idle and symbols missing or the last two: e0 to e3 of each lane. A
    loop, because compilers take long over each place at which lanes wait for each other; as long for all streams of a
    workgroup. #}
{%- macro careful() %}
    {{- no_entries() }}
    for (var q = 0u; q < 4u; q++) {
    {%- for j in lanes %}
        {
        let takes = active{{ j }} && q < pairs;
        var e = {{ look('state' ~ j ~ ' & 0xfffu') }};
        if (takes) {
            if (left{{ j }} > 2u) {
                state{{ j }} = (e & 0xfffu) * (state{{ j }} >> 12u) + ((e >> 16u) & 0xfffu);
            } else {
                // the earlier of the last two is in the low byte; taken, it leaves its place to the other one
                let symbol = state{{ j }} & 0xffu;
                e = (symbol >> 4u) << 28u | (symbol & 15u) << 12u;
                state{{ j }} = (state{{ j }} >> 8u) | 0x80000000u;
            }
            left{{ j }} -= 1u;
        }
        {{- refill(j, 'takes && state' ~ j ~ ' < 0x10000u') }}
        switch q {
            case 0u: { e0_{{ j }} = e; }
            case 1u: { e1_{{ j }} = e; }
            case 2u: { e2_{{ j }} = e; }
            default: { e3_{{ j }} = e; }
        }
        }
    {%- endfor %}
    }
{%- endmacro %}

/// Symbols that a lane codes: in a band of n rows, (n + 1) / 2 for each of its columns.
fn symbols_of(lane: u32, width: u32, tile_row: u32, tile_end: u32) -> u32 {
    let blocks = (width + 31u - lane) / 32u;
    let rows = tile_end - tile_row;
    return blocks * (rows / 8u * 4u + (rows % 8u + 1u) / 2u);
}
{%- endif %}

{#- The column of lane j; of an idle lane the last one, which is there. #}
{%- macro place(j, careful) %}
    {%- if careful %}
    let active{{ j }} = col + {{ j * s }}u < end;
    let c{{ j }} = min(col + {{ j * s }}u, end - 1u);
    {%- else %}
    let c{{ j }} = col + {{ j * s }}u;
    {%- endif %}
{%- endmacro %}
{#- Sums over the lanes of a stream, in a fixed order, in place of each lane's part. #}
{%- macro total(names) %}
{%- if subgroups %}
    {%- for name in names %}
        {%- for distance in distances %}
        {{ name }} += subgroupShuffleXor({{ name }}, {{ distance }}u);
        {%- endfor %}
    {%- endfor %}
{%- else %}
        {%- for name in names %}
        parts[lane + {{ 32 * loop.index0 }}u] = {{ name }};
        {{ name }} = vec2(0.0);
        {%- endfor %}
        workgroupBarrier();
        if (lane == 0u) {
            for (var i = 0u; i < 32u; i++) {
            {%- for name in names %}
                {{ name }} += parts[i + {{ 32 * loop.index0 }}u];
            {%- endfor %}
            }
        }
        workgroupBarrier();
{%- endif %}
{%- endmacro %}
