//! `cargo xtask truth`: the recorded exchanges that the mock is held to, against another Ollama.

use crate::step::Step;

const HELP: &str = "\
cargo xtask truth --remote-host HOST [ARGS…]

Sends the recorded requests of mock-ollama/fixtures to an Ollama and prints a table of what differs. Further arguments are those
of `farllama-check verify`, such as --writes, --filter TEXT and --json FILE.

  --recorded VERSION  the recordings to send (default: 0.33.0-rc2)
  --save DIR          write the responses as recordings, such as to mock-ollama/fixtures/0.34.0; add the version to VERSIONS
                      in mock-ollama/tests/truth.rs to hold the mock to them
";

/// The version whose recordings have the most cases.
const NEWEST: &str = "0.33.0-rc2";

/// Compares the recordings with a remote.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.is_empty() || args.iter().any(|arg| arg == "--help" || arg == "-h") {
        print!("{HELP}");
        return Ok(());
    }
    let mut recorded = NEWEST.to_owned();
    let mut rest = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--recorded" {
            recorded.clone_from(args.next().ok_or("--recorded needs a version")?);
        } else {
            rest.push(arg);
        }
    }
    Step::cargo("build --quiet -p farllama-check").run()?;
    let dir = format!("mock-ollama/fixtures/{recorded}");
    rest.into_iter().fold(Step::built("farllama-check")?.arg("verify").arg(dir), Step::arg).run()
}
