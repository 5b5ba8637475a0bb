//! `cargo xtask`: the build system. It only starts processes and reads files, with nothing but the standard library, so
//! it builds in a second.

mod ci;
mod dist;
mod headofline;
mod instructions;
mod licenses;
mod linear;
mod rig;
mod siege;
mod smoke;
mod soak;
mod step;
mod tidy;
mod truth;
mod witnesses;

use std::{path::PathBuf, process::ExitCode};

const HELP: &str = "\
cargo xtask COMMAND

Commands:
  smoke [ARGS…]   builds, and checks a remote Ollama through the proxy; without --remote-host, the embedded mock
                  (cargo xtask smoke --help shows its flags)
  doctor [ARGS…]  builds, and examines a remote: which tools will work there, which with limits, and what to change
                  (cargo xtask doctor --help shows its flags)
  ci              everything that must hold: fmt, clippy and docs with warnings denied, all tests, tidy, the scenarios and
                  the smoke test on the mock, and foreign clients
  tidy            the rules of this repository that no compiler checks
  mutate [ARGS…]  breaks the traffic in named ways, and reports which scenarios notice; each parameter that is dropped must be
                  missed; --all runs every scenario against every mutant, and a scenario that none can fail is an error
                  (cargo xtask mutate --help)
  witnesses [WORD…]
                  foreign clients, such as the official SDKs, against the proxy on the mock; all, or those whose name has a WORD
  bless           rewrites the expected outputs of golden vectors and snapshots; the diff is the review
  bench [ARGS…]   times the proxy against nginx on this machine (cargo xtask bench --help)
  chaos [--streams N] [--seed S]
                  seeded streams through a misbehaving remote: each ends exactly once, none with a wrong byte, nothing is left over
  failover [--requests N] [--seed S]
                  requests while remotes are killed and revived: none fails that another remote could have served before its first
                  byte, none is sent to a second remote after it
  headofline [ARGS…]
                  how late the chunks of streams are while other clients send and receive very large bodies
                  (cargo xtask headofline --help)
  instructions [ARGS…]
                  counts the instructions of a request and of a chunk, and fails if one has grown; needs valgrind
                  (cargo xtask instructions --help)
  linear [WORD…]  counts instructions at n, 2n and 4n for everything whose number a client or the remote chooses; needs valgrind
                  (cargo xtask linear --help)
  siege [ARGS…]   what one hostile key does to another key's chats and streams, and to memory, attack by attack
                  (cargo xtask siege --help)
  dist, deb, images [FLAGS…]
                  release archives, the Debian package, container images (cargo xtask dist --help)
  licenses        the dependencies of the programs have licenses that are allowed
  truth [ARGS…]   compares the recordings that the mock is held to with another Ollama, and refreshes them
                  (cargo xtask truth --help)
  soak [--minutes N] [--release]
                  mixed load for N minutes while a remote comes and goes and settings are reloaded: nothing lost, no wrong
                  response, flat memory and descriptors
  help            this text
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = args.collect();
    let outcome = match &*command {
        "smoke" => return smoke::run(&rest),
        "doctor" => return smoke::doctor(&rest),
        "ci" => ci::run(),
        "tidy" => tidy::run(&root()),
        "mutate" => ci::mutate(&rest),
        "witnesses" => witnesses::run(&rest),
        "bless" => ci::bless(),
        "bench" => ci::bench(&rest),
        "chaos" => ci::chaos(&rest),
        "failover" => ci::failover(&rest),
        "soak" => soak::run(&rest),
        "headofline" => headofline::run(&rest),
        "instructions" => instructions::run(&rest),
        "linear" => linear::run(&rest),
        "dist" => dist::archive(&rest),
        "deb" => dist::debian(&rest),
        "images" => dist::images(&rest),
        "licenses" => licenses::check(),
        "truth" => truth::run(&rest),
        "siege" => siege::run(&rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        unknown => {
            eprintln!("xtask: there is no command {unknown:?}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's folder.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// A binary of this workspace, as `cargo build` left it: beside this one.
fn built(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let path = own.with_file_name(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if path.exists() { Ok(path) } else { Err(format!("{} is not there; run cargo build first", path.display())) }
}
