//! What the `nibble` decoders for AVX2 and NEON share. Their registers do not hold all states, so these lie in memory as
//! byte planes, and a step is done group by group.

use crate::nibble::{GROUP, MAX_LANES, Steps};

/// A byte of each state of a group.
#[repr(align(64))]
pub(crate) struct Plane(pub [u8; GROUP]);

/// See the contract in `nibble::decoder`. `step(lo, hi, stream, out)` does a step of one group, for which it gets as
/// many bytes of the stream as it can take, and returns how many it took.
#[inline(always)] // into a function with the instructions that `step` needs
pub(crate) fn decode(
    steps: &mut Steps<'_>,
    mut step: impl FnMut(&mut Plane, &mut Plane, &[u8; GROUP], &mut [u8; GROUP]) -> usize,
) -> usize {
    let Steps { state, bytes, at, count, out, pitch, .. } = steps;
    let mut planes = [const { (Plane([0; GROUP]), Plane([0; GROUP])) }; MAX_LANES / GROUP];
    let (groups, _) = state.as_chunks_mut::<GROUP>();
    for (words, (lo, hi)) in groups.iter().zip(&mut planes) {
        *lo = Plane(words.map(|x| x as u8));
        *hi = Plane(words.map(|x| (x >> 8) as u8));
    }
    let mut done = 0;
    while done < *count && bytes.len() - *at >= groups.len() * GROUP {
        for (group, (lo, hi)) in planes[..groups.len()].iter_mut().enumerate() {
            // both are long enough: the other groups took a byte a lane at most, and `out` is as the contract says
            let stream = bytes[*at..].first_chunk();
            let out = out[group * *pitch + done * GROUP..].first_chunk_mut();
            if let (Some(stream), Some(out)) = (stream, out) {
                *at += step(lo, hi, stream, out);
            }
        }
        done += 1;
    }
    for (words, (lo, hi)) in groups.iter_mut().zip(&planes) {
        *words = core::array::from_fn(|i| u16::from(hi.0[i]) << 8 | u16::from(lo.0[i]));
    }
    done
}
