//! See [`wgha_fuzz::wgconf`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wgha_fuzz::wgconf(data));
