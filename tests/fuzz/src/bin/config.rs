//! See [`wgha_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wgha_fuzz::config(data));
