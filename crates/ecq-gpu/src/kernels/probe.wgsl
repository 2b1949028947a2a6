// The size that subgroups really have, and whether their numbering is that of the invocations: for each invocation both.
@group(0) @binding(0) var<storage, read_write> found: array<u32>;

@compute @workgroup_size(256)
fn probe(@builtin(local_invocation_index) li: u32, @builtin(subgroup_size) size: u32,
         @builtin(subgroup_id) sub: u32, @builtin(subgroup_invocation_id) id: u32) {
    found[2u * li] = countOneBits(subgroupBallot(true).x) + countOneBits(subgroupBallot(true).y)
        + countOneBits(subgroupBallot(true).z) + countOneBits(subgroupBallot(true).w);
    found[2u * li + 1u] = sub * size + id;
}
