//! See [`wgha_fuzz::opening`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wgha_fuzz::opening(data));
