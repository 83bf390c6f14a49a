//! See [`wgha_fuzz::wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wgha_fuzz::wire(data));
