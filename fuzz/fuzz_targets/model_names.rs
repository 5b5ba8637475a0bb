#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farllama::fuzzing::model_names(data));
