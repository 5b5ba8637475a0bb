/** Checks, a line each: what holds, or what came instead. */
final class Report {
    private static int failed = 0;

    interface Check {
        void run() throws Exception;
    }

    static void check(String sentence, Check body) {
        try {
            body.run();
            System.out.println("ok      " + sentence);
        } catch (Exception | AssertionError error) {
            failed++;
            System.out.println("FAILED  " + sentence + "\n        " + String.valueOf(error).replace("\n", "\n        "));
        }
    }

    static void expect(boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError("unexpected: " + seen);
        }
    }

    /** Ends the process: threads of the HTTP clients would keep it. */
    static void end() {
        System.exit(failed > 0 ? 1 : 0);
    }

    private Report() {}
}
