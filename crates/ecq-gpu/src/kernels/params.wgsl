{%- if input == 'f16' %}
enable f16;
{%- endif %}
struct Params {
    rows: u32,       // of the matrix
    cols: u32,
    first_row: u32,  // of what this dispatch multiplies or decodes
    end_row: u32,
    tile_rows: u32,  // a multiple of 8, but with the `nibble` codec
    strips: u32,     // streams of a tile
    strip: u32,      // columns of a stream, but for the last of a tile
    streams: u32,    // of these rows
    groups: u32,     // of a row
    records: u32,    // where the first of its bands begins in the side data
    stride: u32,     // words of a band there
    shared_at: u32,  // where numbers begin that groups share: counted from a band's first word, or in the side data
    phase: u32,      // groups of the first run that are not in this part
    step: f32,
    constant: f32,   // what is missing in the value of each level
    offset: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
