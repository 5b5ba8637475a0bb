# The mock, alone: `cargo xtask images` makes the context.
FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="mock-ollama" \
      org.opencontainers.image.description="Plays Ollama faithfully, and misbehaves on request" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY root/ /
USER 65532:65532
EXPOSE 11434
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["/usr/bin/mock-ollama", "--health", "--port", "11434"]
ENTRYPOINT ["/usr/bin/mock-ollama", "--host", "0.0.0.0", "--port", "11434"]
