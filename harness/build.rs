//! Has the scenarios, which stand in the binary, looked at again when one of them changes.

fn main() {
    println!("cargo:rerun-if-changed=../scenarios");
    println!("cargo:rerun-if-changed=../personas");
    println!("cargo:rerun-if-changed=build.rs");
}
