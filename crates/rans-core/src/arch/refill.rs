//! Controls for byte shuffles that bring the next units of a stream to the lanes that need one: what AVX-512 has an
//! instruction for.

/// A control, aligned for a vector.
#[repr(align(16))]
pub(crate) struct Control(pub [u8; 16]);

/// As an index, makes a shuffle give 0, whatever count up to 8 is added to it.
const NONE: u8 = 0x80;

/// The byte of the stream that each of 8 lanes takes, if the set bits of `need` are the lanes that take one.
const fn taken(need: usize) -> [u8; 8] {
    let mut all = [NONE; 8];
    let (mut lane, mut next) = (0, 0);
    while lane < 8 {
        if need >> lane & 1 == 1 {
            all[lane] = next;
            next += 1;
        }
        lane += 1;
    }
    all
}

/// For 16 lanes: the control is the sum of `LOW[need of the first 8 lanes]` and `HIGH[need of the others]`. `LOW` has
/// the count of its bytes in the upper half, where the other lanes' bytes begin.
pub(crate) static LOW: [Control; 256] = {
    let mut all = [const { Control([0; 16]) }; 256];
    let mut need = 0;
    while need < 256 {
        let own = taken(need);
        let mut i = 0;
        while i < 8 {
            all[need].0[i] = own[i];
            all[need].0[i + 8] = need.count_ones() as u8;
            i += 1;
        }
        need += 1;
    }
    all
};

/// See [`LOW`].
pub(crate) static HIGH: [Control; 256] = {
    let mut all = [const { Control([0; 16]) }; 256];
    let mut need = 0;
    while need < 256 {
        let own = taken(need);
        let mut i = 0;
        while i < 8 {
            all[need].0[i + 8] = own[i];
            i += 1;
        }
        need += 1;
    }
    all
};

/// For words: what brings the next words of a stream to 8 lanes.
#[cfg(target_arch = "x86_64")]
pub(crate) static WORDS: [Control; 256] = {
    let mut all = [const { Control([NONE; 16]) }; 256];
    let mut need = 0;
    while need < 256 {
        let own = taken(need);
        let mut i = 0;
        while i < 8 {
            if own[i] != NONE {
                all[need].0[2 * i] = 2 * own[i];
                all[need].0[2 * i + 1] = 2 * own[i] + 1;
            }
            i += 1;
        }
        need += 1;
    }
    all
};
