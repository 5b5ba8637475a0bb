// Checks, one line each: the sentence that holds, or what went wrong.
package main

import (
	"fmt"
	"os"
	"strings"
)

var failed int

// check prints one line for body: it fails where body returns an error.
func check(sentence string, body func() error) {
	if err := body(); err != nil {
		failed++
		fmt.Printf("FAILED  %s\n        %s\n", sentence, strings.ReplaceAll(err.Error(), "\n", "\n        "))
		return
	}
	fmt.Printf("ok      %s\n", sentence)
}

// expect returns an error unless what holds.
func expect(what bool, format string, arguments ...any) error {
	if what {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}

func main() {
	witnesses := map[string]func(url string){"openai": openAI, "ollama": ollama, "ollama-bridge": ollamaBridge}
	url := os.Getenv("WITNESS_URL")
	if os.Args[1] == "ollama-bridge" {
		url = os.Getenv("WITNESS_BRIDGED_URL")
	}
	run, known := witnesses[os.Args[1]]
	if !known {
		fmt.Printf("FAILED  no witness is named %q\n", os.Args[1])
		os.Exit(1)
	}
	run(url)
	if failed > 0 {
		os.Exit(1)
	}
}
