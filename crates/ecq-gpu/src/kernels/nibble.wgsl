{#- The way through streams of the `nibble` codec, for the kernels that decode them. A workgroup decodes a tile: each of its
    invocations keeps some lanes that are neighbours in the order of refills, so they are of one group and take columns side
    by side. The groups are `height` rows apart, and in a step all of them are at the same columns.

    k: lanes of an invocation      groups: of 64 lanes        members: invocations of a group
    asked: words that say which lanes need a byte, or counts of them   masks: words of a ballot
    Such a kernel says with macros what it does: before the first step, and with the symbols of one.
#}
{%- set kept = range(k) -%}

/// For each tile its planes of raw bits and its stream, as they are in the file.
@group(0) @binding(1) var<storage, read> words: array<u32>;
/// For each tile: where its raw bits begin, and where its stream does.
@group(0) @binding(2) var<storage, read> first: array<u32>;
/// For each of 256 slots: symbol 31..28 | rank 16..9 | frequency 8..0.
@group(0) @binding(3) var<storage, read> codes: array<u32>;

/// The slots, and behind them symbols as such: the last two of a lane are verbatim.
var<workgroup> tab: array<u32, 272>;
{%- if asked > 0 %}
    {%- if subgroups %}
var<workgroup> asked: array<u32, {{ 2 * asked }}>;
    {%- else %}
var<workgroup> asked: array<atomic<u32>, {{ 3 * asked }}>;
    {%- endif %}
{%- endif %}

/// An entry of the table has what is known of a symbol {% if halves %}as the upper bits of an f32{% else %}in its upper bits{% endif %}.
fn entry(code: u32) -> u32 {
{%- if halves %}
    let number = f32(code >> 28u) - {{ bias }};
    return bitcast<u32>(number) | (code & 0x1ffffu);
{%- else %}
    return code;
{%- endif %}
}

fn prepare(li: u32) {
    for (var i = li; i < 256u; i += {{ threads }}u) { tab[i] = entry(codes[i]); }
    if (li < 16u) { tab[256u + li] = entry(li << 28u); }
{%- if not subgroups %}
    for (var i = li; i < {{ 3 * asked }}u; i += {{ threads }}u) { atomicStore(&asked[i], 0u); }
{%- endif %}
    workgroupBarrier();
}

{%- if subgroups %}
{#- Bits of a ballot. #}
{%- macro ones(mask) -%}
    {%- for part in ['x', 'y', 'z', 'w'][:masks] %}{% if not loop.first %} + {% endif %}countOneBits({{ mask }}.{{ part }}){% endfor -%}
{%- endmacro %}

/// Invocations of the subgroup that come before this one.
fn before(id: u32) -> vec4<u32> {
    let part = vec4(id) - min(vec4(id), vec4(0u, 32u, 64u, 96u));
    return select((vec4(1u) << (part & vec4(31u))) - 1u, vec4(~0u), part >= vec4(32u));
}
{%- endif %}

{#- Bytes for the lanes whose states are below 256: those of all lanes before the first one of this invocation come first. #}
{%- macro refill() %}
{%- if subgroups %}
    {%- for j in kept %}
        let ask{{ j }} = subgroupBallot(need{{ j }});
        let earlier{{ j }} = ask{{ j }} & below;
    {%- endfor %}
        var at = pos{% for j in kept %} + {{ ones('earlier' ~ j) }}{% endfor %};
        let all = {% for j in kept %}{% if not loop.first %} + {% endif %}{{ ones('ask' ~ j) }}{% endfor %};
    {%- if asked > 0 %}
        // two rooms in turn: who reads one is behind the barrier that comes before it is filled again
        if (id == 0u) { asked[turn + sub] = all; }
        workgroupBarrier();
        for (var i = 0u; i < {{ asked }}u; i++) {
            let count = asked[turn + i];
            at += select(0u, count, i < sub);
            pos += count;
        }
        turn = {{ asked }}u - turn;
    {%- else %}
        pos += all;
    {%- endif %}
{%- else %}
        // three masks in turn: one is filled, the one before may still be read, the next is cleared
        let bits = {% for j in kept %}{% if not loop.first %} | {% endif %}select(0u, {{ 2 ** j }}u, need{{ j }}){% endfor %};
        if (bits != 0u) { atomicOr(&asked[turn + lane / 32u], bits << (lane % 32u)); }
        let next = select(turn + {{ asked }}u, 0u, turn == {{ 2 * asked }}u);
        if (li < {{ asked }}u) { atomicStore(&asked[next + li], 0u); }
        workgroupBarrier();
        var at = pos;
        let own = turn + lane / 32u;
        for (var i = turn; i < turn + {{ asked }}u; i++) {
            let mask = atomicLoad(&asked[i]);
            at += countOneBits(select(select(0u, mask & ((1u << (lane % 32u)) - 1u), i == own), mask, i < own));
            pos += countOneBits(mask);
        }
        turn = next;
{%- endif %}
    {%- for j in kept %}
        let fresh{{ j }} = (words[stream + (at >> 2u)] >> ((at << 3u) & 31u)) & 0xffu;
        state{{ j }} = select(state{{ j }}, state{{ j }} << 8u | fresh{{ j }}, need{{ j }});
        {%- if not loop.last %}
        at += u32(need{{ j }});
        {%- endif %}
    {%- endfor %}
{%- endmacro %}

{#- All raw bits of lane j, as planes of the tile have them: the widest field has the lowest bits. #}
{%- macro raw_bits_of(j) %}
    let position{{ j }} = min(start + 64u * step + inner + {{ j }}u, weights - 1u);
    {%- for field in fields %}
    let raw{{ field.width }}_{{ j }} = (words[plane{{ field.width }} + (position{{ j }} * {{ field.width }}u >> 5u)] >> (position{{ j }} * {{ field.width }}u & 31u)) & {{ 2 ** field.width - 1 }}u;
    {%- endfor %}
    let raw_{{ j }} = {% for field in fields %}{% if not loop.first %} | {% endif %}raw{{ field.width }}_{{ j }}{% if field.low > 0 %} << {{ field.low }}u{% endif %}{% endfor %};
{%- endmacro %}

@compute @workgroup_size({{ threads }})
fn {{ kernel }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) li: u32{% if subgroups %},
         @builtin(subgroup_size) size: u32, @builtin(subgroup_id) sub: u32,
         @builtin(subgroup_invocation_id) id: u32{% endif %}) {
    prepare(li);
    {{- vectors() }}
{%- if subgroups %}
    if (size != {{ s }}u) { return; } // built for another size
    let below = before(id);
{%- endif %}
    let tile = wid.x + wid.y * count.x;
    if (tile >= p.streams) { return; }
    let tile_row = p.first_row + tile * p.tile_rows;
    let tile_end = min(tile_row + p.tile_rows, p.end_row);
    let weights = (tile_end - tile_row) * p.cols;
    // rows and symbols of a group
    let height = (tile_end - tile_row + {{ groups - 1 }}u) / {{ groups }}u;
    let strip = height * p.cols;
    let stream = first[2u * tile + 1u];
    // invocations without a lane are of groups without rows
    let lane = li * {{ k }}u;
    let group = lane / 64u;
    let inner = lane % 64u;
    let start = min(group * strip, weights);
    let symbols = min(strip, weights - start);
    // a lone symbol has no stream: a state that is all of that symbol stays as it is
    let lone = (codes[0] & 0x1ffu) == 256u;
    var pos = select({{ 128 * groups }}u, 0u, lone); // the next byte of the stream, equal in all lanes
{%- if asked > 0 %}
    var turn = 0u;
{%- endif %}
{%- if raw_bits > 0 %}
    {%- for field in fields %}
    let plane{{ field.width }} = {% if loop.first %}first[2u * tile]{% else %}plane{{ fields[loop.index0 - 1].width }} + (weights * {{ fields[loop.index0 - 1].width }}u + 31u) / 32u{% endif %};
    {%- endfor %}
{%- endif %}
{%- for j in kept %}
    var state{{ j }} = (codes[0] >> 28u) * 17u | 0x100u;
    if (!lone) {
        let number = min(lane + {{ j }}u, {{ 64 * groups - 1 }}u);
        state{{ j }} = (words[stream + number / 2u] >> (number % 2u * 16u)) & 0xffffu;
    }
    var left{{ j }} = (symbols + 63u - inner - {{ j }}u) / 64u; // symbols that are still to come
    // column, and row of the group
    var c{{ j }} = inner + {{ j }}u;
    var row{{ j }} = 0u;
    for (; c{{ j }} >= p.cols; c{{ j }} -= p.cols) { row{{ j }} += 1u; }
{%- endfor %}
    {{- begin() }}
    for (var step = 0u; 64u * step < strip; step++) {
{%- for j in kept %}
        let coded{{ j }} = left{{ j }} > 2u;
        let active{{ j }} = left{{ j }} > 0u;
        left{{ j }} -= u32(active{{ j }});
        // verbatim: the earlier one is in the low half of a byte; taken, it leaves its place to the other one
        let e{{ j }} = tab[select(256u + (state{{ j }} & 15u), state{{ j }} & 255u, coded{{ j }})];
        state{{ j }} = select(state{{ j }} >> 4u, (e{{ j }} & 0x1ffu) * (state{{ j }} >> 8u) + ((e{{ j }} >> 9u) & 0xffu), coded{{ j }});
        let need{{ j }} = coded{{ j }} && state{{ j }} < 256u;
{%- endfor %}
        {{- refill() }}
        {{- take() }}
{%- for j in kept %}
        c{{ j }} += 64u;
        for (; c{{ j }} >= p.cols; c{{ j }} -= p.cols) { row{{ j }} += 1u; }
{%- endfor %}
    }
}
