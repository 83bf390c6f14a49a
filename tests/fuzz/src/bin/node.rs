//! See [`wgha_fuzz::node`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wgha_fuzz::node(data));
