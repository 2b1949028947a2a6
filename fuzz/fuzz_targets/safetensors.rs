#![no_main]
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| ecq_fuzz::safetensors(data));
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    ecq_fuzz::mutate::safetensors(data, size, max_size, seed, libfuzzer_sys::fuzzer_mutate)
});
