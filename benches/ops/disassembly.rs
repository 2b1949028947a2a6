//! Instructions of AMD's RDNA, as the driver prints them.

/// Instructions of one iteration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of the vector units; one that issues two operations counts twice.
    pub valu: u32,
    /// Of the scalar unit, without waits and branches.
    pub salu: u32,
    /// Accesses to workgroup memory.
    pub lds: u32,
    /// Accesses to buffers through the vector units.
    pub vmem: u32,
    /// Fused multiply-adds; they are among the vector operations.
    pub fma: u32,
}
/// The inner loop of a kernel: of all loops without one inside, that with the most multiply-adds, and of equals the one with
/// the fewest instructions (a loop that is careful at the end of a row does the same, and more). None if there is no
/// multiply-add in a loop.
pub fn inner_loop(printed: &str) -> Option<Counts> {
    // the driver prints its intermediate forms, too; the machine's instructions come last
    let (_, text) = printed.rsplit_once("disasm:")?;
    let mut labels = Vec::new();
    let mut instructions = Vec::new();
    for line in text.lines() {
        let line = line.split(';').next().unwrap_or("").trim();
        if let Some(label) = line.strip_suffix(':').filter(|l| !l.contains(char::is_whitespace)) {
            labels.push((label, instructions.len()));
        } else if is_instruction(line) {
            instructions.push(line);
        }
    }
    let loops = loops(&labels, &instructions);
    let holds = |a: &(usize, usize), b: &(usize, usize)| a != b && a.0 <= b.0 && b.1 <= a.1;
    let inner = loops.iter().filter(|a| !loops.iter().any(|b| holds(a, b)));
    let counted = inner.map(|&(from, to)| (count(&instructions[from..=to]), to - from));
    counted.filter(|(c, _)| c.fma > 0).min_by_key(|(c, len)| (std::cmp::Reverse(c.fma), *len)).map(|(c, _)| c)
}

/// Whether a line is an instruction: a word in lower case with a unit before its first underscore.
fn is_instruction(line: &str) -> bool {
    let unit = line.split_once('_').map_or("", |(unit, _)| unit);
    !unit.is_empty() && unit.bytes().all(|b| b.is_ascii_lowercase())
}

/// First and last instruction of each loop: from the target of a jump back to the jump. Several jumps to one target are one
/// loop.
fn loops(labels: &[(&str, usize)], instructions: &[&str]) -> Vec<(usize, usize)> {
    let mut loops: Vec<(usize, usize)> = Vec::new();
    for (at, instruction) in instructions.iter().enumerate() {
        if !instruction.starts_with("s_branch") && !instruction.starts_with("s_cbranch") {
            continue;
        }
        let target = instruction.split_whitespace().nth(1);
        let Some(&(_, from)) = labels.iter().find(|(label, _)| Some(*label) == target) else { continue };
        if from > at {
            continue;
        }
        match loops.iter_mut().find(|l| l.0 == from) {
            Some(known) => known.1 = at,
            None => loops.push((from, at)),
        }
    }
    loops
}

fn count(instructions: &[&str]) -> Counts {
    /// Not work: waits, hints and jumps.
    const CONTROL: [&str; 6] = ["s_waitcnt", "s_delay", "s_branch", "s_cbranch", "s_clause", "s_nop"];
    let mut counts = Counts::default();
    for instruction in instructions {
        // two operations in one instruction stand side by side
        for operation in instruction.split("::").map(str::trim) {
            let is = |prefixes: &[&str]| prefixes.iter().any(|p| operation.starts_with(p));
            counts.valu += u32::from(is(&["v_"]));
            // fma, fmac, fmaak, fma_mix; mixlo and mixhi round to f16, which is how tables are filled
            let rounds = is(&["v_fma_mixlo", "v_fma_mixhi"]);
            counts.fma += u32::from(is(&["v_fma", "v_dual_fma"]) && !rounds);
            counts.salu += u32::from(is(&["s_"]) && !is(&CONTROL));
            counts.lds += u32::from(is(&["ds_"]));
            counts.vmem += u32::from(is(&["buffer_", "global_", "flat_", "scratch_"]));
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
disasm:
BB0:
\tv_fma_f32 v0, v1, v2, v3 ; not yet the shader's
BB1:
\ts_branch BB0
After some pass:
disasm:
BB0:
\ts_load_b128 s[8:11], s[2:3], 0x40                           ; f4080201 f8000040
BB1:
\tbuffer_load_b32 v13, v13, s[8:11], 0 offen                  ; e0500000 40c00d0d
\tv_fma_mixhi_f16 v12, 1.0, s0, v3                            ; cc220000
\tv_fma_mixlo_f16 v12, 1.0, s0, v3                            ; cc210000
\tv_fma_mixlo_f16 v12, 1.0, s0, v3                            ; cc210000
\ts_cbranch_scc0 BB1                                          ; bfa10152
BB2:
\ts_cbranch_scc1 BB9                                          ; bfa2006c
BB3:
\ts_waitcnt lgkmcnt(0)                                        ; bf89fc07
\tds_load_b32 v17, v17                                        ; d8d80000 11000011
\tv_dual_cndmask_b32 v2, v2, v0 :: v_dual_fmac_f32 v15, s9, v15 ; ca640102 020e1e09
\tv_fma_mix_f32 v9, v17, v13, v9 op_sel_hi:[1,0,0]            ; cc200009 0c261b11
\tglobal_load_b32 v13, v13, s[8:11]                           ; e0500000 40c00d0d
\ts_cbranch_execz BB3                                         ; bfa10152
\ts_add_u32 s1, s1, s7                                        ; 80010701
\ts_delay_alu instid0(VALU_DEP_1)                             ; bf870001
\ts_branch BB3                                                ; bfa0ff91
BB4:
\tv_fma_f32 v0, v1, v2, v3                                    ; d6130000
\tv_fmac_f32_e32 v0, v1, v2                                   ; 56000501
\tv_mov_b32_e32 v0, v1                                        ; 7e000301
\ts_cbranch_vccnz BB5                                         ; bfa4fff0
BB5:
\tv_mov_b32_e32 v0, v1                                        ; 7e000301
\tv_mov_b32_e32 v0, v1                                        ; 7e000301
\tv_mov_b32_e32 v0, v1                                        ; 7e000301
\tv_mov_b32_e32 v0, v1                                        ; 7e000301
\ts_cbranch_vccnz BB4                                         ; bfa4fff0
\ts_branch BB2                                                ; bfa0ff91
BB9:
\tv_fma_f32 v0, v1, v2, v3                                    ; d6130000
\ts_endpgm                                                    ; bfb00000
";

    #[test]
    fn the_inner_loop_is_found_and_counted() {
        // not BB1, without multiply-adds; not BB2, with loops inside; not BB4, with as many but longer
        let want = Counts { valu: 3, salu: 1, lds: 1, vmem: 1, fma: 2 };
        assert_eq!(inner_loop(PRINTED), Some(want));
        let more = PRINTED.replace("\tv_mov_b32_e32 v0, v1 ", "\tv_fma_f32 v0, v1, v2, v3 ");
        assert_eq!(inner_loop(&more), Some(Counts { valu: 7, fma: 7, ..Counts::default() }));
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let without = PRINTED.replace("fma", "add");
        for text in ["", "disasm:", "disasm:\nBB0:\n\ts_branch BB7\n:\n_\n::\n", &without] {
            assert_eq!(inner_loop(text), None, "{text:?}");
        }
    }
}
