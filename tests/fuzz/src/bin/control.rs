//! See [`wgha_fuzz::control`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wgha_fuzz::control(data));
