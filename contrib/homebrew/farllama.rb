# A formula for a tap. Set `url` and `sha256` to the source archive of a release: `git archive` of its tag.
class Farllama < Formula
  desc "Local Ollama and OpenAI server in front of a remote Ollama"
  homepage "https://example.com/farllama"
  url "https://example.com/farllama-0.2.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "MIT"

  depends_on "rust" => :build

  def install
    system "cargo", "install", *std_cargo_args(path: "proxy")
    system "cargo", "install", *std_cargo_args(path: "harness")
    generate_completions_from_executable(bin/"farllama", "completions")
    system bin/"farllama", "man", "man"
    man1.install Dir["man/*.1"]
  end

  service do
    run [opt_bin/"farllama", "serve", "--config", etc/"farllama/config.toml"]
    keep_alive crashed: true
    log_path var/"log/farllama.log"
    error_log_path var/"log/farllama.log"
  end

  test do
    assert_match "farllama #{version}", shell_output("#{bin}/farllama --version")
    assert_match "no remote is set", shell_output("#{bin}/farllama config check 2>&1", 2)
  end
end
