{#- The way through the streams, for all kernels that decode them. Such a kernel says with macros what it does: at the
    begin of a band, with each column, with two pairs of rows of it, when they are done, at the end of the band. #}
{%- set pairs = [0, 2] %}

@compute @workgroup_size({{ threads }})
fn {{ kernel }}(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>,
         @builtin(local_invocation_index) li: u32{% if subgroups %},
         @builtin(subgroup_size) size: u32, @builtin(subgroup_id) sub: u32,
         @builtin(subgroup_invocation_id) id: u32{% endif %}) {
{%- if table or not subgroups %}
    prepare(li);
{%- endif %}
{%- if subgroups %}
    if (size != {{ s * h }}u) { return; } // built for another size
    let stream = (wid.x + wid.y * count.x) * {{ t * h }}u + sub{% if h > 1 %} * {{ h }}u + (id >> 5u){% endif %};
    if (stream >= p.streams) { return; }
    {%- if h > 1 %}
    let lane = id & 31u;
    let half = id >> 5u;
    {%- else %}
    let lane = id;
    {%- endif %}
{%- else %}
    let stream = wid.x + wid.y * count.x;
    if (stream >= p.streams) { return; }
    let sub = 0u;
    let lane = li;
{%- endif %}
    let below = (1u << lane) - 1u;

    let tile = stream / p.strips;
    let strip = stream % p.strips;
    let tile_row = p.first_row + tile * p.tile_rows;
    let tile_end = min(tile_row + p.tile_rows, p.end_row);
    let col0 = strip * p.strip;
    let width = min(p.strip, p.cols - col0);
    var pos = first[tile * (p.strips + 1u) + 1u + strip]; // the next word, equal in all lanes
{%- if raw_bits > 0 %}
    var raw_at = first[tile * (p.strips + 1u)];
{%- endif %}
    {{- declare() }}
    {{- start() }}
{%- if code == 'rans' and subgroups %}
    // blocks before any lane comes to its last two symbols
    let whole = width / 32u * ((tile_end - tile_row) / 8u * 4u + ((tile_end - tile_row) % 8u + 1u) / 2u);
    var coded = select(0u, whole - 2u, whole > 2u) / 4u;
{%- endif %}
    for (var row = tile_row; row < tile_end; row += 8u) {
        let rows = min(8u, tile_end - row);
        let pairs = (rows + 1u) / 2u;
        {{- begin() }}
{%- if subgroups %}
        var fast = select(0u, width / 32u, rows == 8u);
{%- else %}
        var fast = 0u; // compilers take long over barriers, and there is no speed to be had
{%- endif %}
{%- if code == 'rans' and subgroups %}
        fast = min(fast, coded);
        coded -= fast;
{%- endif %}
        let end = col0 + width;
        var col = col0 + lane;
{%- if subgroups %}
        for (var block = 0u; block < fast; block++) {
{%- for j in lanes %}
            {{- column(j, false) }}
{%- endfor %}
{%- for q in pairs %}
            {{- decode2(q) }}
    {%- for j in lanes %}
            {{- take(j, q, false) }}
    {%- endfor %}
{%- endfor %}
{%- for j in lanes %}
            {{- done(j, false) }}
{%- endfor %}
            col += 32u;
        }
{%- if code == 'rans' %}
    {%- for j in lanes %}
        left{{ j }} -= 4u * fast;
    {%- endfor %}
{%- endif %}
{%- endif %}
        for (var block = fast; block * 32u < width; block++) {
{%- for j in lanes %}
            {{- column(j, true) }}
{%- endfor %}
            {{- careful() }}
{%- for q in pairs %}
    {%- for j in lanes %}
            {{- take(j, q, true) }}
    {%- endfor %}
{%- endfor %}
{%- for j in lanes %}
            {{- done(j, true) }}
{%- endfor %}
            col += 32u;
        }
{%- if raw_bits > 0 %}
        raw_at += {{ raw_words }};
{%- endif %}
        {{- end() }}
    }
}
