//! Names the files that are compiled in, which are elsewhere in a checkout than in a package, and rebuilds when one of
//! them changes.

use std::{env, path::Path};

/// A variable, the file or folder in the repository, and its copy in a package.
const DATA: [(&str, &str, &str); 4] = [
    ("FARLLAMA_CHECK_SCENARIOS", "../scenarios", "data/scenarios"),
    ("FARLLAMA_CHECK_PERSONAS", "../personas", "data/personas"),
    ("FARLLAMA_CHECK_PARAMETERS", "../docs/parameters.md", "data/parameters.md"),
    ("FARLLAMA_CHECK_TOOL_CALLS", "../proxy/vectors/tool-calls.json", "data/tool-calls.json"),
];

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&root);
    // Whatever stands beside an unpacked package is not ours.
    let is_package = root.join(".cargo_vcs_info.json").exists() || !root.join("../scenarios/schema.json").exists();
    for (variable, original, copy) in DATA {
        let path = if is_package { copy } else { original };
        println!("cargo:rustc-env={variable}={}", root.join(path).display());
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
